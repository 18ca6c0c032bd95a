"""From when until when a credential is good: of a token by its claims, of certificates by their dates.

Only the few fields on the way to the dates are read (RFC 5280 §4.1): cryptography costs a start more than all of this.
Nothing is verified here; who uses the file does that. No content is told, not even in a failure.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from base64 import b64decode, urlsafe_b64decode

from krun_launch.plan import ROOT, TOKEN, Credential
from krun_launch.record import Record

LIMIT = 1 << 20  # bytes of a file
LAST = 253402300799.0  # the end of year 9999, by which a certificate says that it has no end
BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18  # DER tags


class Life(Record):
    """From when until when; seconds of time.time()."""

    begins: float
    ends: float

    def due(self, share: float) -> float:
        """When so much of it is over."""
        return self.begins + share * (self.ends - self.begins)


def stamp(seconds: float) -> str:
    """A time as RFC 3339 has it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def life(credential: Credential) -> Life | None:
    """The life of a credential as its file has it now; None when there is none, or none that can be read."""
    try:
        with credential.path.open("rb") as file:
            data = file.read(LIMIT)
        return (
            _of_token(data) if credential.kind == TOKEN else _of_certificates(data, are_roots=credential.kind == ROOT)
        )
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def _of_token(data: bytes) -> Life:
    payload = data.strip().split(b".")[1]
    claims = json.loads(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    ends = float(claims["exp"])
    # Of a token that does not tell when it was made, the file's reader knows no age: it is as old as nothing.
    begins = float(claims.get("iat", claims.get("nbf", ends)))
    return _checked(begins, ends)


def _of_certificates(data: bytes, *, are_roots: bool) -> Life:
    """Of a workload the first one, which is its own; of roots the one that ends first."""
    lives = [_of_certificate(b64decode(b"".join(block.split()), validate=True)) for block in BLOCK.findall(data)]
    return min(lives, key=lambda life: life.ends) if are_roots else lives[0]


def _of_certificate(der: bytes) -> Life:
    _, outer = _elements(der)[0]
    _, signed = _elements(outer)[0]
    fields = [(tag, content) for tag, content in _elements(signed) if tag != VERSION]
    tag, dates = fields[3]  # after serial number, signature algorithm and issuer
    if tag != SEQUENCE:
        raise ValueError("no dates")
    begins, ends = _elements(dates)
    return _checked(_moment(*begins), _moment(*ends))


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element of DER (X.690 §8.1)."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("cut off")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _moment(tag: int, content: bytes) -> float:
    """The seconds of a date: YYMMDDHHMMSSZ, with a year of 1950 to 2049, or YYYYMMDDHHMMSSZ."""
    text = content.decode("ascii")
    if tag == UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    if tag not in (UTC_TIME, GENERALIZED_TIME) or not re.fullmatch(r"[0-9]{14}Z", text):
        raise ValueError("not a date")
    parts = [int(text[:4])] + [int(text[at : at + 2]) for at in range(4, 14, 2)]
    return float(calendar.timegm((*parts, 0, 0, 0)))


def _checked(begins: float, ends: float) -> Life:
    # A number that is none (NaN) is not between two others.
    if not 0 <= begins <= ends <= LAST:
        raise ValueError("ends before it begins")
    return Life(begins=begins, ends=ends)
