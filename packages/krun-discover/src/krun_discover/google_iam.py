"""Tokens of a service account that somebody else may act for: Google's IAM credentials API.

https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence

from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.google_source import SCOPES, Source, issued
from krun_discover.issued import Token
from krun_discover.record import Record
from krun_discover.token_claims import shown
from krun_discover.web import Call, NoReply, Reply, Web

LIFETIME = 3600  # seconds; more takes a policy of the organisation
_DISABLED = re.compile(r"has not been used in project (\S+) before")
METHODS = {"generateAccessToken": "roles/iam.serviceAccountTokenCreator"} | {
    "generateIdToken": "roles/iam.serviceAccountOpenIdTokenCreator"
}


class Impersonated(Record):
    """The service account at ``url``, as ``source`` may act for it, itself or through ``delegates`` (emails)."""

    web: Web
    source: Source
    url: str
    delegates: tuple[str, ...] = ()
    lifetime: int = LIFETIME

    @property
    def email(self) -> str:
        """Whose tokens these are."""
        return self.url.rpartition("/")[2]

    @property
    def label(self) -> str:
        """See Source."""
        return f"{self.source.label}, as {self.email}"

    @property
    def principal(self) -> str:
        """See Source."""
        return self.source.principal and "\n".join([self.source.principal, self.url, *self.delegates])

    @property
    def member(self) -> str:
        """See Source."""
        return f"serviceAccount:{self.email}"

    def access(self, scopes: Sequence[str] = SCOPES) -> Token:
        """See Source."""
        found = self._ask("generateAccessToken", {"scope": list(scopes), "lifetime": f"{self.lifetime}s"})
        token = issued(found.get("accessToken"), source=self.label)
        return Token(value=token.value, expires=_instant(found.get("expireTime")) or token.expires, source=self.label)

    def identity(self, audience: str) -> Token:
        """See Source."""
        # Without the email, Cloud Run and IAP do not know whom to look up.
        found = self._ask("generateIdToken", {"audience": audience, "includeEmail": True})
        return issued(found.get("token"), source=self.label, audience=audience)

    def _ask(self, method: str, question: Mapping[str, object]) -> Mapping[str, object]:
        bearer = self.source.access(SCOPES).value
        delegates = [f"projects/-/serviceAccounts/{email}" for email in self.delegates]
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        body = json.dumps({**question, "delegates": delegates} if delegates else question).encode()
        what = f"{method} for {self.email}"
        try:
            reply = self.web.ask(Call(url=f"{self.url}:{method}", method="POST", headers=headers, body=body))
            if reply.status != 200:
                raise self._failure(reply, method=method, what=what)
            found = reply.json()
        except NoReply as error:
            raise Unreachable(f"{what}: {error}", hint=f"can {self.url.split('/')[2]} be reached from here?") from error
        return found if isinstance(found, dict) else {}

    def _failure(self, reply: Reply, *, method: str, what: str) -> Failure:
        message = message_of(reply)
        text = f"{what}: HTTP {reply.status}" + (f": {message}" if message else "")
        if disabled := _DISABLED.search(message):
            return Denied(text, hint=f"gcloud services enable iamcredentials.googleapis.com --project={disabled[1]}")
        if "insufficient authentication scopes" in message:
            command = "gcloud compute instances set-service-account VM --scopes=cloud-platform"
            return Denied(text, hint=f"the machine's own scopes are too narrow: {command}")
        if reply.status == 403:
            return Denied(text, hint=_grant(self.email, method=method, member=self.source.member))
        if reply.status == 401:
            return Denied(text, hint=f"the token of {self.source.label} is not taken: is it one for Google's APIs?")
        if reply.status == 404:
            return Misconfigured(
                text, hint=f"is there such an account? gcloud iam service-accounts describe {self.email}"
            )
        if reply.status == 400:
            return Misconfigured(text, hint="check the audience or the scopes, and the account's name")
        return Unreachable(text, hint="try again later")


def message_of(reply: Reply) -> str:
    """What Google's error says (google.rpc.Status); empty when it is none."""
    try:
        error = reply.json()["error"]
        return shown(str(error["message"] if isinstance(error, dict) else error))
    except (NoReply, KeyError, TypeError):
        return ""


def _grant(email: str, *, method: str, member: str) -> str:
    """The command that permits it. Federated accounts get the one role that is made for them."""
    is_federated = "[" in member or member.startswith("principal")
    role = "roles/iam.workloadIdentityUser" if is_federated else METHODS[method]
    return f"gcloud iam service-accounts add-iam-policy-binding {email} --role={role} --member='{member}'"


def _instant(text: object) -> float:
    """Seconds since 1970 of RFC 3339's text, with a fraction or without; 0 when it is none."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp() if isinstance(text, str) else 0.0
    except (ValueError, OverflowError):
        return 0.0
