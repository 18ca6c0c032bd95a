"""Log lines without logging, which with all it brings is a tenth of a start: the lines that ``log`` writes.

They are the process's, as logging itself is. A test holds that both write the same.
"""

from __future__ import annotations

import os
import select
import time

LEVELS = (DEBUG, INFO, WARNING, ERROR) = ("debug", "info", "warning", "error")
STDERR = 2
PATIENCE = 0.1  # seconds that a line may wait for its reader
# Signs of a container, as in ``log``.
CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
CONTAINER_VARIABLES = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "KUBERNETES_SERVICE_HOST")

_wanted: dict[str, str] = {"tool": "krun-launch", "level": INFO, "style": "auto"}


def configure(*, tool: str, level: str = INFO, style: str = "auto") -> None:
    """How lines look, see ``log.configure``; for the process, before its first line."""
    _wanted.update(tool=tool, level=level, style=style)


def debug(message: str, /, **fields: object) -> None:
    """Something that only a search for a bug needs."""
    write(DEBUG, message, **fields)


def info(message: str, /, **fields: object) -> None:
    """Something that happened, as it should."""
    write(INFO, message, **fields)


def warning(message: str, /, **fields: object) -> None:
    """Something that a person may want to mend."""
    write(WARNING, message, **fields)


def error(message: str, /, **fields: object) -> None:
    """Something that a person has to mend."""
    write(ERROR, message, **fields)


def write(level: str, message: str, /, **fields: object) -> None:
    """A line of this level, when there are to be such ones; never waits for a reader, and never fails."""
    if LEVELS.index(level) < LEVELS.index(_wanted["level"]) or not _is_read():
        return
    if _wanted["style"] == "auto":
        _wanted["style"] = _style()
    line = (as_json if _wanted["style"] == "json" else as_text)(_wanted["tool"], level, message, fields)
    try:  # noqa: SIM105 - contextlib is slow to import
        os.write(STDERR, f"{line}\n".encode(errors="backslashreplace"))
    except OSError:
        pass


def as_text(tool: str, level: str, message: str, fields: dict[str, object]) -> str:
    """``TOOL: message key=value``, as a person at a terminal wants it."""
    word = "" if LEVELS.index(level) <= LEVELS.index(INFO) else f"{level}: "
    pairs = "".join(f" {key}={_word(value)}" for key, value in fields.items())
    return f"{tool}: {word}{message}{pairs}"


def as_json(tool: str, level: str, message: str, fields: dict[str, object]) -> str:
    """One object, in the field names that Cloud Logging reads."""
    seconds, thousandths = divmod(time.time_ns() // 1_000_000, 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    entry = {
        "severity": level.upper(),
        "time": f"{stamp}.{thousandths:03d}Z",
        "tool": tool,
        "message": message,
        **fields,
    }
    return "{" + ", ".join(f"{_quoted(key)}: {_value(value)}" for key, value in entry.items()) + "}"


def _word(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable() and text and not any(sign in text for sign in ' "=')
    return text if is_plain else _quoted(text, ascii_only=True)


def _value(value: object) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is str:
        return _quoted(value)
    import json  # late, as below

    return json.dumps(value, ensure_ascii=False, default=str)


def _quoted(text: str, *, ascii_only: bool = False) -> str:
    if text.isascii() and text.isprintable() and not any(sign in text for sign in '"\\'):
        return f'"{text}"'
    import json  # late: hardly ever

    return json.dumps(text, ensure_ascii=ascii_only)


def _style() -> str:
    in_container = any(name in os.environ for name in CONTAINER_VARIABLES) or any(map(os.path.exists, CONTAINER_FILES))
    return "json" if in_container and not os.isatty(STDERR) else "text"


def _is_read() -> bool:
    """Tell whether a line can be written within PATIENCE: poll(2) promises it for 4096 bytes of a pipe."""
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    return bool(poll.poll(PATIENCE * 1000))
