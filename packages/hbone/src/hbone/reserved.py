"""Which paths are ours: decides for every form in which an application might read one, never opens anything.

Servers decode, lower, merge slashes, resolve dots and cut parameters, in any order, once or twice. A path that any of
them could take for one under /_hbone is reserved: it never reaches the application.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

NAME = "_hbone"
# Nobody encodes a path more often in good faith.
MAX_DECODINGS = 8
_UNICODE = re.compile(rb"%[uU]00([0-9A-Fa-f]{2})")  # a form of IIS
# ASCII in two or three bytes, which lenient decoders take.
_OVERLONG = re.compile(rb"(?:\xe0([\x80\x81])|([\xc0\xc1]))([\x80-\xbf])")
# What some readers of paths skip, and what has no width.
_UNSEEN = re.compile("[\x00-\x20\x7f\xad\u200b-\u200f\u2060-\u2064\ufeff]+")
_PLAIN = re.compile(rb"[A-Za-z0-9_.~/,:@!$&'()*+=-]*")


def is_reserved(path: bytes) -> bool:
    """Tell whether a path, with or without a query, is under /_hbone in any disguise."""
    cut = path.find(b"?")
    path = path if cut < 0 else path[:cut]
    if _PLAIN.fullmatch(path) and b"hbone" not in path.lower():  # nearly all
        return False
    return any(_is_ours(form) for form in _forms(path))


def _forms(path: bytes) -> Iterator[str]:
    """The path as it is, and decoded once more each time; what has no end of that is given as ours."""
    for _ in range(MAX_DECODINGS):
        text = _text(path)
        yield text
        if "\0" in text:  # where some readers end
            yield text.split("\0", maxsplit=1)[0]
        if "\\" in text:
            yield text.replace("\\", "/")
        decoded = _UNICODE.sub(_byte, unquote_to_bytes(path))
        if decoded == path:
            return
        path = decoded
    yield f"/{NAME}"


def _byte(found: re.Match[bytes]) -> bytes:
    return bytes((int(found[1], 16),))


def _text(path: bytes) -> str:
    path = _OVERLONG.sub(lambda found: bytes((((found[1] or found[2])[0] & 1) << 6 | found[3][0] & 0x3F,)), path)
    if path.isascii():
        return path.decode().lower()
    # Full-width and other looks of the same letters.
    return unicodedata.normalize("NFKC", path.decode(errors="replace")).casefold()


def _is_ours(path: str) -> bool:
    """Whether the first part of the path is our name, at any moment of resolving it from left to right."""
    path = _UNSEEN.sub("", path)
    if NAME not in path:
        return False
    depth = 0
    for part in re.split("/+", path):
        # Without parameters, queries and fragments that decoding has uncovered, and dots that some file systems drop.
        bare = re.split("[;?#]", part, maxsplit=1)[0]
        bare = bare if set(bare) <= {"."} else bare.rstrip(".")
        if bare == NAME and depth == 0:
            return True
        if bare == "..":
            depth = max(0, depth - 1)
        elif bare not in ("", "."):
            depth += 1
    return False
