"""The folder for Envoy's files: private, and gone at the end."""

from __future__ import annotations

import os
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


def test_folders_and_links_are_made_also_where_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        with rundir.written(
            folder,
            files={},
            is_kept=True,
            folders=["a/etc/proxy"],
            shared=["a/tokens"],
            links={"a/tokens/token": "/mounted"},
        ):
            assert {path.stat().st_mode & 0o777 for path in (folder / "a", folder / "a/etc/proxy")} == {0o700}
            assert (folder / "a/tokens/token").readlink() == Path("/mounted")


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_the_owner_writes_only_where_it_may(tmp_path: Path) -> None:
    folder, gid = tmp_path / "run", 1337
    with rundir.written(
        folder, files={"a/labels": ""}, is_kept=False, owner=gid, folders=["a/etc/proxy"], shared=["a/tokens"]
    ):
        seen = {
            name: (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777)
            for name in ("a", "a/labels", "a/etc", "a/etc/proxy", "a/tokens")
            for path in [folder / name]
        }
    ours = (0, gid, 0o750)
    assert seen == {
        "a": ours,
        "a/labels": (gid, gid, 0o600),
        "a/etc": ours,
        "a/etc/proxy": (gid, gid, 0o700),
        "a/tokens": ours,
    }


def test_name_of_a_dry_run_is_a_placeholder() -> None:
    assert rundir.path({"TMPDIR": "/scratch"}) == Path("/scratch/krun-launch-XXXXXXXX")
