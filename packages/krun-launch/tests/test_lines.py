"""Log lines that are written without logging: the same that log.py writes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import lines, log

LEVELS = {name: getattr(logging, name.upper()) for name in lines.LEVELS}
VALUES = st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
FIELDS = st.dictionaries(st.sampled_from(["count", "source", "reason"]), VALUES | st.builds(Path, st.just("/a b")))


def by_logging(formatter: logging.Formatter, *, level: str, message: str, fields: dict[str, object]) -> str:
    record = logging.LogRecord("krun_launch", LEVELS[level], "", 0, message, None, None)
    record.fields = fields
    return without_time(formatter.format(record))


def without_time(line: str) -> str:
    return re.sub(r'"time": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', "", line)


@given(level=st.sampled_from(lines.LEVELS), message=st.text(), fields=FIELDS)
def test_a_line_is_the_one_that_logging_would_write(level: str, message: str, fields: dict[str, object]) -> None:
    text = lines.as_text("tool", level, message, fields)
    assert text == by_logging(log.TextFormatter(tool="tool"), level=level, message=message, fields=fields)
    json = lines.as_json("tool", level, message, fields)
    assert without_time(json) == by_logging(log.JsonFormatter(tool="tool"), level=level, message=message, fields=fields)


@pytest.mark.parametrize(("level", "written"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")])
@pytest.mark.usefixtures("logged")
def test_what_is_below_the_level_is_not_written(level: str, written: str, capfd: pytest.CaptureFixture[str]) -> None:
    lines.configure(tool="tool", level=level, style="text")
    lines.debug("d")
    lines.info("i", count=1)
    lines.warning("w")
    lines.error("e")
    expected = {
        "d": "tool: d\n",
        "i": "tool: i count=1\n",
        "w": "tool: warning: w\n",
        "e": "tool: error: e\n",
    }
    assert capfd.readouterr().err == "".join(expected[sign] for sign in written)


def test_style_and_signs_of_a_container_are_those_of_logging() -> None:
    assert (lines.LEVELS, lines.PATIENCE) == (log.LEVELS, log.PATIENCE)
    assert lines.CONTAINER_VARIABLES == log.CONTAINER_VARIABLES
    assert lines.CONTAINER_FILES == log.CONTAINER_FILES


@pytest.mark.usefixtures("logged")
def test_a_reader_that_is_gone_or_does_not_read_stops_nobody() -> None:
    reader, writer = os.pipe()
    kept = os.dup(lines.STDERR)
    lines.configure(tool="tool", style="text")
    try:
        os.dup2(writer, lines.STDERR)
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        lines.info("nobody reads")
        os.close(reader)
        lines.info("nobody is there")
    finally:
        os.dup2(kept, lines.STDERR)
        os.close(kept)
        os.close(writer)
