"""The ways by which the public's requests reach hboned: straight by each version of HTTP, and through the front."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import grpc_peers, processes
from krun_testbed.certificates import Authority
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.public_peers import Http2, curl
from krun_testbed.tunnels import connect, server

HOST = "public-424242.local1.run.app"
HTTP1, HTTP2 = "straight by HTTP/1.1", "straight by HTTP/2"
FRONT_HTTP1, FRONT_HTTP2 = "front by HTTP/1.1", "front by HTTP/2"
WAYS = (HTTP1, HTTP2, FRONT_HTTP1, FRONT_HTTP2)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way, and clients that take it; ``pid`` is hboned's."""

    name: str
    host: str
    listen: tuple[str, int]
    flags: tuple[str, ...]
    root: bytes | None
    pid: int

    def curl(self, path: str, *argv: str, data: bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        return curl(*self.flags, *argv, f"{self.url}{path}", data=data, timeout=timeout)

    @property
    def url(self) -> str:
        scheme = "https" if self.root else "http"
        return f"{scheme}://{self.host}"

    @contextlib.contextmanager
    def grpc(self) -> Iterator[grpc_peers.Client]:
        with grpc_peers.client(f"{self.listen[0]}:{self.listen[1]}", root=self.root, host=HOST) as client:
            yield client

    @contextlib.contextmanager
    def frames(self) -> Iterator[Http2]:
        """A client that writes HTTP/2's frames itself: not on the way that has HTTP/1.1 only."""
        with contextlib.ExitStack() as stack:
            connected = stack.enter_context(connect(*self.listen))
            if context := self.tls():
                context.set_alpn_protocols(["h2"])
                connected = stack.enter_context(context.wrap_socket(connected, server_hostname=self.host))
            yield Http2(connected)

    def tls(self) -> ssl.SSLContext | None:
        """What a client in this process needs for the front."""
        return ssl.create_default_context(cadata=self.root.decode()) if self.root else None


@contextlib.contextmanager
def way(
    name: str,
    *,
    address: str,
    authority: Authority,
    cloud_run: Callable[..., CloudRun],
    folder: Path,
    variables: dict[str, str] | None = None,
) -> Iterator[Way]:
    """hboned with the public on that address, its application at port 8080 there, and this way to it."""
    if name in (HTTP1, HTTP2):
        with server(address, "--public", "app", port=15009, **(variables or {})) as hboned:
            version = "--http1.1" if name == HTTP1 else "--http2-prior-knowledge"
            listen = (address, 15009)
            yield Way(
                name=name,
                host=f"{address}:15009",
                listen=listen,
                flags=(version,),
                root=None,
                pid=hboned.pid,
            )
        return
    (folder / "root.pem").write_bytes(authority.root)
    service = Service(
        name="public",
        host=HOST,
        address=address,
        command=["hboned"],
        env={"KRUN_LOOPBACK": address, "KRUN_BIND": address, "KRUN_PUBLIC": "app", **(variables or {})},
        allow_unauthenticated=True,
        http2=name == FRONT_HTTP2,
        log=folder / "hboned.log",
    )
    with cloud_run(service, directory=folder) as front:
        processes.wait_for_port(*front.listen)
        host, port = front.listen
        yield Way(
            name=name,
            host=HOST,
            listen=front.listen,
            flags=("--http2", "--cacert", str(folder / "root.pem"), "--connect-to", f"::{host}:{port}"),
            root=authority.root,
            pid=front.instances["public"].pid,
        )
