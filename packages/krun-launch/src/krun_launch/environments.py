"""Decides which variables each child gets: only those that are its business."""

from __future__ import annotations

import re
from collections.abc import Mapping

from krun_launch.contract import PORTS
from krun_launch.settings import Settings

# Ours alone, besides everything that starts with KRUN_.
OURS = frozenset({"SSH_AUTH", "ENVOY_LOG_LEVEL", "STARTUP_PROBE_TCP", "STARTUP_PROBE_HTTP", "K8S_UID"})
# What any program may need to run and to write its messages.
PLAIN = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
LOGGING = ("KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT")
# Never sent through a proxy: ourselves, and the metadata server, which answers nobody else (facts of the platform).
DIRECT = ("localhost", "127.0.0.1", "::1")
METADATA = ("metadata.google.internal", "169.254.169.254")
# Istio's own, which are the agent's business alone.
AGENTS = ("ISTIO_", "PROXY_CONFIG", "XDS_HEADER_", "CA_HEADER_")
SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|(^|_)(API_?)?KEY($|_)|AUTH", re.IGNORECASE)


def untouched(env: Mapping[str, str]) -> dict[str, str]:
    """The application's in mode none: all of it, but for the number of a descriptor that it does not have."""
    return {name: value for name, value in env.items() if name != "KRUN_INIT_FD"}


def with_home(env: Mapping[str, str], *, home: str, instead_of: str) -> dict[str, str]:
    """The environment of another user: our own home is closed to it."""
    return {**env, "HOME": home or "/"} if env.get("HOME", instead_of) == instead_of else dict(env)


def app(
    env: Mapping[str, str], *, settings: Settings, is_captured: bool = False, has_agent: bool = False
) -> dict[str, str]:
    """The application's in a mesh: its own port, the way out through Envoy, and nothing of ours or of the agent's."""
    own = {name: value for name, value in env.items() if not _is_ours(name)}
    if has_agent:
        own = {name: value for name, value in own.items() if not name.startswith(AGENTS)}
    own["PORT"] = str(settings.app_port)
    if is_captured:
        return own
    proxy = f"http://{settings.loopback}:{PORTS['ENVOY_HTTP_PROXY']}"
    direct = no_proxy(env, loopback=settings.loopback)
    return {
        **own,
        **(_of_clients(own, proxy_host=settings.loopback, direct=direct) if has_agent else {}),
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        # Without a control plane Envoy does not tunnel: what goes by https is not its business.
        **({"HTTPS_PROXY": proxy, "https_proxy": proxy} if has_agent else {}),
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def _of_clients(own: Mapping[str, str], *, proxy_host: str, direct: str) -> dict[str, str]:
    """For clients that do not look at HTTP_PROXY by themselves."""
    # Late: where nothing is captured, and with a control plane.
    from krun_launch import istio_whitebox_clients

    return istio_whitebox_clients.variables(
        own, host=proxy_host, port=PORTS["ENVOY_HTTP_PROXY"], direct=direct.split(",")
    )


def no_proxy(env: Mapping[str, str], *, loopback: str) -> str:
    """The user's list with ours, each name once, the user's first."""
    given = ",".join(env.get(name, "") for name in ("NO_PROXY", "no_proxy")).split(",")
    names = [*(word.strip() for word in given), *DIRECT, loopback, *METADATA]
    return ",".join(dict.fromkeys(word for word in names if word))


def envoy(env: Mapping[str, str], *, search: tuple[str, ...] | None = None) -> dict[str, str]:
    """Envoy's: its bootstrap says all, so that no variable of the application can steer it.

    With ``search`` it completes names by these domains, whatever the resolver's file says (resolv.conf(5)): the file is
    the application's then, and the gateway's own name is none of the mesh.
    """
    return _only(env, PLAIN) if search is None else {**_only(env, PLAIN), "LOCALDOMAIN": " ".join(search)}


def hboned(env: Mapping[str, str], *, settings: Settings, offers_ssh: bool) -> dict[str, str]:
    """hboned's: where to listen, and what to offer."""
    offer = str(PORTS["ENVOY_MTLS"]) + (f",22={PORTS['SSH']}" if offers_ssh else "")
    named = {name: value for name, value in env.items() if name.startswith("PORT_")}
    return {
        **_only(env, (*PLAIN, *LOGGING, "K_SERVICE", "KRUN_WORKERS", "KRUN_WORKER_TIMEOUT")),
        **named,
        "PORT_http": str(settings.app_port),
        "PORT": str(settings.port),
        "KRUN_BIND": settings.bind,
        "KRUN_LOOPBACK": settings.loopback,
        "KRUN_OFFER": env.get("KRUN_OFFER") or offer,
        "KRUN_PUBLIC": settings.public,
        "KRUN_APP_PROTOCOL": settings.app_protocol,
    }


def tool(env: Mapping[str, str]) -> dict[str, str]:
    """A tool's of ours that does a step: all. Programs that a kubeconfig names get their settings from it, too."""
    return {name: value for name, value in env.items() if name not in ("KRUN_INIT_FD", "KRUN_NOTIFY_FD")}


def relay(env: Mapping[str, str]) -> dict[str, str]:
    """The names relay's: its command line says all."""
    return _only(env, PLAIN)


def sshd(env: Mapping[str, str], *, settings: Settings, sees: Mapping[str, str]) -> dict[str, str]:
    """krun-sshd's: what a person who debugs the application wants to see, without what looks like a secret by name."""
    seen = {name: value for name, value in sees.items() if not SECRET.search(name)}
    return {
        **seen,
        **_only(env, LOGGING),
        "SSH_AUTH": env.get("SSH_AUTH", ""),
        "KRUN_LOOPBACK": settings.loopback,
    }


def _is_ours(name: str) -> bool:
    return name in OURS or name.partition("_")[0] == "KRUN"


def _only(env: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: env[name] for name in names if name in env}
