"""Decides what krun-launch runs: every process with its own environment, every file, every wait, in order.

Pure: the environment, the application's argv and what was found on the machine go in, a plan comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from krun_launch import environments, mode
from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.settings import DEFAULT_CERTS, Settings, settings
from krun_launch.spawn import GROUP, INHERIT, NULL, SESSION, SHARED, ProcessSpec
from krun_launch.startup_probe import Probe, app_probe

APP = "app"
ENVOY = "envoy"
HBONED = "hboned"
SSHD = "krun-sshd"
KILL = 9  # SIGKILL


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the start: a process to start, something to check or to wait for; the next waits until it is done."""

    name: str
    part: str
    start: ProcessSpec | None = None
    checks_certificates: bool = False
    wait: Probe | None = None
    timeout: float = 0.0  # seconds
    setting: str = ""  # the variable that sets the timeout


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port that must be free before anything starts."""

    name: str
    host: str
    number: int
    variable: str = ""  # what sets it, if anything does


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Where a workload's certificates come from, and what they must be."""

    source: Path
    trust_domain: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the supervisor needs to know."""

    mode: str
    reason: str
    settings: Settings
    run_dir: Path
    steps: tuple[Step, ...]
    has_app: bool
    files: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    certificates: Certificates | None = None
    status_host: str = ""  # empty: no status port
    warnings: tuple[str, ...] = ()

    @property
    def processes(self) -> tuple[ProcessSpec, ...]:
        """The processes, in the order they are started."""
        return tuple(step.start for step in self.steps if step.start is not None)


def plan(
    env: Mapping[str, str],
    *,
    app: tuple[str, ...],
    facts: Facts,
    run_dir: Path,
    app_stdin: str = INHERIT,
    flags: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan.

    Args:
        env: the merged environment.
        app: the application's command line; empty for a sidecar.
        facts: what was found on the machine.
        run_dir: where the files are going to be.
        app_stdin: INHERIT, or NULL when the environment was read from stdin.
        flags: variables that were given as flags: they win over the environment, and the application never sees them.

    Raises:
        Misconfigured: settings are missing, wrong or contradictory.
        click.BadParameter: no such mode.
    """
    given, env = env, {**env, **(flags or {})}
    choice = mode.choose(env, facts=facts)
    numbers = settings(env)
    group = SHARED if facts.is_on_terminal and app_stdin == INHERIT else GROUP
    if choice.mode == mode.NONE:
        return _none(
            given, app=app, settings=numbers, reason=choice.reason, run_dir=run_dir, group=group, stdin=app_stdin
        )
    process = _app(app, env=environments.app(given, settings=numbers), stdin=app_stdin, group=group) if app else None
    return _static(env, app=process, settings=numbers, facts=facts, run_dir=run_dir, reason=choice.reason)


def _app(argv: tuple[str, ...], *, env: Mapping[str, str], stdin: str, group: str) -> ProcessSpec:
    return ProcessSpec(name=APP, argv=argv, env=env, stdin=stdin, group=group)


def _none(
    env: Mapping[str, str],
    *,
    app: tuple[str, ...],
    settings: Settings,
    reason: str,
    run_dir: Path,
    group: str,
    stdin: str,
) -> Plan:
    if not app:
        raise Misconfigured(f"mode none ({reason}) without an application: nothing to run", hint="krun-launch -- APP")
    process = _app(app, env=environments.untouched(env), stdin=stdin, group=group)
    return Plan(
        mode=mode.NONE,
        reason=reason,
        settings=settings,
        run_dir=run_dir,
        steps=(Step(name=APP, part=APP, start=process),),
        has_app=True,
        warnings=("no mesh: the application runs alone",),
    )


