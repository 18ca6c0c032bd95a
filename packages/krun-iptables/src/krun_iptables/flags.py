"""The options as click's: for help and completion, and for the commands that take the settings of the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from krun_iptables import kernel_place, reading
from krun_iptables.choice import choose
from krun_iptables.facts import Machine
from krun_iptables.options import OPTIONS, TAKEN, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from krun_iptables.settings import Settings

    Function = TypeVar("Function", bound=Callable[..., object])


# Of how rules are applied: whoever asks about them has these on the command line, too.
ALSO = ("native_nftables", "force_iptables_binary", "network_namespace", "cni_mode", "reconcile", "force_apply")


def of_settings(function: Function) -> Function:
    """The flags that rules are applied with, for a command that takes their values as keywords."""
    return _decorated(function, [option for option in OPTIONS if option.says == "what" or option.key in ALSO])


def of_all(function: Function) -> Function:
    """All flags, but those that are taken and nothing to us."""
    return _decorated(function, [option for option in OPTIONS if option.help != TAKEN])


def settings(given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """What the values of these flags and the environment say, as krun-iptables itself reads them.

    From here on this process is in the network namespace that they name. Raises a Failure.
    """
    written = [(f"--{option.flag}", given.get(option.key)) for option in OPTIONS if option.flag]
    written += [(f"--{option.own}", given.get(f"own_{option.key}")) for option in OPTIONS if option.own]
    arguments = [name if value is True else f"{name}={value}" for name, value in written if value is not None]
    choice = choose(arguments, environ)
    place = choice.given.get("network_namespace")
    if place and place.text:
        kernel_place.enter(place.text, name=place.name)
    return reading.settings(choice, facts=Machine(), environ=environ)


def _decorated(function: Function, options: Sequence[Option]) -> Function:
    # The last decorator is the first in the help.
    for option in reversed(options):
        if option.own:
            function = _option(option, option.own, key=f"own_{option.key}", variables=[option.own_variable])(function)
        if option.flag:
            function = _option(option, option.flag, key=option.key, variables=option.variables)(function)
    return function


def _option(option: Option, name: str, *, key: str, variables: Sequence[str]) -> Callable[[Function], Function]:
    names = [f"-{option.short}", f"--{name}"] if option.short and name == option.flag else [f"--{name}"]
    told = " ".join(filter(None, variables))
    text = f"{option.help}  [env var: {told}]" if told else option.help
    if option.is_switch:
        return click.option(*names, key, is_flag=True, default=None, help=text)
    return click.option(*names, key, metavar=option.metavar, default=None, help=text)
