"""What goes wrong on demand: for requests whose path has a pattern, so many times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from krun_testbed.google_api_messages import Answer, error

ALWAYS = -1
LONG = 600.0  # seconds: nobody waits for the end of a hang, the server's stop ends it


@dataclass(kw_only=True)
class Fault:
    """One disturbance. Without an answer the true one goes back, after the wait; ``cut`` ends the connection first.

    ``path``: a regular expression that is searched in the path; ``times``: how often, ALWAYS for each time.
    """

    path: str = ""
    times: int = ALWAYS
    wait: float = 0.0  # seconds before the first byte
    answer: Answer | None = None
    pause: float = 0.0  # seconds before each further byte of the body
    cut: int | None = None  # bytes of the answer's body that go out before the connection ends; -1: not even a head

    def takes(self, path: str) -> bool:
        """Tell whether the request is disturbed; it counts then."""
        if self.times == 0 or not re.search(self.path, path):
            return False
        self.times -= self.times > 0
        return True


def slow(seconds: float, *, path: str = "", times: int = ALWAYS) -> Fault:
    """The first byte is late."""
    return Fault(path=path, times=times, wait=seconds)


def drip(pause: float, *, path: str = "", times: int = ALWAYS) -> Fault:
    """The body comes byte by byte: no read is ever silent for long, and the whole takes for ever."""
    return Fault(path=path, times=times, pause=pause)


def hang(*, path: str = "", times: int = ALWAYS) -> Fault:
    """The request is read, and nothing comes until the server ends."""
    return Fault(path=path, times=times, wait=LONG, cut=-1)


def cut(*, after: int = -1, path: str = "", times: int = ALWAYS) -> Fault:
    """The connection ends without an answer, or after so many bytes of its body."""
    return Fault(path=path, times=times, cut=after)


def status(
    code: int,
    message: str = "The service is currently unavailable.",
    *,
    path: str = "",
    times: int = ALWAYS,
    reason: str = "",
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """An error in Google's form; ``headers`` such as Retry-After."""
    made = error(code, message, reason=reason)
    return _answered(made, headers=headers or {}, path=path, times=times)


def malformed(body: bytes = b"<html>502 Bad Gateway</html>", *, path: str = "", times: int = ALWAYS) -> Fault:
    """200, and no JSON."""
    return Fault(path=path, times=times, answer=Answer(body=body, headers={"Content-Type": "text/html"}))


def redirect(to: str, *, code: int = 302, path: str = "", times: int = ALWAYS) -> Fault:
    """Somewhere else, such as a host that must never see a token."""
    return Fault(path=path, times=times, answer=Answer(status=code, headers={"Location": to}))


def disabled(service: str, *, project: str, path: str = "", times: int = ALWAYS) -> Fault:
    """The API is not enabled in the project."""
    where = f"https://console.developers.google.com/apis/api/{service}/overview?project={project}"
    state = f"{service} has not been used in project {project} before or it is disabled."
    message = f"{state} Enable it by visiting {where} then retry."
    return Fault(path=path, times=times, answer=error(403, message, reason="SERVICE_DISABLED", service=service))


def _answered(made: Answer, *, headers: Mapping[str, str], path: str, times: int) -> Fault:
    whole = Answer(status=made.status, body=made.body, headers={**made.headers, **headers})
    return Fault(path=path, times=times, answer=whole)
