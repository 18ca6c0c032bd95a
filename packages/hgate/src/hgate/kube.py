"""The Kubernetes API in plain REST: configuration and connections of the ``kubernetes`` client, none of its models.

Its model classes take a second to import, and hgate reads and writes other people's objects: those stay dicts, so
that a field which this version does not know is not lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hgate import errors
from hgate.kube_access import Access, access_of
from hgate.kube_answer import Answer, NotLeader, read_answer

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

CONNECT_TIMEOUT = 5.0  # seconds
ANSWER_TIMEOUT = 20.0  # seconds from one byte of an answer to the next
MAX_CONNECTIONS = 32  # a watch holds one for as long as it lasts
MAX_LINE = 16 * 1024 * 1024  # bytes of one event: Kubernetes' objects end at 3 MiB
Objects = list[dict[str, Any]]
MERGE = "application/merge-patch+json"


class Kube:
    """One API server, as whom the configuration says. Safe in threads; every call has a deadline."""

    def __init__(self, client: ApiClient, *, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        self._client = client
        self._configuration = client.configuration
        self._timeout = answer_timeout
        # A token's renewal may run a credential plugin: one thread at a time.
        self._authorizing = threading.Lock()

    @property
    def url(self) -> str:
        return str(self._configuration.host)

    def get(self, path: str) -> dict[str, Any] | None:
        """One object, ``None`` when there is none. Raises Answer, Unreachable."""
        try:
            return self.request("GET", path)
        except Answer as answer:
            if answer.status != 404:
                raise
            return None

    def list(self, path: str) -> Objects:
        """All objects of a collection, page by page. Raises Answer, Unreachable."""
        return self.list_at(path)[0]

    def list_at(self, path: str, *, page: int = 500) -> tuple[Objects, str]:
        """The same, and the version that a watch goes on from."""
        from urllib.parse import quote

        items: Objects = []
        following, version = "", ""
        while True:
            more = f"&continue={quote(following, safe='')}" if following else ""
            found = self.request("GET", f"{path}{'&' if '?' in path else '?'}limit={page}{more}")
            items += found.get("items") or []
            metadata = found.get("metadata") or {}
            version, following = metadata.get("resourceVersion", ""), metadata.get("continue", "")
            if not following:
                return items, version

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object in the collection ``path``. Raises Answer (409: it is there), Unreachable."""
        return self.request("POST", f"{path}?fieldManager=hgate", body)

    def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Put a whole object in the place of one; with a resourceVersion only of that one."""
        return self.request("PUT", f"{path}?fieldManager=hgate", body)

    def patch(self, path: str, body: Mapping[str, Any], *, kind: str = MERGE) -> dict[str, Any]:
        """Change some fields (RFC 7396)."""
        return self.request("PATCH", f"{path}?fieldManager=hgate", body, kind=kind)

    def delete(self, path: str, *, uid: str = "", version: str = "") -> bool:
        """Delete an object, with ``uid`` only that very one, with ``version`` only as it is; was it there?"""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        conditions = {"uid": uid, "resourceVersion": version}
        if any(conditions.values()):
            options["preconditions"] = {key: value for key, value in conditions.items() if value}
        try:
            self.request("DELETE", path, options)
        except Answer as answer:
            if answer.status != 404:
                raise
            return False
        return True

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, kind: str = "application/json"
    ) -> dict[str, Any]:
        """One request, and the object that answers it.

        Raises:
            Answer: a status of 400 or more.
            errors.Unreachable: no answer in time.
        """
        access = access_of(method, path)
        response = self._send(method, path, access=access, body=body, kind=kind, silence=self._timeout)
        with self._failures(access), contextlib.closing(response.response):
            text = response.read()
        try:
            found = json.loads(text)
        except ValueError as error:
            raise errors.Unreachable(f"{self.url} cannot {access}: its answer is no JSON") from error
        return found if isinstance(found, dict) else {}

    def lines(self, path: str, *, silence: float, opened: Callable[[], None]) -> Iterator[bytes]:
        """A watch's events as they come; ends when the server ends it, or says nothing for ``silence`` seconds."""
        access = access_of("GET", path)
        response = self._send("GET", path, access=access, silence=silence)
        opened()
        kept = bytearray()
        with self._failures(access), contextlib.closing(response.response) as stream:
            for chunk in stream.stream(65536):
                *whole, rest = chunk.split(b"\n")
                for part in whole:
                    yield bytes(kept + part)
                    kept.clear()
                kept += rest
                if len(kept) > MAX_LINE:
                    raise errors.Unreachable(f"{self.url} cannot {access}: an event is longer than {MAX_LINE} bytes")

    def _send(
        self,
        method: str,
        path: str,
        *,
        access: Access,
        silence: float,
        body: Mapping[str, Any] | None = None,
        kind: str = "application/json",
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": kind, "User-Agent": "hgate"}
        with self._failures(access):
            with self._authorizing:
                for setting in self._configuration.auth_settings().values():
                    headers[setting["key"]] = setting["value"]
            response = self._client.rest_client.request(
                method,
                f"{self.url}{path}",
                headers=headers,
                body=None if body is None else dict(body),
                _request_timeout=(CONNECT_TIMEOUT, silence),
            )
            if response.status >= 300:
                with contextlib.closing(response.response):
                    text = response.read()
                raise read_answer(access=access, status=response.status, headers=response.headers, body=text)
        return response

    @contextlib.contextmanager
    def _failures(self, access: Access) -> Iterator[None]:
        """Whatever keeps an answer from coming is one kind of failure: the caller tries again later."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (HTTPError, ApiException, ConfigException, OSError) as error:
            said = " ".join(str(getattr(error, "reason", None) or error).split())
            raise errors.Unreachable(f"{self.url} cannot {access}: {said[:300]}") from error


class LeaderKube:
    """The same API for writing: nothing is sent unless this replica holds the lease at that moment.

    ``learned`` is told what the API made of it: the watch says the same, but later.
    """

    def __init__(
        self, kube: Kube, *, is_leader: Callable[[], bool], learned: Callable[[dict[str, Any], bool], None]
    ) -> None:
        self._kube = kube
        self._is_leader = is_leader
        self._learned = learned

    def get(self, path: str) -> dict[str, Any] | None:
        return self._held().get(path)

    def list(self, path: str) -> Objects:
        return self._held().list(path)

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._learn(self._held().create(path, body))

    def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._learn(self._held().replace(path, body))

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._learn(self._held().patch(path, body))

    def delete(self, path: str, *, uid: str = "", version: str = "") -> bool:
        return self._held().delete(path, uid=uid, version=version)

    def _learn(self, found: dict[str, Any]) -> dict[str, Any]:
        self._learned(found, False)
        return found

    def _held(self) -> Kube:
        if not self._is_leader():
            raise NotLeader
        return self._kube


def open_kube(*, kubeconfig: str = "", answer_timeout: float = ANSWER_TIMEOUT) -> Kube:
    """The cluster of a kubeconfig; without one that of the pod we are in, or kubectl's own. Asks nobody yet.

    Raises:
        errors.Misconfigured: there is neither, or it cannot be read.
    """
    # 0.35 s, and 30 MB: only where there is a cluster to watch, and never in a worker.
    try:
        import yaml
        from kubernetes import config
        from kubernetes.client import ApiClient, Configuration
    except ImportError as error:
        hint = "install krun-hgate[kubernetes]: without it there are static routes only"
        raise errors.Misconfigured(f"the client of Kubernetes is not there: {error}", hint=hint) from error

    is_pod = not kubeconfig and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    configuration = Configuration()
    configuration.retries = False  # each caller has its own way to try again
    configuration.connection_pool_maxsize = MAX_CONNECTIONS
    try:
        if is_pod:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(config_file=kubeconfig or None, client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        where = "the pod's service account" if is_pod else f"kubeconfig {kubeconfig}".strip()
        hint = "see --kubeconfig; in a pod, its service account's files are read"
        raise errors.Misconfigured(f"{where}: {' '.join(str(error).split())}", hint=hint) from error
    return Kube(ApiClient(configuration), answer_timeout=answer_timeout)
