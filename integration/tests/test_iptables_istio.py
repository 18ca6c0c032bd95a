"""krun-iptables decides what the real ``pilot-agent istio-iptables`` decides, for settings by the thousand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings

from krun_testbed import components, istio_build, istio_iptables, istio_settings
from krun_testbed.istio_iptables import Machine
from krun_testbed.istio_named import NAMED, Asked

IS_LONG = bool(os.environ.get("KRUN_SOAK"))
pytestmark = [pytest.mark.istio, pytest.mark.timeout(3600 if IS_LONG else 900)]

Machines = Callable[[tuple[str, ...]], Machine]
VERSIONS = {"newest": istio_build.NEWEST, **({"older": istio_build.OLDER} if IS_LONG else {})}
KINDS = {"iptables": (), "nftables": ("--native-nftables",)}
# Each is of some four settings: hundreds, or thousands.
EXAMPLES = 600 if IS_LONG else 40
REFUSED = (2, 78)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    for version in VERSIONS.values():
        istio_build.make(istio_build.AGENT, version=version)
    with istio_iptables.machines() as of:
        yield of


def ours(place: Machine, asked: Asked, *flags: str, word: bool = True) -> subprocess.CompletedProcess[str]:
    """The same flags and variables to our command, on the same machine; ``word``: with pilot-agent's word for it."""
    words = ["istio-iptables"] if word else []
    return place.run([components.command("krun-iptables"), *words, "--dry-run", *asked.flags, *flags], env=asked.env)


def rules(kind: str, text: str) -> dict[str, list[str]]:
    return istio_iptables.restored(text) if kind == "iptables" else istio_iptables.listed(text)


def without_lost_jumps(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Istio's nftables without the jumps into chains that it does not make, which the kernel refuses.

    It decides so where servers of DNS are of IPv6 only, and IPv6 is off.
    """
    kept: dict[str, list[str]] = {}
    for name, lines in found.items():
        table = name.split()[0]
        targets = [line.partition("jump ")[2] for line in lines]
        made = [not target or f"{table} {target}" in found for target in targets]
        kept[name] = [line for line, is_made in zip(lines, made, strict=True) if is_made]
    used = {name for name, lines in kept.items() if lines}
    return {name: lines for name, lines in kept.items() if lines and name.removesuffix(" hook") in used}


def compare(place: Machine, asked: Asked, *, kind: str, version: str) -> str:
    """Nothing when both decide the same; else what each says."""
    theirs = istio_iptables.ask(place, *asked.flags, *KINDS[kind], env=asked.env, version=version)
    done = ours(place, asked, *KINDS[kind])
    if theirs.status != 0 or done.returncode != 0:
        both = theirs.status != 0 and done.returncode in REFUSED
        return "" if both else f"{asked}\nIstio: {theirs.status} {theirs.said}\nwe: {done.returncode} {done.stderr}"
    expected, got = without_lost_jumps(rules(kind, theirs.text)), rules(kind, done.stdout)
    assert expected, f"Istio decided on no rules at all: {asked}"
    return "" if got == expected else f"{asked}\n{difference(expected, got)}"


def difference(expected: dict[str, list[str]], got: dict[str, list[str]]) -> str:
    """Where two sets of rules differ first, in each chain or table."""
    said = []
    for name in sorted(expected.keys() | got.keys()):
        theirs, mine = expected.get(name, []), got.get(name, [])
        if theirs != mine:
            at = next(
                (i for i, (a, b) in enumerate(zip(theirs, mine, strict=False)) if a != b), min(map(len, (theirs, mine)))
            )
            said.append(f"{name}, rule {at}\n  Istio: {theirs[at : at + 3]}\n  we:    {mine[at : at + 3]}")
    return "\n".join(said)


def compare_all(machines: Machines, several: list[Asked], *, kind: str, version: str) -> None:
    place = machines(several[0].addresses)
    place.resolv(several[0].resolv)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        said = pool.map(lambda asked: compare(place, asked, kind=kind, version=version), several)
        differ = [text for text in said if text]
    assert not differ, "\n\n".join(differ)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMED)
def test_a_configuration_that_istio_names_gives_its_rules(
    machines: Machines, name: str, kind: str, version: str
) -> None:
    compare_all(machines, [NAMED[name]], kind=kind, version=VERSIONS[version])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_settings_give_the_rules_of_istio(machines: Machines, kind: str, version: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(istio_settings.asked())
    def same(several: list[Asked]) -> None:
        compare_all(machines, several, kind=kind, version=VERSIONS[version])

    same()


@pytest.mark.parametrize("name", NAMED)
def test_flags_of_istio_alone_mean_the_same_without_its_word(machines: Machines, name: str) -> None:
    asked = NAMED[name]
    place = machines(asked.addresses)
    place.resolv(asked.resolv)
    done = ours(place, asked, word=False)
    assert done.stdout == ours(place, asked).stdout
    assert (done.returncode, bool(done.stdout)) == (0, True)


def test_lost_jumps_are_taken_from_istio_only_where_the_chain_is_missing() -> None:
    hook = ["{ type nat hook output priority -100 ; }"]
    found = {"t output hook": hook, "t output": ["counter jump a", "counter jump b"], "t a": ["counter return"]}
    assert without_lost_jumps(found) == {**found, "t output": ["counter jump a"]}
    assert without_lost_jumps({"t output hook": hook, "t output": ["counter jump b"]}) == {}
