"""Requests as they come, judged: bytes or HTTP/2 fields in, a Request or the Refusal of it out. No state, no I/O.

Stricter than the libraries below, which forgive much: what two programs can read in two ways is refused, as a front
and an application that differ on where a request ends let one user's bytes become another's request.
"""

from __future__ import annotations

import re

from hbone import fields as field_rules
from hbone.events import Fields
from hbone.fields import Kind
from hbone.message import Request
from hbone.offers import Refusal

MAX_HEAD = 64 * 1024  # bytes of all fields
MAX_FIELDS = 200
MAX_TARGET = 16 * 1024  # bytes of the path, with its query
MAX_LENGTH = 18  # digits of a content-length
FIELD_OVERHEAD = 32  # what each field counts for beside its bytes (RFC 9113 §6.5.2)

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH = re.compile(rb"/[!-\"$-~]*")  # no fragment, no control characters, no spaces, nothing beyond ASCII
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([/?].*)?", re.IGNORECASE)
_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,255})(?::([0-9]{1,5}))?")
_LENGTH = re.compile(rb"[0-9]{1,%d}" % MAX_LENGTH)
Index = dict[bytes, list[bytes]]
PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
# Of one connection (RFC 9113 §8.2.2): in HTTP/2, whoever sends them has mixed up two protocols.
CONNECTIONS_OWN = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


class _Refused(Exception):
    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.refusal = Refusal(status=status, text=f"krun: {reason}\n", headers=headers)


def http1(head: bytes) -> Request | Refusal:
    """Judge the head of an HTTP/1 request: its lines, without the empty one at the end."""
    try:
        return _http1(head)
    except _Refused as refused:
        return refused.refusal


def http2(fields: Fields, *, is_empty: bool) -> Request | Refusal:
    """Judge an HTTP/2 request; ``is_empty``: it has ended, without a body."""
    try:
        return _http2(fields, is_empty=is_empty)
    except _Refused as refused:
        return refused.refusal


def _http1(head: bytes) -> Request:
    first, *lines = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise _Refused(400, "the request line is malformed")
    method, target, major, minor = line.groups()
    if major != b"1":
        raise _Refused(505, "HTTP/1.1 or HTTP/2 is spoken here")
    _check_method(method)
    if len(head) - len(first) > MAX_HEAD:
        raise _Refused(431, f"the headers are longer than {MAX_HEAD} bytes")
    if len(lines) > MAX_FIELDS:
        raise _Refused(431, f"more than {MAX_FIELDS} headers")
    fields = tuple(_field(line) for line in lines)
    index = _index(fields)
    is_old = minor == b"0"
    path, authority = _target(method, target, hosts=_values(index, b"host"), is_old=is_old)
    length, is_chunked = _framing(index, is_old=is_old)
    connection = _values(index, b"connection")
    options = field_rules.words(connection)
    has_body = is_chunked or bool(length)
    upgrades = field_rules.words(_values(index, b"upgrade")) if b"upgrade" in options and not is_old else ()
    passed = field_rules.passed(fields, connection=connection)
    if is_old:  # its sender cannot know of 100 (RFC 9110 §10.1.1)
        passed = tuple(field for field in passed if field[0].lower() != b"expect")
    return Request(
        method=method,
        path=path,
        authority=authority,
        fields=passed,
        length=length,
        has_body=has_body,
        has_trailers=bool(_values(index, b"trailer")),
        takes_trailers=b"trailers" in field_rules.words(_values(index, b"te")),
        is_websocket=b"websocket" in upgrades and method == b"GET" and not has_body,
        is_grpc=_is_grpc(index),
        version="1.0" if is_old else "1.1",
        is_last=is_old or b"close" in options,
    )


def _http2(fields: Fields, *, is_empty: bool) -> Request:
    pseudo, rest = _split(fields)
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise _Refused(400, "the method is missing or malformed")
    _check_method(method)
    if pseudo.get(b":scheme") not in (b"http", b"https"):
        raise _Refused(400, "the scheme is missing or unknown")
    _check_http2_fields(rest)
    index = _index(rest)
    path, authority = _place(method, pseudo, hosts=_values(index, b"host"))
    length, _ = _framing(index, is_old=False)
    if is_empty and length:
        raise _Refused(400, "the body is shorter than its content-length")
    return Request(
        method=method,
        path=path,
        authority=authority,
        scheme=pseudo[b":scheme"],
        fields=_one_cookie(field_rules.passed(rest)),
        length=length,
        has_body=not is_empty,
        has_trailers=bool(_values(index, b"trailer")),
        takes_trailers=b"trailers" in field_rules.words(_values(index, b"te")),
        is_grpc=_is_grpc(index),
    )


def _check_method(method: bytes) -> None:
    if method in (b"CONNECT", b"TRACE"):
        raise _Refused(405, f"{method.decode()} is not served here")


def _field(line: bytes) -> tuple[bytes, bytes]:
    if line[:1] in (b" ", b"\t"):
        raise _Refused(400, "a header is folded into several lines")
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or field_rules.kind(name) is Kind.MALFORMED or not field_rules.VALUE.fullmatch(value):
        raise _Refused(400, "a header is malformed")
    return name, value


