"""Credential files: what they hold, and who they make us. google-auth does what needs keys and other clouds.

The kinds are those of application default credentials (https://google.aip.dev/auth/4110). Acting for a service account
is done by google_iam in all of them: it tells what is missing, and gives ID tokens too.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krun_discover import google_auth
from krun_discover.errors import Misconfigured
from krun_discover.google_endpoints import Endpoints, safe
from krun_discover.google_iam import LIFETIME, Impersonated
from krun_discover.google_source import Source
from krun_discover.web import Web

LIMIT = 1 << 20  # bytes
ACCOUNT = re.compile(r"(?:[A-Za-z0-9._-]+@[A-Za-z0-9.-]+|[0-9]{10,30})")  # an email, or a unique id
_URL = re.compile(r"https?://[^?#\s]+/serviceAccounts/([^/:?#\s]+)")
HINT = "gcloud auth application-default login, or gcloud iam workload-identity-pools create-cred-config, writes one"


def source(path: Path, *, what: str, web: Web, endpoints: Endpoints) -> Source:
    """The source that the file makes us; ``what`` names it in errors. Raises Misconfigured; makes no request."""
    text = _read(path, what=what)
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        # Without the parser's reason, which holds the text.
        raise Misconfigured(f"{what}: {path} is no JSON object", hint=HINT)
    principal = "file " + hashlib.sha256(text).hexdigest()
    return _Reader(label=f"{what} {path}", principal=principal, web=web, endpoints=endpoints).of(info)


class _Reader:
    def __init__(self, *, label: str, principal: str, web: Web, endpoints: Endpoints) -> None:
        self._label = label
        self._principal = principal
        self._web = web
        self._endpoints = endpoints

    def of(self, info: Mapping[str, Any]) -> Source:
        """The source that a file, or a part of one, describes."""
        if info.get("type") == "impersonated_service_account":
            inner = info.get("source_credentials")
            if not isinstance(inner, dict) or inner.get("type") == "impersonated_service_account":
                raise Misconfigured(f"{self._label}: source_credentials are missing", hint=HINT)
            return self._impersonated(self.of(inner), info)
        plain = {name: value for name, value in info.items() if name != "service_account_impersonation_url"}
        google_auth.check(plain, label=self._label)
        credential = google_auth.Credential(
            web=self._web, info=plain, label=self._label, principal=self._principal, oauth2=self._endpoints.oauth2
        )
        return self._impersonated(credential, info) if len(plain) < len(info) else credential

    def _impersonated(self, inner: Source, info: Mapping[str, Any]) -> Impersonated:
        url = str(info.get("service_account_impersonation_url")).removesuffix(":generateAccessToken")
        found = _URL.fullmatch(url)
        if found is None or not ACCOUNT.fullmatch(found[1]):
            raise Misconfigured(f"{self._label}: service_account_impersonation_url is no account's URL", hint=HINT)
        options, delegates = info.get("service_account_impersonation"), info.get("delegates")
        seconds = options.get("token_lifetime_seconds") if isinstance(options, dict) else None
        return Impersonated(
            web=self._web,
            source=inner,
            url=self._endpoints.account(found[1]) if self._endpoints.is_iam_overridden else safe(url, what=self._label),
            delegates=tuple(str(one) for one in delegates) if isinstance(delegates, list) else (),
            lifetime=seconds if isinstance(seconds, int) and seconds > 0 else LIFETIME,
        )


def _read(path: Path, *, what: str) -> bytes:
    try:
        # Looked at before it is opened: opening a pipe that nobody writes to would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Misconfigured(f"{what}: {path} is not a file", hint=HINT)
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise Misconfigured(f"{what}: {path} cannot be read: {reason}", hint=HINT) from error
    if len(data) > LIMIT:
        raise Misconfigured(f"{what}: {path} is larger than {LIMIT} bytes", hint=HINT)
    return data
