"""The hgate command: reads settings, starts the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from hbone.options import client_options, client_settings, log_options
from hgate import errors, log
from hgate.contract import PORTS

if TYPE_CHECKING:
    from hgate.gateway import Settings
    from hgate.routes import Routes

# Cloud Run's front takes this header, and leaves the application's own Authorization alone.
TOKEN_HEADER = "x-serverless-authorization"

EXAMPLES = """
\b
Examples:
  hgate --route b.demo=https://b-123456789.us-central1.run.app
  KRUN_ROUTES='b.demo=https://b.example c.demo:8080=https://c.example' \\
    hgate --listen 0.0.0.0:15442
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default=f"127.0.0.1:{PORTS['SNI_GATE']}",
    show_default=True,
    help="Where to listen for TLS.",
)
@click.option(
    "--route",
    "routes",
    metavar="NAME=URL",
    multiple=True,
    envvar="KRUN_ROUTES",
    show_envvar=True,
    help="Where a service is: NAME is SERVICE.NAMESPACE, with :PORT for one port only. Can be repeated.",
)
@click.option(
    "--hello-timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long a client may take for its TLS hello.",
)
@client_options
@log_options
@click.version_option(package_name="krun-hgate", message="%(prog)s %(version)s")
@click.pass_context
def command(
    context: click.Context,
    *,
    listen: str,
    routes: tuple[str, ...],
    hello_timeout: float,
    token_command: str | None,
    token_file: str | None,
    ca_file: str | None,
    connect_to: str | None,
    log_level: str,
    log_format: str,
) -> int:
    """Lead TLS connections from the mesh to workloads outside, by the server name in their hello.

    The bytes are tunnelled as they are: TLS ends at the workload's Envoy, not here. SIGTERM drains: connections that
    are open go on, and a second SIGTERM ends them.
    """
    log.configure(tool="hgate", level=log_level, style=log_format)
    # asyncio and h2 are most of the start-up time, and --help needs neither.
    from hbone import stop
    from hbone.urls import parse_listen
    from hgate.gateway import Settings

    try:
        address = parse_listen(listen)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--listen'") from error
    found = _routes(context, routes)
    client = client_settings(
        token_command=token_command,
        token_file=token_file,
        ca_file=ca_file,
        connect_to=connect_to,
        token_header=TOKEN_HEADER,
    )
    return stop.run(_serve(Settings(listen=address, routes=found, client=client, hello_timeout=hello_timeout)))


def _routes(context: click.Context, texts: tuple[str, ...]) -> Routes:
    from hgate.routes import read_routes

    if not texts:
        hint = "give --route NAME=URL, or KRUN_ROUTES"
        raise errors.Misconfigured("no route: all connections would be refused", hint=hint)
    try:
        return read_routes(texts)
    except ValueError as error:
        if context.get_parameter_source("routes") is click.core.ParameterSource.ENVIRONMENT:
            raise errors.Misconfigured(f"KRUN_ROUTES: {error}", hint="NAME=URL, by white space") from error
        raise click.BadParameter(str(error), param_hint="'--route'") from error


async def _serve(settings: Settings) -> int:
    import logging

    from hbone.stop import Stop
    from hgate.gateway import Gateway

    stop = Stop()
    stop.listen()
    await stop.run(Gateway(settings=settings, stop=stop).serve())
    logging.getLogger(__name__).info("drained")
    return errors.Exit.OK


def main() -> NoReturn:
    errors.run(command, tool="hgate")
