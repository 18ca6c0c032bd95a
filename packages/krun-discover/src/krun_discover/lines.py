"""Log lines, of which most starts have none: logging is imported with the first one, as it is a fifth of a start.

It is the process's, as logging itself is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

_wanted: dict[str, str] = {"tool": "krun-discover"}


def configure(*, tool: str, level: str = "info", style: str = "auto") -> None:
    """How lines look, see ``log.configure``; for the process, before its first line."""
    _wanted.update(tool=tool, level=level, style=style)


def debug(message: str, **fields: object) -> None:
    """Something that only a search for a bug needs."""
    if _wanted.get("level") == "debug":
        logger().debug(message, extra={"fields": fields})


def info(message: str, **fields: object) -> None:
    """Something that happened, as it should."""
    logger().info(message, extra={"fields": fields})


def warning(message: str, **fields: object) -> None:
    """Something that a person may want to mend."""
    logger().warning(message, extra={"fields": fields})


def error(message: str, **fields: object) -> None:
    """Something that a person has to mend."""
    logger().error(message, extra={"fields": fields})


def logger() -> logging.Logger:
    """The logger, configured: also for libraries that log by themselves."""
    import logging

    found = logging.getLogger(__package__)
    if not logging.getLogger().handlers:
        from krun_discover import log

        log.configure(**_wanted)
    return found