def _static(
    env: Mapping[str, str], *, app: ProcessSpec | None, settings: Settings, facts: Facts, run_dir: Path, reason: str
) -> Plan:
    # Late: mode none does not need it.
    from krun_launch import static_envoy

    is_job = bool(env.get("CLOUD_RUN_JOB"))
    hboned = None if is_job else facts.hboned
    wants_ssh = bool(env.get("SSH_AUTH")) and not is_job
    sshd = facts.sshd if wants_ssh and hboned else None
    static = static_envoy.settings(env, run_dir=run_dir)
    status_host = settings.loopback if app else "0.0.0.0"
    absent = {"the application": app is None or is_job, "hboned": hboned is None, "krun-sshd": sshd is None}
    return Plan(
        mode=mode.STATIC,
        reason=reason,
        settings=settings,
        run_dir=run_dir,
        steps=(
            *_envoy_steps(env, settings=settings, envoy=facts.envoy or ENVOY, run_dir=run_dir),
            *_app_steps(env, settings=settings, app=app, is_job=is_job),
            *_inbound_steps(env, settings=settings, hboned=hboned, sshd=sshd),
        ),
        has_app=app is not None,
        files=static_envoy.files(static),
        ports=tuple(port for port in _ports(settings, status_host=status_host) if not absent.get(port.name, False)),
        certificates=Certificates(
            source=Path(env.get("KRUN_CERTS") or DEFAULT_CERTS), trust_domain=static.trust_domain
        ),
        status_host=status_host,
        warnings=_warnings(is_job=is_job, hboned=hboned, wants_ssh=wants_ssh, sshd=sshd),
    )


def _warnings(*, is_job: bool, hboned: str | None, wants_ssh: bool, sshd: str | None) -> tuple[str, ...]:
    if is_job:
        return ()
    if hboned is None:
        return ("inbound tunnels are off: hboned is not installed",)
    if wants_ssh and sshd is None:
        return ("SSH_AUTH is set, and krun-sshd is not installed: no debug shell",)
    return ()


def _envoy_steps(env: Mapping[str, str], *, settings: Settings, envoy: str, run_dir: Path) -> tuple[Step, ...]:
    from krun_launch import static_envoy

    argv = static_envoy.argv(
        envoy=envoy,
        run_dir=run_dir,
        log_level=static_envoy.log_level(env),
        drain_seconds=max(1, math.ceil(settings.drain)),
    )
    return (
        Step(name="envoy", part=ENVOY, start=_helper(ENVOY, argv=argv, env=environments.envoy(env))),
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
    env: Mapping[str, str], *, settings: Settings, hboned: str | None, sshd: str | None
) -> tuple[Step, ...]:
    if hboned is None:
        return ()
    dialled = settings.loopback if settings.bind == "0.0.0.0" else settings.bind
    steps = [
        Step(
            name="hboned",
            part=HBONED,
            start=_helper(
                HBONED,
                argv=(hboned,),
                env=environments.hboned(env, settings=settings, offers_ssh=sshd is not None),
            ),
        )
    ]
    if sshd is not None:
        start = _helper(SSHD, argv=(sshd,), env=environments.sshd(env, settings=settings))
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


def _helper(name: str, *, argv: tuple[str, ...], env: Mapping[str, str]) -> ProcessSpec:
    return ProcessSpec(name=name, argv=argv, env=env, stdin=NULL, group=SESSION, is_helper=True, death_signal=KILL)


def _ports(settings: Settings, *, status_host: str) -> tuple[Port, ...]:
    """Every port of static mode; two uses of one number are a contradiction, whoever listens in the end."""
    local = settings.loopback
    app = Port(name="the application", host=local, number=settings.app_port, variable="PORT_http")
    inbound = Port(name="hboned", host=settings.bind, number=settings.port, variable="PORT")
    ports = [
        Port(name="Envoy's admin", host=local, number=PORTS["ENVOY_ADMIN"]),
        Port(name="Envoy's mTLS", host=local, number=PORTS["ENVOY_MTLS"]),
        Port(name="Envoy's HTTP proxy", host=local, number=PORTS["ENVOY_HTTP_PROXY"]),
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
