"""Where Google's token services are; gcloud's own variables may say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from krun_discover.errors import Misconfigured
from krun_discover.record import Record
from krun_discover.web import is_local

STS = "CLOUDSDK_API_ENDPOINT_OVERRIDES_STS"
IAMCREDENTIALS = "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS"
OAUTH2 = "CLOUDSDK_AUTH_TOKEN_HOST"  # unlike the others, gcloud reads a whole URL here


class Endpoints(Record):
    """``sts`` and ``iamcredentials`` are what a path is added to, without a slash; ``oauth2`` is a whole URL."""

    sts: str = "https://sts.googleapis.com"
    iamcredentials: str = "https://iamcredentials.googleapis.com"
    oauth2: str = "https://oauth2.googleapis.com/token"
    is_iam_overridden: bool = False

    def account(self, email: str) -> str:
        """The service account's URL, to which a method is added (``:generateIdToken``)."""
        return f"{self.iamcredentials}/v1/projects/-/serviceAccounts/{email}"


def read(environ: Mapping[str, str]) -> Endpoints:
    """The endpoints that the environment names. Raises Misconfigured where a secret would go over plain http."""
    found = {
        field: safe(environ[name], what=name).rstrip("/")
        for field, name in (("sts", STS), ("iamcredentials", IAMCREDENTIALS), ("oauth2", OAUTH2))
        if environ.get(name)
    }
    return Endpoints(**found, is_iam_overridden="iamcredentials" in found)


def safe(url: str, *, what: str) -> str:
    """The URL, when secrets may be sent there: over TLS, or to this machine. Raises Misconfigured."""
    try:
        parts = urlsplit(url)
        is_url = bool(parts.hostname) and parts.port != 0 and not parts.username
    except ValueError:  # a bracket or a port that is none
        is_url = False
    if not is_url or parts.scheme not in ("http", "https"):
        raise Misconfigured(f"{what} is not a URL of http or https", hint="write https://HOST/…")
    if parts.scheme == "http" and not is_local(url):
        raise Misconfigured(
            f"{what}: tokens are not sent to {parts.hostname} over plain http",
            hint="use https, or an address of this machine",
        )
    return url
