"""Istio's configuration of the agent (PROXY_CONFIG): the user's own, with what krun-launch must have in it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.istio_settings import IstioSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "PROXY_CONFIG"
# What others rely on: the health port, Envoy's admin port, and where the agent's files are.
FIXED: Mapping[str, Any] = {"statusPort": PORTS["AGENT_STATUS"], "proxyAdminPort": PORTS["ENVOY_ADMIN"]}
# The gauge by which the end sees that requests of the mesh are under way; Istio's own list of statistics is without.
SUFFIX = "downstream_rq_active"
HINT = "one ProxyConfig of Istio, as JSON or YAML: discoveryAddress: istiod.example:15012"


def parse(text: str) -> dict[str, Any]:
    """Read the user's text.

    Raises:
        Misconfigured: it is neither JSON nor YAML, or no mapping.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = _yaml(text)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise Misconfigured(f"{VARIABLE}: not a mapping of names to values", hint=HINT)
    metadata = found.get("proxyMetadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(part, str) for item in metadata.items() for part in item):
        raise Misconfigured(f"{VARIABLE}: proxyMetadata: not a mapping of texts", hint="quote its values")
    return found


def discovery_address(env: Mapping[str, str]) -> str:
    """The control plane that it names; empty when it names none."""
    text = env.get(VARIABLE)
    value = parse(text).get("discoveryAddress") if text else None
    return value if isinstance(value, str) else ""


def metadata(env: Mapping[str, str]) -> dict[str, str]:
    """What of it becomes the agent's environment."""
    text = env.get(VARIABLE)
    return dict((parse(text).get("proxyMetadata") or {}) if text else {})


def merged(env: Mapping[str, str], *, settings: IstioSettings, envoy: str, drain: int) -> str:
    """The agent's PROXY_CONFIG, as JSON. Its proxyMetadata is part of the agent's environment, and left out here.

    Raises:
        Misconfigured: it cannot be read, or says something else of what is fixed.
    """
    text = env.get(VARIABLE)
    given = parse(text) if text else {}
    for name, value in FIXED.items():
        if given.get(name, value) != value:
            raise Misconfigured(f"{VARIABLE}: {name}: must be {value}", hint="leave it out")
    # Where files are is ours to say, and whether connections are led to the proxy is what the rules do.
    own = {name: value for name, value in given.items() if name not in ("configPath", "interceptionMode")}
    own.pop("proxyMetadata", None)
    own.pop("proxyHttpPort", None)
    return json.dumps(
        {
            "drainDuration": f"{drain}s",
            **own,
            "discoveryAddress": settings.discovery,
            "binaryPath": envoy if env.get("KRUN_ENVOY") else own.get("binaryPath") or envoy,
            "proxyStatsMatcher": _statistics(own.get("proxyStatsMatcher")),
        },
        sort_keys=True,
    )


def _statistics(given: object) -> dict[str, Any]:
    matcher = dict(given) if isinstance(given, dict) else {}
    suffixes = matcher.get("inclusionSuffixes") or []
    if not isinstance(suffixes, list):
        raise Misconfigured(f"{VARIABLE}: proxyStatsMatcher: inclusionSuffixes: not a list", hint=HINT)
    return {**matcher, "inclusionSuffixes": list(dict.fromkeys([*suffixes, SUFFIX]))}


def _yaml(text: str) -> object:
    # Late: most have JSON, or none.
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" (line {line + 1})"
        raise Misconfigured(f"{VARIABLE}: neither JSON nor YAML{where}", hint=HINT) from None
