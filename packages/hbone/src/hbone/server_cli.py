"""The hboned command: reads settings, starts the server."""

from __future__ import annotations

import ipaddress
import logging
import os
from typing import TYPE_CHECKING, NoReturn

import click

from hbone import errors, log
from hbone.contract import PORTS
from hbone.options import log_options

if TYPE_CHECKING:
    import socket

    from hbone.application import Place
    from hbone.server import Settings
    from hbone.worker import Worker

EXAMPLES = """
\b
Examples:
  hboned --offer 15003
  KRUN_OFFER=15003,22=15022 PORT_http=8080 hboned
  hboned --public app --app-port 3000
  hboned --port 8443 --tls-cert server.pem --tls-key server.key --offer 5432
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    envvar="PORT",
    show_envvar=True,
    default=PORTS["HBONE_H2C"],
    show_default=True,
    help="Where to listen.",
)
@click.option(
    "--bind",
    metavar="ADDRESS",
    envvar="KRUN_BIND",
    show_envvar=True,
    help="IP address to listen on. Default: 0.0.0.0 if K_SERVICE is set, else --loopback.",
)
@click.option(
    "--loopback",
    metavar="ADDRESS",
    envvar="KRUN_LOOPBACK",
    show_envvar=True,
    default="127.0.0.1",
    show_default=True,
    help="IP address of the targets.",
)
@click.option(
    "--offer",
    metavar="PORT[=TARGETPORT],...",
    envvar="KRUN_OFFER",
    show_envvar=True,
    default=str(PORTS["ENVOY_MTLS"]),
    show_default=True,
    help="Ports to offer. Each variable PORT_name=PORT offers /_hbone/name too.",
)
@click.option(
    "--public",
    type=click.Choice(["app", "none"]),
    envvar="KRUN_PUBLIC",
    show_envvar=True,
    default="none",
    show_default=True,
    help="Where requests go that are no tunnels: to the application, or nowhere.",
)
@click.option(
    "--app-port",
    type=click.IntRange(1, 65535),
    envvar="PORT_http",
    show_envvar=True,
    default=PORTS["APP"],
    show_default=True,
    help="The application's port.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(1, 65535),
    envvar="PORT_grpc",
    show_envvar=True,
    help="Its port for gRPC. Default: --app-port.",
)
@click.option(
    "--app-protocol",
    type=click.Choice(["auto", "http1", "h2c"]),
    envvar="KRUN_APP_PROTOCOL",
    show_envvar=True,
    default="auto",
    show_default=True,
    help="How it is spoken to: auto is HTTP/2 for gRPC, HTTP/1.1 for all else.",
)
@click.option(
    "--workers",
    metavar="N",
    envvar="KRUN_WORKERS",
    show_envvar=True,
    default="1",
    show_default=True,
    callback=lambda _context, _parameter, text: _workers(text),
    help="Processes that share the connections; auto is one for each CPU.",
)
@click.option(
    "--worker-timeout",
    metavar="SECONDS",
    type=click.FloatRange(1),
    envvar="KRUN_WORKER_TIMEOUT",
    show_envvar=True,
    default=30.0,
    show_default=True,
    help="Silence after which one of several is ended and replaced.",
)
@click.option("--tls-cert", metavar="FILE", help="Serve TLS with this certificate chain, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM.")
@click.option(
    "--notify-fd",
    metavar="NUMBER",
    envvar="KRUN_NOTIFY_FD",
    show_envvar=True,
    default="",
    help="An inherited pipe, to which ready and idle are told.",
)
@log_options
@click.version_option(package_name="krun-hbone", message="%(prog)s %(version)s")
def command(
    *,
    port: int,
    bind: str | None,
    loopback: str,
    offer: str,
    public: str,
    app_port: int,
    grpc_port: int | None,
    app_protocol: str,
    workers: int,
    worker_timeout: float,
    tls_cert: str | None,
    tls_key: str | None,
    notify_fd: str,
    log_level: str,
    log_format: str,
) -> int:
    """Serve tunnels and the public: POST /_hbone/PORT over HTTP/2 leads to a local
    TCP port, all other requests to the application, if --public says so.

    HTTP/2 is spoken without TLS (prior knowledge), as a platform's front does, or
    with TLS and ALPN; HTTP/1.1 on the same port. SIGTERM drains: what is under
    way goes on, and a second SIGTERM ends it.
    """
    log.configure(tool="hboned", level=log_level, style=log_format)
    app = None
    if public == "app":
        app = _place(loopback, port=app_port, grpc_port=grpc_port or app_port, protocol=app_protocol, own_port=port)
    settings = _settings(
        port=port, bind=bind, loopback=loopback, offer=offer, files=(tls_cert, tls_key), app=app, notify=notify_fd
    )
    # asyncio and TLS are half of the start-up time, and --help needs neither.
    from hbone import sockets, stop

    listener = sockets.listen(settings.bind, settings.port)
    if workers == 1:
        status = stop.run(_serve(settings, listener))
    else:
        status = _share(settings, listener, count=workers, timeout=worker_timeout)
    logging.getLogger(__name__).info("drained")
    return status


def _workers(text: str) -> int:
    if text == "auto":
        # Those that this process may use, not all that the machine has.
        return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 64)
    if text.isascii() and text.isdecimal() and 1 <= int(text[:3]) <= 64:
        return int(text)
    raise click.BadParameter(f"{text!r} is neither a number from 1 to 64 nor auto")


def _place(address: str, *, port: int, grpc_port: int, protocol: str, own_port: int) -> Place:
    from hbone.application import Place

    for name, number in (("--app-port (PORT_http)", port), ("--grpc-port (PORT_grpc)", grpc_port)):
        if number == own_port:
            raise errors.Misconfigured(f"{name}: {number} is hboned's own port", hint="give the application another")
    return Place(address=address, port=port, grpc_port=grpc_port, protocol=protocol)


def _settings(
    *,
    port: int,
    bind: str | None,
    loopback: str,
    offer: str,
    files: tuple[str | None, str | None],
    app: Place | None,
    notify: str,
) -> Settings:
    from hbone.offers import offers
    from hbone.server import Settings

    bind = bind or ("0.0.0.0" if os.environ.get("K_SERVICE") else loopback)
    for name, address in (("--bind (KRUN_BIND)", bind), ("--loopback (KRUN_LOOPBACK)", loopback)):
        _check_address(name, address)
    offered = offers(offer=offer, environment=os.environ, own_port=port)
    certificate, key = files
    if bool(certificate) != bool(key):
        raise errors.Misconfigured("--tls-cert and --tls-key: one is missing", hint="give both, or none")
    context = None
    if certificate and key:
        from hbone import tls

        context = tls.server_context(certificate=certificate, key=key)
    return Settings(bind=bind, port=port, loopback=loopback, offers=offered, tls=context, app=app, notify=notify)


def _check_address(name: str, address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise errors.Misconfigured(f"{name}: {address!r} is no IP address", hint="for example 127.0.0.1") from error


async def _serve(settings: Settings, listener: socket.socket) -> int:
    from hbone.server import Server
    from hbone.stop import Stop

    stop = Stop()
    stop.listen()
    await stop.run(Server(settings=settings, stop=stop).serve(listener))
    return errors.Exit.OK


def _share(settings: Settings, listener: socket.socket, *, count: int, timeout: float) -> int:
    """Serve by several processes: what they need is loaded here, once."""
    from hbone import sockets, stop
    from hbone.notify import Notify
    from hbone.server import say_ready
    from hbone.workers import Workers

    address = sockets.name(listener)
    workers = Workers(
        listener=listener,
        count=count,
        timeout=timeout,
        work=lambda worker: stop.run(_work(settings, listener, worker)),
        ready=lambda: say_ready(settings, address=address),
        notify=Notify(settings.notify),
    )
    workers.run()
    return errors.Exit.OK


async def _work(settings: Settings, listener: socket.socket, worker: Worker) -> int:
    from hbone.server import Server
    from hbone.stop import Stop

    stop = Stop()
    worker.open(stop)
    await stop.run(Server(settings=settings, stop=stop, worker=worker).serve(listener))
    return errors.Exit.OK


def main() -> NoReturn:
    errors.run(command, tool="hboned")
