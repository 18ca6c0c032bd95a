"""Who may come in: reads authorized_keys text, and decides which of its options can be honoured.

The format is the one of sshd(8), "AUTHORIZED_KEYS FILE FORMAT". asyncssh checks keys and options at login, but it
skips lines that it cannot read and ignores options that it does not know. Both would surprise somebody who wrote
``expiry-time`` to keep others out, so here they are refused, by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from krun_sshd.errors import Misconfigured

# Permissions that `restrict` takes away and that a word of its own gives back, in asyncssh's spelling.
PERMISSIONS = ("X11-forwarding", "agent-forwarding", "port-forwarding", "pty", "user-rc")
WITH_VALUE = ("command", "environment", "from", "permitopen")
PRIVATE = "PRIVATE KEY-----"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of authorized_keys: its number, its key and its options as asyncssh understands them."""

    line: int
    text: str


def split_lines(text: str) -> list[str]:
    """Split keys from the environment, where a line break may be written as backslash and n.

    Inside double quotes backslash and n stay what they are: there they belong to a ``command="…"``.
    """
    lines = [""]
    quoted = False
    position = 0
    while position < len(text):
        character = text[position]
        escaped_break = not quoted and text.startswith("\\n", position)
        if character == "\n" or escaped_break:
            lines.append("")
            quoted = False
            position += 2 if escaped_break else 1
            continue
        if character == '"':
            quoted = not quoted
        lines[-1] += character
        position += 1
    return lines


def entries(lines: list[str], *, source: str) -> tuple[Entry, ...]:
    """Decide which keys may come in.

    Raises:
        Misconfigured: no key at all, or a line that is no key; ``source`` and the line are named, its text is not.
    """
    found = tuple(_entries(lines, source=source))
    if not found:
        raise Misconfigured(f"no public key in {source}", hint="give a line such as: ssh-ed25519 AAAA… name")
    return found


def _entries(lines: list[str], *, source: str) -> Iterator[Entry]:
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if line and not line.startswith("#"):
            try:
                yield Entry(line=number, text=normalise(line))
            except ValueError as error:
                hint = "a line is: [options] TYPE BASE64 [comment], as in a file id_ed25519.pub"
                if PRIVATE in line:
                    hint = "this looks like a private key: give the public one (the .pub file), and replace the pair"
                raise Misconfigured(f"cannot use line {number} of {source}: {error}", hint=hint) from error


def normalise(line: str) -> str:
    """Return the line as asyncssh reads it, with ``restrict`` spelt out; ValueError says why it cannot be used."""
    # asyncssh costs 0.2 s to import, and --help does not need it.
    import asyncssh

    def is_key(text: str) -> bool:
        try:
            asyncssh.import_public_key(text)
        except (asyncssh.KeyImportError, ValueError):
            return False
        return True

    if is_key(line):
        return line
    options, rest = split_options(line)
    if not is_key(rest):
        raise ValueError("not a public key")
    text = f"{_spell(options)} {rest}".strip()
    asyncssh.import_authorized_keys(text)  # it has an opinion on values: a host pattern, HOST:PORT
    return text


def split_options(line: str) -> tuple[list[tuple[str, str | None]], str]:
    """Split ``name,name="value" rest`` into options and the rest; only ``\\"`` is an escape (sshd(8))."""
    options: list[tuple[str, str | None]] = []
    word = ""
    quoted = False
    position = 0
    while position < len(line):
        character = line[position]
        if quoted and line.startswith('\\"', position):
            word += '"'
            position += 2
            continue
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            options.append(_option(word))
            word = ""
        elif character in " \t" and not quoted:
            break
        else:
            word += character
        position += 1
    if quoted:
        raise ValueError("a quote in its options is not closed")
    return [*options, _option(word)], line[position:].strip()


def _option(word: str) -> tuple[str, str | None]:
    name, equals, value = word.partition("=")
    return name.lower(), value if equals else None


def _spell(options: list[tuple[str, str | None]]) -> str:
    """Write options for asyncssh: permissions in order, as sshd does, so that ``restrict,pty`` allows a terminal."""
    spelling = {name.lower(): name for name in PERMISSIONS}
    denied: set[str] = set()
    words: list[str] = []
    for name, value in options:
        if name in WITH_VALUE and value is not None:
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            words.append(f'{name}="{escaped}"')
        elif value is not None:
            raise ValueError(f"the option {name[:40]!r} is not supported, or takes no value")
        elif name == "restrict":
            denied.update(PERMISSIONS)
        elif name in spelling:
            denied.discard(spelling[name])
        elif name.startswith("no-") and name[3:] in spelling:
            denied.add(spelling[name[3:]])
        elif len(options) == 1:
            # One bare word before the rest: more likely a mangled key than an option, and not ours to print.
            raise ValueError("not a public key")
        else:
            raise ValueError(f"the option {name[:40]!r} is not supported, or needs a value")
    return ",".join([*words, *(f"no-{name}" for name in PERMISSIONS if name in denied)])
