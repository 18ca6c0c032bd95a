"""The mesh's roots are followed, and no others: what the agent was told of becomes what istiod is known by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from krun_launch.plan import Roots
from krun_launch.roots import Follower
from krun_testbed.certificates import Authority


@pytest.fixture(scope="module")
def roots() -> list[str]:
    """Three roots, PEM."""
    return [Authority(name=name).root.decode() for name in ("first", "second", "third")]


class Files:
    """The two files, and who follows."""

    def __init__(self, folder: Path, *, given: str) -> None:
        self.file, self.learnt = folder / "root.pem", folder / "learnt.pem"
        self.file.write_text(given)
        self.follower = Follower(Roots(file=self.file, learnt=self.learnt))

    def tell(self, *roots: str) -> set[str]:
        """The agent has these; the roots that are ours then."""
        scratch = self.learnt.with_suffix(".new")
        scratch.write_text("".join(roots))
        scratch.rename(self.learnt)
        self.follower.act()
        return self.ours()

    def ours(self) -> set[str]:
        end = "-----END CERTIFICATE-----\n"
        return {part + end for part in self.file.read_text().split(end) if part.strip()}


def test_old_and_new_root_and_then_the_new_one_alone(tmp_path: Path, roots: list[str]) -> None:
    first, second, _ = roots
    files = Files(tmp_path, given=first)
    assert files.tell(first) == {first}
    assert files.tell(first, second) == {first, second}
    assert files.file.stat().st_mode & 0o777 == 0o600
    assert files.tell(second) == {second}


def test_control_plane_of_another_root_than_the_meshs_stays_known_by_what_was_given(
    tmp_path: Path, roots: list[str]
) -> None:
    first, second, third = roots
    files = Files(tmp_path, given=first)
    assert files.tell(second) == {first}
    assert files.tell(first, second, third) == {first}


def test_nothing_is_written_when_only_the_form_differs(tmp_path: Path, roots: list[str]) -> None:
    first, *_ = roots
    files = Files(tmp_path, given=first.replace("\n", "\r\n"))
    before = files.file.stat().st_ino
    files.tell(first)
    assert files.file.stat().st_ino == before


@pytest.mark.parametrize("told", ["", "no certificate"])
def test_what_is_no_root_changes_nothing(told: str, tmp_path: Path, roots: list[str]) -> None:
    first, second, _ = roots
    files = Files(tmp_path, given=first)
    files.tell(first)
    assert files.tell(told) == {first}
    assert files.tell(first, second) == {first, second}


def test_agent_that_has_none_yet_is_waited_for(tmp_path: Path, roots: list[str]) -> None:
    first, second, _ = roots
    files = Files(tmp_path, given=first)
    files.follower.act()
    assert files.tell(first, second) == {first, second}


def test_file_that_cannot_be_written_is_one_warning(
    tmp_path: Path, roots: list[str], logged: Callable[[], list[dict[str, Any]]]
) -> None:
    first, second, _ = roots
    files = Files(tmp_path, given=first)
    # A folder stands where the new text is written first.
    (tmp_path / ".root.pem.new").mkdir()
    files.tell(first, second)
    files.follower.act()
    assert [line["severity"] for line in logged()] == ["WARNING"]
