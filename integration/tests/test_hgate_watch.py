"""A watch of hgate's on a real API server, through a door that does to it what networks and servers do."""

from __future__ import annotations

import os
import queue
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hgate import errors
from hgate.kube import Kube, open_kube
from hgate.kube_answer import Answer
from hgate.watch import Changed, Event, Failed, Followed, Listed, Resource, Timing, Watch
from krun_testbed import processes
from krun_testbed.certificates import write
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_door import Door, Fault
from krun_testbed.kubernetes_kubeconfig import by_token, kubeconfig

pytestmark = pytest.mark.kubernetes

Keep = Callable[[dict[str, Any]], bool]
QUICK = Timing(watch=60.0, silence=20.0, first_pause=0.05, longest_pause=0.2)
ROUNDS = 300 if os.environ.get("KRUN_SOAK") else 30


class Seen:
    """What a watch has told, put together as its owner would."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.history: list[Event] = []
        self.items: dict[str, str] = {}  # of config maps: name to the value of "a"

    def until(self, is_it: Callable[[], bool], *, what: str) -> None:
        processes.wait_until(lambda: self._take() or is_it(), what=what)

    def count(self, kind: type[Event]) -> int:
        self._take()
        return sum(isinstance(event, kind) for event in self.history)

    def failures(self) -> list[Failed]:
        self._take()
        return [event for event in self.history if isinstance(event, Failed)]

    def _take(self) -> bool:
        while not self.events.empty():
            event = self.events.get()
            self.history.append(event)
            match event:
                case Listed(items=items):
                    self.items = {item["metadata"]["name"]: item["data"]["a"] for item in items}
                case Changed(item=item, is_gone=True):
                    self.items.pop(item["metadata"]["name"], None)
                case Changed(item=item):
                    self.items[item["metadata"]["name"]] = item["data"]["a"]
        return False


class Watched:
    """Config maps of one namespace, changed by who has another way to the API, and watched through the door."""

    def __init__(self, *, kubernetes: Kubernetes, namespace: str, door: Door, kube: Kube) -> None:
        self.kubernetes = kubernetes
        self.namespace = namespace
        self.door = door
        self.kube = kube
        self.seen = Seen()
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"
        self.watch: Watch | None = None

    def start(self, *, timing: Timing = QUICK, name: str = "", keep: Keep = lambda _: True) -> None:
        resource = Resource(kind="ConfigMap", path=self.path, name=name, keep=keep)
        self.watch = Watch(kube=self.kube, resource=resource, tell=self.seen.events.put, timing=timing)
        self.watch.start()
        self.seen.until(lambda: self.seen.count(Followed) > 0 or bool(self.seen.failures()), what="the watch has begun")

    def put(self, name: str, value: str) -> None:
        self.kubernetes.config_map(name, {"a": value}, namespace=self.namespace)

    def drop(self, name: str) -> None:
        self.kubernetes.admin.delete(f"{self.path}/{name}")

    def is_seen(self, items: dict[str, str]) -> None:
        self.seen.until(lambda: self.seen.items == items, what=f"{items} are seen")


@pytest.fixture
def watched(kubernetes: Kubernetes, namespace: str, address: str, tmp_path: Path) -> Iterator[Watched]:
    with Door(kubernetes=kubernetes, address=address) as door:
        user = f"watcher-{namespace}"
        kubernetes.apply(*may_watch(user, namespace=namespace))
        viewer = by_token(kubernetes.outsider(user))
        path = tmp_path / "kubeconfig"
        write(path=path, content=kubeconfig(server=door.url, root=door.authority.root, user=viewer).encode())
        made = Watched(
            kubernetes=kubernetes,
            namespace=namespace,
            door=door,
            kube=open_kube(kubeconfig=str(path), answer_timeout=5.0),
        )
        yield made
        if made.watch:
            made.watch.stop()


def may_watch(user: str, *, namespace: str) -> list[dict[str, object]]:
    """A role for config maps, and who has it."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "watcher", "namespace": namespace}
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata}
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": metadata}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}
    to = {"apiGroup": group, "kind": "Role", "name": "watcher"}
    return [{**role, "rules": [rule]}, {**binding, "roleRef": to, "subjects": [{"kind": "User", "name": user}]}]


def test_what_is_there_is_listed_and_what_changes_is_told(watched: Watched) -> None:
    watched.put("one", "1")
    watched.start()
    watched.is_seen({"one": "1"})
    watched.put("two", "2")
    watched.put("one", "11")
    watched.is_seen({"one": "11", "two": "2"})
    watched.drop("two")
    watched.is_seen({"one": "11"})
    assert watched.seen.count(Listed) == 1


def test_one_name_only_and_only_what_matters(watched: Watched) -> None:
    watched.start(name="one", keep=lambda item: item["data"] != {"a": "dull"})
    watched.put("two", "2")
    watched.put("one", "1")
    watched.is_seen({"one": "1"})
    watched.put("one", "dull")
    watched.is_seen({})
    watched.put("one", "2")
    watched.is_seen({"one": "2"})


