"""Tokens of others exchanged for Google's (sts.googleapis.com, v1; RFC 8693), by form or by JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from krun_testbed.google_api_messages import Answer, Asked, oauth_error, ok, refused
from krun_testbed.google_api_tokens import CLOUD_PLATFORM, LIFE, Accounts

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
SUBJECTS = tuple(f"urn:ietf:params:oauth:token-type:{name}" for name in ("jwt", "id_token"))
# JSON has the same names in another spelling.
CAMEL = {
    "grantType": "grant_type",
    "requestedTokenType": "requested_token_type",
    "subjectTokenType": "subject_token_type",
    "subjectToken": "subject_token",
}
# The subject of a token that the audience's provider trusts, as a principal; None when it does not.
Verify = Callable[[str], str | None]


@dataclass(kw_only=True)
class Sts:
    """``providers`` maps each audience that is known to who verifies a subject token for it."""

    accounts: Accounts
    providers: dict[str, Verify] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        if (asked.method, asked.path) != ("POST", "/v1/token"):
            raise refused("NOT_FOUND", f"Method not found: {asked.method} {asked.path}")
        fields = {CAMEL.get(name, name): value for name, value in asked.fields.items()}
        _check(fields)
        verify = self.providers.get(fields["audience"])
        if verify is None:
            raise oauth_error("invalid_target", 'The target service indicated by the "audience" parameters is invalid.')
        principal = verify(fields["subject_token"])
        if principal is None:
            raise oauth_error("invalid_grant", "ID Token issued by an untrusted issuer, or for another audience.")
        scope = str(fields.get("scope") or CLOUD_PLATFORM)
        token = self.accounts.access_token(principal, scopes=scope, way="sts")
        issued = {"access_token": token, "issued_token_type": ACCESS, "token_type": "Bearer", "expires_in": LIFE}
        return ok(issued)


def _check(fields: Mapping[str, Any]) -> None:
    for name in ("grant_type", "audience", "requested_token_type", "subject_token_type", "subject_token"):
        if not fields.get(name):
            raise oauth_error("invalid_request", f"Missing required parameter: {name}")
    if fields["grant_type"] != GRANT:
        raise oauth_error("unsupported_grant_type", f"Unsupported grant type: {fields['grant_type']}")
    if fields["requested_token_type"] != ACCESS or fields["subject_token_type"] not in SUBJECTS:
        raise oauth_error("invalid_request", "Invalid value for requested_token_type or subject_token_type")
