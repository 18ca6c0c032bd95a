"""A secret's files: as a volume shows them, changed at once, and safe from what else is there."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import secret_files
from krun_discover.errors import DeadlinePassed, Denied, Malformed, Misconfigured, Unreachable
from krun_testbed import processes

OLD, NEW = {"user": b"old", "gone": b"x"}, {"user": b"new", "key.pem": b"\0\xff"}


def write(folder: Path, files: dict[str, bytes], *, seconds: float = 20) -> bool:
    secret_files.check(files, what="secret demo/db")
    return secret_files.write(folder, files, deadline=time.monotonic() + seconds)


def seen(folder: Path) -> dict[str, bytes]:
    """What an application sees: names without two dots before them."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("..")}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".."))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_files_look_like_those_of_a_volume(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert write(folder, NEW)
    assert seen(folder) == NEW
    data = folder / "..data"
    assert str((folder / "user").readlink()) == "..data/user"
    assert hidden(folder) == sorted(["..data", str(data.readlink())])
    assert str(data.readlink()).startswith("..20")
    assert [mode(folder), mode(folder / data.readlink()), mode(data / "user")] == [0o700, 0o700, 0o600]


def test_the_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from krun_discover import secret_files\n"
        "import os; os.umask(0)\n"
        "secret_files.write(Path(sys.argv[1]), {'a': b'x'}, deadline=time.monotonic() + 20)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], check=True)
    assert [mode(tmp_path / "s"), mode(tmp_path / "s/..data/a")] == [0o700, 0o600]


def test_an_existing_empty_folder_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    write(tmp_path, NEW)
    assert mode(tmp_path) == 0o700


def test_keys_that_are_gone_vanish_and_values_change(tmp_path: Path) -> None:
    assert write(tmp_path, OLD)
    assert write(tmp_path, NEW)
    assert seen(tmp_path) == NEW
    assert len(hidden(tmp_path)) == 2


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, NEW)
    before = (tmp_path / "..data").readlink()
    assert not write(tmp_path, NEW)
    assert (tmp_path / "..data").readlink() == before
    assert seen(tmp_path) == NEW


def test_a_secret_without_keys_is_an_empty_folder(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    write(tmp_path, {})
    assert seen(tmp_path) == {}


def test_whoever_has_a_file_open_keeps_what_he_reads(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    with (tmp_path / "user").open("rb") as file:
        write(tmp_path, NEW)
        assert file.read() == b"old"


def test_a_file_and_a_link_that_somebody_removed_or_changed_come_back(tmp_path: Path) -> None:
    write(tmp_path, NEW)
    (tmp_path / "user").unlink()
    assert not write(tmp_path, NEW)
    (tmp_path / "..data" / "user").write_bytes(b"other")
    assert write(tmp_path, NEW)
    assert seen(tmp_path) == NEW


@pytest.mark.parametrize(
    "name", ["", ".", "..", "..data", "..x", "a/b", "../a", "/etc/x", "a\0", "ä", "a b", "a" * 254]
)
def test_keys_that_are_no_names_of_files_are_refused_whole(name: str) -> None:
    with pytest.raises(Malformed, match=r"secret demo/db: key .* cannot be a file's name") as caught:
        secret_files.check({"good": b"", name: b"canary-6a1f"}, what="secret demo/db")
    assert "canary" not in caught.value.message
    assert caught.value.message.isprintable()


@given(name=st.text() | st.text(alphabet="./-_aA0", max_size=6))
def test_no_key_leads_out_of_its_folder(name: str) -> None:
    try:
        secret_files.check({name: b""}, what="x")
    except Malformed:
        return
    assert "/" not in name
    assert name not in ("", ".")
    assert not name.startswith("..")
    assert name.isascii()
    assert os.fsencode(name)


def test_a_folder_that_is_in_other_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root", encoding="utf-8")
    tmp_path.chmod(0o755)
    with pytest.raises(Misconfigured, match="holds 'passwd', which is not of a secret"):
        write(tmp_path, NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["passwd"]
    assert mode(tmp_path) == 0o755


def test_a_file_of_somebody_else_beside_ours_stays_unless_a_key_has_its_name(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    (tmp_path / "notes").write_bytes(b"mine")
    write(tmp_path, NEW)
    assert seen(tmp_path) == NEW | {"notes": b"mine"}
    with pytest.raises(Misconfigured, match="holds 'notes'"):
        write(tmp_path, {"notes": b"theirs"})
    assert (tmp_path / "notes").read_bytes() == b"mine"


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="cannot be written: File exists"):
        write(tmp_path / "file", NEW)
    with pytest.raises(Misconfigured, match="cannot be written: Not a directory"):
        write(tmp_path / "file" / "x", NEW)
    (tmp_path / "data" / "..data").mkdir(parents=True)
    with pytest.raises(Misconfigured, match="cannot be written: Is a directory"):
        write(tmp_path / "data", NEW)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EACCES, Denied), (errno.EROFS, Denied), (errno.ENOSPC, Unreachable), (errno.EIO, Unreachable)],
)
def test_errors_of_the_system_have_their_status(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="cannot be written"), secret_files._failures(tmp_path):
        raise OSError(number, os.strerror(number))


