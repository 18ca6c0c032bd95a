"""What hgate shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset({"KRUN_INIT_FD", "KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT"})
SETS: frozenset[str] = frozenset()
PORTS: dict[str, int] = {}
LOG_FIELDS: frozenset[str] = frozenset()
