"""What a thread of stdin or stdout has done is told, however threads take turns."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import pytest

from hbone import stdio

ROUNDS = 3000
PATIENCE = 30.0  # seconds


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_no_outcome_is_lost_to_who_looks_all_the_time() -> None:
    reads, writes = os.pipe()
    worker = stdio._Worker(lambda data: data, wake=writes)
    end = time.monotonic() + PATIENCE
    for number in range(ROUNDS):
        data = b"%d" % number
        worker.ask(data)
        while (outcome := worker.take()) is None:
            assert time.monotonic() < end, "the outcome never came"
        assert outcome == data
        assert os.read(reads, 1) == b"."


def test_error_is_told_and_the_thread_goes_on() -> None:
    reads, writes = os.pipe()

    def fail(data: bytes) -> bytes:
        if not data:
            raise BrokenPipeError(32, "Broken pipe")
        return data

    worker = stdio._Worker(fail, wake=writes)
    worker.ask(b"")
    assert os.read(reads, 1) == b"."
    with pytest.raises(BrokenPipeError):
        worker.take()
    assert not worker.is_busy
    worker.ask(b"x")
    assert os.read(reads, 1) == b"."
    assert worker.take() == b"x"