def _target(method: bytes, target: bytes, *, hosts: list[bytes], is_old: bool) -> tuple[bytes, bytes]:
    """Path and authority of an HTTP/1 request target (RFC 9112 §3.2)."""
    if len(hosts) > 1 or not (hosts or is_old):
        raise _Refused(400, "there must be one Host")
    authority = hosts[0] if hosts else b""
    if hosts:
        _check_authority(authority)
    if absolute := _ABSOLUTE.fullmatch(target):
        named, rest = absolute.groups()
        _check_authority(named)
        if hosts and named.lower() != authority.lower():
            raise _Refused(400, "the request's target and its Host differ")
        authority = named
        target = b"/" if not rest else rest if rest.startswith(b"/") else b"/" + rest
    _check_path(method, target)
    return target, authority


def _place(method: bytes, pseudo: dict[bytes, bytes], *, hosts: list[bytes]) -> tuple[bytes, bytes]:
    """Path and authority of an HTTP/2 request (RFC 9113 §8.3.1)."""
    if b":path" not in pseudo:
        raise _Refused(400, "the path is missing")
    _check_path(method, pseudo[b":path"])
    authority = pseudo.get(b":authority")
    if len(hosts) > 1 or (hosts and authority is not None and hosts[0].lower() != authority.lower()):
        raise _Refused(400, "several hosts are named")
    found = authority if authority is not None else hosts[0] if hosts else b""
    _check_authority(found)
    return pseudo[b":path"], found


def _check_path(method: bytes, path: bytes) -> None:
    if len(path) > MAX_TARGET:
        raise _Refused(414, f"the path is longer than {MAX_TARGET} bytes")
    if not (_PATH.fullmatch(path) or (path == b"*" and method == b"OPTIONS")):
        raise _Refused(400, "the path is malformed")


def _check_authority(authority: bytes) -> None:
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found[1] or 0) > 65535:
        raise _Refused(400, "the host is malformed")


def _framing(index: Index, *, is_old: bool) -> tuple[int | None, bool]:
    """The length of the body when it is given, and whether it comes in chunks (RFC 9112 §6)."""
    lengths, codings = _values(index, b"content-length"), _values(index, b"transfer-encoding")
    if codings:
        if lengths or is_old:
            raise _Refused(400, "transfer-encoding with content-length, or in HTTP/1.0")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            known = b"chunked" in field_rules.words(codings)
            raise _Refused(400 if known else 501, "the only transfer-encoding is chunked")
    if not lengths:
        return None, bool(codings)
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise _Refused(400, "there must be one content-length, a number")
    return int(lengths[0]), False


def _split(fields: Fields) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-headers, and the fields after them."""
    if len(fields) > MAX_FIELDS + len(PSEUDO):
        raise _Refused(431, f"more than {MAX_FIELDS} headers")
    sizes = (len(name) + len(value) + FIELD_OVERHEAD for name, value in fields if name != b":path")
    if sum(sizes) > MAX_HEAD:
        raise _Refused(431, f"the headers are longer than {MAX_HEAD} bytes")
    pseudo: dict[bytes, bytes] = {}
    for number, (name, value) in enumerate(fields):
        if not name.startswith(b":"):
            return pseudo, fields[number:]
        if name not in PSEUDO or name in pseudo:
            raise _Refused(400, "a pseudo-header is unknown, or there twice")
        pseudo[name] = value
    return pseudo, ()


def _check_http2_fields(fields: Fields) -> None:
    for name, value in fields:
        if name != name.lower() or field_rules.kind(name) is Kind.MALFORMED:
            raise _Refused(400, "a header's name is malformed, or a pseudo-header comes late")
        if not field_rules.VALUE.fullmatch(value):
            raise _Refused(400, "a header's value is malformed")
        if name in CONNECTIONS_OWN or (name == b"te" and value.lower() != b"trailers"):
            raise _Refused(400, "a header is not one of HTTP/2")


def _one_cookie(fields: Fields) -> Fields:
    """HTTP/2 may cut cookies into pieces, which HTTP/1.1 and many an application want whole (RFC 9113 §8.2.3)."""
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) < 2:
        return fields
    return (*(field for field in fields if field[0] != b"cookie"), (b"cookie", b"; ".join(cookies)))


def _is_grpc(index: Index) -> bool:
    """Whether it is gRPC itself, which needs HTTP/2 up to the application; gRPC-Web does not."""
    kinds = _values(index, b"content-type")
    essence = kinds[0].split(b";")[0].strip().lower() if len(kinds) == 1 else b""
    return essence == b"application/grpc" or essence.startswith(b"application/grpc+")


def _index(fields: Fields) -> Index:
    """The values of each field by its name in small letters: most requests are asked for six names."""
    found: Index = {}
    for name, value in fields:
        found.setdefault(name.lower(), []).append(value)
    return found


def _values(index: Index, name: bytes) -> list[bytes]:
    return index.get(name, [])


# Stands for one that could not be read: it is answered, and nothing else.
UNREADABLE = Request(method=b"GET", path=b"/", authority=b"", version="1.1", is_last=True)
