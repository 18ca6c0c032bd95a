"""The plain form of hbone's command line: a URL, and flags with values; all else (-L, help, mistakes) is click's.

ssh waits for it at each start, and click takes longer than all else together. What is read here, click reads the same,
and a test holds that.
"""

from __future__ import annotations

from hbone.settings import Settings
from hbone.token_source import Source
from hbone.urls import parse_address, parse_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hbone.urls import URL

# By flag: the variable that it is instead.
FLAGS = {
    "--token-command": "KRUN_ID_TOKEN_COMMAND",
    "--token-file": "KRUN_ID_TOKEN_FILE",
    "--ca-file": "KRUN_CA_FILE",
    "--connect-to": "KRUN_CONNECT_TO",
    "--log-level": "KRUN_LOG_LEVEL",
    "--log-format": "KRUN_LOG_FORMAT",
}
# Of logging, which a single tunnel does not do; a value that is none is told by click.
OF_LOG = {
    "KRUN_LOG_LEVEL": ("debug", "info", "warning", "error"),
    "KRUN_LOG_FORMAT": ("auto", "text", "json"),
}
COMPLETION = "_HBONE_COMPLETE"


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[URL, Settings] | None:
    """What is asked for; None when there is more to it, or something is wrong with it."""
    if environ.get(COMPLETION):
        return None
    found = {name: value for name in FLAGS.values() if (value := environ.get(name))}
    words: list[str] = []
    flags: set[str] = set()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in FLAGS or name in flags or not (equals or rest):
            return None
        value = value if equals else rest.pop(0)
        if not value or value.startswith("-"):
            return None
        flags.add(name)
        found[FLAGS[name]] = value
    if len(words) != 1 or any(found.get(name, known[0]) not in known for name, known in OF_LOG.items()):
        return None
    return _meaning(words[0], found)


def _meaning(text: str, found: Mapping[str, str]) -> tuple[URL, Settings] | None:
    connect_to = found.get("KRUN_CONNECT_TO")
    try:
        url = parse_url(text)
        address = parse_address(connect_to) if connect_to else None
    except ValueError:
        return None
    source = Source(command=found.get("KRUN_ID_TOKEN_COMMAND"), file=found.get("KRUN_ID_TOKEN_FILE"))
    return url, Settings(token_source=source, ca_file=found.get("KRUN_CA_FILE"), connect_to=address)
