"""The file that a token is written to: whole, its owner's, and nothing that must not be replaced."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from krun_discover.errors import Denied, Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_discover.token_file import TokenFile, mode, owner


def token(value: str) -> Token:
    return Token(value=value, expires=0.0, source="a test")


def test_the_file_holds_the_token_alone_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "token"
    TokenFile(path=str(path)).write(token("one"))
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    TokenFile(path=str(path), mode=0o640).write(token("two"))
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_token_or_the_new_one_whole(tmp_path: Path) -> None:
    file = TokenFile(path=str(tmp_path / "token"))
    values = {"a" * 20_000, "b" * 20_000}
    file.write(token("a" * 20_000))
    seen: set[str] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add((tmp_path / "token").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        file.write(token(sorted(values)[number % 2]))
    ended.set()
    reader.join()
    assert seen <= values


def test_the_owner_is_whom_the_flag_names(tmp_path: Path) -> None:
    uid, gid = (1337, 1338) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    TokenFile(path=str(tmp_path / "token"), uid=uid, gid=gid).write(token("one"))
    found = (tmp_path / "token").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (uid, gid, 0o600)


def test_a_link_a_device_and_a_folder_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (Path("/dev/null"), Path("/dev/stdout"), tmp_path, tmp_path / "link"):
        with pytest.raises(Misconfigured, match="not a regular file"):
            TokenFile(path=str(path)).check()
    TokenFile(path=str(tmp_path / "new")).check()


def test_a_folder_that_is_not_there_is_told_and_nothing_is_left_over(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file") as caught:
        TokenFile(path=str(tmp_path / "no" / "token")).write(token("one"))
    assert caught.value.hint.endswith(f"mkdir -p {tmp_path}/no")
    (tmp_path / "token").mkdir()
    with pytest.raises((Misconfigured, Unreachable)):
        TokenFile(path=str(tmp_path / "token")).write(token("one"))
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_a_place_where_nobody_may_write_is_denied() -> None:
    with pytest.raises(Denied, match="/sys/token cannot be written"):
        TokenFile(path=str(Path("/sys/token"))).write(token("one"))


def test_owners_are_numbers() -> None:
    assert owner("1337") == (1337, -1)
    assert owner("0:1337") == (0, 1337)
    for text in ("", "root", "1:", ":1", "-1", "1:2:3", "9" * 11):
        with pytest.raises(ValueError, match="UID"):
            owner(text)


def test_modes_are_octal_and_let_the_owner_read() -> None:
    assert mode("0600") == mode("600") == mode("0o600") == 0o600
    assert mode("0444") == 0o444
    for text in ("", "rw", "0999", "0700", "0200", "12345", "-600"):
        with pytest.raises(ValueError, match="0600"):
            mode(text)
