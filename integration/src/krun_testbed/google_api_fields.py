"""Partial answers: ``?fields=clusters(name,masterAuth/clusterCaCertificate),missingZones``.

https://cloud.google.com/apis/docs/system-parameters
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from krun_testbed.google_api_messages import refused

Mask = dict[str, "Mask"]  # empty: with all that is below
# The fields that there are; None where anything may be below, as in a map.
Schema = Mapping[str, Any]


def parse(text: str) -> Mask:
    """The mask as a tree. Raises Refused for what is none."""
    words = iter(re.findall(r"[A-Za-z0-9_*]+|[(),/]|.", text))
    mask = _level(words, ends="")
    if not mask:
        raise _invalid(text)
    return mask


def select(value: Any, mask: Mask, *, schema: Schema | None = None) -> Any:
    """What the mask leaves of an object. Raises Refused for a field that there is not."""
    _check(mask, schema)
    return _select(value, mask)


def _select(value: Any, mask: Mask) -> Any:
    if not mask or "*" in mask:
        return value
    if isinstance(value, list):
        return [_select(item, mask) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {name: _select(value[name], below) for name, below in mask.items() if name in value}


def _level(words: Iterator[str], *, ends: str) -> Mask:
    mask: Mask = {}
    last = mask
    for word in words:
        if word == ends:
            return mask
        if word == "(":
            last.update(_level(words, ends=")"))
        elif word == ",":
            last = mask
        elif word != "/":
            if not re.fullmatch(r"[A-Za-z0-9_*]+", word):
                raise _invalid(word)
            last = last.setdefault(word, {})
    if ends:
        raise _invalid(ends)
    return mask


def _check(mask: Mask, schema: Schema | None) -> None:
    for name, below in mask.items():
        if schema is not None and name != "*":
            if name not in schema:
                raise _invalid(name)
            _check(below, schema[name])


def _invalid(text: str) -> Exception:
    return refused("INVALID_ARGUMENT", f"Request contains an invalid argument. Invalid field selection {text}")
