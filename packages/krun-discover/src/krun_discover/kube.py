"""The few requests of Kubernetes' API that a workload outside of a cluster needs (core/v1, authorization/v1)."""

from __future__ import annotations

import json
import re
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence

from krun_discover.errors import Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_discover.kube_access import Access
from krun_discover.kube_answer import NotThere, judge, silent, title
from krun_discover.kube_target import Target
from krun_discover.web import Call, NoReply, Reply, Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # RFC 1123 names: of namespaces, accounts, maps, secrets
NAME_LIMIT = 253


class Cluster:
    """One API server. Each method raises, beside what it names:

    Denied: not known (401) or not permitted (403), with the commands that permit it.
    Unreachable: there is no answer, or one that is not Kubernetes'.
    Misconfigured, Malformed: the credentials, or a name, cannot be used.
    DeadlinePassed: the time of the whole run is up.
    """

    def __init__(self, *, web: Web, target: Target) -> None:
        self.target = target
        self._web = web

    def get_config_map(self, *, namespace: str, name: str) -> dict[str, str] | None:
        """The texts in a config map, None when it is not there."""
        access = Access(verb="get", resource="configmaps", namespace=namespace, name=name)
        found = self.get(f"/api/v1/namespaces/{_name(namespace)}/configmaps/{_name(name)}", access=access)
        if found is None:
            return None
        return _texts(found.get("data"))

    def get_secret(self, *, namespace: str, name: str) -> dict[str, bytes] | None:
        """The values in a secret, None when it is not there."""
        access = Access(verb="get", resource="secrets", namespace=namespace, name=name)
        found = self.get(f"/api/v1/namespaces/{_name(namespace)}/secrets/{_name(name)}", access=access)
        if found is None:
            return None
        try:
            return {key: b64decode(value, validate=True) for key, value in _texts(found.get("data")).items()}
        except ValueError:
            raise self._strange(access, "a value is not base64") from None

    def mint_token(self, *, namespace: str, account: str, audiences: Sequence[str], seconds: int) -> Token:
        """A token of a service account (TokenRequest). The server may give it another life than ``seconds``.

        Raises Misconfigured when the account, or its namespace, is not there, or the server refuses the life.
        """
        access = Access(verb="create", resource="serviceaccounts/token", namespace=namespace, name=account)
        spec = {"audiences": list(audiences), "expirationSeconds": seconds}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{_name(namespace)}/serviceaccounts/{_name(account)}/token"
        try:
            found = self._ask("POST", path, access=access, body=body)
        except NotThere as error:
            if not error.kind:
                raise self._strange(access, f"HTTP 404{f': {error}' if str(error) else ''}") from error
            raise self._no_account(namespace, account, kind=error.kind) from error
        return self._token(found, access=access)

    def can_i(self, *, verb: str, resource: str, namespace: str = "", name: str = "", group: str = "") -> bool:
        """Tell whether we may do it (SelfSubjectAccessReview, which everybody who is known may ask)."""
        kind, _, part = resource.partition("/")
        attributes = {
            "verb": verb,
            "resource": kind,
            "subresource": part,
            "namespace": namespace,
            "name": name,
            "group": group,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        access = Access(verb="create", resource="selfsubjectaccessreviews", group="authorization.k8s.io")
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        try:
            status = self._ask("POST", path, access=access, body=body).get("status")
        except NotThere as error:
            raise self._strange(access, "HTTP 404") from error
        return isinstance(status, dict) and status.get("allowed") is True

    def get(self, path: str, *, access: Access, may_be_unknown: bool = False) -> dict[str, Any] | None:
        """An object, None when it is not there, or with ``may_be_unknown`` when older servers do not know its kind."""
        try:
            return self._ask("GET", path, access=access)
        except NotThere as error:
            if error.kind or may_be_unknown:
                return None
            raise self._strange(access, f"HTTP 404{f': {error}' if str(error) else ''}") from error

    def _ask(self, method: str, path: str, *, access: Access, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        reply = self._reply(method, path, body=body)
        if reply.status == 401 and self.target.credentials.renew():
            reply = self._reply(method, path, body=body)
        return judge(reply, access=access, target=self.target)

    def _reply(self, method: str, path: str, *, body: Mapping[str, Any] | None) -> Reply:
        proof = self.target.credentials.proof(deadline=self._web.deadline)
        headers = {"Accept": "application/json", "User-Agent": "krun-discover", **proof.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        call = Call(
            url=self.target.server + path,
            method=method,
            headers=headers,
            body=json.dumps(body).encode() if body is not None else b"",
            tls=self.target.tls.but(certificate=proof.certificate, key=proof.key),
            proxy=self.target.proxy,
        )
        try:
            return self._web.ask(call)
        except NoReply as error:
            raise silent(self.target, error) from error

    def _token(self, found: Mapping[str, Any], *, access: Access) -> Token:
        from krun_discover.kube_time import moment

        status = _texts(found.get("status"))
        value, end = status.get("token", ""), status.get("expirationTimestamp", "")
        try:
            expires = moment(end)
        except ValueError:
            raise self._strange(access, "the token's end is no time") from None
        if not value.isascii() or not value.isprintable() or not value or " " in value:
            raise self._strange(access, "there is no token in the answer")
        if expires <= time.time():
            raise self._strange(access, "the token in the answer has expired: is the clock of this machine right?")
        return Token(value=value, expires=expires, source=f"service account {access.namespace}/{access.name}")

    def _no_account(self, namespace: str, account: str, *, kind: str) -> Misconfigured:
        """Which of both is not there: an API server may name the account although the namespace is missing, too."""
        is_namespace = kind == "namespaces" or not self._has_namespace(namespace)
        what, hint = f"service account {account} in namespace {namespace}", f"create serviceaccount {account}"
        if is_namespace:
            what, hint = f"namespace {namespace}", f"create namespace {namespace}"
        hint = f"set WORKLOAD_NAMESPACE and WORKLOAD_SERVICE_ACCOUNT, or kubectl {hint}"
        return Misconfigured(
            f"{title(self.target)}: there is no {what}",
            hint=hint if is_namespace else f"{hint} --namespace={namespace}",
        )

    def _has_namespace(self, namespace: str) -> bool:
        """Also true where that is not ours to know."""
        path = f"/api/v1/namespaces/{namespace}"
        try:
            return self._reply("GET", path, body=None).status != 404
        except Unreachable:
            return True

    def _strange(self, access: Access, reason: str) -> Unreachable:
        return Unreachable(f"{title(self.target)}: {access}: {reason}", hint="is it an API server of Kubernetes?")


def _name(text: str) -> str:
    """A name that is one, so that a path stays the path that it is."""
    if not NAME.fullmatch(text) or len(text) > NAME_LIMIT:
        raise Misconfigured(
            f"{text!r} is not a name in Kubernetes", hint="names are small letters, digits, dots and dashes"
        )
    return text


def _texts(found: object) -> dict[str, str]:
    """The texts of an object; what is none is left out."""
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, str)}
