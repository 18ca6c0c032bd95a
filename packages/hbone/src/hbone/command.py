"""The hbone command with all its flags: stdin and stdout to a tunnel, or local forwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hbone import errors, log
from hbone.options import client_options, client_settings, log_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hbone.settings import Settings
    from hbone.urls import Forward

EXAMPLES = """
\b
Examples:
  ssh -o ProxyCommand='hbone https://HOST/_hbone/22' user@workload
  hbone --token-file FILE HOST:22
  hbone -L 5432 https://HOST/_hbone/5432
  hbone -L 2222:HOST:22 -L 5432:HOST:5432
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url", metavar="[URL|HOST:PORT]", required=False)
@click.option(
    "-L",
    "--listen",
    "listens",
    multiple=True,
    metavar="[ADDRESS:]PORT[:TUNNEL]",
    help="Forward connections to this port instead, each by a tunnel of its own, to the URL or to TUNNEL, which is "
    "written like one. On 127.0.0.1 unless told. Give it several times for several ports.",
)
@client_options
@log_options
@click.version_option(package_name="krun-hbone", message="%(prog)s %(version)s")
def command(
    *,
    url: str | None,
    listens: tuple[str, ...],
    token_command: str | None,
    token_file: str | None,
    ca_file: str | None,
    connect_to: str | None,
    log_level: str,
    log_format: str,
) -> int:
    """Tunnel stdin and stdout over HTTP/2 to a port behind hboned.

    HOST:PORT means https://HOST/_hbone/PORT. An http:// URL is HTTP/2 without TLS. The end of stdin is passed on, and
    hbone ends when the other side does.
    """
    log.configure(tool="hbone", level=log_level, style=log_format)
    # asyncio and h2 are most of the start-up time, and --help needs neither.
    from hbone.urls import parse_forward, parse_url

    try:
        tunnel = parse_url(url) if url is not None else None
        forwards = [parse_forward(text, url=tunnel) for text in listens]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    settings = client_settings(
        token_command=token_command, token_file=token_file, ca_file=ca_file, connect_to=connect_to
    )
    if forwards:
        from hbone import stop  # late: asyncio is most of the start-up time, and --help does without

        return stop.run(_forward(forwards, settings=settings))
    if tunnel is None:
        raise click.UsageError("Missing argument '[URL|HOST:PORT]'.")
    from hbone.pipe import pipe

    return pipe(url=tunnel, settings=settings)


async def _forward(forwards: Sequence[Forward], *, settings: Settings) -> int:
    import logging

    from hbone.forward import forward
    from hbone.stop import Stop

    stop = Stop()
    stop.listen()
    await stop.run(forward(forwards=forwards, settings=settings, stop=stop))
    logging.getLogger(__name__).info("drained")
    return errors.Exit.OK