def test_a_cut_watch_goes_on_where_it_was_and_lists_nothing_anew(watched: Watched) -> None:
    watched.put("one", "1")
    watched.start()
    watched.door.close()
    watched.seen.until(lambda: len(watched.seen.failures()) > 1, what="it has been tried")
    watched.put("two", "2")
    watched.drop("one")
    assert watched.seen.items == {"one": "1"}
    watched.door.open()
    watched.is_seen({"two": "2"})
    assert watched.seen.count(Listed) == 1
    failed = watched.seen.failures()[0]
    assert isinstance(failed.error, errors.Unreachable)
    assert failed.access.verb == "watch"


@pytest.mark.parametrize("status", [410, 504])
def test_an_expired_watch_is_listed_anew_and_what_went_meanwhile_is_gone(watched: Watched, status: int) -> None:
    watched.put("one", "1")
    watched.start()
    watched.door.faults.append(Fault(pattern="watch=1", times=1, status=status, reason="Expired"))
    # Two, as the server's cache keeps what was: only who lists anew forgets.
    watched.door.close()
    watched.drop("one")
    watched.put("two", "2")
    watched.door.open()
    watched.is_seen({"two": "2"})
    assert watched.seen.count(Listed) == (2 if status == 410 else 1)


def test_a_server_that_was_set_back_is_listed_anew(watched: Watched) -> None:
    watched.put("one", "1")
    watched.start()
    # As it says of a version that it will not have for long: one from before it was restored.
    watched.door.faults.append(Fault(pattern="watch=1", times=7, status=504, reason="Timeout"))
    watched.door.cut()
    watched.seen.until(lambda: watched.seen.count(Listed) == 2, what="it was listed anew")
    watched.put("one", "2")
    watched.is_seen({"one": "2"})


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(watched: Watched) -> None:
    busy = Fault(pattern="watch=1", times=1, status=429, reason="TooManyRequests", headers={"Retry-After": "2"})
    watched.door.faults.append(busy)
    watched.start()
    watched.put("one", "1")
    watched.is_seen({"one": "1"})
    (failed,) = watched.seen.failures()
    assert isinstance(failed.error, Answer)
    assert failed.pause == 2.0


def test_a_list_that_fails_tells_of_nothing_that_is_gone(watched: Watched) -> None:
    watched.put("one", "1")
    watched.start()
    refusals = [
        Fault(pattern=r"configmaps\?limit", times=3, status=500, reason="InternalError"),
        Fault(pattern=r"configmaps\?limit", times=1, cut_after=60),
        Fault(pattern="watch=1", times=1, status=410, reason="Expired"),
    ]
    watched.door.faults.extend(refusals)
    watched.door.cut()
    watched.seen.until(lambda: len(watched.seen.failures()) >= 4, what="lists have failed")
    assert watched.seen.items == {"one": "1"}
    watched.seen.until(lambda: watched.seen.count(Listed) == 2, what="it was listed anew")
    assert watched.seen.items == {"one": "1"}


def test_a_server_that_says_nothing_is_asked_again(watched: Watched) -> None:
    watched.door.faults.append(Fault(pattern="watch=1", times=2, silent=True))
    watched.start(timing=Timing(watch=60.0, silence=0.5, first_pause=0.05, longest_pause=0.2))
    watched.put("one", "1")
    watched.is_seen({"one": "1"})
    assert watched.door.count("watch=1") >= 3


def test_what_is_not_permitted_is_named(watched: Watched) -> None:
    resource = Resource(kind="Secret", path="/api/v1/secrets")
    watch = Watch(kube=watched.kube, resource=resource, tell=watched.seen.events.put, timing=QUICK)
    watch.start()
    watched.seen.until(lambda: bool(watched.seen.failures()), what="it has failed")
    watch.stop()
    failed = watched.seen.failures()[0]
    assert isinstance(failed.error, Answer)
    assert failed.error.is_denied
    assert str(failed.access) == "list secrets in all namespaces"


def test_a_kind_that_the_cluster_does_not_know_has_no_objects_until_it_does(watched: Watched) -> None:
    kube = open_kube(kubeconfig=str(watched.kubernetes.kubeconfig))
    resource = Resource(kind="Gadget", path="/apis/example.krun/v1/gadgets", is_optional=True)
    watch = Watch(kube=kube, resource=resource, tell=watched.seen.events.put, timing=QUICK)
    watch.start()
    watched.seen.until(lambda: watched.seen.count(Listed) > 0, what="there are none")
    watch.stop()
    assert watched.seen.items == {}


def test_nothing_is_lost_and_nothing_stays_whatever_happens_on_the_way(watched: Watched) -> None:
    chance = random.Random(7)
    watched.start(timing=Timing(watch=2.0, silence=1.0, first_pause=0.01, longest_pause=0.05))
    true: dict[str, str] = {}
    for number in range(ROUNDS):
        match chance.randrange(5):
            case 0:
                watched.door.cut()
            case 1:
                watched.door.faults.append(Fault(pattern="watch=1", times=1, status=410, reason="Expired"))
                watched.door.cut()
            case 2:
                watched.door.faults.append(Fault(pattern="watch=1", times=1, cut_after=chance.randrange(2000)))
                watched.door.cut()
            case 3:
                watched.door.faults.append(Fault(pattern="configmaps", times=2, status=429, reason="TooManyRequests"))
        name = f"map-{chance.randrange(8)}"
        if name in true and chance.random() < 0.4:
            watched.drop(name)
            del true[name]
        else:
            true[name] = str(number)
            watched.put(name, true[name])
    watched.is_seen(true)
