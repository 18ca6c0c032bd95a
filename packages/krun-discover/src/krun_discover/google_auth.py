"""What is left to google-auth: keys that sign, logins that are renewed, and the tokens of other clouds.

It is imported when such a file is used, with the transport of google_transport: with requests it takes 0.3 s. Of it
only ``refresh`` is called, so that it looks up no "regional access boundaries" behind our back.
"""

from __future__ import annotations

import datetime
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from krun_discover import lines
from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.google_endpoints import safe
from krun_discover.google_source import SCOPES, UNKNOWN_LIFE, issued, no_identity
from krun_discover.google_sts import member_of
from krun_discover.issued import Token
from krun_discover.record import Record
from krun_discover.token_claims import shown
from krun_discover.web import NoReply, Web

AWS = "urn:ietf:params:aws:token-type:aws4_request"
EXTERNAL = ("external_account", "external_account_authorized_user")
KINDS = ("service_account", "authorized_user", *EXTERNAL)


def check(info: Mapping[str, Any], *, label: str) -> None:
    """Raises Misconfigured for a file's content that is of none of KINDS."""
    kind = info.get("type")
    if kind not in KINDS:
        told = kind if isinstance(kind, str) and re.fullmatch(r"[a-z_]{1,40}", kind) else "unknown"
        raise Misconfigured(f"{label}: the type is {told}", hint=f"one of {', '.join(KINDS)} is understood")


class Credential(Record, hidden=("info",)):
    """A Source out of a file's content, of one of KINDS; ``oauth2`` is where users' logins are renewed."""

    web: Web
    info: Mapping[str, Any]
    label: str
    principal: str
    oauth2: str

    @property
    def member(self) -> str:
        """See Source."""
        match self.info["type"]:
            case "service_account":
                return f"serviceAccount:{shown(str(self.info.get('client_email')))}"
            case "authorized_user":
                return "user:YOU"
        return member_of("SUBJECT", audience=str(self.info.get("audience"))) or "principal://…"

    def access(self, scopes: Sequence[str] = SCOPES) -> Token:
        """See Source."""
        return self._refreshed(lambda: self._credentials(list(scopes)))

    def identity(self, audience: str) -> Token:
        """See Source. Only a service account's own key signs for any audience."""
        match self.info["type"]:
            case "service_account":
                make = _google("oauth2.service_account").IDTokenCredentials.from_service_account_info
                return self._refreshed(lambda: make(self.info, target_audience=audience))
            case "external_account":
                raise Misconfigured(
                    f"{self.label}: STS issues no ID tokens",
                    hint="let the file impersonate a service account: gcloud iam workload-identity-pools "
                    "create-cred-config … --service-account=EMAIL",
                )
        raise no_identity(self.label)

    def _credentials(self, scopes: list[str]) -> Any:
        match self.info["type"]:
            case "service_account":
                make = _google("oauth2.service_account").Credentials.from_service_account_info
                return make(self.info, scopes=scopes)
            case "authorized_user":
                # google-auth takes no URL out of the file here.
                make = _google("oauth2.credentials").Credentials.from_authorized_user_info
                return make(self.info, scopes=scopes).with_token_uri(self.oauth2)
        safe(str(self.info.get("token_url")), what=f"{self.label}, token_url")
        return _google(_external(self.info)).Credentials.from_info(self.info, scopes=scopes)

    def _refreshed(self, make: Callable[[], Any]) -> Token:
        """The token. Errors of google-auth hold the answer that they complain about: none of them is passed on."""
        from google.auth.exceptions import GoogleAuthError

        from krun_discover.google_transport import Request

        try:
            credentials = make()
        except (GoogleAuthError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Misconfigured(
                f"{self.label}: not a whole {self.info['type']}: {_reason(error)}", hint=self._hint()
            ) from None
        try:
            credentials.refresh(Request(web=self.web))
        except NoReply as error:
            raise Unreachable(f"{self.label}: {error}", hint="can it be reached from here? see HTTPS_PROXY") from error
        except GoogleAuthError as error:
            raise self._kind(error)(f"{self.label}: {_reason(error)}", hint=self._hint()) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            text = f"{self.label}: the answer is not what a token service says"
            raise Unreachable(text, hint="is something between us and Google?") from None
        return issued(credentials.token, source=self.label, seconds=_seconds(credentials.expiry))

    def _kind(self, error: Exception) -> type[Failure]:
        """Google says no, or has trouble; or what the file names of another issuer is not there."""
        from google.auth.exceptions import OAuthError, RefreshError

        if not isinstance(error, OAuthError | RefreshError) or getattr(error, "retryable", False):
            return Unreachable
        return Denied if isinstance(error, OAuthError) or self.info["type"] not in EXTERNAL else Misconfigured

    def _hint(self) -> str:
        match self.info["type"]:
            case "service_account":
                email = shown(str(self.info.get("client_email", "EMAIL")))
                keys = f"gcloud iam service-accounts keys list --iam-account={email}"
                return f"is the clock right, and the key still there? {keys}"
            case "authorized_user":
                return "gcloud auth application-default login"
        command = "gcloud iam workload-identity-pools create-cred-config"
        return f"is the subject token there and fresh? {command} writes such a file"


def _external(info: Mapping[str, Any]) -> str:
    """The module for accounts of another issuer."""
    if info["type"] == "external_account_authorized_user":
        return "auth.external_account_authorized_user"
    if info.get("subject_token_type") == AWS:
        return "auth.aws"
    origin = info.get("credential_source")
    # google-auth runs an executable only where GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1.
    is_run = isinstance(origin, dict) and "executable" in origin
    return "auth.pluggable" if is_run else "auth.identity_pool"


def _google(module: str) -> Any:
    """A module of google-auth, late, and as what its types make of it: half of its functions have none."""
    lines.logger()  # it logs by itself
    return importlib.import_module(f"google.{module}")


def _reason(error: Exception) -> str:
    """What google-auth says; of others nothing, as they may tell what they have read."""
    from google.auth.exceptions import GoogleAuthError

    if isinstance(error, GoogleAuthError) and error.args:
        return shown(str(error.args[0]))
    return "a field is missing or has a wrong form"


def _seconds(expiry: datetime.datetime | None) -> float:
    """The life that is left; google-auth's times are UTC without saying so."""
    if expiry is None:
        return UNKNOWN_LIFE
    end = expiry if expiry.tzinfo else expiry.replace(tzinfo=datetime.UTC)
    return (end - datetime.datetime.now(datetime.UTC)).total_seconds()
