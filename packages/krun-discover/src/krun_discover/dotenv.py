"""The dotenv format, as docker's --env-file reads it: NAME=VALUE a line, nothing quoted, ``\\n`` for a line break.

A value that itself holds a backslash before an n reads back as a line break: docker would not undo an escaped one.
"""

from __future__ import annotations

from collections.abc import Mapping

from krun_discover.errors import Malformed


def render(values: Mapping[str, str]) -> str:
    """One line a variable, sorted. Carriage returns before line breaks go, as PEM files from elsewhere have them."""
    return "".join(f"{name}={_line(values[name])}\n" for name in sorted(values))


def parse(text: str, *, path: str) -> dict[str, str]:
    """Read what ``render`` wrote, also with comments (``#``) and empty lines. Raises Malformed with the line number."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not (name and equals) or any(character.isspace() for character in name):
            raise Malformed(
                f"{path}: line {number} is not NAME=VALUE", hint="no blanks around =, no 'export', no quotes"
            )
        values[name] = value.replace("\\n", "\n")
    return values


def _line(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\n", "\\n")
