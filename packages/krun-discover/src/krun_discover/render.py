"""The environment as text: JSON, shell, dotenv. Pure."""

from __future__ import annotations

import json

from krun_discover import dotenv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def environment(values: Mapping[str, str], *, style: str) -> str:
    """The variables in one of options.FORMATS."""
    if style == "shell":
        return "".join(
            f"export {name}={quote(values[name])}\n" for name in sorted(values) if name not in unsayable(values)
        )
    if style == "dotenv":
        return dotenv.render(values)
    return json.dumps(dict(values), sort_keys=True) + "\n"


def unsayable(names: Iterable[str]) -> list[str]:
    """Names that a shell cannot export (those with a dot), sorted."""
    return sorted(name for name in names if not (name.isascii() and name.isidentifier()))


def quote(value: str) -> str:
    """The value as one word of a POSIX shell; nothing in single quotes is special but the quote itself."""
    return "'" + value.replace("'", "'\\''") + "'"
