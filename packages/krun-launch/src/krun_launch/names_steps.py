"""When the relay of host names is started and asked for, and whether Istio's agent needs it in front (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from krun_launch import environments, identity, resolver
from krun_launch.contract import PORTS
from krun_launch.facts import Facts
from krun_launch.plan import NAMES, Step
from krun_launch.settings import Settings
from krun_launch.spawn import helper
from krun_launch.startup_probe import Probe

# The relay's arguments where it has no names of its own: whoever is behind it knows them all.
NO_NAMES = ("-", "-")


def start(env: Mapping[str, str], *, facts: Facts, arguments: tuple[str, ...]) -> Step:
    """The relay starts; ``arguments`` as it says of itself."""
    # Isolated, and by its module: nothing in an environment or a folder can put another one there.
    argv = (facts.python, "-I", "-m", "krun_launch.names_relay", *arguments)
    relay = helper(NAMES, argv=argv, env=environments.relay(env), identity=identity.RELAY)
    return Step(name="names relay", part=NAMES, start=relay)


def answering(settings: Settings) -> tuple[Step, ...]:
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


def before_agent(env: Mapping[str, str], *, settings: Settings, facts: Facts) -> tuple[Step, ...]:
    """In front of Istio's agent, which runs already: it has read who was asked before, and asks them still."""
    servers = (f"{settings.loopback}#{PORTS['AGENT_DNS']}",)
    relay = start(env, facts=facts, arguments=(settings.loopback, *NO_NAMES, *servers))
    return (relay, *answering(settings))


def text(facts: Facts, *, settings: Settings, namespace: str) -> str:
    """What the resolver's file is to hold."""
    return resolver.render(facts.resolv_conf, server=settings.loopback, namespace=namespace)
