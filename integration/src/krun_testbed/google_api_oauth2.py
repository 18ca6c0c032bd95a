"""Google's token endpoint (oauth2.googleapis.com): a service account's key, and a user's login.

https://developers.google.com/identity/protocols/oauth2/service-account
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from krun_testbed.google_api_messages import Answer, Asked, oauth_error, ok, refused
from krun_testbed.google_api_tokens import CLOUD_PLATFORM, LIFE, Accounts

JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT = {"client_id": "764086051850.apps.googleusercontent.com", "client_secret": "not-a-secret"}  # as gcloud's


@dataclass(kw_only=True)
class OAuth2:
    """``keys`` are those that accounts have, by email; ``logins`` are users by their refresh token."""

    accounts: Accounts
    keys: dict[str, rsa.RSAPublicKey] = field(default_factory=dict)
    logins: dict[str, str] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        if (asked.method, asked.path) != ("POST", "/token"):
            raise refused("NOT_FOUND", f"Method not found: {asked.method} {asked.path}")
        fields = asked.fields
        match fields.get("grant_type"):
            case "refresh_token":
                return self._login(fields)
            case grant if grant == JWT_GRANT:
                return self._assertion(str(fields.get("assertion", "")))
        raise oauth_error("unsupported_grant_type", f"Invalid grant_type: {fields.get('grant_type', '')}")

    def service_account(self, email: str, *, project: str, token_uri: str) -> dict[str, str]:
        """A new key of an account, as the file that the console makes."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.keys[email] = key.public_key()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": project,
            "private_key_id": secrets.token_hex(20),
            "private_key": pem.decode(),
            "client_email": email,
            "client_id": "100000000000000000001",
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }

    def login(self, email: str) -> dict[str, str]:
        """A user's login, as the file of ``gcloud auth application-default login``."""
        word = f"1//{secrets.token_urlsafe(32)}"
        self.logins[word] = email
        return {"type": "authorized_user", "refresh_token": word, "universe_domain": "googleapis.com", **CLIENT}

    def _login(self, fields: dict[str, Any]) -> Answer:
        if any(fields.get(name) != value for name, value in CLIENT.items()):
            raise oauth_error("invalid_client", "The OAuth client was not found.", status=401)
        email = self.logins.get(str(fields.get("refresh_token")))
        if email is None:
            raise oauth_error("invalid_grant", "Token has been expired or revoked.")
        token = self.accounts.access_token(email, way="refresh")
        # The ID token of a login is for the client that the user logged in to, whatever is asked.
        identity = self.accounts.id_token(email, CLIENT["client_id"])
        issued = {"access_token": token, "expires_in": LIFE, "scope": CLOUD_PLATFORM, "token_type": "Bearer"}
        return ok(issued | {"id_token": identity})

    def _assertion(self, assertion: str) -> Answer:
        claims = self._verified(assertion)
        if claims.get("target_audience"):
            return ok({"id_token": self.accounts.id_token(claims["iss"], claims["target_audience"])})
        if not claims.get("scope"):
            raise oauth_error("invalid_scope", "Empty or missing scope not allowed.")
        token = self.accounts.access_token(claims["iss"], scopes=claims["scope"], way="jwt")
        return ok({"access_token": token, "expires_in": LIFE, "token_type": "Bearer"})

    def _verified(self, assertion: str) -> dict[str, Any]:
        """The claims of an assertion that its account has signed."""
        try:
            signed, _, signature = assertion.rpartition(".")
            claims: dict[str, Any] = json.loads(_bytes(signed.split(".")[1]))
            key = self.keys[claims["iss"]]
            key.verify(_bytes(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (ValueError, IndexError, KeyError, TypeError, InvalidSignature) as error:
            raise oauth_error("invalid_grant", "Invalid JWT Signature.") from error
        now = time.time()
        if (
            not now - 3600 < float(claims.get("iat", 0)) <= float(claims.get("exp", 0)) <= now + 3700
            or claims["exp"] < now
        ):
            raise oauth_error("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        return claims


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
