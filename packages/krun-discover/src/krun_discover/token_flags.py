"""Flags that all of krun-token's commands have, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from krun_discover import log
from krun_discover.plain import is_word
from krun_discover.token_file import TokenFile, mode, owner
from krun_discover.token_options import Options

Function = TypeVar("Function", bound=Callable[..., object])

_OPTIONS = (
    click.option("--to", metavar="FILE", help="Write the token to FILE, replaced as a whole; nothing on stdout."),
    click.option("--owner", metavar="UID[:GID]", help="Of FILE."),
    click.option("--mode", metavar="MODE", help="Of FILE; 0600 if not given."),
    click.option("--watch", is_flag=True, help="Keep FILE's token good until SIGTERM; SIGHUP renews it now."),
    click.option("--explain", is_flag=True, help="Print instead whose token it is, and what was tried."),
    click.option(
        "--timeout",
        type=click.FloatRange(0, 3600, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="For one token; status 75 when it passes.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(log.LEVELS),
        default="info",
        envvar="KRUN_LOG_LEVEL",
        show_envvar=True,
        help="Of stderr.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(log.FORMATS),
        default="auto",
        envvar="KRUN_LOG_FORMAT",
        show_envvar=True,
        help="Of stderr; auto is JSON in a container.",
    ),
)


def add(function: Function) -> Function:
    """Give a click command the flags, in the order of its help; it takes them as ``**flags``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read(flags: dict[str, Any]) -> Options:
    """What they ask for. Raises click.UsageError."""
    if not flags["timeout"] > 0:  # nan passes click's range
        raise click.BadParameter(f"{flags['timeout']} is not a number of seconds", param_hint="--timeout")
    for name in ("owner", "mode", "watch"):
        if flags[name] and not flags["to"]:
            raise click.UsageError(f"--{name} needs --to FILE")
    if flags["explain"] and flags["to"]:
        raise click.UsageError("--explain prints no token: it does not go with --to")
    file = _file(flags) if flags["to"] else None
    return Options(
        file=file,
        watch=flags["watch"],
        explain=flags["explain"],
        timeout=flags["timeout"],
        log_level=flags["log_level"],
        log_format=flags["log_format"],
    )


def check(values: Sequence[str], *, flag: str) -> None:
    """Raises click.BadParameter for an audience or a scope that is none, such as an unset variable in a script."""
    for value in values:
        if not is_word(value):
            raise click.BadParameter(f"{value!r} is not one word", param_hint=flag)


def _file(flags: dict[str, Any]) -> TokenFile:
    try:
        uid, gid = owner(flags["owner"]) if flags["owner"] else (-1, -1)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--owner") from error
    try:
        bits = mode(flags["mode"]) if flags["mode"] else 0o600
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--mode") from error
    return TokenFile(path=flags["to"], mode=bits, uid=uid, gid=gid)
