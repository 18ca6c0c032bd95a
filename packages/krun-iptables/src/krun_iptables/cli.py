"""The command line of krun-iptables. This version decides settings; it neither writes nor applies rules."""

from __future__ import annotations

import json
from typing import NoReturn

import click

from krun_iptables import errors, log
from krun_iptables import settings as decisions

EXAMPLES = """\b
Examples:
  krun-iptables --show-settings
  OUTBOUND_PORTS_EXCLUDE=5432 krun-iptables --show-settings
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--include",
    metavar="RANGES",
    envvar="OUTBOUND_IP_RANGES_INCLUDE",
    show_envvar=True,
    default=decisions.DEFAULT_RANGES,
    show_default=True,
    help="Ranges whose outgoing TCP is intercepted, by comma.",
)
@click.option(
    "--exclude-ports",
    metavar="PORTS",
    envvar="OUTBOUND_PORTS_EXCLUDE",
    show_envvar=True,
    default="",
    help="Ports that are never intercepted, by comma; 15008 and 15009 are always among them.",
)
@click.option("--show-settings", is_flag=True, help="Print what was decided, as JSON, and end.")
@click.option(
    "--log-level",
    type=click.Choice(log.LEVELS),
    default="info",
    envvar="KRUN_LOG_LEVEL",
    show_envvar=True,
    show_default=True,
)
@click.option(
    "--log-format",
    type=click.Choice(log.FORMATS),
    default="auto",
    envvar="KRUN_LOG_FORMAT",
    show_envvar=True,
    show_default=True,
)
@click.version_option(package_name="krun-iptables", message="%(prog)s %(version)s")
def command(include: str, exclude_ports: str, show_settings: bool, log_level: str, log_format: str) -> int:
    """Decide which outgoing connections a mesh workload's interception rules take.

    This version decides settings only. It writes no rules and applies none: without --show-settings it ends with 78,
    so that no caller takes its end for rules that are in force.
    """
    log.configure(tool="krun-iptables", level=log_level, style=log_format)
    decided = decisions.settings(include=include, exclude_ports=exclude_ports)
    if not show_settings:
        raise errors.Misconfigured(
            "this version decides settings only, it cannot apply rules: nothing is intercepted",
            hint="krun-iptables --show-settings prints the settings; run the workload without interception",
        )
    click.echo(json.dumps(decided.as_json(), indent=2, sort_keys=True))
    return errors.Exit.OK


def main() -> NoReturn:
    """The process ``krun-iptables``."""
    errors.run(command, tool="krun-iptables")
