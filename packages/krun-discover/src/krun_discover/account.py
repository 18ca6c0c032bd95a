"""The second half of --explain: which clusters were tried, what mesh-env said in vain, which requests were made."""

from __future__ import annotations

import json
from collections.abc import Iterable

from krun_discover.assembly import Assembly
from krun_discover.web import Entry, Web


def rest(assembly: Assembly, *, web: Web) -> str:
    """The account as paragraphs, each beginning with an empty line; empty when there is nothing to tell."""
    paragraphs = [_clusters(assembly), _dropped(assembly), _credentials(assembly), _requests(web.journal)]
    return "".join(f"\n{paragraph}" for paragraph in paragraphs if paragraph)


def _clusters(assembly: Assembly) -> str:
    if not assembly.search.is_done:
        return "Clusters: not looked for, nothing needed one\n"
    lines = [*assembly.search.story, *assembly.remarks]
    return "Clusters, as they were tried:\n" + _indented(lines) if lines else "Clusters: none is known here\n"


def _dropped(assembly: Assembly) -> str:
    found = assembly.search.found().map if assembly.search.is_done else None
    if found is None or not found.dropped:
        return ""
    return "Dropped of mesh-env:\n" + _indented(f"{_shown(name)}: {reason}" for name, reason in found.dropped)


def _credentials(assembly: Assembly) -> str:
    found = assembly.google.tried if assembly.google else []
    tried = [f"{one.source}: {one.outcome}" for one in dict.fromkeys(found)]
    return "Google credentials, as they were looked for:\n" + _indented(tried) if tried else ""


def _requests(journal: Iterable[Entry]) -> str:
    lines = [f"{one.method} {one.url}: {one.outcome}, {one.seconds * 1000:.0f} ms" for one in journal]
    return "Requests, metadata server apart:\n" + _indented(lines) if lines else ""


def _indented(lines: Iterable[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def _shown(name: str) -> str:
    text = name if name.isprintable() and name else json.dumps(name)
    return text if len(text) <= 60 else f"{text[:57]}..."
