"""Cloud Run services as the Admin API v2 lists them: reads its answers, page by page; sends nothing by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hgate.refusal import Refused
from hgate.service_url import ServiceUrl, parse

HOST = "run.googleapis.com"
LABEL = "krun-namespace"  # of the Cloud Run service
PAGE = 100  # the API's own limit
MAX_PAGES = 1000
_ACCOUNT = re.compile(r"k8s-([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)@[a-z0-9.-]+\.iam\.gserviceaccount\.com")
_NAME = re.compile(r"projects/([^/]+)/locations/([^/]+)/services/([a-z]([a-z0-9-]{0,61}[a-z0-9])?)")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECONDS = re.compile(r"([0-9]{1,5})(\.[0-9]+)?s")


class Unreadable(ValueError):
    """An answer that is not of the API's form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One service of Cloud Run. ``namespace``: the one that it says it is of, ``""`` when it says none."""

    resource: str  # projects/P/locations/L/services/S
    project: str  # its number, when a URL says so
    region: str
    name: str
    urls: tuple[ServiceUrl, ...]
    namespace: str = ""
    timeout: int = 0
    created: str = ""

    @property
    def key(self) -> str:
        """The same for all its URLs, and that of the numbered one."""
        return service_key(self.urls[0])


def service_key(url: ServiceUrl) -> str:
    """Which service a URL is of, in characters that a config map's keys may have; without the API forms differ."""
    return f"{url.project}.{url.region}.{url.name}" if url.project else url.service_host


def lists(*, project: str, region: str, fetch: Callable[[str], Mapping[str, Any]]) -> list[Service]:
    """All services of a region; ``fetch`` gets the answer to a path, and raises what it will.

    Raises:
        Unreadable: an answer is no list of services.
    """
    found: list[Service] = []
    token = ""
    for _ in range(MAX_PAGES):
        answer = fetch(path(project=project, region=region, token=token))
        rows = answer.get("services", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Unreadable(f"no list of services of {project} in {region}")
        found += read(rows)
        token = str(answer.get("nextPageToken") or "")
        if not token:
            return found
    raise Unreadable(f"more than {MAX_PAGES} pages of services of {project} in {region}")


def path(*, project: str, region: str, token: str = "") -> str:
    """What is asked for: one page."""
    query = urlencode({"pageSize": PAGE, **({"pageToken": token} if token else {})})
    return f"/v2/projects/{quote(project, safe=':.')}/locations/{quote(region, safe='')}/services?{query}"


def read(rows: Iterable[Mapping[str, Any]]) -> list[Service]:
    """The services that can be reached by a URL of their own; others are left out."""
    return [service for row in rows if (service := _service(row)) is not None]


def _service(row: Mapping[str, Any]) -> Service | None:
    name = _NAME.fullmatch(str(row.get("name", "")))
    # A service on its way out, or without a URL, is none that could be called.
    if name is None or row.get("deleteTime") or row.get("defaultUriDisabled"):
        return None
    urls = _urls(row, name=name[3])
    if not urls:
        return None
    template = row.get("template") or {}
    return Service(
        resource=name[0],
        project=urls[0].project,
        region=name[2],
        name=name[3],
        urls=urls,
        namespace=_namespace(row, account=str(template.get("serviceAccount") or "")),
        timeout=_timeout(template.get("timeout")),
        created=str(row.get("createTime") or ""),
    )


def _urls(row: Mapping[str, Any], *, name: str) -> tuple[ServiceUrl, ...]:
    """The numbered form first: it says the project."""
    found = {}
    for text in [*(row.get("urls") or []), row.get("uri") or ""]:
        try:
            url = parse(str(text))
        except Refused:
            continue
        if url.name == name and not url.tag:
            found[url.host] = url
    return tuple(sorted(found.values(), key=lambda url: (not url.project, url.host)))


def _namespace(row: Mapping[str, Any], *, account: str) -> str:
    label = str((row.get("labels") or {}).get(LABEL) or "")
    if label:
        return label if _LABEL.fullmatch(label) else ""
    of_account = _ACCOUNT.fullmatch(account)
    return of_account[1] if of_account else ""


def _timeout(text: object) -> int:
    found = _SECONDS.fullmatch(str(text or ""))
    return min(int(found[1]), 3600) if found else 0
