"""Reads declarations out of objects as the API server gives them: Services, the config map hgate, WorkloadEntries.

Whatever is there was written by somebody with rights in one namespace only: sizes and forms are held here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hgate import declaration as words
from hgate.contract import PORTS
from hgate.declaration import Declaration, Port, Ref, Target
from hgate.refusal import Refused, shown
from hgate.service_url import of_label

MAX_TEXT = 8 * 1024  # characters of one declaration
MAX_TARGETS = 16
MAX_WEIGHT = 10_000
MAX_TIMEOUT = 3600  # seconds: Cloud Run's own limit
MAX_SERVICES = 1000  # of one config map
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_AUDIENCE = re.compile(r"[!-~]{1,500}")
_WEIGHT = re.compile(r"[0-9]{1,5}")

NETWORKING = "networking.istio.io/v1"

Object = Mapping[str, Any]


def ref_of(item: Object, *, kind: str, version: str = "v1") -> Ref:
    """Which object it is."""
    metadata = item["metadata"]
    return Ref(
        version=item.get("apiVersion") or version,
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        created=metadata.get("creationTimestamp") or "",
    )


def is_ours(item: Object) -> bool:
    """Tell whether it says that we made it."""
    labels: Mapping[str, str] = item["metadata"].get("labels") or {}
    return labels.get(words.MANAGED_BY) == words.MANAGER


def of_service(item: Object) -> Declaration | None:
    """What an annotated Service declares, ``None`` without our annotation. Raises Refused."""
    annotations: Mapping[str, str] = item["metadata"].get("annotations") or {}
    text = annotations.get(words.URL)
    if text is None or is_ours(item):
        return None
    return Declaration(
        ref=ref_of(item, kind="Service"),
        service=item["metadata"]["name"],
        targets=targets(text),
        audience=_audience(annotations.get(words.AUDIENCE, "")),
        timeout=_timeout(annotations.get(words.TIMEOUT, "")),
        workload=_label(annotations.get(words.WORKLOAD, ""), what=words.WORKLOAD),
        account=_label(annotations.get(words.ACCOUNT, ""), what=words.ACCOUNT) or "default",
        ports=ports(item),
        selector=tuple(sorted((item["spec"].get("selector") or {}).items())),
        is_there=True,
    )


def of_config_map(item: Object) -> Iterator[Declaration | tuple[str, Refused]]:
    """What a namespace's config map declares; for an entry that cannot be read its key, and why."""
    ref = ref_of(item, kind="ConfigMap")
    data: Mapping[str, str] = item.get("data") or {}
    if len(data) > MAX_SERVICES:
        reason = f"{len(data)} services in one config map, {MAX_SERVICES} are allowed"
        yield "", Refused(reason, hint="annotate Services instead")
        return
    for service, text in sorted(data.items()):
        try:
            if not _LABEL.fullmatch(service):
                raise Refused(f"{shown(service)} is no name of a Service", hint="each key is the name of a Service")
            yield Declaration(ref=ref, service=service, targets=targets(text))
        except Refused as error:
            yield service, error


def of_workload_entry(item: Object, *, gates: frozenset[str]) -> Declaration | None:
    """What the seed's template declares, applied by hand: an endpoint at one of our addresses; else ``None``."""
    spec: Mapping[str, Any] = item.get("spec") or {}
    at_gate = spec.get("address") in gates and PORTS["SNI_GATE"] in (spec.get("ports") or {}).values()
    if not at_gate or is_ours(item):
        return None
    name = item["metadata"]["name"]
    url = of_label(name)
    if url is None:
        return None
    ref = ref_of(item, kind="WorkloadEntry", version=NETWORKING)
    return Declaration(ref=ref, service=name, targets=(Target(url=str(url)),), writes=False)


def targets(text: str) -> tuple[Target, ...]:
    """Read ``URL``, or several ``URL=WEIGHT`` by white space.

    Raises:
        Refused: it is neither.
    """
    if len(text) > MAX_TEXT:
        raise Refused(f"{len(text)} characters of URLs, {MAX_TEXT} are allowed", hint="declare fewer URLs")
    parts = text.split()
    if not parts:
        raise Refused(f"{words.URL} is empty", hint="write https://HOST into it")
    if len(parts) > MAX_TARGETS:
        raise Refused(f"{len(parts)} URLs of one service, {MAX_TARGETS} are allowed", hint="declare fewer URLs")
    found = [_target(part) for part in parts]
    weighted = [target for target, is_weighted in found if is_weighted]
    made = tuple(target for target, _ in found)
    if weighted and len(weighted) < len(made):
        raise Refused("some URLs have weights and some have none", hint="write URL=WEIGHT for each of them")
    if len({target.url.lower() for target in made}) < len(made):
        raise Refused("one URL stands there twice", hint="write each URL once")
    if not any(target.weight for target in made):
        raise Refused("no URL has a weight above 0", hint="write URL=WEIGHT, as https://HOST=25 https://OTHER=75")
    return made


def _target(part: str) -> tuple[Target, bool]:
    url, equals, weight = part.partition("=")
    if not equals:
        return Target(url=url), False
    if not _WEIGHT.fullmatch(weight) or int(weight) > MAX_WEIGHT:
        # Not the whole part: who knows what stands there.
        raise Refused(
            f"the weight {shown(weight, limit=20)} is no number from 0 to {MAX_WEIGHT}",
            hint="write URL=WEIGHT, as https://HOST=25 https://OTHER=75",
        )
    return Target(url=url, weight=int(weight)), True


def ports(item: Object) -> tuple[Port, ...]:
    """The ports of a Service. Raises Refused: it is of a kind, or has ports, that cannot lead outside."""
    spec: Mapping[str, Any] = item.get("spec") or {}
    if spec.get("type") == "ExternalName":
        raise Refused("a Service of type ExternalName is a name for another one", hint="use type ClusterIP")
    if spec.get("clusterIP") == "None":
        raise Refused("a headless Service is called by its endpoints' addresses", hint="leave clusterIP away")
    found = tuple(
        Port(
            number=each["port"],
            name=each.get("name", ""),
            target=each.get("targetPort") or each["port"],
            protocol=each.get("protocol", "TCP"),
            app_protocol=each.get("appProtocol", ""),
        )
        for each in spec.get("ports") or ()
    )
    if not found or any(port.protocol != "TCP" for port in found):
        raise Refused("the Service has a port that is not TCP, or none", hint="only TCP passes the gate")
    if len({port.app_port for port in found}) > 1:
        raise Refused(
            "the Service's ports have several target ports, and a Cloud Run service has one",
            hint="give all ports one targetPort, or declare a Service for each",
        )
    return found


def _timeout(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) <= MAX_TIMEOUT):
        raise Refused(
            f"{words.TIMEOUT}: {shown(text)} is no number of seconds up to {MAX_TIMEOUT}",
            hint="write the request timeout of the Cloud Run service",
        )
    return int(text)


def _label(text: str, *, what: str) -> str:
    if text and not _LABEL.fullmatch(text):
        raise Refused(
            f"{what}: {shown(text)} is no name of Kubernetes", hint="small letters, digits, dashes, 63 at most"
        )
    return text


def _audience(text: str) -> str:
    if text and not _AUDIENCE.fullmatch(text):
        raise Refused(f"{words.AUDIENCE}: {shown(text)} is no audience", hint="one URL or name, without white space")
    return text
