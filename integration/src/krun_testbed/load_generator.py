"""The load generator of the benchmarks: a small program in C, compiled once into the cache folder, and its results.

In C, because it shares the machine with what is measured, and must cost little of it. ``load/load.c`` says what it
does; ``python -m krun_testbed.load_generator`` compiles it and prints its path, to try it by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import components, docker_engine, processes

SOURCE = Path(__file__).parent / "load"
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
KEY_SHARE = 1216  # bytes of X25519MLKEM768's, which today's Envoys and browsers send
TIMEOUT = 30.0


class Failed(Exception):
    """A load did not come through; the text has its own words."""


@dataclass(frozen=True, kw_only=True)
class Servers:
    """What runs behind what is measured: the ports of three servers, and the sink's counter."""

    address: str
    echo: int
    sink: int
    source: int
    counter: Path

    @property
    def ports(self) -> tuple[int, int, int]:
        return self.echo, self.sink, self.source


def make() -> Path:
    """Compile the program unless this version of it is there. Missing without a C compiler."""
    sources = sorted(SOURCE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    binary = docker_engine.cache() / f"load-{digest}"
    if not binary.exists():
        compiler = components.program("cc", package="gcc and libc6-dev")
        scratch = binary.with_name(f".{binary.name}.{os.getpid()}")
        argv = [compiler, *FLAGS, "-o", str(scratch), *(str(path) for path in sources if path.suffix == ".c")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise components.Missing(f"load: cannot be compiled: {done.stderr.strip()[-400:]}")
        scratch.rename(binary)
    return binary


@contextlib.contextmanager
def servers(*, address: str, folder: Path, ports: Sequence[int] = (20001, 20002, 20003)) -> Iterator[Servers]:
    """The echo, the sink and the source."""
    counter = folder / "counter"
    argv = [str(make()), "serve", *(f"{address}:{port}" for port in ports), str(counter)]
    with processes.start(argv) as running:
        running.wait_for("ready")
        yield Servers(address=address, echo=ports[0], sink=ports[1], source=ports[2], counter=counter)


def run(*arguments: str) -> dict[str, float]:
    """One load, to its end. Failed when a connection failed, or nothing came in time."""
    try:
        argv = [str(make()), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"load {' '.join(arguments[:3])}: no end within {TIMEOUT:g} s") from error
    if done.returncode != 0:
        raise Failed(f"load {' '.join(arguments[:3])}: {done.stderr.strip()}")
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


@contextlib.contextmanager
def idle(target: str, count: int, *more: str) -> Iterator[None]:
    """So many connections that are open, and do nothing, in the block."""
    with processes.start([str(make()), "idle", target, str(count), *more], stdin=subprocess.PIPE) as running:
        try:
            running.wait_for("ready", timeout=TIMEOUT)
        except AssertionError as error:
            raise Failed(f"load idle {target}: {running.stderr.strip()}") from error
        yield


@contextlib.contextmanager
def bulk(target: str, direction: str, *, counter: Path, more: Sequence[str] = ()) -> Iterator[None]:
    """Bytes in one direction over one connection, for as long as the block lasts."""
    argv = [str(make()), "bulk", target, direction, "1", "3600", str(counter), *more]
    with processes.start(argv) as running:
        yield
        if running.ends(timeout=0):
            raise Failed(f"load bulk {target}: {running.stderr.strip()}")


def hello(sni: str) -> bytes:
    """A ClientHello as an Envoy of today sends it: in two segments, since its key share is a post-quantum one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.set_alpn_protocols(["istio-peer-exchange", "istio"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=sni)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    body = outgoing.read()[9:]
    at = 2 + 32
    at += 1 + body[at]  # session id
    at += 2 + int.from_bytes(body[at : at + 2], "big")  # cipher suites
    at += 1 + body[at]  # compression methods
    # Of a type that nobody knows (RFC 8701), since Python's OpenSSL has no such key exchange.
    more = b"\xfa\xfa" + KEY_SHARE.to_bytes(2, "big") + bytes(KEY_SHARE)
    extensions = body[at + 2 :] + more
    message = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(message).to_bytes(3, "big") + message
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


@click.command()
def main() -> None:
    """Compile the load generator, unless it is there, and print its path."""
    try:
        click.echo(make())
    except components.Missing as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
