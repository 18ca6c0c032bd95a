"""Tokens of a service account by its key, in the file that GOOGLE_APPLICATION_CREDENTIALS names. Blocks.

For gates outside of Google Cloud, where no metadata server has tokens: the key signs an assertion (RFC 7523), which
Google's token endpoint takes for a token.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hgate import errors, web

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
OVERRIDE = "CLOUDSDK_AUTH_TOKEN_HOST"
ENDPOINT = "https://oauth2.googleapis.com/token"  # and for whom an assertion is, wherever it is sent
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LIFE = 3600  # seconds: the most that Google takes
KIND = "service_account"


class KeyFile:
    """The file; it is read anew for each token, as keys are replaced. Never printed."""

    def __init__(self, path: str) -> None:
        """Raises Misconfigured: it cannot be read, or is none of a service account's key."""
        self._path = path
        self._read()

    def id_token(self, audience: str) -> str:
        """An ID token of that account.

        Raises:
            errors.Misconfigured: the file is not such a one any more.
            errors.Denied: Google does not take the key.
            errors.Unreachable: no answer.
        """
        return self._exchange({"target_audience": audience}, word="id_token")

    def access_token(self) -> str:
        """An access token of that account, for Google's APIs. Raises as ``id_token``."""
        return self._exchange({"scope": SCOPE}, word="access_token")

    def _read(self) -> dict[str, Any]:
        hint = f"{VARIABLE} names the JSON file of a service account's key; without it, the metadata server has tokens"
        try:
            found = json.loads(Path(self._path).read_text(encoding="utf-8"))
        except OSError as error:
            raise errors.Misconfigured(f"cannot read {self._path}: {error.strerror}", hint=hint) from error
        except ValueError as error:
            raise errors.Misconfigured(f"{self._path} is no JSON", hint=hint) from error
        if not isinstance(found, dict) or found.get("type") != KIND:
            # A user's login and a federated identity have no ID token of an audience that one may choose.
            raise errors.Misconfigured(f"{self._path} holds no key of a service account", hint=hint)
        if not all(isinstance(found.get(name), str) for name in ("client_email", "private_key", "private_key_id")):
            raise errors.Misconfigured(f"{self._path}: an e-mail, a key or its id is missing", hint=hint)
        return found

    def _exchange(self, asked: dict[str, str], *, word: str) -> str:
        facts = self._read()
        url = os.environ.get(OVERRIDE) or str(facts.get("token_uri") or ENDPOINT)
        if not url.startswith("https://"):
            raise errors.Misconfigured(f"{self._path}: its token_uri is not https", hint="download the key file again")
        fields = urlencode({"grant_type": GRANT, "assertion": self._assertion(facts, asked)}).encode()
        answer = web.call(url, headers={"Content-Type": "application/x-www-form-urlencoded"}, body=fields)
        try:
            said = json.loads(answer.body)
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        if answer.status in (400, 401, 403):
            why = f"{said.get('error', answer.status)}: {said.get('error_description', 'no word why')}"[:300]
            raise errors.Denied(
                f"Google does not take the key of {facts['client_email']}: {why}",
                hint="is the key deleted or disabled, or this machine's clock wrong?",
            )
        token = said.get(word)
        if answer.status != 200 or not isinstance(token, str):
            raise errors.Unreachable(f"Google's token endpoint fails: {answer.status}, no {word}")
        return token

    def _assertion(self, facts: dict[str, Any], asked: dict[str, str]) -> str:
        # Half a second, and only for those who have such a file.
        try:
            from google.auth import crypt, jwt
        except ImportError as error:
            hint = "install krun-hgate[google]"
            raise errors.Misconfigured(f"what signs with a key is not there: {error}", hint=hint) from error

        now = int(time.time())
        claims = {"iss": facts["client_email"], "aud": ENDPOINT, "iat": now, "exp": now + LIFE, **asked}
        try:
            signer = crypt.RSASigner.from_service_account_info(facts)  # type: ignore[no-untyped-call]
        except ValueError as error:
            # Not its words: they may quote the key.
            raise errors.Misconfigured(
                f"{self._path}: its private key cannot be read", hint="download it again"
            ) from error
        return bytes(jwt.encode(signer, claims)).decode()  # type: ignore[no-untyped-call]


def find() -> KeyFile | None:
    """The one that the environment names. Raises Misconfigured."""
    path = os.environ.get(VARIABLE, "")
    return KeyFile(path) if path else None
