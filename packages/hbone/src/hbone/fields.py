"""Fields of requests and answers: which are well formed, which end here, which go on. Values in, data out.

Names are compared with ``_`` as ``-``, as CGI and WSGI make one variable of both: what is taken out under one name must
not come back under the other. What goes on keeps its order, its spelling and its value.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable

from hbone.events import Fields

NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# No control characters but tabs, and no white space around it (RFC 9110 §5.5).
VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")

MAX_REMEMBERED = 64  # bytes of a name

# Who writes these may claim to be the front, or a peer of the mesh. krun keeps a prefix for itself.
FORGED = frozenset({b"x-forwarded-client-cert", b"proxy"})
FORGED_PREFIXES = (b"x-envoy-", b"x-krun-", b"proxy-")
# Fields of one hop (RFC 9110 §7.6.1), and of an upgrade that we are not part of.
HOP = frozenset({b"connection", b"keep-alive", b"te", b"upgrade", b"transfer-encoding", b"http2-settings"})
# Fields that a front writes, or that frame a message: under a name with ``_`` they are somebody else's.
FRONTS = frozenset(
    {b"content-length", b"content-type", b"x-real-ip", b"x-cloud-trace-context", b"x-serverless-authorization"}
)
FRONTS_PREFIXES = (b"x-forwarded-", b"x-goog-")
# Fields from end to end, which Connection must not name (RFC 9110 §7.6.1): there is no taking them out by it.
LASTING = frozenset(
    b"accept accept-charset accept-encoding accept-language authorization cache-control content-disposition "
    b"content-encoding content-language content-length content-location content-md5 content-range content-type cookie "
    b"date expect forwarded from grpc-accept-encoding grpc-encoding grpc-timeout host if-match if-modified-since "
    b"if-none-match if-range if-unmodified-since last-event-id max-forwards origin pragma priority range referer "
    b"set-cookie trailer traceparent tracestate baggage user-agent vary via warning www-authenticate "
    b"x-http-method-override x-real-ip x-request-id x-cloud-trace-context x-serverless-authorization".split()
)
LASTING_PREFIXES = (b"x-forwarded-", b"x-goog-", b"sec-", b"access-control-", b"grpc-")
# Fields that must not come after the body: framing, routing, authentication, the form of content (RFC 9110 §6.5.1).
NEVER_TRAILERS = frozenset(
    b"age authentication-info authorization cache-control connection content-disposition content-encoding "
    b"content-language content-length content-location content-md5 content-range content-type cookie date expect "
    b"expires forwarded host if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive "
    b"location max-forwards origin pragma range referer retry-after set-cookie te trailer transfer-encoding upgrade "
    b"user-agent vary warning www-authenticate x-cloud-trace-context x-real-ip x-serverless-authorization".split()
)


class Kind(enum.Enum):
    """What becomes of a field."""

    PASSED = enum.auto()
    ENDS_HERE = enum.auto()
    READ = enum.auto()  # a message's framing, its host or its connection: read, and written anew
    MALFORMED = enum.auto()


READ = frozenset({b"host", b"content-length", b"connection", b"te", b"transfer-encoding", b"upgrade"})


def kind(name: bytes) -> Kind:
    """What becomes of a request's field of this name."""
    # Names are remembered, but for those that somebody has made up to fill our memory.
    return _kind(name) if len(name) <= MAX_REMEMBERED else _kind.__wrapped__(name)


@functools.lru_cache(maxsize=1024)
def _kind(name: bytes) -> Kind:
    if not NAME.fullmatch(name):
        return Kind.MALFORMED
    lower = name.lower()
    if lower in READ:
        return Kind.READ
    return Kind.ENDS_HERE if _ends_here(lower) else Kind.PASSED


def _ends_here(lower: bytes) -> bool:
    same = lower.replace(b"_", b"-")
    if same in FORGED or same.startswith(FORGED_PREFIXES) or same in HOP:
        return True
    return same != lower and (same in FRONTS or same.startswith(FRONTS_PREFIXES) or same == b"host")


def _is_trailer(name: bytes) -> bool:
    lower = name.lower()
    same = lower.replace(b"_", b"-")
    is_kept = same not in NEVER_TRAILERS and not same.startswith((b"x-forwarded-", b"x-goog-", b"sec-"))
    return is_kept and kind(name) is Kind.PASSED


def words(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """The words of a list field, in small letters."""
    return tuple(
        word for value in values for word in (part.strip(b" \t").lower() for part in value.split(b",")) if word
    )


def named(connection: Iterable[bytes]) -> frozenset[bytes]:
    """The fields that Connection takes out: what it names, but for fields that are not its to name."""
    same = (word.replace(b"_", b"-") for word in words(connection))
    return frozenset(word for word in same if word not in LASTING and not word.startswith(LASTING_PREFIXES))


def passed(fields: Fields, *, connection: Iterable[bytes] = ()) -> Fields:
    """The fields of a request that go on."""
    taken = named(connection)
    if not taken:
        return tuple(field for field in fields if kind(field[0]) is Kind.PASSED)
    return tuple(
        field for field in fields if kind(field[0]) is Kind.PASSED and field[0].lower().replace(b"_", b"-") not in taken
    )


def are_well_formed(fields: Fields) -> bool:
    """Whether names and values hold nothing that could be read as something else."""
    return all(kind(name) is not Kind.MALFORMED and VALUE.fullmatch(value) for name, value in fields)


def trailers(fields: Fields) -> Fields:
    """The fields after a body that go on; the rest is dropped without a word (RFC 9110 §6.5.1)."""
    return tuple(field for field in fields if _is_trailer(field[0]))


def answered(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields of an answer that go on: all but those for one hop."""
    kept = tuple(fields)
    taken = HOP_OF_ANSWERS | named(value for name, value in kept if name.lower() == b"connection")
    return tuple(field for field in kept if field[0].lower() not in taken)


HOP_OF_ANSWERS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"http2-settings"}
)


def lowered(fields: Fields) -> Fields:
    """The fields as HTTP/2 spells them."""
    return tuple((name.lower(), value) for name, value in fields)
