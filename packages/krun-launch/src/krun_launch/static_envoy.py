"""Static mode: Envoy's bootstrap, out of settings alone (no control plane); docs/static-mode.md."""

from __future__ import annotations

import json
from pathlib import Path

from krun_launch import envoy_captured, envoy_inbound, envoy_outbound
from krun_launch.envoy_tls import Json, secrets, socket_address, typed
from krun_launch.static_settings import ADMIN_PORT, READS, StaticSettings, log_level, settings

__all__ = ["READS", "StaticSettings", "argv", "files", "log_level", "settings"]

# Envoy warns at its start when there is no limit; descriptors end long before this one.
MAX_CONNECTIONS = 1_000_000


def files(settings: StaticSettings) -> dict[str, str]:
    """The files that Envoy reads: name below the run folder, content, in one line: indented ones take Python longer."""
    contents = {"envoy.json": _bootstrap(settings), **secrets(settings)}
    return {name: json.dumps(content) + "\n" for name, content in contents.items()}


def argv(*, envoy: str, run_dir: Path, log_level: str, drain_seconds: int) -> tuple[str, ...]:
    """Envoy's command line. It drains at once, not by and by: the platform gives ten seconds for all of the end."""
    return (
        envoy,
        "--config-path",
        str(run_dir / "envoy.json"),
        "--log-level",
        log_level,
        "--disable-hot-restart",
        "--drain-time-s",
        str(drain_seconds),
        "--drain-strategy",
        "immediate",
    )


def _bootstrap(settings: StaticSettings) -> Json:
    limit = typed(
        "envoy.resource_monitors.global_downstream_max_connections",
        kind="envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=MAX_CONNECTIONS,
    )
    listeners = [envoy_inbound.listener(settings), envoy_outbound.listener(settings)]
    clusters = [*envoy_inbound.clusters(settings), *envoy_outbound.clusters(settings)]
    if settings.is_captured:
        listeners.append(envoy_captured.listener(settings))
        clusters += envoy_captured.clusters()
    return {
        "node": {"id": f"{settings.name}.{settings.namespace}", "cluster": f"{settings.name}.{settings.namespace}"},
        "admin": socket_address(settings.loopback, ADMIN_PORT),
        "overload_manager": {"resource_monitors": [limit]},
        "static_resources": {
            "listeners": listeners,
            "clusters": clusters,
        },
    }
