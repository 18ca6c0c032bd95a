"""What Istio's own program refuses krun-iptables refuses too, by a line that says where the mistake is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings

from krun_testbed import components, istio_build, istio_iptables, istio_refusals
from krun_testbed.istio_iptables import V4, Machine
from krun_testbed.istio_named import Asked
from krun_testbed.istio_refusals import Wrong

IS_LONG = bool(os.environ.get("KRUN_SOAK"))
pytestmark = [pytest.mark.istio, pytest.mark.timeout(3600 if IS_LONG else 900)]

Machines = Callable[[tuple[str, ...]], Machine]
VERSIONS = istio_build.VERSIONS if IS_LONG else (istio_build.NEWEST,)
USAGE, MISCONFIGURED = 2, 78
# Each is of some four settings: hundreds, or thousands.
EXAMPLES = 300 if IS_LONG else 12
KINDS = {"iptables": (), "nftables": ("--native-nftables",)}


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with istio_iptables.machines() as of:
        yield of


def ours(place: Machine, asked: Asked, *flags: str) -> subprocess.CompletedProcess[str]:
    """The same flags and variables to our command, on the same machine."""
    return place.run(
        [components.command("krun-iptables"), "istio-iptables", "--dry-run", *asked.flags, *flags], env=asked.env
    )


def fault(done: subprocess.CompletedProcess[str], *named: str) -> str:
    """Nothing when this is a refusal that names all of these in its line; else what is wrong with it."""
    lines = done.stderr.splitlines()
    is_plain = (
        done.returncode in (USAGE, MISCONFIGURED)
        and done.stdout == ""
        and bool(lines)
        and lines[0].startswith("krun-iptables: error: ")
        and all(line.startswith("hint: ") for line in lines[1:])
        and len(lines) <= 2
        and all(name in lines[0] for name in named)
    )
    return "" if is_plain else f"no refusal that names {named}: {done.returncode} {done.stdout}{done.stderr}"


def told(wrong: Wrong) -> str:
    return f"{wrong.name}={wrong.value[:40]}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("wrong", istio_refusals.REFUSED, ids=told)
def test_what_istio_refuses_is_refused_by_name_and_value(machines: Machines, wrong: Wrong, version: str) -> None:
    place = machines((V4,))
    place.resolv(wrong.asked.resolv)
    theirs = istio_iptables.ask(place, *wrong.asked.flags, env=wrong.asked.env, version=version)
    assert theirs.status in (1, 255), theirs
    done = ours(place, wrong.asked)
    assert not fault(done, wrong.name, wrong.mistake)
    assert done.returncode == (USAGE if wrong.flag else MISCONFIGURED)


@pytest.mark.parametrize("words", istio_refusals.WORDS, ids=" ".join)
def test_a_command_line_that_istio_does_not_know_is_none_of_ours(machines: Machines, words: tuple[str, ...]) -> None:
    place = machines((V4,))
    assert istio_iptables.ask(place, *words).status == 255
    done = ours(place, Asked(flags=words))
    assert not fault(done, istio_refusals.WORDS[words])
    assert done.returncode == USAGE


@pytest.mark.parametrize("wrong", istio_refusals.OURS, ids=told)
def test_what_istio_hands_on_unread_is_refused(machines: Machines, wrong: Wrong) -> None:
    place = machines((V4,))
    place.resolv(wrong.asked.resolv)
    assert istio_iptables.ask(place, *wrong.asked.flags, env=wrong.asked.env).status == 0
    done = ours(place, wrong.asked)
    assert not fault(done, wrong.name, wrong.mistake)
    assert done.returncode == (USAGE if wrong.flag else MISCONFIGURED)


@pytest.mark.parametrize("words", istio_refusals.PASSED_OVER, ids=" ".join)
def test_a_word_that_istio_passes_over_is_refused(machines: Machines, words: tuple[str, ...]) -> None:
    place = machines((V4,))
    assert istio_iptables.ask(place, *words).status == 0
    done = ours(place, Asked(flags=words))
    assert not fault(done, istio_refusals.PASSED_OVER[words])
    assert done.returncode == USAGE


def compare(place: Machine, asked: Asked, *, kind: str) -> str:
    """Nothing when we refuse it well, or when we take it and Istio decides the same."""
    done = ours(place, asked, *KINDS[kind])
    if done.returncode != 0:
        # The line names one of the flags or variables, whichever was read first.
        names = [*(flag.partition("=")[0] for flag in asked.flags), *asked.env]
        faults = [fault(done, name) for name in names]
        return "" if "" in faults else f"{asked}\n{faults}"
    if has_blanks(asked):
        return ""
    theirs = istio_iptables.ask(place, *asked.flags, *KINDS[kind], env=asked.env)
    if theirs.status != 0:
        return f"{asked}\nIstio refuses, and we do not: {theirs.said}"
    read = istio_iptables.restored if kind == "iptables" else istio_iptables.listed
    expected, got = read(theirs.text), read(done.stdout)
    return "" if got == expected else f"{asked}\nIstio: {expected}\nwe: {got}"


def has_blanks(asked: Asked) -> bool:
    """Whether there are blanks around an entry of a list: nothing to us, and a part of the entry to Istio."""
    return any(sign.isspace() for text in (*asked.flags, *asked.env.values()) for sign in text)


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_is_refused_well_or_means_what_it_means_to_istio(machines: Machines, kind: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(istio_refusals.any_asked())
    def same(several: list[Asked]) -> None:
        place = machines(several[0].addresses)
        place.resolv(several[0].resolv)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            differ = [text for text in pool.map(lambda asked: compare(place, asked, kind=kind), several) if text]
        assert not differ, "\n\n".join(differ)

    same()


def test_without_any_address_there_are_rules_of_ipv4_where_istio_has_none(machines: Machines) -> None:
    place = machines(())
    assert istio_iptables.ask(place, "-i", "*").status == 1
    done = ours(place, Asked(flags=("-i", "*")))
    assert done.returncode == 0
    assert {key.split()[0] for key in istio_iptables.restored(done.stdout)} == {"4"}
    assert "no interface has an address" in done.stderr


def test_without_resolv_conf_dns_cannot_be_led_to_the_agent(machines: Machines) -> None:
    place = machines((V4,))
    unshare = components.program("unshare", package="util-linux")
    alone = [unshare, "--mount", "sh", "-c", 'mount -t tmpfs none /etc && exec "$@"', "sh"]
    flags = ["istio-iptables", "--dry-run", "--redirect-dns"]
    assert place.run([*alone, str(istio_build.binary()), *flags], env={}).returncode == 1
    done = place.run([*alone, components.command("krun-iptables"), *flags], env={})
    assert done.returncode == MISCONFIGURED
    assert not fault(done, "/etc/resolv.conf")
    capture_all = place.run([*alone, components.command("krun-iptables"), *flags, "--capture-all-dns"], env={})
    assert capture_all.returncode == 0, capture_all.stderr
