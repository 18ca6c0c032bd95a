"""Which of the kernel's tools krun-iptables takes, and that it is not permitted where none of them is let do it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, kernel_rules, namespaces, processes
from krun_testbed.kernel_rules import SETTINGS, WAYS, held
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns

KINDS = ("legacy", "nft")
BASES = ("iptables", "ip6tables")
OTHERS_RULE = ("-p", "255", "-m", "comment", "--comment", "OTHER", "-j", "RETURN")
# What they say on gVisor, each by the end of its name: iptables 1.8.9 and nft 1.0.6.
ELSEWHERE = """\
#!/bin/sh
case ${0##*/} in
*-legacy-save) exit 0 ;;
*-legacy-restore) echo "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'nat'" >&2 ;;
nft) echo "netlink: Error: cache initialization failed: Protocol not supported" >&2 ;;
*) echo "iptables-nft v1.8.9 (nf_tables): Failed to initialize nft: Protocol not supported" >&2 ;;
esac
exit 1
"""
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
# May look into any folder, as a checkout may lie in root's: it is the rules that are not permitted.
AS_NOBODY = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)


@pytest.fixture
def bare() -> Iterator[Namespace]:
    """A network namespace with addresses of both families, and no rules."""
    if os.geteuid() != 0:
        pytest.skip("rules name users that only root can be: run the tests as root")
    with namespaces.namespace() as own:
        for address in kernel_rules.ADDRESSES:
            own.must("ip", "address", "add", address, "dev", "lo")
        yield own


class Image:
    """A folder that is all of PATH, with the tools that an image has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, *names: str) -> Image:
        """These programs of this machine, each under its own name or, as NAME=PROGRAM, another."""
        for name in names:
            name, _, program = name.partition("=")
            (self.folder / name).symlink_to(components.program(program or name, package="iptables"))
        return self

    def iptables(self, kind: str, *, name: str = "", families: tuple[str, ...] = BASES) -> Image:
        """All programs of one kind of iptables; ``name`` is what stands for the kind in theirs."""
        for base in families:
            for what in ("", "-save", "-restore"):
                self.has(f"{base}{name}{what}={base}-{kind}{what}")
        return self

    def says(self, text: str) -> Image:
        """Every program there can be is this script."""
        names = [f"{base}{kind}{what}" for base in BASES for kind in ("", "-nft", "-legacy") for what in ("", "-save")]
        names += [f"{name}-restore" for name in names if not name.endswith("-save")]
        for name in ["nft", *names]:
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        return self

    def run(self, where: Namespace, *arguments: str, below: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        env = processes.environment(KRUN_LOG_FORMAT="text", PATH=str(self.folder))
        first = [components.program(below[0], package="util-linux"), *below[1:]] if below else []
        return where.run(*first, components.command("krun-iptables"), *arguments, env=env)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Image(folder)


def whole(image: Image) -> Image:
    """All that there is."""
    for kind in KINDS:
        image.iptables(kind, name=f"-{kind}")
    return image.iptables("nft").has("nft")


def taken(image: Image, where: Namespace, *flags: str) -> set[str]:
    """Apply, and say where the rules came to be."""
    done = image.run(where, "istio-iptables", *SETTINGS["redirect"], *flags)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return set(held(where).ours)


def of(kind: str) -> set[str]:
    return {f"{base}-{kind}" for base in BASES}


def test_nft_is_taken_where_nothing_is_there_yet(bare: Namespace, image: Image) -> None:
    assert taken(whole(image), bare) == of("nft")


def test_legacy_is_taken_where_it_has_rules(bare: Namespace, image: Image) -> None:
    for base in BASES:
        bare.must(f"{base}-legacy", "-A", "INPUT", *OTHERS_RULE)
    assert taken(whole(image), bare) == of("legacy")


def test_a_legacy_table_without_rules_counts_as_it_does_for_istio(bare: Namespace, image: Image) -> None:
    bare.must("iptables-legacy", "-t", "filter", "-L")
    # Each family is looked at by itself.
    assert taken(whole(image), bare) == {"iptables-legacy", "ip6tables-nft"}


def test_legacy_that_has_rules_is_no_way_where_its_programs_are_not_there(bare: Namespace, image: Image) -> None:
    for base in BASES:
        bare.must(f"{base}-legacy", "-A", "INPUT", *OTHERS_RULE)
    assert taken(image.iptables("nft", name="-nft"), bare) == of("nft")


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_without_a_kind_in_its_name_is_taken_where_no_other_is(
    bare: Namespace, image: Image, kind: str
) -> None:
    assert taken(image.iptables(kind), bare) == of(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_that_stands_for_the_plain_program_is_no_further_kind(
    bare: Namespace, image: Image, kind: str
) -> None:
    # As images have one that looks which kind is the machine's.
    image.iptables(kind, name=f"-{kind}")
    for base in BASES:
        for what in ("", "-save", "-restore"):
            (image.folder / f"{base}{what}").write_text(f'#!/bin/sh\nexec {base}-{kind}{what} "$@"\n')
            (image.folder / f"{base}{what}").chmod(0o755)
    image.has("sh=sh")
    for name in ("redirect", "dns", "redirect"):
        for more in ((), ("--force-apply",), ("--force-iptables-binary", kind, "--force-apply")):
            done = image.run(bare, "istio-iptables", *SETTINGS[name], *more)
            assert done.returncode == 0, done.stderr
            assert set(held(bare).ours) == of(kind), (name, more)
    assert image.run(bare, "--remove").returncode == 0
    assert held(bare).ours == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_under_two_names_is_one(bare: Namespace, image: Image, kind: str) -> None:
    image.iptables(kind, name=f"-{kind}").iptables(kind)
    for more in ((), ("--force-iptables-binary", kind), ("--force-iptables-binary", kind, "--force-apply")):
        assert taken(image, bare, *more) == of(kind)


def test_a_kind_that_the_kernel_refuses_is_passed_over(bare: Namespace, image: Image) -> None:
    image.says(ELSEWHERE)
    for base in BASES:
        for name in (base, f"{base}-legacy"):
            for what in ("", "-save", "-restore"):
                (image.folder / f"{name}{what}").unlink()
    assert taken(image.iptables("legacy"), bare) == of("legacy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_named_is_taken_whatever_is_there(bare: Namespace, image: Image, kind: str) -> None:
    other = KINDS[1 - KINDS.index(kind)]
    for base in BASES:
        bare.must(f"{base}-{other}", "-A", "INPUT", *OTHERS_RULE)
    assert taken(whole(image), bare, "--force-iptables-binary", kind) == of(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_named_and_not_there_is_not_permitted(bare: Namespace, image: Image, kind: str) -> None:
    image.iptables(KINDS[1 - KINDS.index(kind)])
    refused(image, bare, "istio-iptables", "--force-iptables-binary", kind, names=f"iptables-{kind}")


def test_native_needs_nft(bare: Namespace, image: Image) -> None:
    image.iptables("nft").iptables("nft", name="-nft")
    refused(image, bare, "istio-iptables", "--native-nftables", names="nft")
    assert taken(image.has("nft"), bare, "--native-nftables") == {"native"}


def test_programs_for_ipv6_are_needed_only_where_it_is_on(bare: Namespace, image: Image) -> None:
    image.iptables("nft", families=("iptables",))
    refused(image, bare, "istio-iptables", *SETTINGS["redirect"], names="ip6tables")
    done = image.run(bare, "istio-iptables", "-b", "*")
    assert done.returncode == 0, done.stderr
    assert set(held(bare).ours) == {"iptables-nft"}


def refused(image: Image, where: Namespace, *arguments: str, names: str = "", below: tuple[str, ...] = ()) -> None:
    """It is not permitted, which one line says, and nothing is changed."""
    before = held(where)
    done = image.run(where, *arguments, below=below)
    assert (done.returncode, done.stdout) == (77, ""), done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("krun-iptables: error: ")
    assert names in error
    assert hint.startswith("hint: ")
    assert held(where) == before


ASKED = [*([*flags, *SETTINGS["tproxy"]] for flags in ((), *WAYS.values())), ["--cleanup-only"]]
IDS = ["auto", *WAYS, "remove"]


@pytest.mark.parametrize("arguments", ASKED, ids=IDS)
def test_without_any_program_it_is_not_permitted(bare: Namespace, image: Image, arguments: list[str]) -> None:
    done = bare.run(components.command("krun-iptables"), "istio-iptables", *SETTINGS["dns"])
    assert done.returncode == 0, done.stderr
    refused(image, bare, "istio-iptables", *arguments)


def test_nothing_is_removed_where_nothing_is_though_there_is_no_program(bare: Namespace, image: Image) -> None:
    done = image.run(bare, "--remove")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("arguments", ASKED, ids=IDS)
@pytest.mark.parametrize("below", [WITHOUT_NET_ADMIN, AS_NOBODY], ids=["without-net-admin", "another-user"])
def test_without_net_admin_it_is_not_permitted(
    bare: Namespace, image: Image, arguments: list[str], below: tuple[str, ...]
) -> None:
    taken(whole(image), bare)
    refused(image, bare, "istio-iptables", *arguments, below=below)


@pytest.mark.parametrize("arguments", ASKED[:-1], ids=IDS[:-1])
def test_a_sandbox_whose_kernel_has_none_of_it_does_not_permit_it(
    bare: Namespace, image: Image, arguments: list[str]
) -> None:
    refused(image.says(ELSEWHERE), bare, "istio-iptables", *arguments)


def test_a_user_namespace_without_the_proxys_ids_is_not_permitted(bare: Namespace) -> None:
    # As in a container of a user who has no further ids: the kernel refuses rules about users that are not there.
    unshare = components.program("unshare", package="util-linux")
    own = (unshare, "--user", "--map-root-user", "--net")
    done = bare.run(*own, components.command("krun-iptables"), "istio-iptables", "--force-iptables-binary", "nft")
    assert done.returncode == 77, done.stderr
    assert "1337" in done.stderr
