"""A stand-in for Google's metadata server, as Cloud Run has it: its paths, its headers and its refusals.

``python -m krun_testbed.metadata --help`` runs it alone; tests use it as a context manager, and see what it was asked.
Tokens are not made here: give it a callable, or a command, that makes them.
"""

from __future__ import annotations

import http.server
import json
import shlex
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import ClassVar, Self

import click

BASE = "/computeMetadata/v1/"
COMMAND_TIMEOUT = 30.0  # seconds for a command that makes a token
LIFETIME = 3599  # seconds that an access token is said to live; the real server hands out fresh ones with as many


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the server knows. An empty text is a 404, as for an attribute that nobody has set."""

    project: str = "demo-project"
    number: str = "123456789012"
    region: str = "us-central1"
    zone: str = "us-central1-1"  # Cloud Run's zones are no real ones
    instance_id: str = "00f0a1b2c3d4e5f6"
    email: str = "123456789012-compute@developer.gserviceaccount.com"
    scopes: tuple[str, ...] = ("https://www.googleapis.com/auth/cloud-platform",)
    project_attributes: Mapping[str, str] = field(default_factory=dict)
    instance_attributes: Mapping[str, str] = field(default_factory=dict)
    network: str = ""  # of a machine's first interface; Cloud Run tells none
    flavor: str = "Google"  # in answers; empty for a server that is not Google's
    product: str = "Metadata Server for Serverless"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer."""

    status: int = 200
    body: str = ""
    kind: str = "application/text"


Issue = Callable[[str], str]


def answer(target: str, *, facts: Facts, identity: Issue | None = None, token: Issue | None = None) -> Reply:
    """The answer to a request that carries the header; ``target`` is its path and query."""
    url = urllib.parse.urlsplit(target)
    query = urllib.parse.parse_qs(url.query)
    if not url.path.startswith(BASE):
        return Reply(body="computeMetadata/\n") if url.path == "/" else Reply(status=404, body="not found\n")
    path = url.path.removeprefix(BASE)
    for name in ("default", facts.email):
        below = f"instance/service-accounts/{name}/"
        if path.startswith(below):
            return _account(path.removeprefix(below), query, facts=facts, identity=identity, token=token)
    value = _texts(facts).get(path, "")
    return Reply(body=value) if value else Reply(status=404, body="not found\n")


def _texts(facts: Facts) -> dict[str, str]:
    texts = {
        "project/project-id": facts.project,
        "project/numeric-project-id": facts.number,
        "instance/id": facts.instance_id,
        "instance/region": f"projects/{facts.number}/regions/{facts.region}" if facts.region else "",
        "instance/zone": f"projects/{facts.number}/zones/{facts.zone}" if facts.zone else "",
        "universe/universe-domain": "googleapis.com",
        "instance/network-interfaces/0/network": f"projects/{facts.number}/networks/{facts.network}"
        if facts.network
        else "",
    }
    texts |= {f"project/attributes/{key}": value for key, value in facts.project_attributes.items()}
    return texts | {f"instance/attributes/{key}": value for key, value in facts.instance_attributes.items()}


def _account(
    path: str, query: Mapping[str, list[str]], *, facts: Facts, identity: Issue | None, token: Issue | None
) -> Reply:
    match path:
        case "" if query.get("recursive", [""])[0].lower() == "true":
            whole = {"aliases": ["default"], "email": facts.email, "scopes": list(facts.scopes)}
            return Reply(body=json.dumps(whole), kind="application/json")
        case "":
            return Reply(body="aliases\nemail\nidentity\nscopes\ntoken\n")
        case "email" if facts.email:
            return Reply(body=facts.email)
        case "aliases":
            return Reply(body="default\n")
        case "scopes":
            return Reply(body="\n".join(facts.scopes) + "\n")
        case "identity" if identity:
            audience = query.get("audience", [""])[0]
            if not audience:
                return Reply(status=400, body="non-empty audience parameter required\n")
            return Reply(body=identity(audience))
        case "token" if token:
            scopes = query.get("scopes", [",".join(facts.scopes)])[0]
            issued = {"access_token": token(scopes), "expires_in": LIFETIME, "token_type": "Bearer"}
            return Reply(body=json.dumps(issued), kind="application/json")
        case _:
            return Reply(status=404, body="not found\n")


