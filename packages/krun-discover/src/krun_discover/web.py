"""Requests over HTTP and HTTPS, one at a time, each with its own limit inside one deadline, each written down.

Not a library's client: this stands in front of every cold start, and importing one costs more than all the requests.
What such a client could get wrong with credentials is settled here once: nothing is redirected, TLS is verified,
and a token goes to ``https`` or to this machine itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from krun_discover.errors import DeadlinePassed, Misconfigured
from krun_discover.record import NONE, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection
    from typing import Any
    from urllib.parse import SplitResult

LIMIT = 5.0  # seconds for one try: a fresh instance may have no network yet, and a later try finds it
TRIES = 3
LEAST = 0.5  # seconds for a try, or it is not worth it
PAUSE = 0.5  # seconds before the second try, twice as much before each further one
LONGEST_PAUSE = 5.0  # seconds, also where Retry-After asks for more
BODY_LIMIT = 32 * 1024 * 1024  # bytes
BUSY = frozenset({408, 429, 500, 502, 503, 504})  # worth another try
SECRET_HEADERS = frozenset({"authorization", "x-serverless-authorization"})
LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")


class Tls(Record):
    """Whom to believe, and who we are. ``roots``: PEM, empty for the system's; ``certificate``, ``key``: files."""

    roots: str = ""
    server_name: str = ""  # to be verified instead of the URL's host
    insecure: bool = False
    certificate: str = ""
    key: str = ""


class Call(Record, hidden=("headers", "body")):
    """One request. ``url`` without a query that holds secrets: it is shown; headers and body never are."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = NONE
    body: bytes = b""
    tls: Tls = Tls()
    proxy: str = ""  # a URL; empty: what HTTPS_PROXY and NO_PROXY say; "-": none


class Reply(Record, hidden=("headers", "body")):
    """What came back; header names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_last: bool = True  # of its connection

    def json(self) -> Any:
        """The body as JSON. Raises NoReply: what does not speak JSON is not whom we meant to ask."""
        import json

        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise NoReply("the answer is not JSON", kind="malformed") from error


Place = tuple[str, str, Tls, str]  # scheme, host and port, how it is verified, proxy


