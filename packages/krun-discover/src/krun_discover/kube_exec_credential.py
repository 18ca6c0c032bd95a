"""What a credential plugin prints: an ExecCredential of client.authentication.k8s.io. Pure; shows none of it."""

from __future__ import annotations

import json

from krun_discover.errors import Malformed
from krun_discover.record import Record

NAMES = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")


class Credential(Record, hidden=("token", "certificate", "key")):
    """A token, a certificate with its key (PEM), or both; ``expires`` is of time.time()."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    expires: float = float("inf")


def parse(data: bytes, *, what: str, api_version: str) -> Credential:
    """Read it; ``what`` says in the error who printed it. Raises Malformed."""
    hint = f"a plugin prints one ExecCredential of {api_version} on stdout"

    def wrong(reason: str) -> Malformed:
        return Malformed(f"{what} {reason}", hint=hint)

    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise wrong("is not JSON") from None  # the reason may quote a token
    if not isinstance(found, dict) or found.get("kind") != "ExecCredential":
        raise wrong("is no ExecCredential")
    if found.get("apiVersion") != api_version:
        raise wrong(f"is not of {api_version}")
    status = found.get("status")
    texts: dict[str, str] = {}
    for name in NAMES:
        text = (status.get(name) if isinstance(status, dict) else None) or ""
        if not isinstance(text, str) or not text.isascii():
            raise wrong(f"has a status.{name} that is no text")
        texts[name] = text
    if bool(texts["clientCertificateData"]) != bool(texts["clientKeyData"]):
        raise wrong("has a certificate without a key, or a key without one")
    if not texts["token"] and not texts["clientKeyData"]:
        raise wrong("has neither a token nor a certificate")
    return Credential(
        token=texts["token"],
        certificate=texts["clientCertificateData"].encode(),
        key=texts["clientKeyData"].encode(),
        expires=_moment(texts["expirationTimestamp"], wrong("has a status.expirationTimestamp that is no time")),
    )


def _moment(text: str, wrong: Malformed) -> float:
    if not text:
        return float("inf")
    from krun_discover.kube_time import moment

    try:
        return moment(text)
    except ValueError:
        raise wrong from None
