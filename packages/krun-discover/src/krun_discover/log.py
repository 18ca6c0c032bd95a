"""Log lines on stderr: text for a terminal, one JSON object a line in a container.

This file is the same in every package, and a test holds that: there is no shared library (docs/decisions/0001).
Fields are passed as ``log.info("stream closed", extra={"fields": {"port": 15003}})``; never a secret among them.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from pathlib import Path
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "text", "json")
PATIENCE = 0.1  # seconds that a log line may wait for its reader
# Signs of a container: Docker, Podman, Cloud Run services and jobs, Kubernetes.
CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
CONTAINER_VARIABLES = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "KUBERNETES_SERVICE_HOST")


class TextFormatter(logging.Formatter):
    """``TOOL: message key=value``, as a person at a terminal wants it."""

    def __init__(self, *, tool: str) -> None:
        super().__init__()
        self.tool = tool

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = getattr(record, "fields", {})
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
        return f"{self.tool}: {level}{record.getMessage()}{pairs}"


class JsonFormatter(logging.Formatter):
    """One object a line, in the field names that Cloud Logging reads."""

    def __init__(self, *, tool: str) -> None:
        super().__init__()
        self.tool = tool

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = getattr(record, "fields", {})
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "severity": record.levelname,
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "tool": self.tool,
            "message": record.getMessage(),
            **fields,
        }
        return json.dumps(entry, ensure_ascii=False, default=str)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes a line, or drops it: a daemon must serve and end also when nobody reads its stderr any more."""

    def emit(self, record: logging.LogRecord) -> None:
        if _is_read(self.stream):
            super().emit(record)


def _is_read(stream: TextIO) -> bool:
    """Tell whether a line can be written within PATIENCE: poll(2) promises it for 4096 bytes of a pipe."""
    poll = select.poll()
    try:
        poll.register(stream, select.POLLOUT)
    except (OSError, ValueError):
        return True  # not a file descriptor: it cannot block
    return bool(poll.poll(PATIENCE * 1000))


def _quoted(value: object) -> str:
    """A value as one word: quoted when it holds spaces, quotes or control characters (no forged log lines)."""
    text = str(value)
    plain = text.isprintable() and text and not any(character in text for character in ' "=')
    return text if plain else json.dumps(text)


def in_container() -> bool:
    """Tell whether this process runs in a container, by the marks that the usual platforms leave."""
    return any(name in os.environ for name in CONTAINER_VARIABLES) or any(Path(f).exists() for f in CONTAINER_FILES)


def configure(*, tool: str, level: str = "info", style: str = "auto") -> None:
    """Send this process's log lines to stderr; ``style`` is one of FORMATS, ``level`` one of LEVELS."""
    if style == "auto":
        style = "json" if in_container() and not sys.stderr.isatty() else "text"
    handler = StderrHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(tool=tool) if style == "json" else TextFormatter(tool=tool))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A line that cannot be written (nobody reads stderr any more) must not take the tool down, nor print a traceback.
    logging.raiseExceptions = False
