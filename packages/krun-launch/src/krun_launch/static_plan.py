"""Decides what runs in static mode: Envoy, the names when captured, the application, and what lets others in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from krun_launch import environments, identity, interception, resolver, static_envoy
from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.interception import CAPTURED, Interception
from krun_launch.mode import STATIC
from krun_launch.plan import APP, ENVOY, HBONED, NAMES, SSHD, Certificates, Plan, Port, Step, helper
from krun_launch.settings import DEFAULT_CERTS, Settings
from krun_launch.spawn import ProcessSpec
from krun_launch.startup_probe import Probe, app_probe
from krun_launch.static_settings import StaticSettings

CAPTURED_PORT = "Envoy's captured connections"


def plan(
    env: Mapping[str, str], *, app: ProcessSpec | None, settings: Settings, facts: Facts, run_dir: Path, reason: str
) -> Plan:
    """Return the plan; ``app`` still has the environment that it was given. Raises as ``krun_launch.plan.plan``."""
    is_job = bool(env.get("CLOUD_RUN_JOB"))
    hboned = None if is_job else facts.hboned
    wants_ssh = bool(env.get("SSH_AUTH")) and not is_job
    sshd = facts.sshd if wants_ssh and hboned else None
    chosen = interception.choose(env, facts=facts)
    is_captured = chosen.way == CAPTURED
    static = static_envoy.settings(env, run_dir=run_dir, is_captured=is_captured)
    status_host = settings.loopback if app else "0.0.0.0"
    absent = {
        "the application": app is None or is_job,
        "hboned": hboned is None,
        "krun-sshd": sshd is None,
        CAPTURED_PORT: not is_captured,
        NAMES: not is_captured,
    }
    # Whoever cannot run parts as other users runs all as himself.
    is_split = not facts.cannot_switch
    if app is not None:
        own = environments.app(app.env, settings=settings, is_captured=is_captured)
        app = replace(app, env=own)
    return Plan(
        mode=STATIC,
        reason=reason,
        interception=chosen.way,
        settings=settings,
        run_dir=run_dir,
        steps=(
            # The relay boots while Envoy does.
            *((_names_start(env, static=static, facts=facts),) if is_captured else ()),
            *_envoy_steps(env, settings=settings, static=static, facts=facts),
            *(_names_steps(settings) if is_captured else ()),
            *_app_steps(env, settings=settings, app=app, is_job=is_job),
            *_inbound_steps(env, settings=settings, hboned=hboned, sshd=sshd, facts=facts, is_captured=is_captured),
        ),
        has_app=app is not None,
        files=static_envoy.files(static),
        ports=tuple(port for port in _ports(settings, status_host=status_host) if not absent.get(port.name, False)),
        certificates=Certificates(
            source=Path(env.get("KRUN_CERTS") or DEFAULT_CERTS),
            trust_domain=static.trust_domain,
            owner=identity.PROXY if is_split else None,
        ),
        status_host=status_host,
        resolver=resolver.render(facts.resolv_conf, server=settings.loopback, namespace=static.namespace)
        if is_captured
        else "",
        notes=() if is_captured else (f"whitebox: only clients that use HTTP_PROXY are in the mesh: {chosen.reason}",),
        warnings=_warnings(is_job=is_job, hboned=hboned, wants_ssh=wants_ssh, sshd=sshd, chosen=chosen, facts=facts),
    )


def _warnings(
    *, is_job: bool, hboned: str | None, wants_ssh: bool, sshd: str | None, chosen: Interception, facts: Facts
) -> tuple[str, ...]:
    found = []
    if chosen.is_second_best:
        found.append(f"nothing is intercepted, though it was tried: {chosen.reason}")
    if facts.cannot_switch and facts.uid == 0:
        found.append(f"all parts run as root: {facts.cannot_switch}")
    if hboned is None and not is_job:
        found.append("inbound tunnels are off: hboned is not installed")
    elif wants_ssh and sshd is None:
        found.append("SSH_AUTH is set, and krun-sshd is not installed: no debug shell")
    return tuple(found)


def _envoy_steps(
    env: Mapping[str, str], *, settings: Settings, static: StaticSettings, facts: Facts
) -> tuple[Step, ...]:
    who = None if facts.cannot_switch else identity.ENVOY
    search = resolver.parse(resolver.original(facts.resolv_conf)).search if static.is_captured else None
    own = environments.envoy(env, search=search)
    argv = static_envoy.argv(
        envoy=facts.envoy or ENVOY,
        run_dir=static.run_dir,
        log_level=static_envoy.log_level(env),
        drain_seconds=max(1, math.ceil(settings.drain)),
    )
    return (
        Step(name="envoy", part=ENVOY, start=helper(ENVOY, argv=argv, env=own, identity=who)),
        # While Envoy boots: it takes as long to be ready as the check takes, and nobody can use it before.
        Step(name="certificates", part=ENVOY, checks_certificates=True),
        Step(
            name="envoy ready",
            part=ENVOY,
            wait=Probe(host=settings.loopback, port=PORTS["ENVOY_ADMIN"], path="/ready"),
            timeout=settings.ready_timeout,
            setting="KRUN_READY_TIMEOUT",
        ),
    )


def _names_start(env: Mapping[str, str], *, static: StaticSettings, facts: Facts) -> Step:
    servers = resolver.parse(resolver.original(facts.resolv_conf)).servers
    # Isolated, and by its module: nothing in an environment or a folder can put another one there.
    program = (facts.python, "-I", "-m", "krun_launch.names_relay")
    argv = (*program, static.loopback, ",".join(static.mesh_namespaces), static.gateway_host, *servers)
    start = helper(NAMES, argv=argv, env=environments.relay(env), identity=identity.RELAY)
    return Step(name="names relay", part=NAMES, start=start)


def _names_steps(settings: Settings) -> tuple[Step, ...]:
    """The resolver is led to the relay before the application starts, and not before the relay answers."""
    return (
        Step(
            name="names answer",
            part=NAMES,
            wait=Probe(host=settings.loopback, port=PORTS["DNS"]),
            timeout=settings.ready_timeout,
            setting="KRUN_READY_TIMEOUT",
        ),
        Step(name="resolver", part=NAMES, writes_resolver=True),
    )


def _app_steps(
    env: Mapping[str, str], *, settings: Settings, app: ProcessSpec | None, is_job: bool
) -> tuple[Step, ...]:
    probe = app_probe(env, settings=settings)
    if app is None:
        return ()
    start = Step(name="app", part=APP, start=app)
    answers = Step(name="app answers", part=APP, wait=probe, timeout=settings.app_timeout, setting="KRUN_APP_TIMEOUT")
    return (start,) if is_job else (start, answers)


def _inbound_steps(
    env: Mapping[str, str],
    *,
    settings: Settings,
    hboned: str | None,
    sshd: str | None,
    facts: Facts,
    is_captured: bool,
) -> tuple[Step, ...]:
    if hboned is None:
        return ()
    tunnel_user = None if facts.cannot_switch else identity.HBONED
    dialled = settings.loopback if settings.bind == "0.0.0.0" else settings.bind
    steps = [
        Step(
            name="hboned",
            part=HBONED,
            start=helper(
                HBONED,
                argv=(hboned,),
                env=environments.hboned(env, settings=settings, offers_ssh=sshd is not None),
                identity=tunnel_user,
                notifies=True,
            ),
        )
    ]
    if sshd is not None:
        start = helper(
            SSHD,
            argv=(sshd,),
            env=environments.sshd(env, settings=settings, is_captured=is_captured),
            identity=identity.of_app(env, facts=facts),
        )
        steps.append(Step(name="krun-sshd", part=SSHD, start=start))
    steps.append(
        Step(
            name="hboned listens",
            part=HBONED,
            wait=Probe(host=dialled, port=settings.port),
            timeout=settings.ready_timeout,
            setting="KRUN_READY_TIMEOUT",
        )
    )
    return tuple(steps)


def _ports(settings: Settings, *, status_host: str) -> tuple[Port, ...]:
    """Every port of static mode; two uses of one number are a contradiction, whoever listens in the end."""
    local = settings.loopback
    app = Port(name="the application", host=local, number=settings.app_port, variable="PORT_http")
    inbound = Port(name="hboned", host=settings.bind, number=settings.port, variable="PORT")
    ports = [
        Port(name="Envoy's admin", host=local, number=PORTS["ENVOY_ADMIN"]),
        Port(name="Envoy's mTLS", host=local, number=PORTS["ENVOY_MTLS"]),
        Port(name="Envoy's HTTP proxy", host=local, number=PORTS["ENVOY_HTTP_PROXY"]),
        Port(name=CAPTURED_PORT, host=local, number=PORTS["ENVOY_CAPTURED_OUT"]),
        Port(name=NAMES, host=local, number=PORTS["DNS"]),
        Port(name="krun-launch's status", host=status_host, number=settings.status_port, variable="KRUN_STATUS_PORT"),
        Port(name="krun-sshd", host=local, number=PORTS["SSH"]),
        inbound,
        app,
    ]
    taken: dict[int, Port] = {}
    for port in ports:
        other = taken.setdefault(port.number, port)
        if other is not port:
            raise _clash(other, port)
    return tuple(ports)


def _clash(first: Port, second: Port) -> Misconfigured:
    names = " and ".join(f"{port.name}{f' ({port.variable})' if port.variable else ''}" for port in (first, second))
    variable = second.variable or first.variable
    hint = f"give another {variable}"
    if {first.variable, second.variable} == {"PORT", "PORT_http"}:
        hint = (
            "PORT is where the platform sends requests: deploy with port 15009, or set PORT_http to the application's"
        )
    return Misconfigured(f"port {first.number}: wanted by {names}", hint=hint)
