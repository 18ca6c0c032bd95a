"""Log lines without logging, which with all it brings is a third of a start: a start writes one line, or none.

They are the lines that ``log`` writes; a test holds that.
"""

from __future__ import annotations

import os
import select
import time

from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("debug", "info", "warning", "error")
STDERR = 2
PATIENCE = 0.1  # seconds that a line may wait for its reader
# Signs of a container, as in ``log``.
CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
CONTAINER_VARIABLES = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "KUBERNETES_SERVICE_HOST")


class Lines(Record):
    """How lines look: ``level`` is the least that is written, ``style`` text, json, or auto (json in a container)."""

    tool: str = "krun-iptables"
    level: str = "info"
    style: str = "auto"

    def info(self, message: str, **fields: object) -> None:
        """Something that happened, as it should."""
        self._write("info", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Something that a person may want to mend."""
        self._write("warning", message, fields)

    def _write(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        if LEVELS.index(level) < LEVELS.index(self.level) or not _is_read():
            return
        style = _style() if self.style == "auto" else self.style
        write = as_json if style == "json" else as_text
        line = write(tool=self.tool, level=level, message=message, fields=fields)
        # A line that cannot be written must not take the tool down.
        try:  # noqa: SIM105 - contextlib is slow to import
            os.write(STDERR, f"{line}\n".encode(errors="backslashreplace"))
        except OSError:
            pass


def as_text(*, tool: str, level: str, message: str, fields: Mapping[str, object]) -> str:
    """``TOOL: message key=value``, as a person at a terminal wants it."""
    word = "" if level == "info" else f"{level}: "
    pairs = "".join(f" {key}={_word(value)}" for key, value in fields.items())
    return f"{tool}: {word}{message}{pairs}"


def as_json(*, tool: str, level: str, message: str, fields: Mapping[str, object]) -> str:
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
    return str(value) if type(value) is int else _quoted(str(value))


def _quoted(text: str, *, ascii_only: bool = False) -> str:
    if text.isascii() and text.isprintable() and not any(sign in text for sign in '"\\'):
        return f'"{text}"'
    import json  # late: hardly ever

    return json.dumps(text, ensure_ascii=ascii_only)


def _style() -> str:
    in_container = any(name in os.environ for name in CONTAINER_VARIABLES) or any(map(os.path.exists, CONTAINER_FILES))
    return "json" if in_container and not os.isatty(STDERR) else "text"


def _is_read() -> bool:
    """Tell whether a line can be written within PATIENCE."""
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    return bool(poll.poll(PATIENCE * 1000))
