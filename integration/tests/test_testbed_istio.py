"""The testbed's pilot-agent says what Istio's own tests expect of it, and what it says is read without loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from krun_testbed import istio_build, istio_iptables
from krun_testbed.istio_iptables import V4, V6, Machine
from krun_testbed.istio_named import NAMED, Asked

pytestmark = [pytest.mark.istio, pytest.mark.timeout(900)]

CAPTURE = {"iptables": "tools/istio-iptables/pkg/capture", "nftables": "tools/istio-nftables/pkg/capture"}


@pytest.fixture(scope="module")
def machines() -> Iterator[Callable[[tuple[str, ...]], Machine]]:
    istio_build.make(istio_build.AGENT)
    with istio_iptables.machines() as of:
        yield of


@pytest.fixture(scope="module")
def source() -> Path:
    return istio_build.source()


def answered(place: Machine, asked: Asked, *flags: str) -> istio_iptables.Answer:
    place.resolv(asked.resolv)
    return istio_iptables.ask(place, *asked.flags, *flags, env=asked.env)


def golden(source: Path, kind: str, name: str) -> str:
    text = (source / CAPTURE[kind] / "testdata" / f"{name}.golden").read_text(encoding="utf-8")
    # Their test gives the address as it was written; the agent reads it, and writes it as an address is written.
    return text.replace("::127.0.0.53", "::7f00:35")


@pytest.mark.parametrize("name", NAMED)
def test_a_named_configuration_gives_the_rules_that_istio_expects(
    machines: Callable[[tuple[str, ...]], Machine], source: Path, name: str
) -> None:
    asked = NAMED[name]
    place = machines(asked.addresses)
    expected = istio_iptables.restored(golden(source, "iptables", name))
    assert istio_iptables.restored(answered(place, asked).text) == expected
    assert "4 nat" in expected


@pytest.mark.parametrize("name", NAMED)
def test_a_named_configuration_gives_the_nftables_that_istio_expects(
    machines: Callable[[tuple[str, ...]], Machine], source: Path, name: str
) -> None:
    asked = NAMED[name]
    said = answered(machines(asked.addresses), asked, "--native-nftables")
    assert istio_iptables.commands(said.text) == istio_iptables.commands(golden(source, "nftables", name))


def test_names_are_those_of_istio(source: Path) -> None:
    files = {path.stem for path in (source / CAPTURE["iptables"] / "testdata").glob("*.golden")}
    assert set(NAMED) == files


def test_a_machine_decides_by_its_addresses_and_users(machines: Callable[[tuple[str, ...]], Machine]) -> None:
    def families(*addresses: str, flags: tuple[str, ...] = ()) -> set[str]:
        text = istio_iptables.ask(machines(addresses), *flags).text
        return {key.split()[0] for key in istio_iptables.restored(text)}

    assert families(V4) == {"4"}
    assert families(V6) == {"4", "6"}
    assert families(V4, V6) == {"4"}
    assert families(V4, V6, flags=("--dual-stack",)) == {"4", "6"}
    lone = istio_iptables.ask(machines(("fe80::1/64",)))
    assert (lone.status, lone.text) == (1, "")
    assert "no valid local IP address found" in lone.said
    for user, uid in (("istio-proxy", 1444), ("envoy", 1555), ("nobody-here", 1337)):
        said = istio_iptables.ask(machines((V4,)), env={"ENVOY_USER": user})
        assert f"-A ISTIO_OUTPUT -m owner --uid-owner {uid} -j RETURN" in said.text


def test_a_machine_does_not_change_the_one_it_stands_on(machines: Callable[[tuple[str, ...]], Machine]) -> None:
    before = [Path(f"/etc/{name}").read_bytes() for name in ("resolv.conf", "passwd", "group")]
    place = machines((V4,))
    place.resolv("nameserver 192.0.2.99\n")
    assert place.run(["cat", "/etc/resolv.conf"], env={}).stdout == "nameserver 192.0.2.99\n"
    assert [Path(f"/etc/{name}").read_bytes() for name in ("resolv.conf", "passwd", "group")] == before


def test_what_the_agent_refuses_is_told_from_what_it_applies(machines: Callable[[tuple[str, ...]], Machine]) -> None:
    place = machines((V4,))
    refused = istio_iptables.ask(place, "-i", "10.0.0.1")
    assert (refused.status, refused.text) == (1, "")
    assert "no '/'" in refused.said
    unknown = istio_iptables.ask(place, "--bogus")
    assert (unknown.status, unknown.text) == (255, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("* nat\nCOMMIT\n", {"4 nat": []}),
        (
            "*nat\n# why\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n"
            "*raw\n-N A\nCOMMIT\n* nat\nCOMMIT\n",
            {"4 nat": ["-N ISTIO_OUTPUT", "-A OUTPUT -j ISTIO_OUTPUT"], "4 raw": ["-N A"], "6 nat": []},
        ),
    ],
)
def test_texts_are_read_by_family_and_table(text: str, expected: dict[str, list[str]]) -> None:
    assert istio_iptables.restored(text) == expected


def test_nftables_are_read_as_they_then_stand() -> None:
    text = """\
add table inet istio-proxy-nat
# why
add chain inet istio-proxy-nat output { type nat hook output priority -100 ; }
add chain inet istio-proxy-nat istio-drop
add rule inet istio-proxy-nat output oifname "eth*" skgid "java" counter return comment "a b"
add rule inet istio-proxy-nat output ip daddr 10.1.2.3/8 counter jump istio-output
insert rule inet istio-proxy-nat output index 1 counter drop
"""
    assert istio_iptables.listed(text) == {
        "istio-proxy-nat output hook": ["{ type nat hook output priority -100 ; }"],
        "istio-proxy-nat output": [
            "oifname eth+ skgid java counter return",
            "counter drop",
            "ip daddr 10.0.0.0/8 counter jump istio-output",
        ],
    }
