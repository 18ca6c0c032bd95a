"""Steps from what is seen to what is wanted: decided, and in an order that leaves no call without mutual TLS."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hgate import events, reconcile, written
from hgate.declaration import Ref
from hgate.events import Told
from hgate.manifest import Manifest
from hgate.reconcile import Create, Delete, Keep, Replace, plan
from hgate.refusal import Refusal
from hgate.registration import Registry, Result

OWN = "123456789"
OWNERS = {"uid-web"}


def service(url: str, **annotations: str) -> dict[str, Any]:
    said = {"hgate.krun/url": url, **{f"hgate.krun/{key}": value for key, value in annotations.items()}}
    return {
        "metadata": {"name": "web", "namespace": "demo", "uid": "uid-web", "annotations": said},
        "spec": {"ports": [{"name": "http", "port": 8080}], "selector": {"app": "web"}},
    }


def result(*urls: str, **annotations: str) -> Result:
    made = Registry(None, "10.1.2.3", OWN)
    made.put("Service", service(" ".join(urls), **annotations))
    return made.result()


def url(region: str = "us-central1") -> str:
    return f"https://web-{OWN}.{region}.run.app"


def seen(items: list[Manifest]) -> dict[written.Key, dict[str, Any]]:
    """As the server gives them back in a list: without their kind, with its own fields."""
    found = {}
    for number, item in enumerate(items):
        read = copy.deepcopy(item)
        read["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": str(number)}
        key = written.key_of(item)
        del read["kind"], read["apiVersion"]
        found[key] = read
    return found


def test_what_is_missing_is_made_and_what_is_there_is_left() -> None:
    wanted = result(url()).wanted
    assert [type(step) for step in plan(wanted, {})] == [Create] * len(wanted)
    assert plan(wanted, seen(wanted), may_delete=True, known=OWNERS, has_cloud_run=True) == []


def test_only_what_says_something_else_is_replaced() -> None:
    before = seen(result(url()).wanted)
    (step,) = plan(result(url(), timeout="20").wanted, before)
    assert isinstance(step, Replace)
    assert step.item["kind"] == "DestinationRule"


def test_an_owner_that_was_made_anew_owns_what_is_there() -> None:
    wanted = result(url()).wanted
    before = seen(wanted)
    before["DestinationRule", "demo", "web"]["metadata"]["ownerReferences"][0]["uid"] = "uid-of-before"
    (step,) = plan(wanted, before)
    assert isinstance(step, Replace)


def test_what_a_person_changed_or_made_is_no_step_but_to_say_so() -> None:
    wanted = result(url(), timeout="20").wanted
    before = seen(result(url()).wanted)
    before["DestinationRule", "demo", "web"]["spec"]["host"] = "elsewhere"
    assert [type(step) for step in plan(wanted, before)] == [Keep]
    assert [type(step) for step in plan([], before, may_delete=True, known=OWNERS)].count(Keep) == 1
    before["DestinationRule", "demo", "web"]["metadata"]["labels"] = {}
    assert plan(wanted, before) == []


def test_endpoints_go_before_what_makes_calls_to_them_mutual_tls() -> None:
    steps = plan([], seen(result(url(), url("europe-west1")).wanted), may_delete=True, known=OWNERS, has_cloud_run=True)
    kinds = [each.old["kind"] for each in steps if isinstance(each, Delete)]
    assert len(kinds) == len(steps) == 10
    assert kinds == sorted(kinds, key=reconcile.LEAVING.index)
    assert kinds.index("VirtualService") < kinds.index("WorkloadEntry") < kinds.index("DestinationRule")


def test_an_owner_that_nobody_has_judged_is_asked_for_first() -> None:
    steps = plan([], seen(result(url()).wanted), may_delete=True, known=())
    assert steps
    assert all(isinstance(each, Delete) and [owner["uid"] for owner in each.doubtful] == ["uid-web"] for each in steps)


def test_without_leave_to_delete_nothing_goes() -> None:
    assert plan([], seen(result(url()).wanted), may_delete=False, known=OWNERS, has_cloud_run=True) == []


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.booleans())
def test_from_any_part_of_it_the_steps_lead_to_the_whole(there: set[int], old: set[int], is_split: bool) -> None:
    urls = (url(), url("europe-west1")) if is_split else (url(),)
    wanted = result(*urls).wanted
    stale = {written.key_of(item): item for item in result(*urls, timeout="20").wanted}
    parts = [
        stale.get(written.key_of(item), item) if number in old else item
        for number, item in enumerate(wanted)
        if number in there
    ]
    state = seen(parts)
    for step in plan(wanted, state, may_delete=True, known=OWNERS, has_cloud_run=True):
        match step:
            case Create(item=item) | Replace(item=item):
                state.update(seen([dict(item)]))
            case Delete(old=old_item):
                del state[written.key_of(old_item)]
    assert {key: written.seal_of(item) for key, item in state.items()} == {
        written.key_of(item): written.seal_of(item) for item in wanted
    }


def test_an_event_has_one_name_whoever_tells_it_and_another_after_a_while() -> None:
    ref = Ref(version="v1", kind="Service", namespace="demo", name="web", uid="uid-web")
    one = events.event(ref, reason="Refused", message="because", now=3000.0)
    assert one == events.event(ref, reason="Refused", message="because", now=3000.0)
    later = events.event(ref, reason="Refused", message="because", now=3000.0 + events.AGAIN)
    assert later["metadata"]["name"] != one["metadata"]["name"]
    assert len(events.event(ref, reason="Refused", message="x" * 5000, now=0.0)["message"]) == events.MAX_MESSAGE


def test_a_namespace_full_of_refusals_keeps_nobody_else_waiting() -> None:
    def refusal(namespace: str, number: int) -> Refusal:
        ref = Ref(version="v1", kind="Service", namespace=namespace, name=f"web-{number}", uid=f"{namespace}-{number}")
        return Refusal(ref=ref, reason="no", hint="do")

    refused = [refusal("full", number) for number in range(1000)] + [refusal("demo", 1)]
    told = [each.ref.namespace for each in reconcile.few(refused, told=Told())]
    assert (told.count("full"), told.count("demo")) == (reconcile.MAX_EVENTS, 1)
