"""The folder for Envoy's files: private, and gone at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from krun_launch import rundir
from krun_launch.errors import Misconfigured

FILES = {"envoy.json": "{}", "sds/one.json": "1"}


def test_private_folder_is_ours_alone_and_goes_with_us(tmp_path: Path) -> None:
    folder = rundir.path({"TMPDIR": str(tmp_path)}, suffix="abc")
    assert folder == tmp_path / "krun-launch-abc"
    with rundir.written(folder, files=FILES, is_kept=False):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "sds/one.json").read_text() == "1"
        assert {file.stat().st_mode & 0o777 for file in folder.rglob("*.json")} == {0o600}
    assert list(tmp_path.iterdir()) == []


def test_private_folder_goes_also_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), rundir.written(tmp_path / "run", files=FILES, is_kept=False):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_folder_that_somebody_put_there_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be written"), rundir.written(tmp_path, files=FILES, is_kept=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_named_folder_is_kept_and_written_again(tmp_path: Path) -> None:
    folder = rundir.path({"KRUN_RUN_DIR": str(tmp_path / "a" / "b")}, suffix="abc")
    for _ in range(2):
        with rundir.written(folder, files=FILES, is_kept=True):
            pass
    assert (folder / "envoy.json").read_text() == "{}"


def test_folder_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(Misconfigured, match=r"run folder .*/file/run: cannot be written: Not a directory"),
        rundir.written(tmp_path / "file" / "run", files=FILES, is_kept=True),
    ):
        pass


def test_name_of_a_dry_run_is_a_placeholder() -> None:
    assert rundir.path({"TMPDIR": "/scratch"}) == Path("/scratch/krun-launch-XXXXXXXX")