class MetadataServer:
    """The server in a thread, from ``with`` on. ``requests`` are the targets that were asked, in order."""

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        facts: Facts | None = None,
        identity: Issue | None = None,
        token: Issue | None = None,
    ) -> None:
        self.facts = facts or Facts()
        self.requests: list[str] = []
        self.failures: list[int] = []  # statuses of the next answers, instead of the true ones
        self._identity = identity
        self._token = token
        handler = type("Handler", (_Handler,), {"metadata": self})
        self._server = http.server.ThreadingHTTPServer((address, port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def address(self) -> str:
        """HOST:PORT, for GCE_METADATA_HOST."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reply(self, target: str, *, flavored: bool, forwarded: bool) -> Reply:
        """The answer to one request, noted."""
        self.requests.append(target)
        if self.failures:
            return Reply(status=self.failures.pop(0), body="try again\n")
        if target != "/" and (forwarded or not flavored):
            return Reply(status=403, body="Missing Metadata-Flavor:Google header.\n")
        try:
            return answer(target, facts=self.facts, identity=self._identity, token=self._token)
        except (OSError, subprocess.SubprocessError) as error:
            return Reply(status=500, body=f"{type(error).__name__}\n")


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection. The name of the method is http.server's."""

    metadata: ClassVar[MetadataServer]
    protocol_version = "HTTP/1.1"
    timeout = 10.0  # seconds that an idle connection may stay

    def do_GET(self) -> None:
        """Answer as the real server does, its name and flavour in the headers."""
        flavored = self.headers.get("Metadata-Flavor") == "Google"
        reply = self.metadata.reply(self.path, flavored=flavored, forwarded="X-Forwarded-For" in self.headers)
        body = reply.body.encode()
        self.send_response(reply.status)
        if self.metadata.facts.flavor:
            self.send_header("Metadata-Flavor", self.metadata.facts.flavor)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """The Server header, by which clients tell the platforms apart."""
        return self.metadata.facts.product

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet: requests are in ``MetadataServer.requests``."""


def by_command(template: str, *, placeholder: str) -> Issue:
    """A maker of tokens that runs a command for each, with the placeholder in its arguments replaced."""
    words = shlex.split(template)

    def issue(text: str) -> str:
        argv = [word.replace(placeholder, text) for word in words]
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=COMMAND_TIMEOUT, check=True)
        return done.stdout.strip()

    return issue


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


@click.command()
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, metavar="ADDRESS:PORT", help="Port 0: any free one."
)
@click.option("--project", default=Facts.project, show_default=True, help="Project id.")
@click.option("--number", default=Facts.number, show_default=True, help="Project number.")
@click.option("--region", default=Facts.region, show_default=True)
@click.option("--zone", default=Facts.zone, show_default=True)
@click.option("--email", default=Facts.email, show_default=True, help="Service account.")
@click.option("--project-attribute", "project_attributes", multiple=True, metavar="KEY=VALUE")
@click.option("--instance-attribute", "instance_attributes", multiple=True, metavar="KEY=VALUE")
@click.option("--identity-command", metavar="COMMAND", help="Prints an ID token; {audience} is replaced.")
@click.option("--token-command", metavar="COMMAND", help="Prints an access token; {scopes} is replaced.")
def main(
    listen: str,
    project_attributes: tuple[str, ...],
    instance_attributes: tuple[str, ...],
    identity_command: str | None,
    token_command: str | None,
    project: str,
    number: str,
    region: str,
    zone: str,
    email: str,
) -> None:
    """Serve metadata until SIGTERM; one line on stderr says when and where."""
    address, _, port = listen.rpartition(":")
    if not (address and port.isdecimal()):
        raise click.BadParameter(f"--listen {listen!r} is not ADDRESS:PORT")
    facts = Facts(
        project=project,
        number=number,
        region=region,
        zone=zone,
        email=email,
        project_attributes=_pairs(project_attributes),
        instance_attributes=_pairs(instance_attributes),
    )
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server = MetadataServer(
        address=address,
        port=int(port),
        facts=facts,
        identity=by_command(identity_command, placeholder="{audience}") if identity_command else None,
        token=by_command(token_command, placeholder="{scopes}") if token_command else None,
    )
    with server:
        sys.stderr.write(f"krun_testbed.metadata: ready address={server.address}\n")
        sys.stderr.flush()
        ended.wait()


if __name__ == "__main__":
    main()
