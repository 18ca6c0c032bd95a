"""What one namespace declares gets it no tokens or services of others: an event refuses it, and nothing is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from krun_testbed import hgate_doors, hgate_installed, hgate_load, hgate_world, processes
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_doors import Door
from krun_testbed.hgate_front import deterministic, hashed
from krun_testbed.hgate_installed import Installed
from krun_testbed.hgate_world import World
from krun_testbed.mesh_cluster import SUFFIX, Cluster
from krun_testbed.mesh_pod import Pod

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

STORE = f"https://{deterministic('store')}"  # the victim's
OWN = f"https://{deterministic('own')}"  # nobody else's
CUSTOM = "api.example.com"  # the victim's too, by the admin's map
OWN_ONLY = {"projects": ["own"]}
PRIVATE = "10.99.0.5"
TRAPPED = ("evil.example", "x-123456789012.us-central1.run.app.evil.example", "evilrun.app", "evil", CUSTOM)
# Name of the object, its URLs, its audience.
ATTACKS = {
    "another": (STORE, ""),
    "another-beside-own": (f"{OWN}=50 {STORE}=50", ""),
    "another-in-capitals": (STORE.upper().replace("HTTPS", "https"), ""),
    "another-with-a-dot": (f"{STORE}.", ""),
    "another-by-hash": (f"https://{hashed('store')}", ""),
    "another-by-the-map": (f"https://{CUSTOM}", ""),
    "another-audience": (OWN, STORE),
    "another-audience-custom": (OWN, f"https://{CUSTOM}"),
    "own-host": ("https://evil.example", ""),
    "own-host-another-audience": ("https://evil.example", STORE),
    "look-alike": ("https://x-123456789012.us-central1.run.app.evil.example", ""),
    "look-alike-without-dot": ("https://evilrun.app", ""),
    "another-project": (f"https://{deterministic('own', number='999999999999')}", ""),
    "credentials": (f"https://ann:secret@{deterministic('own')}", ""),
    "host-as-credentials": (f"https://{deterministic('own')}@evil.example", ""),
    "path": (f"{OWN}/_hbone/22", ""),
    "query": (f"{OWN}?a=b", ""),
    "fragment": (f"{OWN}#a", ""),
    "port": (f"{OWN}:8443", ""),
    "plain": (OWN.replace("https", "http"), ""),
    "private": (f"https://{PRIVATE}", ""),
    "private-v6": ("https://[fd00::5]", ""),
    "metadata": (f"https://{hgate_doors.METADATA}", ""),
    "single-label": ("https://evil", ""),
    "raw": (f"tcp://{PRIVATE}:443", ""),
    "nothing": ("", ""),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A victim whose service is called by its pod, and somebody else's namespace."""

    world: World
    hgate: Installed
    victim: str
    evil: str
    web: Pod
    traps: list[Door]

    def begin(self) -> None:
        """What was asked of Google before is of other tests."""
        self.world.metadata.requests.clear()
        self.world.google.requests.clear()

    def declare(self, name: str, url: str, audience: str = "") -> None:
        """The attacker's declaration."""
        service = declared(name, url)
        if audience:
            service["metadata"]["annotations"]["hgate.krun/audience"] = audience
        self.hgate.user(self.evil).apply(service, namespace=self.evil)

    def noted(self, name: str) -> list[dict[str, Any]]:
        """What the front was asked of a service so far."""
        return [request for request in self.world.front.requests if request["host"] == deterministic(name)]


