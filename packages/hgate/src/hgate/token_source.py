"""Where ID tokens come from: a command, a file, a key, the metadata server; of another account by IAM, in its name."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Protocol

from hbone.tokens import UNKNOWN_LIFE, Source, Tokens, claims_of
from hgate import errors, web
from hgate.routes import Identity
from hgate.threads import in_thread

OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS"
IAM = "https://iamcredentials.googleapis.com/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Minted:
    """A token, and what it says of itself. Never printed whole."""

    token: str
    issued: float
    expires: float
    email: str = ""

    def __repr__(self) -> str:
        return f"Minted(email={self.email!r}, expires={self.expires})"


class Credentials(Protocol):
    """The gate's own account: the metadata server's, or that of a key."""

    def id_token(self, audience: str) -> str:
        """An ID token. Raises errors.Failure."""
        ...

    def access_token(self) -> str:
        """An access token for Google's APIs. Raises errors.Failure."""
        ...


class TokenSource(Protocol):
    """Who makes tokens for an identity. ``is_configured``: it was asked for, so every tunnel gets one."""

    @property
    def is_configured(self) -> bool: ...

    async def mint(self, identity: Identity, *, now: float) -> Minted:
        """A token that is new. Raises errors.Failure, or hbone's: there is none, and why."""
        ...


class Configured:
    """The command or the file that flags name: hbone's own way, for the gate's own account alone."""

    is_configured = True

    def __init__(self, source: Source) -> None:
        self._tokens = Tokens(source)

    async def mint(self, identity: Identity, *, now: float) -> Minted:
        if identity.account:
            raise errors.Misconfigured(
                f"no token as {identity.account}: the token command or file has only the gate's own",
                hint="leave --token-command and --token-file away where the metadata server has tokens",
            )
        self._tokens.forget(identity.audience)
        token = await self._tokens.find(identity.audience)
        if not token:
            raise errors.Misconfigured("no ID token: there is neither command nor file")
        return minted(token, now=now)


class Google:
    """The gate's own, and by IAM those of accounts that it may act for."""

    is_configured = False

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._iam = os.environ.get(OVERRIDE, "") or IAM

    async def mint(self, identity: Identity, *, now: float) -> Minted:
        # Both block; each call has its own deadline.
        token = await in_thread(lambda: self._mint(identity), name="id-token")
        return minted(token, now=now)

    def _mint(self, identity: Identity) -> str:
        if not identity.account:
            return self._credentials.id_token(identity.audience)
        return self._as_another(identity)

    def _as_another(self, identity: Identity) -> str:
        url = f"{self._iam.rstrip('/')}/v1/projects/-/serviceAccounts/{identity.account}:generateIdToken"
        # Without the email most receivers refuse the token.
        asked = json.dumps({"audience": identity.audience, "includeEmail": True}).encode()
        headers = {"Authorization": f"Bearer {self._credentials.access_token()}", "Content-Type": "application/json"}
        answer = web.call(url, headers=headers, body=asked)
        if answer.status in (401, 403):
            raise errors.Denied(
                f"IAM refuses an ID token of {identity.account}: {answer.status} {answer.words()}",
                hint=f"grant the gate's account roles/iam.serviceAccountOpenIdTokenCreator on {identity.account}",
            )
        if answer.status != 200:
            raise errors.Unreachable(f"IAM has no ID token of {identity.account}: {answer.status} {answer.words()}")
        try:
            return str(json.loads(answer.body)["token"])
        except (ValueError, KeyError, TypeError) as error:
            raise errors.Unreachable(f"IAM's answer for {identity.account} holds no token") from error


def minted(token: str, *, now: float) -> Minted:
    """A token with what its claims say; of one that says nothing, a minute is believed."""
    claims = claims_of(token)
    expires, issued = claims.get("exp"), claims.get("iat")
    if not isinstance(expires, int | float) or not 0 < expires < 1e11:
        return Minted(token=token, issued=now, expires=now + UNKNOWN_LIFE)
    begins = float(issued) if isinstance(issued, int | float) and 0 < issued <= now else now
    return Minted(token=token, issued=begins, expires=float(expires), email=str(claims.get("email", "")))
