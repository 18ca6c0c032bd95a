"""Flags that all of krun-token's commands have, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from krun_discover import flags
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
    flags.timeout("one token"),
    flags.of_log,
)


def add(function: Function) -> Function:
    """Give a click command the flags, in the order of its help; it takes them as ``**flags``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read(given: dict[str, Any]) -> Options:
    """What they ask for. Raises click.UsageError."""
    for name in ("owner", "mode", "watch"):
        if given[name] and not given["to"]:
            raise click.UsageError(f"--{name} needs --to FILE")
    if given["explain"] and given["to"]:
        raise click.UsageError("--explain prints no token: it does not go with --to")
    file = _file(given) if given["to"] else None
    return Options(
        file=file,
        watch=given["watch"],
        explain=given["explain"],
        timeout=given["timeout"],
        log_level=given["log_level"],
        log_format=given["log_format"],
    )


def check(values: Sequence[str], *, flag: str) -> None:
    """Raises click.BadParameter for an audience or a scope that is none, such as an unset variable in a script."""
    for value in values:
        if not is_word(value):
            raise click.BadParameter(f"{value!r} is not one word", param_hint=flag)


def _file(given: dict[str, Any]) -> TokenFile:
    try:
        uid, gid = owner(given["owner"]) if given["owner"] else (-1, -1)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--owner") from error
    try:
        bits = mode(given["mode"]) if given["mode"] else 0o600
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--mode") from error
    return TokenFile(path=given["to"], mode=bits, uid=uid, gid=gid)
