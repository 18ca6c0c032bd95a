"""Rules for the control plane: which address leads to it, out of what the mesh says and where we are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from krun_discover import address, contract
from krun_discover.errors import Misconfigured
from krun_discover.mesh_env import MANAGED
from krun_discover.resolve import Answer, Candidate, Known
from krun_discover.search import Search

PLATFORMS = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL")


class ProxyConfig:
    """``PROXY_CONFIG``, as Istio's agent reads it: YAML or JSON, of which ``discoveryAddress`` counts here."""

    def __init__(self, *, text: str) -> None:
        self._text = text

    def names(self) -> Iterable[str]:
        """None."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """The address that it names."""
        if name == "XDS_ADDR" and self._text:
            yield Candidate(source="PROXY_CONFIG", ask=self._ask)

    def _ask(self) -> Answer:
        value = discovery_address(self._text)
        return Answer(value=value, note="" if value else "has no discoveryAddress")


def discovery_address(text: str) -> str:
    """The ``discoveryAddress`` of a proxy configuration. Raises Misconfigured for what is neither JSON nor YAML."""
    try:
        found = json.loads(text)
    except ValueError:
        import yaml  # late: hardly anybody writes it in YAML here

        try:
            found = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise Misconfigured(
                "PROXY_CONFIG is neither JSON nor YAML", hint='write {"discoveryAddress": "HOST:PORT"}'
            ) from error
    value = found.get("discoveryAddress") if isinstance(found, dict) else None
    return value if isinstance(value, str) and value.isprintable() else ""


class ControlPlane:
    """XDS_ADDR when nobody has said it, and the network that decides it."""

    def __init__(self, *, environ: Mapping[str, str], search: Search) -> None:
        self._environ = environ
        self._search = search

    def names(self) -> Iterable[str]:
        """None."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """The rules."""
        if name == "XDS_ADDR":
            yield self._rule("MESH_TENANT's control plane", lambda: self._managed(known), known, "MESH_TENANT")
            addresses = ("IMCON_ADDR", "MCON_ADDR")
            yield self._rule("the mesh connector's istiod", lambda: self._connector(known), known, *addresses)
        if name == "MESH_NETWORK" and any(self._environ.get(platform) for platform in PLATFORMS):
            yield Candidate(
                source="rule: Cloud Run is led into the mesh's network",
                ask=lambda: Answer(value=self._network(), note="" if self._network() else "the mesh does not say"),
                free=lambda: self._search.is_done,
            )

    def _rule(self, name: str, ask: Callable[[], Answer], known: Known, *needs: str) -> Candidate:
        return Candidate(
            source=f"rule: {name}", ask=ask, free=lambda: all(known.peek(need) is not None for need in needs)
        )

    def _managed(self, known: Known) -> Answer:
        tenant = known.value("MESH_TENANT")
        if tenant in ("", "-"):
            return Answer(note="MESH_TENANT is not set", failed=known.failed("MESH_TENANT"))
        return Answer(value=f"{MANAGED}:443")

    def _connector(self, known: Known) -> Answer:
        inner, outer = known.value("IMCON_ADDR"), known.value("MCON_ADDR")
        if not inner and not outer:
            return Answer(note="neither IMCON_ADDR nor MCON_ADDR is known", failed=known.failed("MCON_ADDR"))
        is_inside, reason = (not outer, "the only one") if not (inner and outer) else self._place(known)
        name, host = ("IMCON_ADDR", inner) if is_inside else ("MCON_ADDR", outer)
        port = contract.PORTS["ISTIOD"]
        where = address.parse(host, what=f"{name}={host}", default_port=port).host
        return Answer(value=str(address.Address(host=where, port=port)), note=f"{name}, {reason}")

    def _place(self, known: Known) -> tuple[bool, str]:
        own, mesh = known.value("MESH_NETWORK"), self._network()
        if not own:
            return False, "as our own network is not known"
        if mesh and own != mesh:
            return False, f"as we are in {own} and the mesh in {mesh}"
        return True, f"as we are in {own}"

    def _network(self) -> str:
        """The mesh's network, as far as it is known: a search that nobody needed is not worth it."""
        if not self._search.is_done:
            return ""
        found = self._search.found()
        named = found.map.values.get("MESH_NETWORK", "") if found.map else ""
        return named or (found.way.network if found.way else "")
