"""Decides what runs in a mesh with Istio's control plane: token, agent and Envoy, application, what lets others in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from krun_launch import environments, identity, interception, istio_agent, istio_paths, istio_settings, served
from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.interception import CAPTURED
from krun_launch.istio_settings import IstioSettings
from krun_launch.plan import (
    AGENT,
    CERTIFICATE,
    NAMES,
    ROOT,
    TOKEN,
    Credential,
    Diagnosis,
    Plan,
    Port,
    Roots,
    Scopes,
    Step,
    Task,
)
from krun_launch.settings import Settings, seconds
from krun_launch.spawn import ProcessSpec, helper
from krun_launch.startup_probe import Probe
from krun_launch.static_settings import log_level
from krun_launch.stay import KRUN_TOKEN

FOLDER = "agent"  # below the run folder: the agent's working directory
COMPLAINTS = "agent-complaints"
RENEWAL = "KRUN_TOKEN_REFRESH"
RETRY = 5.0  # seconds after a token that could not be renewed
# krun-token says by itself what it waited for; this much later it is not going to.
MARGIN = 2.0


def plan(
    env: Mapping[str, str], *, app: ProcessSpec | None, settings: Settings, facts: Facts, run_dir: Path, reason: str
) -> Plan:
    """Return the plan; ``app`` still has the environment that it was given. Raises as ``krun_launch.plan.plan``."""
    chosen = interception.choose(env, facts=facts, has_agent=True)
    is_captured = chosen.way == CAPTURED
    istio = istio_settings.settings(env, run_dir=run_dir / FOLDER, instance=facts.instance, is_captured=is_captured)
    app = app and app.but(env=environments.app(app.env, settings=settings, is_captured=is_captured, has_agent=True))
    sees = environments.app(env, settings=settings, is_captured=is_captured, has_agent=True)
    is_relayed = is_captured and interception.relays_names(env, facts=facts)
    warnings: tuple[str, ...] = ()
    if is_relayed and settings.restarts:
        # Started again, it would read in the resolver's file that it is to ask the relay, which asks it.
        warnings = ("KRUN_RESTARTS is not kept beside Docker's resolver: an agent that dies ends the workload",)
        settings = settings.but(restarts=0)
    around = served.served(env, app=app, facts=facts)
    token = None if facts.has_token else _token(env, istio=istio, settings=settings, facts=facts)
    files, override = _files(env, istio=istio, facts=facts)
    return Plan(
        mode=chosen.way,
        reason=reason,
        interception=chosen.way,
        settings=settings,
        run_dir=run_dir,
        steps=(
            *((_token_step(token, settings=settings),) if token else ()),
            *_agent_steps(env, istio=istio, settings=settings, facts=facts, override=override),
            *_names_steps(env, settings=settings, facts=facts, is_relayed=is_relayed),
            *served.egress_steps(env, sees=sees, facts=facts),
            *served.app_steps(env, settings=settings, served=around),
            *served.inbound_steps(env, settings=settings, served=around, facts=facts, sees=sees),
        ),
        has_app=app is not None,
        files={f"{FOLDER}/{name}": text for name, text in files.items()},
        folders=tuple(f"{FOLDER}/{name}" for name in istio_agent.FOLDERS),
        shared=tuple(f"{FOLDER}/{name}" for name in istio_agent.SHARED),
        links=_links(files, facts=facts),
        ports=served.checked(_ports(istio, is_relayed=is_relayed), settings=settings, served=around),
        owner=None if facts.cannot_switch else identity.PROXY,
        tasks=(_task(env, token),) if token else (),
        credentials=_credentials(istio),
        scopes=None if is_captured else _scopes(istio, facts=facts),
        roots=_roots(istio, facts=facts) if istio_paths.ROOT in files else None,
        resolver=_resolver(istio, settings=settings, facts=facts) if is_relayed else "",
        status_host=around.status_host or settings.loopback,
        notes=() if is_captured else (f"whitebox: only clients that use HTTP_PROXY are in the mesh: {chosen.reason}",),
        warnings=(*served.warnings(around, chosen=chosen, facts=facts), *warnings),
    )


def _token(env: Mapping[str, str], *, istio: IstioSettings, settings: Settings, facts: Facts) -> ProcessSpec:
    """How the token for the control plane is got, and got again."""
    if facts.krun_token is None:
        raise Misconfigured(
            f"no token for the control plane: no {istio_paths.MOUNTED_TOKEN}, and krun-token is not installed",
            hint="install krun-discover, which has it, or mount a token for audience istio-ca",
        )
    owner = () if facts.cannot_switch else ("--owner", f"{identity.PROXY}:{identity.PROXY}")
    return helper(
        KRUN_TOKEN,
        argv=(
            facts.krun_token,
            "kubernetes",
            *("--audience", istio.audience),
            *("--namespace", istio.namespace),
            *("--service-account", istio.service_account),
            *("--to", str(istio.run_dir / istio_paths.TOKEN)),
            *owner,
            *("--timeout", f"{max(settings.ready_timeout, 1):g}"),
        ),
        env=environments.tool(env),
        identity=None if facts.cannot_switch else identity.OURS,
    )


def _token_step(token: ProcessSpec, *, settings: Settings) -> Step:
    return Step(
        name=TOKEN,
        part=token.name,
        run=token.but(may_borrow=True),  # all else waits for it
        timeout=settings.ready_timeout + MARGIN,
        setting="KRUN_READY_TIMEOUT",
    )


def _task(env: Mapping[str, str], token: ProcessSpec) -> Task:
    every = seconds(env, RENEWAL, default=1800.0)
    if every < 1:
        raise Misconfigured(f"{RENEWAL}={every:g}: not 1 second or more")
    return Task(name=TOKEN, process=token, every=every, retry=min(RETRY, every), renews=TOKEN)


def _agent_steps(
    env: Mapping[str, str], *, istio: IstioSettings, settings: Settings, facts: Facts, override: str
) -> tuple[Step, ...]:
    agent = helper(
        AGENT,
        argv=istio_agent.argv(
            agent=facts.pilot_agent or AGENT,
            settings=istio,
            log_level=log_level(env),
            is_json=env.get("KRUN_LOG_FORMAT") == "json",
        ),
        env=istio_agent.environment(
            env,
            settings=istio,
            envoy=facts.envoy or "envoy",
            template=facts.template or istio_agent.TEMPLATE,
            override=override,
            drain=max(1, math.ceil(settings.drain)),
        ),
        identity=None if facts.cannot_switch else identity.ENVOY,
    )
    complaints = istio.run_dir.parent / COMPLAINTS
    return (
        Step(name="agent", part=AGENT, start=agent.but(folder=str(istio.run_dir), complaints=complaints)),
        Step(
            name="agent ready",
            part=AGENT,
            wait=Probe(host=istio.loopback, port=PORTS["ENVOY_HEALTH"], path="/healthz/ready"),
            timeout=settings.ready_timeout,
            setting="KRUN_READY_TIMEOUT",
            diagnosis=Diagnosis(
                log=complaints,
                discovery=istio.discovery,
                discovery_san=istio.discovery_san,
                token=f"account {istio.service_account} in {istio.namespace}, audience {istio.audience}, "
                f"cluster {istio.cluster_id}",
            ),
        ),
    )


def _names_steps(env: Mapping[str, str], *, settings: Settings, facts: Facts, is_relayed: bool) -> tuple[Step, ...]:
    """After the agent is ready, or the file of whom it asks would name itself."""
    if not is_relayed:
        return ()
    # Late: only beside Docker's resolver is there a relay.
    from krun_launch import names_steps

    return names_steps.before_agent(env, settings=settings, facts=facts)


def _resolver(istio: IstioSettings, *, settings: Settings, facts: Facts) -> str:
    from krun_launch import names_steps  # late, as above

    return names_steps.text(facts, settings=settings, namespace=istio.namespace)


def _files(env: Mapping[str, str], *, istio: IstioSettings, facts: Facts) -> tuple[dict[str, str], str]:
    """The agent's files, and the path of what is merged into Envoy's bootstrap."""
    files = istio_agent.files(env, settings=istio)
    if not (istio_paths.ROOT in files or facts.has_roots or env.get("XDS_ROOT_CA")):
        raise Misconfigured(
            "CAROOT_ISTIOD is not set: without its root nobody can tell whether this is the right control plane",
            hint="it is root-cert.pem of the config map istio-ca-root-cert: may krun-discover read that?",
        )
    if istio.is_captured:
        return files, ""
    # Late: only whitebox has listeners of ours.
    from krun_launch import istio_whitebox

    return {**files, **istio_whitebox.files(istio)}, str(istio.run_dir / istio_whitebox.OVERRIDE)


def _links(files: Mapping[str, str], *, facts: Facts) -> dict[str, str]:
    """What a platform keeps fresh is read where it is."""
    roots = facts.has_roots and istio_paths.ROOT not in files
    return {
        **({f"{FOLDER}/{istio_paths.TOKEN}": istio_paths.MOUNTED_TOKEN} if facts.has_token else {}),
        **({f"{FOLDER}/{istio_paths.ROOT}": istio_paths.MOUNTED_ROOT} if roots else {}),
    }


def _credentials(istio: IstioSettings) -> tuple[Credential, ...]:
    return (
        Credential(name=TOKEN, path=istio.run_dir / istio_paths.TOKEN, kind=TOKEN),
        Credential(name=ROOT, path=istio.run_dir / istio_paths.ROOT, kind=ROOT),
        Credential(name=CERTIFICATE, path=istio.run_dir / istio_agent.CHAIN, kind=CERTIFICATE),
    )


def _scopes(istio: IstioSettings, *, facts: Facts) -> Scopes:
    from krun_launch import istio_whitebox  # late, as above

    return Scopes(
        host=istio.loopback,
        port=istio.admin_port,
        file=istio.run_dir / istio_whitebox.SCOPES,
        owner=None if facts.cannot_switch else identity.PROXY,
    )


def _roots(istio: IstioSettings, *, facts: Facts) -> Roots:
    return Roots(
        file=istio.run_dir / istio_paths.ROOT,
        learnt=istio.run_dir / istio_agent.CERTIFICATES / "root-cert.pem",
        owner=None if facts.cannot_switch else identity.PROXY,
    )


def _ports(istio: IstioSettings, *, is_relayed: bool) -> tuple[Port, ...]:
    """The agent's and Envoy's; most of them are fixed, and on every address."""
    local, everywhere = istio.loopback, "0.0.0.0"
    own = [
        Port(name="Envoy's admin", host=local, number=PORTS["ENVOY_ADMIN"]),
        Port(name="Envoy's captured connections", host=everywhere, number=PORTS["ENVOY_CAPTURED_OUT"]),
        Port(name="Envoy's mTLS", host=local, number=PORTS["ENVOY_MTLS"]),
        Port(name="pilot-agent's debug port", host=local, number=PORTS["AGENT_DEBUG"]),
        Port(name="Envoy's incoming connections", host=everywhere, number=PORTS["ENVOY_CAPTURED_IN"]),
        Port(name="Envoy's HTTP proxy", host=local, number=istio.proxy_port, is_idle=istio.is_captured),
        Port(name="pilot-agent's status", host=everywhere, number=PORTS["AGENT_STATUS"]),
        Port(name="Envoy's health", host=everywhere, number=PORTS["ENVOY_HEALTH"]),
        Port(name="pilot-agent's names", host=local, number=PORTS["AGENT_DNS"], is_idle=not istio.is_captured),
        Port(name="Envoy's metrics", host=everywhere, number=PORTS["ENVOY_METRICS"]),
    ]
    if istio.grpc_port != istio.app_port:
        own.append(
            Port(name="the application's gRPC", host=local, number=istio.grpc_port, variable="PORT_grpc", is_idle=True)
        )
    if is_relayed:
        own.append(Port(name=NAMES, host=local, number=PORTS["DNS"]))
    if istio.is_captured or not istio.tcp_services:
        return tuple(own)
    from krun_launch import istio_tcp  # late: most have none

    return (*own, *istio_tcp.ports(istio))
