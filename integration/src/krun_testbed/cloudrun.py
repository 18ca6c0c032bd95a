"""Cloud Run on this machine: a front that is a real Envoy with the platform's rules, and instances of services.

An instance is a command with the platform's environment. As many run on one machine, each has a loopback address of
its own. ``python -m krun_testbed.cloudrun --help`` runs it alone.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import click

from krun_testbed import components
from krun_testbed.certificates import Authority, Pair, write
from krun_testbed.cloudrun_envoy import Backend, Front, bootstrap
from krun_testbed.cloudrun_instance import Failed, Instance, Service
from krun_testbed.google_tokens import Issuer
from krun_testbed.processes import environment, listens

__all__ = ["CloudRun", "Failed", "Instance", "Service"]

FRONT_STARTUP = 20.0  # seconds


class KeySet(Protocol):
    """Whose ID tokens are taken."""

    def jwks(self) -> dict[str, object]: ...


class Certifier(Protocol):
    """Who gives the front its certificate."""

    def server(self, *, hosts: tuple[str, ...]) -> Pair: ...


class CloudRun:
    """The front and its services; a context manager."""

    def __init__(
        self,
        *,
        services: Sequence[Service],
        issuer: KeySet,
        authority: Certifier,
        listen: tuple[str, int],
        request_timeout: float = 300.0,
        connection_life: float = 0.0,
        directory: Path | None = None,
    ) -> None:
        """``directory``: where the front's own temporary folder is made; default the system's.

        ``connection_life``: seconds after which a connection is told to take no further requests; 0 for no limit.
        """
        self.services = tuple(services)
        self.listen = listen
        self.instances: dict[str, Instance] = {}
        self.deaths: list[str] = []
        self._issuer = issuer
        self._authority = authority
        self._request_timeout = request_timeout
        self._connection_life = connection_life
        self._parent = directory
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._envoy: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the instances, wait until they listen, then start the front.

        Failed when one does not start; then all is stopped.
        """
        try:
            for service in self.services:
                self.instances[service.name] = Instance(service, died=self._note)
            for instance in self.instances.values():
                instance.wait_until_started()
            self._start_front()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the instances while the front still serves what is under way, then the front."""
        threads = [threading.Thread(target=instance.stop) for instance in self.instances.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._envoy is not None:
            self._envoy.terminate()
            try:
                self._envoy.wait(5)
            except subprocess.TimeoutExpired:
                self._envoy.kill()
                self._envoy.wait()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def url(self, service: str) -> str:
        """The URL of a service, as a client names it; it reaches it with ``listen`` as its connect-to."""
        return f"https://{next(one.host for one in self.services if one.name == service)}"

    def check(self) -> None:
        """Failed when the front or an instance has died."""
        if self._envoy is not None and self._envoy.poll() is not None:
            raise Failed(f"the front's Envoy ended with {self._envoy.returncode}")
        if self.deaths:
            raise Failed(self.deaths[0])

    def wait_for_death(self, *, timeout: float) -> bool:
        """Wait at most so many seconds for an instance to die by itself."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.deaths), timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _note(self, death: str) -> None:
        with self._changed:
            self.deaths.append(death)
            self._changed.notify_all()
        sys.stderr.write(f"cloudrun: {death}\n")

    def _start_front(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="cloudrun-", dir=self._parent)
        folder = Path(self._directory.name)
        pair = self._authority.server(hosts=tuple(service.host for service in self.services) or ("localhost",))
        write(path=folder / "front.pem", content=pair.chain)
        write(path=folder / "front.key", content=pair.key)
        front = Front(
            listen=self.listen,
            certificate=str(folder / "front.pem"),
            key=str(folder / "front.key"),
            jwks=self._issuer.jwks(),
            request_timeout=self._request_timeout,
            connection_life=self._connection_life,
        )
        config = bootstrap(front, tuple(_backend(service) for service in self.services))
        write(path=folder / "envoy.json", content=json.dumps(config, indent=1).encode())
        if listens(*self.listen):
            raise Failed(f"the front cannot listen on {self.listen[0]}:{self.listen[1]}: the port is taken")
        self._envoy = self._run_envoy(folder)

    def _run_envoy(self, folder: Path) -> subprocess.Popen[bytes]:
        log = folder / "envoy.log"
        argv = [components.envoy(), "-c", str(folder / "envoy.json"), "--disable-hot-restart", "--concurrency", "1"]
        with log.open("wb") as output:
            envoy = subprocess.Popen(
                [*argv, "--log-level", "warning"],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._envoy = envoy  # from here on stop() ends it
        deadline = time.monotonic() + FRONT_STARTUP
        while not listens(*self.listen):
            if envoy.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the front's Envoy did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        return envoy


def _backend(service: Service) -> Backend:
    return Backend(
        name=service.name,
        host=service.host,
        address=service.address,
        port=service.port,
        allow_unauthenticated=service.allow_unauthenticated,
        http2=service.http2,
    )


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Certificate and keys from files, for the command line."""

    certificate: Path
    key: Path
    key_set: Path

    def server(self, *, hosts: tuple[str, ...]) -> Pair:
        return Pair(chain=self.certificate.read_bytes(), key=self.key.read_bytes())

    def jwks(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.key_set.read_text())
        return found


@click.command()
@click.option("--listen", metavar="ADDRESS:PORT", required=True, help="Where the front listens.")
@click.option(
    "--service",
    "commands",
    nargs=4,
    multiple=True,
    required=True,
    metavar="NAME HOST ADDRESS COMMAND",
    help="A service: its host name, the loopback address of its instance, and what it runs (by sh -c).",
)
@click.option("--port", default=15009, show_default=True, help="PORT of the containers.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of all containers.")
@click.option("--allow-unauthenticated", is_flag=True, help="Ask for no token.")
@click.option("--http1", is_flag=True, help="Speak HTTP/1.1 to the containers, as without --use-http2.")
@click.option("--jwks", type=click.Path(path_type=Path, exists=True), help="Keys that sign ID tokens.")
@click.option("--certificate", type=click.Path(path_type=Path, exists=True), help="The front's certificate chain.")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="Its private key.")
@click.option(
    "--write-to", type=click.Path(path_type=Path), help="Without the files: make them, and write root and issuer."
)
@click.option("--request-timeout", default=300.0, show_default=True, help="Seconds for a whole stream.")
def main(
    listen: str,
    commands: tuple[tuple[str, str, str, str], ...],
    port: int,
    variables: tuple[str, ...],
    allow_unauthenticated: bool,
    http1: bool,
    jwks: Path | None,
    certificate: Path | None,
    key: Path | None,
    write_to: Path | None,
    request_timeout: float,
) -> None:
    """Run services behind a front with the rules of Cloud Run, until SIGTERM or Ctrl-C.

    \b
    Example:
      python -m krun_testbed.cloudrun --listen 127.0.0.1:8443 --write-to /tmp/front \\
        --service b b-424242.local1.run.app 127.0.0.3 'exec krun-launch --init -- app'
    """
    address, _, number = listen.rpartition(":")
    if not address or not number.isdecimal():
        raise click.BadParameter(f"{listen!r} is not ADDRESS:PORT", param_hint="--listen")
    env = dict(variable.partition("=")[::2] for variable in variables)
    services = [
        Service(
            name=name,
            host=host,
            address=where,
            command=command,
            port=port,
            env={"KRUN_LOOPBACK": where, "KRUN_BIND": where, **env},
            allow_unauthenticated=allow_unauthenticated,
            http2=not http1,
        )
        for name, host, where, command in commands
    ]
    issuer, authority = _trust(jwks=jwks, certificate=certificate, key=key, write_to=write_to)
    front = CloudRun(
        services=services,
        issuer=issuer,
        authority=authority,
        listen=(address, int(number)),
        request_timeout=request_timeout,
    )
    _run(front)


def _trust(
    *, jwks: Path | None, certificate: Path | None, key: Path | None, write_to: Path | None
) -> tuple[KeySet, Certifier]:
    if jwks and certificate and key:
        files = _Files(certificate=certificate, key=key, key_set=jwks)
        return files, files
    if jwks or certificate or key or not write_to:
        raise click.UsageError("give --jwks, --certificate and --key, or --write-to to have them made")
    issuer, authority = Issuer(), Authority()
    issuer.save(write_to)
    write(path=write_to / "root.pem", content=authority.root)
    return issuer, authority


def _run(front: CloudRun) -> None:
    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        with front:
            sys.stderr.write(f"cloudrun: ready on {front.listen[0]}:{front.listen[1]}\n")
            while True:
                front.check()
                front.wait_for_death(timeout=1.0)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.stderr.write("cloudrun: stopped\n")


if __name__ == "__main__":
    main()