@pytest.mark.loopback
@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_a_folder_that_we_may_not_write_to_is_denied(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from krun_discover import errors, secret_files\n"
        "os.setuid(65534)\n"
        "try: secret_files.write(Path(sys.argv[1]), {'a': b'x'}, deadline=time.monotonic() + 20)\n"
        "except errors.Denied as error: print(error.message)"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "cannot be written: Permission denied" in done.stdout


@pytest.mark.loopback
@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_the_files_can_be_somebody_elses_to_read(tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    for files, owner in ((NEW, (1234, 5678)), (NEW, (1234, 5679)), (OLD, (1234, -1))):
        secret_files.write(folder, files, deadline=time.monotonic() + 20, owner=owner)
        paths = [folder, folder / (folder / "..data").readlink(), *(folder / "..data").iterdir()]
        assert {path.stat().st_uid for path in paths} == {1234}
        assert {path.stat().st_gid for path in paths if owner[1] != -1} <= {owner[1]}
        assert {mode(path) for path in paths} == {0o700, 0o600}
    assert seen(folder) == OLD


@pytest.mark.parametrize("planted", ["../outside", "/etc", "..2026_link", "..2026_pipe", "missing"])
def test_what_a_reader_has_planted_in_our_place_is_not_believed(tmp_path: Path, planted: str) -> None:
    folder, outside = tmp_path / "secret", tmp_path / "outside"
    outside.mkdir()
    (outside / "user").write_bytes(NEW["user"])
    (outside / "key.pem").write_bytes(NEW["key.pem"])
    folder.mkdir()
    (folder / "..2026_link").symlink_to("../outside")
    (folder / "..2026_pipe").mkdir()
    os.mkfifo(folder / "..2026_pipe" / "user")
    (folder / "..data").symlink_to(planted)
    assert write(folder, NEW)
    assert seen(folder) == NEW
    assert len(hidden(folder)) == 2
    assert len(list(outside.iterdir())) == 2


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(DeadlinePassed, match="another krun-secret is writing"):
            write(tmp_path, NEW, seconds=0.2)
        assert seen(tmp_path) == OLD
    finally:
        os.close(descriptor)
    assert write(tmp_path, NEW)


def leftovers(folder: Path) -> None:
    """What runs leave that were cut off at their worst moments."""
    (folder / "..2020_01_01_00_00_00.abc").mkdir()
    (folder / "..2020_01_01_00_00_00.abc" / "user").write_bytes(b"half")
    (folder / "..data_tmp").symlink_to("..2020_01_01_00_00_00.abc")


def test_what_a_run_left_that_was_cut_off_is_swept_and_nothing_is_lost(tmp_path: Path) -> None:
    leftovers(tmp_path)
    write(tmp_path, OLD)
    assert len(hidden(tmp_path)) == 2
    leftovers(tmp_path)
    assert seen(tmp_path) == OLD
    write(tmp_path, OLD)
    assert len(hidden(tmp_path)) == 2
    leftovers(tmp_path)
    write(tmp_path, NEW)
    assert seen(tmp_path) == NEW
    assert len(hidden(tmp_path)) == 2


@pytest.mark.loopback
def test_a_run_that_is_killed_at_any_moment_leaves_the_old_files_or_the_new_ones(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from krun_discover import secret_files\n"
        "print('ready', flush=True); number = 0\n"
        "while True:\n"
        "    number += 1; files = {f'k{key}': b'%d' % number for key in range(8)}\n"
        "    secret_files.write(Path(sys.argv[1]), files, deadline=time.monotonic() + 20)"
    )
    for _ in range(5):
        with processes.start([sys.executable, "-c", code, str(tmp_path)]) as running:
            running.wait_for("ready")
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                assert consistent(tmp_path)
            running.signal(signal.SIGKILL)
            assert running.ends(timeout=20)
        assert consistent(tmp_path)
    files = {"k0": b"last"}
    write(tmp_path, files)
    assert seen(tmp_path) == files
    assert len(hidden(tmp_path)) == 2


def consistent(folder: Path) -> bool:
    """All values are of one time, read as a careful reader does: by the folder that ..data names then."""
    try:
        data = folder / (folder / "..data").readlink()
        values = {path.read_bytes() for path in data.iterdir()}
    except FileNotFoundError:
        return True  # swept meanwhile, or not there yet
    return len(values) <= 1


def read(path: Path) -> bytes:
    """A look, and another: between two links of the way, a whole change may happen."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return path.read_bytes()


@pytest.mark.loopback
def test_values_only_go_forward_while_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"key": b"0"})
    code = (
        "import sys, time; from pathlib import Path; from krun_discover import secret_files\n"
        "for number in range(200):\n"
        "    secret_files.write(Path(sys.argv[1]), {'key': b'%d' % number}, deadline=time.monotonic() + 20)"
    )
    with processes.start([sys.executable, "-c", code, str(tmp_path)]) as running:
        last = -1
        while not running.ends(timeout=0):
            number = int(read(tmp_path / "key"))
            assert number >= last
            last = number
        assert running.wait() == 0
    assert (tmp_path / "key").read_bytes() == b"199"
