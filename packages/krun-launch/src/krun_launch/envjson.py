"""Reads the environment JSON of krun-discover, and merges it under the environment of the process."""

from __future__ import annotations

import json
import os
import select
import stat
import time
from collections.abc import Mapping

from krun_launch import lines
from krun_launch.errors import DeadlinePassed, Failure, Malformed, Misconfigured
from krun_launch.signals import HARMLESS, Signals

PROGRESS = 2.0  # seconds of silence after which a person is told what is waited for
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LIMIT = 4 << 20  # bytes; far above what an execve could hand on


class Interrupted(Exception):
    """A signal came before the environment did."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Nothing(Misconfigured):
    """The end came before anything else."""


def is_pipe(descriptor: int) -> bool:
    """Tell whether a program before us writes into this descriptor."""
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def merge(*, base: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """The JSON under the environment: a variable that is set wins, an empty one counts as not set."""
    return {**base, **{key: value for key, value in found.items() if not base.get(key)}}


def read(descriptor: int, *, name: str, timeout: float, signals: Signals) -> dict[str, str]:
    """Read one JSON object; its end is enough, the writer may keep the pipe open.

    Args:
        descriptor: a pipe, terminal or file, at its beginning.
        name: what it is called in messages.
        timeout: seconds until the whole object must have come.

    Raises:
        Malformed: not what docs/environment.md describes.
        Nothing: nothing came: the program before the pipe failed.
        DeadlinePassed: the object did not come, or did not end, in time.
        Interrupted: a signal that ends a process came first.
    """
    start = time.monotonic()
    told = False
    data = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(signals.fileno(), select.POLLIN)
    while True:
        passed = time.monotonic() - start
        if passed >= timeout:
            raise _late(name=name, timeout=timeout, got=bool(data.strip()))
        if passed >= PROGRESS and not told:
            told = True
            lines.info("waiting for the environment", source=name)
        until = timeout if told else min(timeout, PROGRESS)
        ready = {number for number, _ in poll.poll(max(0.0, until - passed) * 1000 + 1)}
        _raise_interrupt(signals)
        if descriptor not in ready:
            continue
        chunk = os.read(descriptor, 65536)
        data += chunk
        if (found := parse(data, name=name, is_whole=not chunk)) is not None:
            return found


def parse(data: bytes, *, name: str, is_whole: bool) -> dict[str, str] | None:
    """The object in the bytes; None when its end has not come yet, which ``is_whole`` rules out."""
    # RFC 8259, section 8.1: a byte order mark may be ignored; editors write it.
    data = data.removeprefix(BYTE_ORDER_MARK)
    if not data.strip():
        if is_whole:
            raise Nothing(
                f"environment from {name}: it is empty: the program before the pipe failed",
                hint="see its message above; --no-env starts without one",
            )
        return None
    if not data.lstrip().startswith(b"{"):
        raise Malformed(f"environment from {name}: not a JSON object", hint="it is what krun-discover prints")
    if len(data) > LIMIT:
        raise Malformed(f"environment from {name}: more than {LIMIT} bytes")
    # Parsed again with each piece that comes, unless it cannot be the last: pieces may be small, and the whole large.
    if not is_whole and not data.rstrip().endswith(b"}"):
        return None
    try:
        text = data.decode().strip()
        value, end = json.JSONDecoder(object_pairs_hook=lambda pairs: _object(pairs, name=name)).raw_decode(text)
    except (ValueError, RecursionError) as error:
        if not is_whole:
            return None
        raise Malformed(f"environment from {name}: not JSON: {error}", hint="it is what krun-discover prints") from None
    if text[end:].strip():
        raise Malformed(f"environment from {name}: not JSON: more than one value")
    return _checked(value, name=name)


def _object(pairs: list[tuple[str, object]], *, name: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise Malformed(f"environment from {name}: {key!r} is in it twice", hint="keep one of them")
        found[key] = value
    return found


def _checked(value: Mapping[object, object], *, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, entry in value.items():
        if not isinstance(key, str) or not key or "=" in key:
            raise Malformed(f"environment from {name}: {key!r} is not the name of a variable")
        if not isinstance(entry, str):
            raise Malformed(f"environment from {name}: {key}: its value is no string", hint="quote it")
        if not _is_text(key) or not _is_text(entry):
            raise Malformed(f"environment from {name}: {key!r}: no process can hold it: NUL, or half a surrogate pair")
        found[key] = entry
    return found


def _is_text(word: str) -> bool:
    return "\0" not in word and not any("\ud800" <= character <= "\udfff" for character in word)


def _late(*, name: str, timeout: float, got: bool) -> Failure:
    what = "the JSON object did not end" if got else "nothing came"
    return DeadlinePassed(
        f"environment from {name}: {what} within {timeout:g} s",
        hint="--no-env starts without one; KRUN_ENV_TIMEOUT sets the limit",
    )


def _raise_interrupt(signals: Signals) -> None:
    for number in signals.read():
        if number not in HARMLESS:
            raise Interrupted(number)
