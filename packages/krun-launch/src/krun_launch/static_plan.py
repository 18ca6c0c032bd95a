"""Decides what runs in static mode: Envoy, the names when captured, the application, and what lets others in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from krun_launch import environments, identity, interception, names_steps, resolver, served, static_envoy
from krun_launch.contract import PORTS
from krun_launch.facts import Facts
from krun_launch.interception import CAPTURED
from krun_launch.mode import STATIC
from krun_launch.plan import ENVOY, NAMES, Certificates, Plan, Port, Step
from krun_launch.settings import DEFAULT_CERTS, Settings
from krun_launch.spawn import ProcessSpec, helper
from krun_launch.startup_probe import Probe
from krun_launch.static_settings import StaticSettings


def plan(
    env: Mapping[str, str], *, app: ProcessSpec | None, settings: Settings, facts: Facts, run_dir: Path, reason: str
) -> Plan:
    """Return the plan; ``app`` still has the environment that it was given. Raises as ``krun_launch.plan.plan``."""
    chosen = interception.choose(env, facts=facts)
    is_captured = chosen.way == CAPTURED
    static = static_envoy.settings(env, run_dir=run_dir, is_captured=is_captured)
    # Whoever cannot run parts as other users runs all as himself.
    is_split = not facts.cannot_switch
    app = app and app.but(env=environments.app(app.env, settings=settings, is_captured=is_captured))
    around = served.served(env, app=app, facts=facts)
    sees = environments.app(env, settings=settings, is_captured=is_captured)
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
            *(names_steps.answering(settings) if is_captured else ()),
            *served.egress_steps(env, sees=sees, facts=facts),
            *served.app_steps(env, settings=settings, served=around),
            *served.inbound_steps(env, settings=settings, served=around, facts=facts, sees=sees),
        ),
        has_app=app is not None,
        files=static_envoy.files(static),
        ports=served.checked(_ports(settings, is_captured=is_captured), settings=settings, served=around),
        certificates=Certificates(
            source=Path(env.get("KRUN_CERTS") or DEFAULT_CERTS),
            trust_domain=static.trust_domain,
        ),
        owner=identity.PROXY if is_split else None,
        status_host=around.status_host or settings.loopback,
        resolver=names_steps.text(facts, settings=settings, namespace=static.namespace) if is_captured else "",
        notes=() if is_captured else (f"whitebox: only clients that use HTTP_PROXY are in the mesh: {chosen.reason}",),
        warnings=served.warnings(around, chosen=chosen, facts=facts),
    )


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
    own = (static.loopback, ",".join(static.mesh_namespaces), static.gateway_host)
    return names_steps.start(env, facts=facts, arguments=(*own, *servers))


def _ports(settings: Settings, *, is_captured: bool) -> tuple[Port, ...]:
    """Envoy's, and the relay's."""
    local = settings.loopback
    return (
        Port(name="Envoy's admin", host=local, number=PORTS["ENVOY_ADMIN"]),
        Port(name="Envoy's mTLS", host=local, number=PORTS["ENVOY_MTLS"]),
        Port(name="Envoy's HTTP proxy", host=local, number=PORTS["ENVOY_HTTP_PROXY"]),
        Port(
            name="Envoy's captured connections",
            host=local,
            number=PORTS["ENVOY_CAPTURED_OUT"],
            is_idle=not is_captured,
        ),
        Port(name=NAMES, host=local, number=PORTS["DNS"], is_idle=not is_captured),
    )
