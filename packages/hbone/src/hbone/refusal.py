"""What a refused tunnel means to a person: exit status, reason and hint by HTTP status."""

from __future__ import annotations

import time

from hbone import errors
from hbone.urls import URL

MAX_TEXT = 200
MAX_TIME = 1e11  # seconds since 1970; what is more is no time


class Refused(Exception):
    """The server answered, and not with 200."""

    def __init__(self, *, status: int, failure: errors.Failure) -> None:
        super().__init__(failure.message)
        self.status = status
        self.failure = failure


def refusal(url: URL, *, status: int, text: str, token: str | None) -> errors.Failure:
    """The failure for a status; ``text`` is the answer's body, and not to be trusted. ``token`` was sent."""
    said = _printable(text)
    message = f"no tunnel to {url}: status {status}" + (f", {said}" if said else "")
    if status in (401, 403):
        return errors.Denied(message, hint=_about_token(url, token))
    if status == 404:
        hint = (
            "the port must be offered there (KRUN_OFFER, PORT_name); "
            "a front says 404, too, for a wrong name, and where a service's ingress leaves this network out"
        )
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


def _about_token(url: URL, token: str | None) -> str:
    """Why it was not accepted, as far as it says itself; never the token.

    401 and 403 do not tell a wrong token from a missing right, so all that both depend on is said for either.
    """
    if not token:
        return f"no ID token was sent; give --token-command or --token-file, for audience {url.audience}"
    from hbone.tokens import claims_of  # late: most are let in

    wanted = f"the ID token's audience must be {url.audience}, and its account an invoker (roles/run.invoker)"
    claims = claims_of(token)
    if not claims:
        return f"what was sent is no ID token (a JWT), but perhaps an access token; {wanted}"
    audience, email, expires = claims.get("aud"), claims.get("email"), claims.get("exp")
    told = [f"audience {_said(audience)}", f"email {_said(email)}", f"expires {_time(expires)}"]
    return f"{wanted}; the one that was sent has {', '.join(told)}"


def _said(claim: object) -> str:
    """A claim as a person reads it; there may be several audiences."""
    values = claim if isinstance(claim, list) else [claim]
    return " or ".join(_printable(value) for value in values if isinstance(value, str) and value) or "(none)"


def _time(claim: object) -> str:
    if not isinstance(claim, int | float) or not 0 < claim < MAX_TIME:
        return "(never said)"
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(claim))
    return moment if claim > time.time() else f"{moment}, which is over"


def _printable(text: str) -> str:
    """At most so much of what others have written, and on one line."""
    return "".join(character if character.isprintable() else " " for character in text[:MAX_TEXT]).strip()
