"""Log lines: logging is imported with the first one, as it is a good part of a start."""

from __future__ import annotations

from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging


class Lines(Record):
    """How lines look, see ``log.configure``."""

    tool: str = "krun-iptables"
    level: str = "info"
    style: str = "auto"

    def info(self, message: str, **fields: object) -> None:
        """Something that happened, as it should."""
        self._logger().info(message, extra={"fields": fields})

    def warning(self, message: str, **fields: object) -> None:
        """Something that a person may want to mend."""
        self._logger().warning(message, extra={"fields": fields})

    def _logger(self) -> logging.Logger:
        import logging

        from krun_iptables import log

        if not logging.getLogger().handlers:
            log.configure(tool=self.tool, level=self.level, style=self.style)
        return logging.getLogger(__package__)
