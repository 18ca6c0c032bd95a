"""Flags that all commands here have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from krun_discover import log

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
