"""What a refused tunnel means to a person: exit status, reason and hint by HTTP status."""

from __future__ import annotations

from hbone import errors
from hbone.urls import URL

MAX_TEXT = 200


class Refused(Exception):
    """The server answered, and not with 200."""

    def __init__(self, *, status: int, failure: errors.Failure) -> None:
        super().__init__(failure.message)
        self.status = status
        self.failure = failure


def refusal(url: URL, *, status: int, text: str, has_token: bool) -> errors.Failure:
    """The failure for a status; ``text`` is the answer's body, and not to be trusted."""
    said = "".join(character if character.isprintable() else " " for character in text[:MAX_TEXT]).strip()
    message = f"no tunnel to {url}: status {status}" + (f", {said}" if said else "")
    if status in (401, 403):
        hint = f"the ID token's audience must be {url.audience}, and its account an invoker (roles/run.invoker)"
        if not has_token:
            hint = f"no ID token was sent; give --token-command or --token-file, for audience {url.audience}"
        return errors.Denied(message, hint=hint)
    if status == 404:
        hint = "the port must be offered there (KRUN_OFFER, PORT_name), and the URL be the service's own"
        return errors.Misconfigured(message, hint=hint)
    if status in (405, 411, 464):
        return errors.Misconfigured(message, hint="the server is no hboned, or its front does not pass HTTP/2 on")
    if status in (408, 504):
        return errors.DeadlinePassed(message, hint="the server was too slow; see its log")
    if status == 429:
        return errors.Unreachable(message, hint="no instance is free; raise concurrency or the number of instances")
    if status == 503:
        return errors.Unreachable(message, hint="nobody listens on that port there, or the container does not start")
    return errors.Unreachable(message, hint="see the server's log")
