"""The plain form of a command line: flags written out, with values; all else (help, mistakes, completion) is click's.

It stands in front of every cold start, and click is a third of one. What is read here, click reads the same; a test
holds that.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# Variables of logging, and their values; a wrong one is told by click.
OF_LOG = {
    "KRUN_LOG_LEVEL": ("info", "debug", "warning", "error"),
    "KRUN_LOG_FORMAT": ("auto", "text", "json"),
}
LONGEST = 3600.0  # seconds of --timeout


def read(
    arguments: Sequence[str], *, values: Collection[str], switches: Collection[str] = ()
) -> dict[str, list[str]] | None:
    """The values of each flag, ``--name value`` or ``--name=value``; a switch has none. None when it is not plain."""
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in switches and not equals:
            found.setdefault(name, [])
            continue
        if name not in values or (not equals and not rest):
            return None
        value = value if equals else rest.pop(0)
        if not value or value.startswith("-"):
            return None
        found.setdefault(name, []).append(value)
    return found


def of_log(environ: Mapping[str, str], *, tool: str) -> tuple[str, str] | None:
    """Level and format of log lines; None when a variable asks for what only click does."""
    if environ.get(f"_{tool.replace('-', '_').upper()}_COMPLETE"):
        return None
    level, style = (environ.get(name) or known[0] for name, known in OF_LOG.items())
    known_levels, known_styles = OF_LOG.values()
    return (level, style) if level in known_levels and style in known_styles else None


def seconds(text: str) -> float | None:
    """Read a time as --timeout does; None when it is none."""
    if not (text.isascii() and text.replace(".", "", 1).isdecimal()):
        return None
    return found if 0 < (found := float(text)) <= LONGEST else None


def is_descriptor(text: str) -> bool:
    """Tell whether a text is the number of a descriptor, and of none of our streams."""
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 2


def is_word(text: str) -> bool:
    """Tell whether it can be an audience or a scope, unlike an unset variable in a script."""
    return bool(text) and text.isprintable() and " " not in text
