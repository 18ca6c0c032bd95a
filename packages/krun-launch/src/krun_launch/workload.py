"""Who the workload is and what it listens on, in every kind of mesh: read out of the environment, and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping

from krun_launch.errors import Misconfigured
from krun_launch.settings import is_port

# RFC 1123 §2.1, as Kubernetes has it for namespaces; also what makes a value safe inside the Lua text.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# A label as a rule; the node id in Envoy's bootstrap takes a little more.
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
# SPIFFE-ID §2.1.
TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")


def namespace(env: Mapping[str, str]) -> str:
    """Its Kubernetes namespace."""
    return label(env, "WORKLOAD_NAMESPACE", default="default")


def label(env: Mapping[str, str], variable: str, *, default: str) -> str:
    """A name as Kubernetes has it for namespaces and accounts."""
    text = env.get(variable) or default
    if not LABEL.fullmatch(text):
        raise Misconfigured(
            f"{variable}: {text!r} is not a Kubernetes name", hint="small letters, digits and dashes, 63 at most"
        )
    return text


def name(env: Mapping[str, str], *, default: str) -> str:
    """Its own name."""
    text = env.get("WORKLOAD_NAME") or default
    if not NAME.fullmatch(text):
        raise Misconfigured(
            f"WORKLOAD_NAME: {text!r} is not the name of a workload", hint="letters, digits, dashes, dots, 253 at most"
        )
    return text


def trust_domain(env: Mapping[str, str]) -> str:
    """The mesh's trust domain: what all identities of it begin with."""
    project = env.get("PROJECT_ID")
    text = env.get("TRUST_DOMAIN") or (f"{project}.svc.id.goog" if project else "cluster.local")
    if not TRUST_DOMAIN.fullmatch(text):
        raise Misconfigured(
            f"TRUST_DOMAIN: {text!r} is not a SPIFFE trust domain",
            hint="small letters, digits, dots and dashes, without spiffe:// (cluster.local)",
        )
    return text


def port_of(env: Mapping[str, str], variable: str, *, default: int) -> int:
    """A port that a variable names."""
    text = env.get(variable)
    return port(variable, text) if text else default


def port(variable: str, text: str) -> int:
    """A port, as a part of what a variable says."""
    if not is_port(text):
        raise Misconfigured(f"{variable}: {text[:20]!r} is not a port", hint="a number from 1 to 65535")
    return int(text)
