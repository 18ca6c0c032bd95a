"""Flags and variables that the tunnel's client has wherever it runs: in hbone, and in hgate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from hbone import log

if TYPE_CHECKING:
    from hbone.client import Settings

Function = TypeVar("Function", bound=Callable[..., object])

_CLIENT = (
    click.option(
        "--token-command",
        metavar="COMMAND",
        envvar="KRUN_ID_TOKEN_COMMAND",
        show_envvar=True,
        help="Command that prints an ID token; {audience} in it is replaced. Run without a shell.",
    ),
    click.option(
        "--token-file",
        metavar="FILE",
        envvar="KRUN_ID_TOKEN_FILE",
        show_envvar=True,
        help="File that holds an ID token; read for each tunnel.",
    ),
    click.option(
        "--ca-file",
        metavar="FILE",
        envvar="KRUN_CA_FILE",
        show_envvar=True,
        help="Root certificates to trust, PEM, instead of the system's.",
    ),
    click.option(
        "--connect-to",
        metavar="HOST:PORT",
        envvar="KRUN_CONNECT_TO",
        show_envvar=True,
        help="Dial this instead of the URL's host; TLS and requests still name the URL's.",
    ),
)
_LOG = (
    click.option(
        "--log-level",
        type=click.Choice(log.LEVELS),
        envvar="KRUN_LOG_LEVEL",
        show_envvar=True,
        default="info",
        show_default=True,
        help="What to log.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(log.FORMATS),
        envvar="KRUN_LOG_FORMAT",
        show_envvar=True,
        default="auto",
        show_default=True,
        help="auto is JSON in a container, else text.",
    ),
)


def client_options(function: Function) -> Function:
    """Add the client's flags to a command."""
    for option in reversed(_CLIENT):
        function = option(function)
    return function


def log_options(function: Function) -> Function:
    """Add the flags of logging to a command."""
    for option in reversed(_LOG):
        function = option(function)
    return function


def client_settings(
    *,
    token_command: str | None,
    token_file: str | None,
    ca_file: str | None,
    connect_to: str | None,
    token_header: str = "authorization",
) -> Settings:
    """The client's settings from the flags' values.

    Raises:
        click.BadParameter: ``connect_to`` is not HOST:PORT.
    """
    from hbone.client import Settings
    from hbone.tokens import Source
    from hbone.urls import parse_address

    try:
        address = parse_address(connect_to) if connect_to else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--connect-to'") from error
    source = Source(command=token_command, file=token_file)
    return Settings(token_source=source, token_header=token_header, ca_file=ca_file, connect_to=address)