class NoReply(Exception):
    """There is no answer. ``kind``: name, refused, tls, timeout, proxy, broken, malformed."""

    def __init__(self, reason: str, *, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Entry(Record):
    """One try, for --explain: ``outcome`` is the status or the reason why there is none."""

    method: str
    url: str
    outcome: str
    seconds: float


class Web:
    """The requests of one run; ``deadline`` is of time.monotonic."""

    def __init__(
        self, *, deadline: float, environ: Mapping[str, str], limit: float = LIMIT, tries: int = TRIES
    ) -> None:
        """``limit``: seconds of one try; ``tries``: how often at most, where a call does not say."""
        self.deadline = deadline
        self._tries = tries
        self.journal: list[Entry] = []
        self._environ = environ
        self._limit = limit
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._waiting = _Waiting()

    def hurried(self, *, limit: float) -> Web:
        """The same for where there are others to ask: one try, with this limit, in the same journal."""
        other = Web(deadline=self.deadline, environ=self._environ, limit=min(limit, self._limit), tries=1)
        other.journal, other._contexts, other._waiting = self.journal, self._contexts, self._waiting
        return other

    def ask(self, call: Call, *, tries: int = 0, limit: float = 0.0) -> Reply:
        """The reply, of any status. Busy servers and broken connections are tried again, within the deadline.

        Raises:
            NoReply: no try was answered.
            Misconfigured: a token would go over plain HTTP, or a certificate cannot be read.
            DeadlinePassed: the time of the whole run is up.
        """
        _check(call)
        pause = PAUSE
        tries = tries or self._tries
        for number in range(1, tries + 1):
            is_last = number == tries
            try:
                reply = self._try(call, limit=limit or self._limit)
            except NoReply as error:
                if is_last or error.kind in ("tls", "malformed") or not self._can_pause(pause):
                    raise
            else:
                pause = max(pause, _asked_for(reply))
                if is_last or reply.status not in BUSY or not self._can_pause(pause):
                    return reply
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        raise AssertionError("the last try returns or raises")

    def _can_pause(self, seconds: float) -> bool:
        """Whether there is time left for another try after the pause: one of no time only hides what was said."""
        return time.monotonic() + seconds + LEAST < self.deadline

    def _try(self, call: Call, *, limit: float) -> Reply:
        started = time.monotonic()
        left = self.deadline - started
        if left <= 0:
            raise DeadlinePassed(f"{_shown(call.url)}: not asked, the time is up", hint="give it more with --timeout")
        outcome = "no answer in time"
        try:
            reply = self._reply(call, seconds=min(limit, left))
            outcome = str(reply.status)
            return reply
        except NoReply as error:
            outcome = str(error)
            raise
        finally:
            seconds = time.monotonic() - started
            self.journal.append(Entry(method=call.method, url=_shown(call.url), outcome=outcome, seconds=seconds))

    def _reply(self, call: Call, *, seconds: float) -> Reply:
        """By a connection that waits, when the server has not closed it in the meantime, or by a new one."""
        url = _split(call.url)
        proxy = self._proxy(call) if url.scheme == "https" else ""
        place = (url.scheme, url.netloc, call.tls, proxy)
        # Only what may be asked twice: a server closes a connection at any moment.
        waiting = self._waiting.take(place) if call.method == "GET" else None
        if waiting is not None:
            try:
                reply = _within(seconds, lambda: _exchange(call, waiting, seconds=seconds, is_proxied=bool(proxy)))
            except NoReply as error:
                if error.kind == "timeout":
                    raise
            else:
                self._waiting.keep(place, waiting, is_last=reply.is_last)
                return reply
        connection = self._connection(call, seconds=seconds, proxy=proxy)
        reply = _within(seconds, lambda: _exchange(call, connection, seconds=seconds, is_proxied=bool(proxy)))
        self._waiting.keep(place, connection, is_last=reply.is_last)
        return reply

    def _connection(self, call: Call, *, seconds: float, proxy: str) -> HTTPConnection:
        from http.client import HTTPConnection

        from krun_discover.web_tls import connection

        url = _split(call.url)
        if url.scheme == "http":
            return HTTPConnection(url.hostname or "", url.port or 80, timeout=seconds)
        if call.tls not in self._contexts:
            from krun_discover.web_tls import context

            self._contexts[call.tls] = context(call.tls)
        return connection(
            host=url.hostname or "",
            port=url.port or 443,
            seconds=seconds,
            context=self._contexts[call.tls],
            server_name=call.tls.server_name,
            proxy=proxy,
        )

    def _proxy(self, call: Call) -> str:
        if call.proxy:
            return "" if call.proxy == "-" else call.proxy
        if not (self._environ.get("HTTPS_PROXY") or self._environ.get("https_proxy")):
            return ""
        from krun_discover.web_tls import proxy_of

        return proxy_of(_split(call.url).hostname or "", environ=self._environ)


class _Waiting:
    """Connections for the next request to the same server; closed with the last of those who use them."""

    def __init__(self) -> None:
        self._connections: dict[Place, HTTPConnection] = {}

    def take(self, place: Place) -> HTTPConnection | None:
        return self._connections.pop(place, None)

    def keep(self, place: Place, connection: HTTPConnection, *, is_last: bool) -> None:
        if is_last or place in self._connections:
            connection.close()
        else:
            self._connections[place] = connection

    def __del__(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _exchange(call: Call, connection: HTTPConnection, *, seconds: float, is_proxied: bool) -> Reply:
    from http.client import HTTPException  # late: with its imports it is half of our start-up time

    url = _split(call.url)
    try:
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request(call.method, path, body=call.body or None, headers=dict(call.headers))
        response = connection.getresponse()
        body = response.read(BODY_LIMIT + 1)
        if len(body) > BODY_LIMIT:
            raise NoReply(f"the answer is longer than {BODY_LIMIT} bytes", kind="malformed")
        headers = {name.lower(): value for name, value in response.getheaders()}
        is_last = response.will_close or not response.isclosed()
        return Reply(status=response.status, headers=headers, body=body, is_last=is_last)
    except (OSError, HTTPException, UnicodeError) as error:
        connection.close()
        raise _no_reply(error, is_proxied=is_proxied) from error


def _split(url: str) -> SplitResult:
    from urllib.parse import urlsplit  # late: all may be known

    return urlsplit(url)


def is_local(url: str) -> bool:
    """Tell whether the URL's host is this machine itself."""
    return LOOPBACK.fullmatch(_split(url).hostname or "") is not None


def _check(call: Call) -> None:
    scheme = _split(call.url).scheme
    if scheme not in ("http", "https"):
        raise Misconfigured(f"{_shown(call.url)} is not a URL of http or https", hint="write https://HOST/…")
    has_secret = any(name.lower() in SECRET_HEADERS for name in call.headers) or bool(call.tls.certificate)
    if scheme == "http" and has_secret and not is_local(call.url):
        raise Misconfigured(
            f"{_shown(call.url)}: a token is not sent over plain http", hint="use https, or an address of this machine"
        )


def _shown(url: str) -> str:
    """The URL without user, password and query."""
    parts = _split(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _asked_for(reply: Reply) -> float:
    """The seconds of Retry-After (RFC 9110 §10.2.3); its form as a date is not worth the reading."""
    text = reply.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE) if text.isascii() and text.isdecimal() and len(text) < 6 else 0.0


def _no_reply(error: Exception, *, is_proxied: bool) -> NoReply:
    import socket
    import ssl

    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            return NoReply(f"its certificate is not trusted: {error.verify_message}", kind="tls")
        case ssl.SSLError():
            return NoReply(f"TLS failed: {error.reason or reason}", kind="tls")
        case socket.gaierror():
            return NoReply(f"its name is not found: {reason}", kind="name")
        case TimeoutError():
            return NoReply("no answer in time", kind="timeout")
        case ConnectionRefusedError():
            return NoReply("the proxy refused the connection" if is_proxied else "connection refused", kind="refused")
        case OSError() if is_proxied and "Tunnel connection failed" in str(error):
            return NoReply(f"the proxy refused: {str(error).partition(': ')[2]}", kind="proxy")
    return NoReply(reason, kind="broken")


def _within(seconds: float, exchange: Callable[[], Reply]) -> Reply:
    """The reply, within the time.

    In a thread, which is left behind then: a name lookup knows no deadline, and a socket's timeout begins again with
    each byte that a slow server sends.
    """
    import threading

    results: list[Reply | BaseException] = []

    def run() -> None:
        try:
            results.append(exchange())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    result = results[0] if results else NoReply(f"no answer within {seconds:.3g} s", kind="timeout")
    if isinstance(result, BaseException):
        raise result
    return result
