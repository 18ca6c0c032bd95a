"""The hboned command: reads settings, starts the server."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, NoReturn

import click

from hbone import errors, log
from hbone.contract import PORTS
from hbone.options import log_options

if TYPE_CHECKING:
    from hbone.server import Settings

EXAMPLES = """
\b
Examples:
  hboned --offer 15003
  KRUN_OFFER=15003,22=15022 PORT_http=8080 hboned
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
@click.option("--tls-cert", metavar="FILE", help="Serve TLS with this certificate chain, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM.")
@log_options
@click.version_option(package_name="krun-hbone", message="%(prog)s %(version)s")
def command(
    *,
    port: int,
    bind: str | None,
    loopback: str,
    offer: str,
    tls_cert: str | None,
    tls_key: str | None,
    log_level: str,
    log_format: str,
) -> int:
    """Serve tunnels: POST /_hbone/PORT over HTTP/2 leads to a local TCP port.

    HTTP/2 is spoken without TLS (prior knowledge), as a platform's front does, or with TLS and ALPN.
    SIGTERM drains: running tunnels go on, and a second SIGTERM ends them.
    """
    log.configure(tool="hboned", level=log_level, style=log_format)
    settings = _settings(port=port, bind=bind, loopback=loopback, offer=offer, files=(tls_cert, tls_key))
    # asyncio and h2 are half of the start-up time, and --help needs neither.
    from hbone import stop

    return stop.run(_serve(settings))


def _settings(
    *, port: int, bind: str | None, loopback: str, offer: str, files: tuple[str | None, str | None]
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
    return Settings(bind=bind, port=port, loopback=loopback, offers=offered, tls=context)


def _check_address(name: str, address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise errors.Misconfigured(f"{name}: {address!r} is no IP address", hint="for example 127.0.0.1") from error


async def _serve(settings: Settings) -> int:
    import logging

    from hbone.server import Server
    from hbone.stop import Stop

    stop = Stop()
    stop.listen()
    await stop.run(Server(settings=settings, stop=stop).serve())
    logging.getLogger(__name__).info("drained")
    return errors.Exit.OK


def main() -> NoReturn:
    errors.run(command, tool="hboned")
