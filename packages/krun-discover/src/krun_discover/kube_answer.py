"""Answers of an API server, and what stands in for them: which failure each one is. Pure."""

from __future__ import annotations

from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.kube_access import Access, grant, more_of, user_of
from krun_discover.kube_redacted import redacted
from krun_discover.kube_target import Target, is_public
from krun_discover.web import NoReply, Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GATEWAY_HINT = "grant roles/gkehub.gatewayEditor and roles/gkehub.viewer in the fleet's project"
DNS_HINT = "grant the IAM permission container.clusters.connect, which roles/container.developer has"
TOKENS_HINT = (
    "this address takes Google's tokens only, until: gcloud container clusters update … --enable-k8s-tokens-via-dns"
)
NO_WAY = "is the address right, and is there a way to it from here? VPC, firewall, HTTPS_PROXY and NO_PROXY"


def title(target: Target) -> str:
    """The server, for a person."""
    return f"API server {target.server} ({target.source})"


def silent(target: Target, error: NoReply) -> Unreachable:
    """The failure where there is no answer."""
    hints = {
        "tls": f"it was verified by {target.roots}: is that its certificate authority?",
        "proxy": "the way leads through the kubeconfig's proxy-url, or HTTPS_PROXY: does that lead there?",
        "malformed": "is it an API server of Kubernetes?",
    }
    is_proxied = str(error).startswith("the proxy")
    hint = hints["proxy"] if is_proxied else hints.get(error.kind, NO_WAY)
    return Unreachable(f"{title(target)}: {error}", hint=hint)


def judge(reply: Reply, *, access: Access, target: Target) -> dict[str, Any]:
    """The object in an answer. Raises NotThere, Denied, Unreachable, Misconfigured for a request that is refused."""
    found = _object(reply)
    is_own = found.get("kind") == "Status" or reply.status < 300
    message = _message(found)
    match reply.status:
        case 200 | 201 if found:
            return found
        case 401:
            raise _unknown(message, target=target)
        case 403 if is_own:
            raise _forbidden(message, access=access, target=target)
        case 403:
            hint = "grant the account what the message names"
            if is_public(target.server):
                hint = DNS_HINT if ".gke.goog" in target.server else GATEWAY_HINT
            raise Denied(f"{title(target)}: {access}: HTTP 403{_said(message)}", hint=hint)
        case 404:
            details = found.get("details")
            kind = details.get("kind") if isinstance(details, dict) else None
            raise NotThere(kind=kind if isinstance(kind, str) else "", message=message)
        case 400 | 422 if is_own:
            raise Misconfigured(
                f"{title(target)}: {access}: {message}", hint="the API server does not take such a value"
            )
    what = f"HTTP {reply.status}{_said(message)}" if is_own or message else f"HTTP {reply.status}, not of Kubernetes"
    if reply.status < 300:
        what = "the answer is no object"
    raise Unreachable(f"{title(target)}: {access}: {what}", hint="is it an API server of Kubernetes, and is it well?")


class NotThere(Exception):
    """There is no such object; ``kind`` is the resource that is not there, empty when the whole path is not known."""

    def __init__(self, *, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _unknown(message: str, *, target: Target) -> Failure:
    credentials = target.credentials
    hint = credentials.remedy
    if ".gke.goog" in target.server and "Google" not in credentials.title:
        hint = TOKENS_HINT
    said = "" if message in ("", "Unauthorized") else _said(message)
    return Denied(f"{title(target)}: {credentials.title}: not accepted (HTTP 401){said}", hint=hint)


def _forbidden(message: str, *, access: Access, target: Target) -> Failure:
    user = user_of(message)
    who = user or f"whoever {target.credentials.title} stands for"
    return Denied(f"{title(target)}: {who} may not {access}{_said(more_of(message))}", hint=grant(access, user=user))


def _object(reply: Reply) -> dict[str, Any]:
    try:
        found = reply.json()
    except NoReply:
        return {}
    return found if isinstance(found, dict) else {}


def _message(found: dict[str, Any]) -> str:
    """What a Status says, or an error of Google's front."""
    error = found.get("error")
    text = found.get("message") or (error.get("message") if isinstance(error, dict) else error)
    return redacted(text) if isinstance(text, str) else ""


def _said(message: str) -> str:
    return f": {message}" if message else ""
