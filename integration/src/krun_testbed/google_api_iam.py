"""Tokens of an account for who may act for it (iamcredentials.googleapis.com, v1)."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from krun_testbed.google_api_messages import Answer, Asked, denied, ok, refused
from krun_testbed.google_api_tokens import Accounts

METHOD = re.compile(r"/v1/projects/-/serviceAccounts/([^/:]+):(generateAccessToken|generateIdToken)")
SCOPES = ("https://www.googleapis.com/auth/iam",)
PERMISSIONS = {
    "generateAccessToken": "iam.serviceAccounts.getAccessToken",
    "generateIdToken": "iam.serviceAccounts.getOpenIdToken",
}
LONGEST = 3600  # seconds, as long as no policy of the organisation says more


@dataclass(kw_only=True)
class Iam:
    """Whoever ``Accounts.actors`` names for an account gets tokens of it, through delegates or straight."""

    accounts: Accounts

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        found = METHOD.fullmatch(asked.path)
        if found is None or asked.method != "POST":
            raise refused("NOT_FOUND", f"Method not found: {asked.method} {asked.path}")
        account, method = found[1], found[2]
        permission = PERMISSIONS[method]
        caller = self.accounts.caller(asked, permission=permission, resource=account, scopes=SCOPES)
        fields = asked.fields
        chain = [name.rpartition("/")[2] for name in fields.get("delegates") or []]
        for actor, target in zip([caller, *chain], [*chain, account], strict=True):
            if not self.accounts.may_act(actor, account=target):
                raise denied(permission, f"projects/-/serviceAccounts/{target}")
        if method == "generateIdToken":
            if not fields.get("audience"):
                raise refused("INVALID_ARGUMENT", "Request contains an invalid argument: audience is empty.")
            # Without includeEmail the true token has no email, which most receivers refuse.
            email = account if fields.get("includeEmail") else ""
            return ok({"token": self.accounts.id_token(email, str(fields["audience"]))})
        return self._access_token(account, scopes=fields.get("scope") or [], life=_seconds(fields.get("lifetime")))

    def _access_token(self, account: str, *, scopes: list[str], life: int) -> Answer:
        if not scopes:
            raise refused("INVALID_ARGUMENT", "Scope required.")
        if not 0 < life <= LONGEST:
            raise refused("INVALID_ARGUMENT", "The token lifetime requested is longer than allowed.")
        token = self.accounts.access_token(account, scopes=" ".join(scopes), way="impersonation", life=life)
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=life)
        return ok({"accessToken": token, "expireTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ")})


def _seconds(text: object) -> int:
    """The seconds of ``3600s``."""
    found = re.fullmatch(r"(\d+)s", str(text or f"{LONGEST}s"))
    return int(found[1]) if found else 0
