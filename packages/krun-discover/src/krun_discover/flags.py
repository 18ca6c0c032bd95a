"""Flags that all commands here have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from krun_discover import log, plain

Function = TypeVar("Function", bound=Callable[..., object])


class _Seconds(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):  # which is in every range
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return found


def timeout(what: str) -> Callable[[Function], Function]:
    """``--timeout``, in seconds, for ``what`` it says."""
    return click.option(
        "--timeout",
        type=_Seconds(0, 3600, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help=f"For {what}; status 75 when it passes.",
    )


def stay(what: str) -> Callable[[Function], Function]:
    """``--stay``, the number of a socket by which the process is told what to be; ``what`` it says of that."""
    return click.option("--stay", metavar="FD", callback=_descriptor, help=f"For krun-launch: {what}")


def _descriptor(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is not None and not plain.is_descriptor(text):
        raise click.BadParameter(f"{text!r} is not a descriptor above 2", ctx=context, param=parameter)
    return None if text is None else int(text)


def of_log(function: Function) -> Function:
    """``--log-level`` and ``--log-format``."""
    level = click.option(
        "--log-level",
        type=click.Choice(log.LEVELS),
        default="info",
        envvar="KRUN_LOG_LEVEL",
        show_envvar=True,
        help="Of stderr.",
    )
    style = click.option(
        "--log-format",
        type=click.Choice(log.FORMATS),
        default="auto",
        envvar="KRUN_LOG_FORMAT",
        show_envvar=True,
        help="Of stderr; auto is JSON in a container.",
    )
    return level(style(function))
