"""The metadata server of the machine or pod we run on: who we are in Google Cloud, and tokens of that account."""

from __future__ import annotations

import json
import os
import time
from urllib.parse import quote

from hgate import errors, web

HOST = "metadata.google.internal"
FLAVOR = "Google"
# In the first seconds of a pod on GKE it is not there yet.
PATIENCE = 10.0
PAUSE = 0.5


class Metadata:
    """Where ``GCE_METADATA_HOST`` says, or at its true name. Blocks: for threads."""

    def __init__(self, *, host: str = "", patience: float = PATIENCE) -> None:
        self._url = f"http://{host or HOST}/computeMetadata/v1/"
        self._patience = patience

    def text(self, path: str) -> str:
        """A value; empty when there is none.

        Raises:
            errors.Unreachable: no metadata server, or one that fails for longer than it may.
            errors.Denied: it refuses.
        """
        until = time.monotonic() + self._patience
        while True:
            try:
                answer = web.call(
                    f"{self._url}{path}",
                    headers={"Metadata-Flavor": FLAVOR},
                    is_local=True,
                    timeout=min(5.0, self._patience),
                )
            except errors.Unreachable as error:
                # Outside of Google Cloud there is no such name, and there will be none in ten seconds.
                if time.monotonic() + PAUSE > until or web.is_unknown_name(error):
                    raise
            else:
                if answer.status == 404:
                    return ""
                if answer.status == 200:
                    return self._genuine(answer)
                if answer.status < 500 and answer.status != 429:
                    raise errors.Denied(
                        f"the metadata server refuses {path.split('?')[0]}: {answer.status} {answer.words()}"
                    )
                if time.monotonic() + PAUSE > until:
                    raise errors.Unreachable(f"the metadata server fails: {answer.status} {answer.words()}")
            time.sleep(PAUSE)

    def email(self) -> str:
        """The account that we run as."""
        return self.text("instance/service-accounts/default/email")

    def id_token(self, audience: str) -> str:
        """An ID token of that account. Raises as ``text``, and Denied when the account has none."""
        path = f"instance/service-accounts/default/identity?audience={quote(audience, safe='')}&format=full"
        token = self.text(path)
        if not token:
            hint = "link a Google service account to the Kubernetes one of hgate (workload identity)"
            raise errors.Denied("the metadata server has no ID token for this account", hint=hint)
        return token

    def access_token(self) -> str:
        """An access token of that account, for Google's APIs."""
        said = self.text("instance/service-accounts/default/token")
        try:
            return str(json.loads(said)["access_token"])
        except (ValueError, KeyError, TypeError) as error:
            raise errors.Unreachable("the metadata server has no access token for this account") from error

    def _genuine(self, answer: web.Answer) -> str:
        # Another server at that name would get our questions, and could hand out tokens of its own.
        if {key.lower(): value for key, value in answer.headers.items()}.get("metadata-flavor") != FLAVOR:
            raise errors.Unreachable(f"what answers at {self._url} is no metadata server")
        return answer.body.decode(errors="replace").strip()


def find() -> Metadata:
    """The one that the environment names."""
    return Metadata(host=os.environ.get("GCE_METADATA_HOST", ""))
