"""Who may call: accounts, the tokens that they were given, and what they may do.

Access tokens are opaque, as Google's are, and remembered here, so that a test can tell whose one was and how it was
got. ID tokens are JWTs, signed by an issuer whose key set is known.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from krun_testbed.google_api_messages import Asked, denied, refused
from krun_testbed.google_tokens import Issuer

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
LIFE = 3599  # seconds
NOBODY = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
    "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What an access token stands for: ``way`` is how it was got (metadata, jwt, refresh, sts, impersonation, test)."""

    principal: str  # an account's email, or principal://… of a pool
    scopes: tuple[str, ...] = (CLOUD_PLATFORM,)
    way: str = "test"
    expires: float = field(default_factory=lambda: time.time() + LIFE)


@dataclass(kw_only=True)
class Accounts:
    """Who is known. Everybody may do everything but what is in ``forbidden``, and act for others as ``actors`` say."""

    issuer: Issuer = field(default_factory=Issuer)
    grants: dict[str, Grant] = field(default_factory=dict)
    forbidden: set[tuple[str, str]] = field(default_factory=set)  # principal (* is anybody) and permission
    actors: dict[str, set[str]] = field(default_factory=dict)  # account's email to who may have tokens of it

    def access_token(self, principal: str, *, scopes: str = CLOUD_PLATFORM, way: str = "test", life: int = LIFE) -> str:
        """A new access token; ``scopes`` are separated by spaces or commas, a negative ``life`` has expired already."""
        token = f"ya29.{secrets.token_urlsafe(48)}"
        words = tuple(scopes.replace(",", " ").split())
        self.grants[token] = Grant(principal=principal, scopes=words, way=way, expires=time.time() + life)
        return token

    def id_token(self, email: str, audience: str) -> str:
        """A new ID token."""
        return self.issuer.id_token(audience, email)

    def holder(self, token: str) -> str | None:
        """Whose access token it is; nobody's when it has expired or was taken back."""
        grant = self.grants.get(token)
        return grant.principal if grant and grant.expires > time.time() else None

    def caller(self, asked: Asked, *, permission: str, resource: str, scopes: tuple[str, ...] = ()) -> str:
        """Who asks, and may. Raises Refused, as Google's front does."""
        principal = self.holder(asked.bearer)
        if principal is None:
            reason = "ACCESS_TOKEN_EXPIRED" if asked.bearer in self.grants else "ACCESS_TOKEN_TYPE_UNSUPPORTED"
            raise refused("UNAUTHENTICATED", NOBODY, reason=reason if asked.bearer else "CREDENTIALS_MISSING")
        if not {CLOUD_PLATFORM, *scopes} & set(self.grants[asked.bearer].scopes):
            message = "Request had insufficient authentication scopes."
            raise refused("PERMISSION_DENIED", message, reason="ACCESS_TOKEN_SCOPE_INSUFFICIENT")
        self._check_quota(asked, principal=principal)
        if not self.may(principal, permission):
            raise denied(permission, resource)
        return principal

    def may(self, principal: str, permission: str) -> bool:
        """Tell whether somebody has a permission."""
        return not {(principal, permission), ("*", permission)} & self.forbidden

    def may_act(self, caller: str, *, account: str) -> bool:
        """Tell whether somebody may have tokens of an account."""
        return caller in self.actors.get(account, set())

    def _check_quota(self, asked: Asked, *, principal: str) -> None:
        project = asked.headers.get("x-goog-user-project", "")
        if project and not self.may(principal, "serviceusage.services.use"):
            role = "roles/serviceusage.serviceUsageConsumer"
            message = (
                f"Caller does not have required permission to use project {project}. Grant the caller the {role} role"
            )
            raise refused("PERMISSION_DENIED", message, reason="USER_PROJECT_DENIED", consumer=f"projects/{project}")
