"""Checks of a Cloud Run service's settings, by its API (run.googleapis.com, v2): h2c, request timeout, concurrency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from krun_discover.check import Check, absent, failed, passed
from krun_discover.errors import Denied, Misconfigured, Unreachable
from krun_discover.metadata import last_segment
from krun_discover.web import Call, NoReply

if TYPE_CHECKING:
    from krun_discover.doctor import Patient

ENDPOINT = "https://run.googleapis.com/"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"  # gcloud's own variable
SHORT = 3600.0  # seconds: a tunnel lives no longer than a request, and this is the most that Cloud Run allows


class NotHere(Exception):
    """There is no service whose settings could be looked at."""


def _service(patient: Patient) -> tuple[str, Mapping[str, Any]]:
    """The command line's names of the service, and what the API says of its template. Raises NotHere, a Failure."""
    name = patient.environ.get("K_SERVICE", "")
    if not name:
        raise NotHere("not a Cloud Run service")
    client = patient.client
    region = "" if client.settings.off or client.trouble else last_segment(client.ask("instance/region").value)
    project = "" if client.settings.off or client.trouble else client.ask("project/project-id").value
    if not (region and project):
        raise NotHere("the metadata server does not tell project and region")
    names = f"{name} --project={project} --region={region}"
    base = patient.environ.get(OVERRIDE, "") or ENDPOINT
    url = f"{base.rstrip('/')}/v2/projects/{project}/locations/{region}/services/{name}"
    try:
        reply = patient.web.ask(
            Call(url=url, headers={"Authorization": f"Bearer {patient.assembly.token().value}"}), tries=1
        )
        if reply.status in (401, 403):
            raise NotHere(f"may not look at it (HTTP {reply.status}): gcloud run services describe {names}")
        if reply.status != 200:
            raise Unreachable(f"Cloud Run API: HTTP {reply.status} for {name}", hint="is K_SERVICE the service's name?")
        found = reply.json()
    except NoReply as error:
        raise NotHere(f"the Cloud Run API does not answer: {error}") from error
    template = found.get("template") if isinstance(found, dict) else None
    return names, template if isinstance(template, dict) else {}


def _looked(name: str, judge: Callable[[str, Mapping[str, Any]], Check]) -> Callable[[Patient], Check]:
    def look(patient: Patient) -> Check:
        try:
            names, template = _service(patient)
        except NotHere as error:
            return absent(name, str(error))
        except Denied as error:
            return absent(name, error.message)
        return judge(names, template)

    return look


def _h2c(names: str, template: Mapping[str, Any]) -> Check:
    containers = template.get("containers")
    rows = [row for row in containers if isinstance(row, dict)] if isinstance(containers, list) else []
    ports = [port for row in rows for port in row.get("ports", []) if isinstance(port, dict)]
    if any(port.get("name") == "h2c" for port in ports):
        return passed("h2c", "HTTP/2 reaches the container")
    return failed(
        "h2c",
        Misconfigured(
            "HTTP/2 ends at the front: tunnels and gRPC do not reach the container",
            hint=f"gcloud run services update {names} --use-http2",
        ),
    )


def _timeout(names: str, template: Mapping[str, Any]) -> Check:
    text = str(template.get("timeout", ""))
    seconds = float(text[:-1]) if text.endswith("s") and text[:-1].replace(".", "", 1).isdecimal() else 0.0
    if seconds >= SHORT:
        return passed("request timeout", f"{seconds:g} s")
    return failed(
        "request timeout",
        Misconfigured(
            f"{text or 'not told'}: a tunnel ends after that",
            hint=f"gcloud run services update {names} --timeout={SHORT:g}",
        ),
    )


def _concurrency(names: str, template: Mapping[str, Any]) -> Check:
    count = template.get("maxInstanceRequestConcurrency")
    if isinstance(count, int) and count > 1:
        return passed("concurrency", f"{count} requests at once")
    return failed(
        "concurrency",
        Misconfigured(
            f"{count or 'not told'}: each tunnel counts as a request, and would fill an instance",
            hint=f"gcloud run services update {names} --concurrency=80",
        ),
    )


CHECKS: tuple[tuple[str, Callable[[Patient], Check]], ...] = (
    ("h2c", _looked("h2c", _h2c)),
    ("request timeout", _looked("request timeout", _timeout)),
    ("concurrency", _looked("concurrency", _concurrency)),
)
