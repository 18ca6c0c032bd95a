"""What other programs say, made fit to be shown: one line, bounded, without what looks like a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

SHOWN = 1000  # characters
HIDDEN = "***"
# Not compiled here: a start in which nothing fails shows nothing.
TELLING = r"(?i)TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH"
# JWTs and Google's access tokens, private keys, and what follows a telling word.
BARE = (
    r"(?s)eyJ[\w-]{8,}(\.[\w-]*)*|ya29\.[\w.-]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"
)
NAMED = (
    r"(?i)(bearer\s+|authorization[\"']?\s*[=:]\s*(?:\w+\s+)?|(?:password|secret)[\"']?\s*[=:]\s*)\S+"
    r"|((?:token|[_-]key)[\"']?\s*[=:]\s*)\S{12,}"
)


def redacted(text: str, *, known: Iterable[str] = ()) -> str:
    """The end of the text as one line; ``known`` are secrets that may stand in it."""
    for value in known:
        if len(value) >= 4:
            text = text.replace(value, HIDDEN)
    text = re.sub(BARE, HIDDEN, text)
    text = re.sub(NAMED, lambda found: f"{found[1] or found[2]}{HIDDEN}", text)
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return text if len(text) <= SHOWN else f"…{text[-SHOWN:]}"


def secrets_of(arguments: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The values of an argument list and of an environment that have telling names: ``--token X``, ``--token=X``."""
    values = [value for name, value in env.items() if re.search(TELLING, name)]
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if re.search(TELLING, name) and name.startswith("-"):
            values += [value] if equals else arguments[number + 1 : number + 2]
    return values
