"""Google's tokens for somebody whom another issuer knows, such as a Kubernetes service account (RFC 8693)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.google_iam import message_of
from krun_discover.google_source import SCOPES, issued
from krun_discover.issued import Token
from krun_discover.token_claims import claims, shown
from krun_discover.web import Call, NoReply, Reply, Web

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
POOL = "//iam.googleapis.com/"
GKE = "identitynamespace:"  # of a cluster: identitynamespace:TRUST_DOMAIN:ISSUER


class Federated:
    """Who holds the token of ``subject`` (a JWT), in the pool that ``audience`` names.

    The subject token's own audience is the trust domain for ``identitynamespace:TRUST_DOMAIN:ISSUER``, and what the
    provider allows for ``//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/P/providers/Q``.
    Raises Misconfigured for an audience that is neither.
    """

    label = "the federated Kubernetes account"

    def __init__(self, *, web: Web, subject: Callable[[], Token], audience: str, endpoint: str) -> None:
        _check(audience)
        self.audience = audience
        self.member = "serviceAccount:TRUST_DOMAIN[NAMESPACE/ACCOUNT]"  # known better after the first exchange
        self._web = web
        self._subject = subject
        self._endpoint = endpoint

    @property
    def principal(self) -> str:
        """See Source: not kept, as who the subject is only its token tells."""
        return ""

    def access(self, scopes: Sequence[str] = SCOPES) -> Token:
        """See Source."""
        subject = self._subject().value
        self.member = member_of(str(claims(subject).get("sub", "")), audience=self.audience) or self.member
        form = {
            "grant_type": GRANT,
            "audience": self.audience,
            "scope": " ".join(scopes),
            "requested_token_type": ACCESS,
            "subject_token_type": JWT,
            "subject_token": subject,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        call = Call(url=f"{self._endpoint}/v1/token", method="POST", headers=headers, body=urlencode(form).encode())
        try:
            reply = self._web.ask(call)
            if reply.status != 200:
                raise self._failure(reply, subject=subject)
            found = reply.json()
        except NoReply as error:
            raise Unreachable(
                f"STS {self._endpoint}: {error}", hint="can it be reached from here? see HTTPS_PROXY"
            ) from error
        found = found if isinstance(found, dict) else {}
        return issued(found.get("access_token"), source=self.label, seconds=found.get("expires_in"))

    def identity(self, audience: str) -> Token:
        """See Source: STS has none."""
        raise Misconfigured(
            f"{self.label}: STS issues no ID tokens",
            hint="name a Google service account to impersonate; it needs roles/iam.workloadIdentityUser for this one",
        )

    def _failure(self, reply: Reply, *, subject: str) -> Failure:
        kind, description = _error(reply)
        text = f"STS, for {self.audience}: HTTP {reply.status}" + (f": {kind}: {description}" if kind else "")
        found = claims(subject)
        if kind == "invalid_target":
            return Misconfigured(
                text, hint="is there such a pool and provider? gcloud iam workload-identity-pools list"
            )
        if reply.status in (400, 401, 403):
            told = f"the Kubernetes token has iss={shown(str(found.get('iss')))} aud={shown(str(found.get('aud')))}"
            return Denied(text, hint=f"{told}: the issuer must be the provider's, the audience the trust domain")
        return Unreachable(text, hint="try again later")


def subject_audience(audience: str) -> str:
    """Whom the subject's token must be for: the trust domain, or what a provider allows when nobody has set it.

    Source: cloud.google.com/iam/docs/workload-identity-federation-with-kubernetes. Raises Misconfigured.
    """
    _check(audience)
    return f"https:{audience}" if audience.startswith(POOL) else audience.split(":", 2)[1]


def _check(audience: str) -> None:
    kind, *rest = audience.split(":", 2)
    if not (audience.startswith(POOL) or (f"{kind}:" == GKE and len(rest) == 2 and all(rest))):
        raise Misconfigured(
            f"federation: {audience!r} is not an audience",
            hint=f"write {GKE}TRUST_DOMAIN:ISSUER, or {POOL}projects/NUMBER/locations/global/"
            "workloadIdentityPools/POOL/providers/PROVIDER",
        )


def member_of(subject: str, *, audience: str) -> str:
    """The member of IAM for a subject (``system:serviceaccount:NS:NAME``); empty when it cannot be told."""
    if audience.startswith(GKE):
        words = subject.split(":")
        is_account = len(words) == 4 and words[:2] == ["system", "serviceaccount"]
        return f"serviceAccount:{audience.split(':')[1]}[{words[2]}/{words[3]}]" if is_account else ""
    pool, found, _ = audience.removeprefix("//").partition("/providers/")
    return f"principal://{pool}/subject/{subject}" if found and subject else ""


def _error(reply: Reply) -> tuple[str, str]:
    """Error and description after RFC 6749 §5.2; a front end may answer in Google's own form."""
    try:
        found = reply.json()
    except NoReply:
        return "", ""
    if isinstance(found, dict) and isinstance(found.get("error"), str):
        return shown(found["error"]), shown(str(found.get("error_description", "")))
    return ("error", message_of(reply)) if message_of(reply) else ("", "")
