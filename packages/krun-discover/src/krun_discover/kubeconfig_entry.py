"""A kubeconfig's objects, read with care: each error names the file and the key, and shows no value."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Mapping

from krun_discover.errors import Malformed, Misconfigured
from krun_discover.record import Record


class Entry(Record, hidden=("values",)):
    """One object: ``key`` says where in the file it stands, empty for the whole."""

    file: str
    key: str
    values: Mapping[object, object]

    @property
    def title(self) -> str:
        """Where it stands, for a person."""
        return f"{self.file}: {self.key}" if self.key else self.file

    def at(self, name: str) -> str:
        """Where one of its values stands, for a person."""
        return f"{self.file}: {self.key}.{name}" if self.key else f"{self.file}: {name}"

    def wrong(self, name: str, reason: str, *, hint: str = "") -> Malformed:
        """The error for one of its values."""
        return Malformed(
            f"{self.at(name)}: {reason}", hint=hint or "'kubectl config view' shows what kubectl makes of it"
        )

    def refused(self, name: str, reason: str, *, hint: str) -> Misconfigured:
        """The error for one of its values that is well formed and cannot be used."""
        return Misconfigured(f"{self.at(name)}: {reason}", hint=hint)

    def text(self, name: str) -> str:
        """A text, empty when it is not there."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(name, "is no text")
        if not is_text(value):
            raise self.wrong(name, "is no text that can be used: it has NUL or half a character in it")
        return value

    def line(self, name: str) -> str:
        """A text of one line, which may be shown."""
        value = self.text(name)
        if not value.isprintable():
            raise self.wrong(name, "is not one line of text")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false when it is not there."""
        value = self.values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return value

    def entry(self, name: str) -> Entry:
        """An object, an empty one when it is not there."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(name, "is no object")
        return Entry(file=self.file, key=f"{self.key}.{name}" if self.key else name, values=value)

    def items(self, name: str) -> list[object]:
        """A list, an empty one when it is not there."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "is no list")
        return value

    def entries(self, name: str) -> list[Entry]:
        """A list of objects."""
        found = []
        for number, value in enumerate(self.items(name)):
            if not isinstance(value, dict):
                raise self.wrong(f"{name}[{number}]", "is no object")
            key = f"{self.key}.{name}[{number}]" if self.key else f"{name}[{number}]"
            found.append(Entry(file=self.file, key=key, values=value))
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        found = []
        for number, value in enumerate(self.items(name)):
            if not isinstance(value, str) or not is_text(value):
                raise self.wrong(f"{name}[{number}]", "is no text")
            found.append(value)
        return tuple(found)

    def path(self, name: str) -> str:
        """A path, which is relative to the file's own folder; empty when it is not there."""
        value = self.line(name)
        return os.path.join(os.path.dirname(self.file), value) if value else ""

    def data(self, name: str) -> bytes:
        """Bytes in base64, empty when it is not there."""
        text = self.text(name)
        try:
            return b64decode("".join(text.split()).encode("ascii"), validate=True)
        except ValueError:
            raise self.wrong(name, "is not base64") from None


def is_text(value: str) -> bool:
    """Tell whether paths, variables and requests can hold it; JSON can spell half of a surrogate pair."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False
