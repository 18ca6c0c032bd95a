"""Tokens of the account that this machine or container runs as: one request each to the metadata server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from krun_discover.errors import Denied, Misconfigured, Unreachable
from krun_discover.google_source import SCOPES, Absent, issued
from krun_discover.issued import Token
from krun_discover.metadata import Client
from krun_discover.record import Record

ACCESS_TOKEN, ID_TOKEN = "access token", "ID token"
ACCOUNT = "instance/service-accounts/default"
# Signs that a metadata server is there and is who we are; in Kubernetes there may be none, or one of the node's.
PROMISES = ("GCE_METADATA_HOST", "K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "the machine's product name")


class MetadataServer(Record):
    """The default account of the platform, by a client of one run (it remembers its answers)."""

    client: Client
    label: str = "metadata server"
    principal: str = ""  # the server keeps its tokens itself, and is next door
    member: str = "serviceAccount:EMAIL"

    def access(self, scopes: Sequence[str] = SCOPES) -> Token:
        """See Source. Compute Engine has scopes of its own for the machine, and ignores these."""
        text = self._ask(f"{ACCOUNT}/token?scopes={quote(','.join(scopes), safe=':/,')}", what=ACCESS_TOKEN)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{self.label}: the answer is no token", hint="is it Google's? see GCE_METADATA_HOST")
        return issued(found.get("access_token"), source=self.label, seconds=found.get("expires_in"))

    def identity(self, audience: str) -> Token:
        """See Source."""
        query = urlencode({"audience": audience, "format": "full"}, quote_via=quote)
        text = self._ask(f"{ACCOUNT}/identity?{query}", what=ID_TOKEN)
        return issued(text, source=self.label, audience=audience)

    def _ask(self, path: str, *, what: str) -> str:
        answer = self.client.ask(path)
        if answer.value:
            return answer.value
        settings = self.client.settings
        if answer.failed:
            reason = self.client.trouble or answer.note
            if settings.sign in PROMISES:
                raise Unreachable(
                    f"{self.label} {settings.server}: {reason}",
                    hint=f"{settings.sign} promises one; NO_GCE_CHECK=true says that there is none",
                )
            raise Absent(reason)
        if answer.note.startswith("refused"):
            raise Denied(
                f"{self.label} {settings.server}, {what}: {answer.note}",
                hint="does the service account still exist, and may the platform act for it?",
            )
        if settings.kubernetes and what == ID_TOKEN:
            # GKE's server knows the Kubernetes account, and STS issues no ID tokens.
            raise Misconfigured(
                f"{self.label} {settings.server}: no {what} ({answer.note})",
                hint="link a Google service account: kubectl annotate serviceaccount NAME "
                "iam.gke.io/gcp-service-account=EMAIL, and give NAME roles/iam.workloadIdentityUser for it",
            )
        raise Absent(f"it has no {what}: {answer.note}")
