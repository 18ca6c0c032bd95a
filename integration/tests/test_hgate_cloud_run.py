"""Cloud Run's list of services: all pages of it or nothing, whose each is, and what a broken answer is taken for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hgate import cloud_run, web
from hgate.registration import Registry
from krun_testbed import google_api_faults as faults
from krun_testbed.google_api import PROJECT, GoogleApi
from krun_testbed.google_api_run import service

pytestmark = pytest.mark.loopback

REGION = "us-central1"


class Refused(Exception):
    """The API has answered, and not with a list."""


@pytest.fixture
def fetch(google: GoogleApi, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    monkeypatch.setenv("SSL_CERT_FILE", str(google.roots))
    token = google.accounts.access_token("hgate@demo-project.iam.gserviceaccount.com")

    def get(path: str) -> dict[str, Any]:
        url = google.servers["run"].url.rstrip("/")
        answer = web.call(f"{url}{path}", headers={"Authorization": f"Bearer {token}"})
        if answer.status != 200:
            raise Refused(answer.status)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    return get


def fill(google: GoogleApi, *names: str, **more: Any) -> None:
    rows = google.run.services.setdefault(PROJECT.id, [])
    rows += [service(name, project=PROJECT.id, number=PROJECT.number, **more) for name in names]


def names(fetch: Callable[[str], dict[str, Any]], *, project: str = PROJECT.id, region: str = REGION) -> list[str]:
    return [each.name for each in cloud_run.lists(project=project, region=region, fetch=fetch)]


def test_all_pages_are_read(google: GoogleApi, fetch: Callable[[str], dict[str, Any]]) -> None:
    fill(google, *(f"web-{number}" for number in range(205)))
    fill(google, "elsewhere", region="europe-west1")
    assert names(fetch) == [f"web-{number}" for number in range(205)]
    assert len(google.servers["run"].requests) == 3
    assert names(fetch, region="europe-west1") == ["elsewhere"]
    assert names(fetch, project=PROJECT.number, region="europe-west1") == ["elsewhere"]


def test_a_region_without_services_is_an_empty_list(fetch: Callable[[str], dict[str, Any]]) -> None:
    assert names(fetch) == []


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(403, path="services"),
        faults.status(429, path="services"),
        faults.status(503, path="services"),
        faults.redirect("https://evil.example/v2/projects/x/locations/y/services"),
    ],
)
def test_a_list_whose_second_page_fails_is_no_list(
    google: GoogleApi, fetch: Callable[[str], dict[str, Any]], fault: faults.Fault
) -> None:
    fill(google, *(f"web-{number}" for number in range(150)))
    first = cloud_run.path(project=PROJECT.id, region=REGION)

    def one_then_fault(path: str) -> dict[str, Any]:
        found = fetch(path)
        if path == first:
            google.servers["run"].faults.append(fault)
        return found

    with pytest.raises(Refused):
        cloud_run.lists(project=PROJECT.id, region=REGION, fetch=one_then_fault)


def test_an_answer_that_is_no_list_is_told(google: GoogleApi, fetch: Callable[[str], dict[str, Any]]) -> None:
    google.servers["run"].faults.append(faults.malformed(b'{"services": {"a": 1}}'))
    with pytest.raises(cloud_run.Unreadable):
        names(fetch)


def test_pages_without_an_end_end() -> None:
    with pytest.raises(cloud_run.Unreadable, match="more than"):
        cloud_run.lists(project="p", region=REGION, fetch=lambda path: {"services": [], "nextPageToken": "again"})


def test_who_may_not_list_is_refused(google: GoogleApi, fetch: Callable[[str], dict[str, Any]]) -> None:
    google.accounts.forbidden.add(("*", "run.services.list"))
    with pytest.raises(Refused, match="403"):
        names(fetch)


def test_label_or_account_say_of_which_namespace_a_service_is(
    google: GoogleApi, fetch: Callable[[str], dict[str, Any]]
) -> None:
    fill(google, "labelled", namespace="demo", account="k8s-other@demo-project.iam.gserviceaccount.com")
    fill(google, "by-account", account="k8s-demo@demo-project.iam.gserviceaccount.com", timeout=30)
    fill(google, "nobodys")
    fill(google, "odd", namespace="No-Namespace", account="k8s-demo@demo-project.iam.gserviceaccount.com")
    found = cloud_run.lists(project=PROJECT.id, region=REGION, fetch=fetch)
    assert [(each.name, each.namespace) for each in found] == [
        ("labelled", "demo"),
        ("by-account", "demo"),
        ("nobodys", ""),
        ("odd", ""),
    ]
    registry = Registry(
        f"namespaces: {{demo: {{projects: ['{PROJECT.number}']}}}}\n"
        f"cloudRun: [{{project: {PROJECT.id}, regions: [{REGION}]}}]",
        "10.1.2.3",
    )
    registry.cloud_run(found)
    assert sorted(f"{route.service}.{route.namespace}" for route in registry.result().routes) == [
        "by-account.demo",
        "labelled.demo",
    ]


def test_services_without_a_url_of_their_own_are_left_out() -> None:
    whole = service("web", project="p", number="1234")
    for change in ({"urls": [], "uri": ""}, {"defaultUriDisabled": True}, {"deleteTime": "2026-01-01T00:00:00Z"}):
        assert cloud_run.read([whole | change]) == []
    # And none whose URLs are not its own.
    assert (
        cloud_run.read([whole | {"urls": ["https://bank-1234.us-central1.run.app"], "uri": "https://evil.example"}])
        == []
    )
