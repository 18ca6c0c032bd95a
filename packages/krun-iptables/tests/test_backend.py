"""Which programs of which kind are taken, by what is in PATH and whether legacy tables are in use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from krun_iptables import backend
from krun_iptables.errors import Denied

if TYPE_CHECKING:
    from krun_iptables.rule import Family

FAMILIES: tuple[Family, Family] = (4, 6)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is PATH; the two kinds are two programs, under whatever names."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind in ("nft", "legacy"):
        program = tmp_path / f"xtables-{kind}-multi"
        program.touch()
        program.chmod(0o755)
    return tmp_path


def has(image: Path, kind: str, *names: str) -> None:
    for name in names:
        for what in ("save", "restore"):
            (image / f"{name}-{what}").symlink_to(image / f"xtables-{kind}-multi")


def whole(image: Path) -> None:
    for base in ("iptables", "ip6tables"):
        has(image, "nft", f"{base}-nft", base)
        has(image, "legacy", f"{base}-legacy")


@pytest.mark.parametrize("family", FAMILIES)
def test_nft_comes_first_unless_legacy_tables_are_in_use(image: Path, family: Family) -> None:
    whole(image)
    assert [one.kind for one in backend.found(family)] == ["nft", "legacy"]
    assert [one.kind for one in backend.found(family, is_legacy_used=True)] == ["legacy", "nft"]


def test_a_program_under_two_names_is_tried_once(image: Path) -> None:
    has(image, "legacy", "iptables", "iptables-legacy")
    (one,) = backend.found(4)
    assert one.kind == "legacy"


@pytest.mark.parametrize(("says", "kind"), [("iptables v1.8.9 (nf_tables)", "nft"), ("iptables v1.6.1", "legacy")])
def test_a_plain_program_is_of_the_kind_that_its_version_says(image: Path, says: str, kind: str) -> None:
    for what in ("save", "restore"):
        (image / f"iptables-{what}").write_text(f"#!/bin/sh\necho '{says}'\n")
        (image / f"iptables-{what}").chmod(0o755)
    assert [(one.kind, one.name) for one in backend.found(4)] == [(kind, "iptables")]


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_a_kind_that_is_asked_for_is_the_only_one(image: Path, kind: str) -> None:
    whole(image)
    assert [one.name for one in backend.found(4, kind=kind)] == [f"iptables-{kind}"]
    assert [one.name for one in backend.found(6, kind=kind)] == [f"ip6tables-{kind}"]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_any_it_is_not_permitted(image: Path, family: Family) -> None:
    with pytest.raises(Denied, match="PATH"):
        backend.some(family)


def test_both_programs_of_a_kind_are_needed(image: Path) -> None:
    (image / "iptables-nft-save").symlink_to(image / "xtables-nft-multi")
    assert backend.found(4) == ()
