"""What mesh-env holds after a look at the mesh: what is known is written, what a person wrote stays."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hgate import mesh_env
from hgate.mesh_env import ROOT_KEPT, Change, Facts, address, change, is_needed, merged, roots

NOW = 1_800_000_000.0
HOUR = 3600.0


def certificate(name: str) -> str:
    body = base64.b64encode(name.encode() * 8).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----"


def written(change: Change, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """The config map after the change."""
    return merged(found, change, namespace="istio-system")


FACTS = Facts(
    public="203.0.113.7",
    internal="10.1.2.3",
    roots=certificate("old"),
    tenant="asm-1",
    network="default",
    ranges=("10.0.0.0/8", "10.96.0.0/16"),
    trust_domain="demo.svc.id.goog",
    project_id="demo",
    project_number="123",
    cluster="c",
    location="us-central1",
)


def test_all_that_is_known_is_written_into_an_empty_one() -> None:
    made = change(None, FACTS, now=NOW)
    assert made.foreign == ()
    assert dict(made.data) == {
        "MCON_ADDR": "203.0.113.7",
        "IMCON_ADDR": "10.1.2.3",
        "CAROOT_ISTIOD": certificate("old") + "\n",
        "MESH_TENANT": "asm-1",
        "MESH_NETWORK": "default",
        "OUTBOUND_IP_RANGES_INCLUDE": "10.0.0.0/8,10.96.0.0/16",
        "TRUST_DOMAIN": "demo.svc.id.goog",
        "PROJECT_ID": "demo",
        "PROJECT_NUMBER": "123",
        "CLUSTER_NAME": "c",
        "CLUSTER_LOCATION": "us-central1",
    }
    assert is_needed(None, made)


def test_what_was_written_is_not_written_again_and_follows_what_changes() -> None:
    found = written(change(None, FACTS, now=NOW))
    assert not is_needed(found, change(found, FACTS, now=NOW + 60))
    moved = change(found, Facts(internal="10.9.9.9"), now=NOW)
    assert is_needed(found, moved)
    assert moved.data["IMCON_ADDR"] == "10.9.9.9"
    # What is not known any more stays as it was known last.
    assert moved.data["MCON_ADDR"] == "203.0.113.7"


def test_a_persons_value_stays_and_is_named_and_an_emptied_one_is_ours_again() -> None:
    found: dict[str, Any] = {"metadata": {"name": "mesh-env"}, "data": {"IMCON_ADDR": "10.7.7.7", "MORE": "theirs"}}
    made = change(found, FACTS, now=NOW)
    assert made.data["IMCON_ADDR"] == "10.7.7.7"
    assert made.data["MORE"] == "theirs"
    assert made.foreign == ("IMCON_ADDR",)
    ours = written(made, found)
    # A person's change of what we wrote makes it theirs.
    ours["data"]["MCON_ADDR"] = "198.51.100.1"
    later = change(ours, FACTS, now=NOW)
    assert later.data["MCON_ADDR"] == "198.51.100.1"
    assert set(later.foreign) == {"IMCON_ADDR", "MCON_ADDR"}
    ours["data"]["MCON_ADDR"] = ""
    assert change(ours, FACTS, now=NOW).data["MCON_ADDR"] == "203.0.113.7"


def test_a_persons_value_that_is_the_same_as_ours_stays_theirs() -> None:
    found: dict[str, Any] = {"metadata": {"name": "mesh-env"}, "data": {"IMCON_ADDR": "10.1.2.3"}}
    ours = written(change(found, FACTS, now=NOW), found)
    assert change(ours, Facts(internal="10.9.9.9"), now=NOW).data["IMCON_ADDR"] == "10.1.2.3"


def test_a_root_that_the_mesh_has_left_stays_for_two_days() -> None:
    old, new = certificate("old"), certificate("new")
    found = written(change(None, FACTS, now=NOW))
    rotated = Facts(roots=new)
    found = written(change(found, rotated, now=NOW + HOUR), found)
    assert found["data"]["CAROOT_ISTIOD"] == f"{new}\n{old}\n"
    found = written(change(found, rotated, now=NOW + ROOT_KEPT - 2 * HOUR), found)
    assert found["data"]["CAROOT_ISTIOD"] == f"{new}\n{old}\n"
    found = written(change(found, rotated, now=NOW + ROOT_KEPT + HOUR), found)
    assert found["data"]["CAROOT_ISTIOD"] == f"{new}\n"


def test_a_root_that_a_person_took_out_does_not_come_back() -> None:
    old, new = certificate("old"), certificate("new")
    found = written(change(None, FACTS, now=NOW))
    found = written(change(found, Facts(roots=new), now=NOW + HOUR), found)
    found["data"]["CAROOT_ISTIOD"] = ""
    found = written(change(found, Facts(roots=new), now=NOW + HOUR), found)
    assert found["data"]["CAROOT_ISTIOD"] == f"{new}\n"
    assert old not in str(found["data"])


def test_roots_of_a_person_are_no_business_of_ours() -> None:
    found: dict[str, Any] = {"metadata": {"name": "mesh-env"}, "data": {"CAROOT_ISTIOD": certificate("theirs")}}
    made = change(found, FACTS, now=NOW)
    assert made.data["CAROOT_ISTIOD"] == certificate("theirs")
    assert "CAROOT_ISTIOD" in made.foreign


names = st.sampled_from(["a", "b", "c", "d", "e"])


@given(st.lists(st.tuples(st.lists(names, min_size=1, max_size=3), st.floats(0, 100 * HOUR)), max_size=12))
def test_roots_of_now_are_always_first_and_no_other_is_older_than_two_days(
    steps: list[tuple[list[str], float]],
) -> None:
    now, bundle = NOW, ""
    seen: dict[str, float] = {}
    last: dict[str, float] = {}
    for present, pause in steps:
        now += pause
        current = list(dict.fromkeys(present))
        bundle, seen = roots("\n".join(certificate(name) for name in current), before=bundle, seen=seen, now=now)
        found = [name for name in "abcde" if certificate(name) in bundle]
        assert bundle.startswith("".join(f"{certificate(name)}\n" for name in current))
        last |= dict.fromkeys(current, now)
        for name in "abcde":
            age = now - last.get(name, -1e12)
            if name in found:
                assert age <= ROOT_KEPT
            else:
                assert age >= ROOT_KEPT - HOUR


values = st.text(alphabet="ab\n ", max_size=3)
keys = st.sampled_from(["MCON_ADDR", "IMCON_ADDR", "MESH_TENANT", "OTHER"])


@given(st.dictionaries(keys, values), st.lists(st.tuples(keys, values), max_size=6), values)
def test_no_value_of_a_person_is_ever_lost(start: dict[str, str], edits: list[tuple[str, str]], public: str) -> None:
    found: dict[str, Any] = {"metadata": {"name": "mesh-env"}, "data": dict(start)}
    theirs = {key: value for key, value in start.items() if value.strip()}
    for key, value in [*edits, ("OTHER", "end")]:
        found = written(change(found, Facts(public=public.strip(), internal="10.1.1.1", tenant="t"), now=NOW), found)
        assert {key: found["data"][key] for key in theirs} == theirs
        found["data"][key] = value
        # What a person writes that is what we had written is still ours, and may follow.
        theirs.pop(key, None)
        if value.strip() and value not in (public.strip(), "10.1.1.1", "t"):
            theirs[key] = value


def test_the_address_of_a_load_balancer_is_its_ip_or_its_name() -> None:
    def service(*ingress: dict[str, str]) -> dict[str, Any]:
        return {"status": {"loadBalancer": {"ingress": list(ingress)}}}

    assert address(service({"ip": "10.1.2.3"})) == "10.1.2.3"
    assert address(service({"hostname": "lb.example.com"})) == "lb.example.com"
    assert address(service({}, {"ip": "fd00::1"})) == "fd00::1"
    assert address(service({"hostname": "x; rm -rf"})) == ""
    assert address(service()) == ""
    assert address({}) == ""
    assert address(None) == ""


def test_the_trust_domain_is_the_meshs() -> None:
    assert mesh_env.trust_domain({"data": {"mesh": "trustDomain: td.example\n"}}) == "td.example"
    assert mesh_env.trust_domain({"data": {"mesh": "{"}}) == ""
    assert mesh_env.trust_domain({"data": {"mesh": "trustDomain: [a]"}}) == ""
    assert mesh_env.trust_domain({"data": {}}) == ""
    assert mesh_env.trust_domain(None) == ""
