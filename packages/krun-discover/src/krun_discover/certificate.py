"""X.509 certificates and keys: their text and dates, and files for what stands inside a configuration.

Only the few fields on the way to the dates are read (RFC 5280 §4.1): a library that reads them all costs more than
the requests that follow.
"""

from __future__ import annotations

import functools
import os
import re
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime

from krun_discover.record import Record

LIMIT = 1024 * 1024  # bytes
LAST = 253402300799.0  # the end of year 9999, by which a certificate says that it has no end
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18  # DER tags


class Validity(Record):
    """From when until when; seconds of time.time()."""

    begins: float
    ends: float

    @property
    def moment(self) -> float:
        """The one of both that is to be told now."""
        return self.ends if time.time() > self.ends else self.begins


def roots(pem: str) -> str:
    """The certificates of the text, without what stands around them. Raises ValueError when one is none."""
    blocks: list[str] = BLOCK.findall(pem)
    if not blocks:
        raise ValueError("there is no certificate in it")
    for block in blocks:
        _validity(_der(block))
    return "".join(f"-----BEGIN CERTIFICATE-----\n{block.strip()}\n-----END CERTIFICATE-----\n" for block in blocks)


def validity(pem: str) -> Validity:
    """The dates of the first certificate in the text. Raises ValueError when there is none."""
    found = BLOCK.search(pem)
    if found is None:
        raise ValueError("there is no certificate in it")
    return _validity(_der(found[1]))


def _der(block: str) -> bytes:
    try:
        return b64decode("".join(block.split()), validate=True)
    except ValueError as error:
        raise ValueError("a certificate in it is not base64") from error


def _validity(der: bytes) -> Validity:
    try:
        (outer,) = _elements(der, SEQUENCE)
        signed = next(_elements(outer, SEQUENCE))
        fields = [field for field in _elements(signed) if field[0] != VERSION]
        dates = fields[3]  # after serial number, signature algorithm and issuer
        begins, ends = list(_elements(dates[1:]))
        return Validity(begins=_moment(begins), ends=_moment(ends))
    except (ValueError, IndexError, StopIteration) as error:
        raise ValueError("a certificate in it is damaged") from error


def _elements(data: bytes, tag: int = 0) -> Iterator[bytes]:
    """The contents of each element of DER; without ``tag`` of any kind, their tag before them (X.690 §8.1)."""
    at = 0
    while at < len(data):
        found, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data) or (tag and found != tag):
            raise ValueError("not what it should be")
        yield data[at : at + length] if tag else bytes([found]) + data[at : at + length]
        at += length


def _moment(element: bytes) -> float:
    """The seconds of a date: YYMMDDHHMMSSZ, with a year of 1950 to 2049, or YYYYMMDDHHMMSSZ."""
    text = element[1:].decode("ascii")
    if element[0] == UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    if element[0] not in (UTC_TIME, GENERALIZED_TIME) or not re.fullmatch(r"[0-9]{14}Z", text):
        raise ValueError("not a date")
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
    return datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=UTC).timestamp()


@functools.cache
def held(data: bytes) -> str:
    """A path under which this process can read the data, which never comes to lie on a disk.

    It stays to the end of the process, once for each content: OpenSSL opens it at every handshake's preparation.
    """
    number = os.memfd_create("certificate")
    with os.fdopen(os.dup(number), "wb") as file:
        file.write(data)
    return f"/proc/self/fd/{number}"


def objection(path: str, key: str) -> str:
    """Why OpenSSL cannot use this certificate with this key, both files; empty when it can."""
    import ssl  # late: names are found without a connection

    try:
        # A key with a passphrase would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key or None, password="")
    except (OSError, ValueError) as error:
        return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return ""
