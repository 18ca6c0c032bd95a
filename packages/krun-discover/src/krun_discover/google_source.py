"""What all sources of Google's tokens have in common: two questions, and the way they say that they are not there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from krun_discover.errors import Denied, Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_discover.token_claims import audiences, expires, is_token, shown

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
SCOPES = (CLOUD_PLATFORM,)
UNKNOWN_LIFE = 300.0  # seconds that a token is believed to live whose end nobody tells
IMPERSONATION = "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT"


class Source(Protocol):
    """Somebody whom Google knows, and who can prove it."""

    @property
    def label(self) -> str:
        """For a person: what it is, and where it is from."""

    @property
    def principal(self) -> str:
        """What tells it from others, for a cache; a text without secrets. Empty: tokens are not to be kept."""

    @property
    def member(self) -> str:
        """The principal in IAM's words (``serviceAccount:EMAIL``), for commands in hints; may be a placeholder."""

    def access(self, scopes: Sequence[str] = SCOPES) -> Token:
        """An access token. Raises Absent, or a Failure."""

    def identity(self, audience: str) -> Token:
        """An ID token for the audience. Raises Absent, or a Failure."""


class Absent(Exception):
    """The source is not there on this machine: the next one is asked. The text says why."""


def issued(value: object, *, source: str, seconds: object = None, audience: str = "") -> Token:
    """A token out of somebody's answer; ``seconds`` is its life when the answer tells one.

    Raises Unreachable for an answer without a token, or with one that has expired; Denied for another audience's.
    """
    if not isinstance(value, str) or not is_token(value):
        raise Unreachable(f"{source}: the answer holds no token", hint="is something between us and Google?")
    now = time.time()
    end = expires(value)
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdecimal() and len(seconds) < 10:
        seconds = int(seconds)  # some services write numbers as strings
    if isinstance(seconds, int | float) and abs(seconds) < 1e9:
        end = now + seconds
    if end is not None and end <= now:
        raise Unreachable(f"{source}: the token in the answer has expired", hint="is the clock of this machine right?")
    if audience and audiences(value) and audience not in audiences(value):
        # gcloud does so when it cannot renew a login: it prints the last token that it had for itself.
        told = shown(", ".join(audiences(value)))
        hint = "gcloud auth login" if source.startswith("gcloud") else "is something between us and Google?"
        raise Denied(f"{source}: the ID token is for {told}, not for {audience}", hint=hint)
    return Token(value=value, expires=now + UNKNOWN_LIFE if end is None else end, source=source)


def no_identity(who: str) -> Misconfigured:
    """The error for users: Google signs them ID tokens for its own client only."""
    return Misconfigured(
        f"{who}: there is no ID token of a chosen audience for a user's login",
        hint=f"impersonate a service account: {IMPERSONATION}=EMAIL, and for it: gcloud iam service-accounts "
        "add-iam-policy-binding EMAIL --role=roles/iam.serviceAccountOpenIdTokenCreator --member=user:YOU",
    )
