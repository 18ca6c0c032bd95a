"""The metadata server of Google's platforms: who it is, one question at a time, and the variables it knows.

Rules of the protocol (cloud.google.com/compute/docs/metadata): every question and every genuine answer carries
``Metadata-Flavor: Google``; an unset attribute is a 404. Only what is needed is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from krun_discover import address, lines
from krun_discover.errors import DeadlinePassed, Misconfigured
from krun_discover.record import Record
from krun_discover.resolve import Answer, Candidate, Known

# Asked by address, not by its name metadata.google.internal: off Google, looking that up can take many seconds.
SERVER = address.Address(host="169.254.169.254", port=80)
HOST_NAME = "metadata.google.internal"
FLAVOR = ("Metadata-Flavor", "Google")
PROBE = 0.4  # seconds for the first answer where nothing speaks for Google: a laptop's start must not wait long
PATIENCE = 10.0  # seconds of retries in Kubernetes, where GKE's server starts later than the pod
PAUSE = 0.25  # seconds between them
BUSY = 429
SIGNS = ("GCE_METADATA_HOST", "K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "KUBERNETES_SERVICE_HOST")
PRODUCT = "/sys/class/dmi/id/product_name"
BODY_LIMIT = 65536  # bytes


class Settings(Record):
    """How to reach the server. ``sign``: what speaks for its being there, empty for nothing. Times in seconds."""

    server: address.Address = SERVER
    host_name: str = HOST_NAME
    timeout: float = 3.0
    sign: str = ""
    kubernetes: bool = False
    serverless: bool = False
    off: bool = False


def settings(environ: Mapping[str, str], *, product: Callable[[], str]) -> Settings:
    """Read the variables that Google's own libraries honour; ``product`` gives the machine's name when it is needed.

    Raises Misconfigured for an address or a number that is none.
    """
    host = environ.get("GCE_METADATA_HOST", "")
    server = address.parse(host, what=f"GCE_METADATA_HOST={host}", default_port=80) if host else SERVER
    text = environ.get("GCE_METADATA_TIMEOUT", "") or "3"
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout <= 3600:
        raise Misconfigured(f"GCE_METADATA_TIMEOUT={text!r} is not a number of seconds", hint="3 is the default")
    sign = next((name for name in SIGNS if environ.get(name)), "")
    if not sign and product().startswith("Google"):
        sign = "the machine's product name"
    return Settings(
        server=server,
        host_name=str(server) if host else HOST_NAME,
        timeout=timeout,
        sign=sign,
        kubernetes=bool(environ.get("KUBERNETES_SERVICE_HOST")),
        serverless=any(environ.get(name) for name in SIGNS[1:4]),
        off=environ.get("NO_GCE_CHECK") == "true",
    )


def product_name() -> str:
    """The name that the machine's firmware has; ``Google …`` on its virtual machines. Empty where there is none."""
    try:
        with open(PRODUCT, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


class Client:
    """Asks the server, each path once. Once it has failed it is asked no more. ``deadline`` is of time.monotonic."""

    def __init__(self, *, settings: Settings, deadline: float) -> None:
        self.settings = settings
        self.trouble = ""  # why it is asked no more
        self._deadline = deadline
        self._answers: dict[str, Answer] = {}

    @property
    def remark(self) -> str:
        """One line for a person: how the server did."""
        if self.settings.off:
            return "off, by NO_GCE_CHECK=true"
        if not self._answers:
            return "not asked, nothing needed it"
        sign = f"expected because of {self.settings.sign}" if self.settings.sign else "no sign of Google here"
        return f"{self.settings.server}, {self.trouble or f'{len(self._answers)} answers'} ({sign})"

    def known(self, path: str) -> bool:
        """Tell whether the answer costs no request."""
        return self.settings.off or bool(self.trouble) or path in self._answers

    def ask(self, path: str) -> Answer:
        """The text below ``/computeMetadata/v1/``. Raises DeadlinePassed when the tool's own time is up."""
        if self.settings.off:
            return Answer(note="not asked: NO_GCE_CHECK=true")
        if path not in self._answers:
            if self.trouble:
                return Answer(note="not asked again", failed=True)
            self._answers[path] = self._answer(path)
        return self._answers[path]

    def _answer(self, path: str) -> Answer:
        patience = time.monotonic() + (PATIENCE if self.settings.kubernetes else 0.0)
        while True:
            reply = self._fetch(path)
            if not reply.passing or time.monotonic() + PAUSE > min(patience, self._deadline):
                break
            time.sleep(PAUSE)
        if reply.trouble:
            self.trouble = reply.trouble
            speak = lines.warning if self.settings.sign else lines.debug
            speak("metadata server is of no use", address=str(self.settings.server), reason=reply.trouble)
            return Answer(note=reply.trouble, failed=True)
        return judge(reply)

    def _fetch(self, path: str) -> Reply:
        believed = bool(self.settings.sign or self._answers)
        limit = self.settings.timeout if believed else min(PROBE, self.settings.timeout)
        left = self._deadline - time.monotonic()
        reply = None
        if left > 0:
            reply = _within(min(limit, left), lambda: _get(self.settings, path))
        if reply is not None:
            return reply
        if left <= limit:
            raise DeadlinePassed(
                f"metadata server {self.settings.server}: no answer to {path} within the time given to krun-discover",
                hint="give it more with --timeout, or set NO_GCE_CHECK=true where there is no metadata server",
            )
        return Reply(trouble=f"no answer within {limit:g} s")


class Reply(Record):
    """What came back. ``trouble``: not to be asked again, and why; ``passing``: worth a retry where pods start."""

    status: int = 0
    body: bytes = b""
    trouble: str = ""
    passing: bool = False


def judge(reply: Reply) -> Answer:
    """Turn a genuine reply into a value, one line of printable text, or into the reason why there is none."""
    if reply.status == 404:
        return Answer(note="not set (404)")
    if reply.status != 200:
        return Answer(note=f"refused (HTTP {reply.status})")
    text = reply.body.decode("utf-8", errors="replace").strip()
    if not text.isprintable() or len(reply.body) > BODY_LIMIT:
        return Answer(note="not one line of text")
    return Answer(value=text, note="" if text else "empty")


def _get(settings: Settings, path: str) -> Reply:
    from http.client import HTTPConnection, HTTPException  # late: with its imports it is half of our start-up time

    connection = HTTPConnection(settings.server.host, settings.server.port, timeout=settings.timeout)
    try:
        headers = dict([FLAVOR]) | {"Host": settings.host_name, "Connection": "close"}
        connection.request("GET", f"/computeMetadata/v1/{path}", headers=headers)
        response = connection.getresponse()
        body = response.read(BODY_LIMIT + 1)
        if response.status == BUSY or response.status >= 500:
            return Reply(trouble=f"HTTP {response.status}", passing=True)
        if response.getheader(FLAVOR[0]) != FLAVOR[1]:
            return Reply(trouble=f"not believed, answers without {FLAVOR[0]}")
        return Reply(status=response.status, body=body)
    except (OSError, HTTPException, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Reply(trouble=reason, passing=isinstance(error, ConnectionRefusedError))
    finally:
        connection.close()


def _within(seconds: float, fetch: Callable[[], Reply]) -> Reply | None:
    """The reply, or None when time is up.

    In a thread, which is left behind then: a name lookup knows no deadline, and a socket's timeout begins again with
    each byte that a slow server sends.
    """
    import threading  # late: all may be known

    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(fetch()), daemon=True)
    thread.start()
    thread.join(seconds)
    return replies[0] if replies else None


class Metadata:
    """The variables that the server knows."""

    def __init__(self, *, client: Client) -> None:
        self._client = client

    def names(self) -> Iterable[str]:
        """None that cannot be listed beforehand."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """The paths that tell the variable; those of a cluster only inside Kubernetes."""
        for path, cut in _paths(name, kubernetes=self._client.settings.kubernetes):
            yield _candidate(self._client, path, cut)
        if name == "PROJECT_NUMBER":
            yield self._number(known)

    def _number(self, known: Known) -> Candidate:
        """The number of our own project, when that is the project."""
        path, id_path = "project/numeric-project-id", "project/project-id"

        def ask() -> Answer:
            own = self._client.ask(id_path)
            if own.value and known.value("PROJECT_ID") not in ("", own.value):
                return Answer(note=f"not asked: we are in {own.value}")
            answer = self._client.ask(path)
            return Answer(value=answer.value, note=answer.note, failed=answer.failed)

        free = self._client.known
        return Candidate(source=f"metadata: {path}", ask=ask, free=lambda: free(path) and free(id_path))


class OwnPlace:
    """Our own region, for want of a better guess, and the network of a machine: the server's last word."""

    def __init__(self, *, client: Client) -> None:
        self._client = client

    def names(self) -> Iterable[str]:
        """None."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """The paths."""
        if name == "CLUSTER_LOCATION":
            yield _candidate(self._client, "instance/region", last_segment)
            yield _candidate(self._client, "instance/zone", region_of_zone)
        if name == "MESH_NETWORK" and not self._client.settings.serverless:
            yield _candidate(self._client, "instance/network-interfaces/0/network", last_segment)


def _candidate(client: Client, path: str, cut: Callable[[str], str]) -> Candidate:
    def ask() -> Answer:
        answer = client.ask(path)
        value = cut(answer.value)
        note = answer.note if value or not answer.value else f"{answer.value} does not have the form"
        return Answer(value=value, note=note, failed=answer.failed)

    return Candidate(source=f"metadata: {path}", ask=ask, free=lambda: client.known(path))


def _paths(name: str, *, kubernetes: bool) -> list[tuple[str, Callable[[str], str]]]:
    match name:
        case "WORKLOAD_NAMESPACE":
            return [
                ("instance/service-accounts/default/email", namespace_of_account),
                ("project/attributes/mesh-namespace", str),
            ]
        case "PROJECT_ID":
            return [("project/project-id", str)]
        case "CLUSTER_NAME" if kubernetes:
            return [("instance/attributes/cluster-name", str)]
        case "CLUSTER_LOCATION" if kubernetes:
            return [("instance/attributes/cluster-location", str)]
        case _:
            return []


def namespace_of_account(email: str) -> str:
    """A Google service account ``k8s-NS@PROJECT…`` stands for the namespace NS."""
    account, at, _ = email.partition("@")
    return account.removeprefix("k8s-") if at and account.startswith("k8s-") else ""


def last_segment(path: str) -> str:
    """``projects/123/regions/us-central1`` is us-central1."""
    return path.rpartition("/")[2]


def region_of_zone(path: str) -> str:
    """``projects/123/zones/us-central1-a`` lies in us-central1."""
    return last_segment(path).rpartition("-")[0]
