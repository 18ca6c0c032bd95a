"""The words on the pipe, and when they are said."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbone.notify import Notify
from hbone.work import Work


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's ends, to read and to write; both are open until the test is over."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def fill(pipe: int) -> None:
    """Write until the pipe, which does not wait, takes no more."""
    with contextlib.suppress(BlockingIOError):
        while os.write(pipe, bytes(65536)):
            pass


def test_words_are_lines(pipe: tuple[int, int]) -> None:
    notify = Notify(str(pipe[1]))
    notify.ready()
    notify.idle()
    assert os.read(pipe[0], 100) == b"ready\nidle\n"


def test_pipe_is_not_inherited_further(pipe: tuple[int, int]) -> None:
    os.set_inheritable(pipe[1], True)
    Notify(str(pipe[1]))
    assert not os.get_inheritable(pipe[1])


def test_pipe_that_nobody_reads_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    Notify(str(writing)).ready()
    os.close(writing)


def test_full_pipe_is_not_waited_for(pipe: tuple[int, int]) -> None:
    notify = Notify(str(pipe[1]))
    fill(pipe[1])
    notify.ready()
    assert os.read(pipe[0], 2**20).strip(b"\0") == b""


@pytest.mark.parametrize("number", ["", "0", "1", "2", "-3", "x", "3.0", "\u0663", "99999999", "9" * 30])
def test_number_that_is_no_pipe_above_the_standard_streams_is_passed_over(number: str) -> None:
    Notify(number).ready()


def test_file_that_is_no_pipe_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as file:
        Notify(str(file.fileno())).ready()
    assert path.read_bytes() == b""


def test_idle_is_told_at_once_when_nothing_is_under_way() -> None:
    told: list[str] = []
    work = Work(idle=lambda: told.append("idle"))
    assert told == []
    work.drain()
    assert told == ["idle"]


def test_idle_is_told_once_and_after_the_last_request() -> None:
    told: list[str] = []
    work = Work(idle=lambda: told.append("idle"))
    with work.one():
        with work.one():
            work.drain()
        assert told == []
    assert told == ["idle"]
    with work.one():
        work.drain()
    assert told == ["idle"]


def test_request_that_fails_is_over_too() -> None:
    told: list[str] = []
    work = Work(idle=lambda: told.append("idle"))

    def serve() -> None:
        with work.one():
            work.drain()
            assert told == []
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        serve()
    assert told == ["idle"]