def declared(name: str, url: str) -> dict[str, Any]:
    metadata = {"name": name, "annotations": {"hgate.krun/url": url}}
    spec = {"ports": [{"name": "http", "port": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def scene(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, authority: Authority, issuer: Issuer
) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("google")
    victim, evil = cluster.namespace(), cluster.namespace()
    policy = {
        "namespaces": {
            "*": OWN_ONLY,
            victim: {**OWN_ONLY, "hosts": {CUSTOM: {"audience": f"https://{CUSTOM}"}}},
        }
    }
    with (
        hgate_world.world(cluster, folder=folder, authority=authority, issuer=issuer) as world,
        hgate_installed.installed(world, policy=yaml.safe_dump(policy), env={"KRUN_LOG_LEVEL": "debug"}) as hgate,
        hgate_doors.trap(cluster, *TRAPPED) as named,
        hgate_doors.trap(cluster, address=PRIVATE) as private,
        cluster.pod("web", namespace=victim) as web,
        world.workload("store", namespace=victim) as store,
    ):
        world.front.add("store", store.place)
        world.front.add("store", store.place, host=hashed("store"))
        world.front.add("own", store.place)
        world.front.start()
        hgate.user(victim).apply(declared("store", STORE), namespace=victim)
        hgate.reaches(web.place, f"http://store.{victim}:8080/")
        yield Scene(world=world, hgate=hgate, victim=victim, evil=evil, web=web, traps=[named, private])


def test_a_refused_declaration_gets_an_event_and_nothing_else(scene: Scene) -> None:
    world, hgate = scene.world, scene.hgate
    hgate.resolve()
    address = world.cluster.names.names[f"store.{scene.victim}.{SUFFIX}"]
    with hgate_load.constant(scene.web.place, f"http://store.{scene.victim}:8080/", to=address, clients=2) as load:
        for name, (url, audience) in ATTACKS.items():
            scene.declare(name, url, audience)
        events = {name: hgate.refusal(scene.evil, name) for name in ATTACKS}
        for name in ATTACKS:
            # Who asks for it all the same, in time before and after, is let go.
            assert hgate.hello(scene.web.place, f"outbound_.8080_._.{name}.{scene.evil}.{SUFFIX}") == b"", name
    assert load.failures == []
    assert hgate.objects(scene.evil) == []
    for name, event in events.items():
        assert event["involvedObject"]["kind"] == "Service", name
        assert len(event["message"]) > 20, event["message"]
        assert "secret" not in event["message"]
    assert set(world.audiences) <= {STORE}
    assert [asked for asked in world.google.requests if asked.api == "iamcredentials"] == []
    assert [trap.count for trap in scene.traps] == [0, 0]
    assert {request["host"] for request in world.front.requests} <= {deterministic("store")}


def test_of_two_that_claim_one_name_the_older_stays(scene: Scene) -> None:
    world, hgate = scene.world, scene.hgate
    user = hgate.user(scene.victim)
    data = {"store": OWN}
    path = f"/api/v1/namespaces/{scene.victim}/services/store"
    made = datetime.fromisoformat(world.cluster.kubernetes.admin.get(path)["metadata"]["creationTimestamp"])
    # Kubernetes knows ages by whole seconds: of two in one, the name decides.
    processes.wait_until(lambda: datetime.now(tz=UTC) - made > timedelta(seconds=1), what="the next second")
    user.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hgate"}, "data": data}, namespace=scene.victim
    )
    event = hgate.refusal(scene.victim, "hgate")
    assert "store" in event["message"]
    assert hgate.reaches(scene.web.place, f"http://store.{scene.victim}:8080/").by == "store"
    assert set(world.audiences) <= {STORE}


def test_a_redirect_leads_nowhere(scene: Scene) -> None:
    world, hgate = scene.world, scene.hgate
    scene.begin()
    world.front.add("trick", scene.web.place, redirect=deterministic("store"))
    world.front.start()
    trick = f"https://{deterministic('trick')}"
    scene.declare("trick", trick)
    name = f"outbound_.8080_._.trick.{scene.evil}.{SUFFIX}"
    answers: list[bytes] = []

    def is_asked() -> bool:
        answers.append(hgate.hello(scene.web.place, name))
        return bool(scene.noted("trick"))

    processes.wait_until(is_asked, what="the front is asked for it", timeout=60, poll=0.1)
    assert set(answers) == {b""}
    assert {request["status"] for request in scene.noted("trick")} == {307}
    assert set(world.audiences) <= {trick, STORE}


def test_tokens_are_of_the_account_that_the_admin_gave_the_namespace(scene: Scene) -> None:
    world, hgate = scene.world, scene.hgate
    account = "gate-evil@demo-project.iam.gserviceaccount.com"
    world.google.accounts.actors[account] = {hgate_world.ACCOUNT}
    hgate.policy(yaml.safe_dump({"namespaces": {"*": OWN_ONLY, scene.evil: {**OWN_ONLY, "account": account}}}))
    scene.begin()
    scene.declare("own", OWN)
    name = f"outbound_.8080_._.own.{scene.evil}.{SUFFIX}"
    processes.wait_until(
        lambda: hgate.hello(scene.web.place, name) != b"", what="the workload answers", timeout=60, poll=0.1
    )
    processes.wait_until(lambda: bool(scene.noted("own")), what="the front has noted it")
    assert {request["email"] for request in scene.noted("own")} == {account}
    assert OWN not in world.audiences
