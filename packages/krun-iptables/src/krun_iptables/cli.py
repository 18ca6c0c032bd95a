"""The command line of krun-iptables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import click

from krun_iptables import errors, log
from krun_iptables import settings as decisions

EXAMPLES = """\b
Examples:
  krun-iptables
  krun-iptables --dry-run --include '*' --inbound-ports 8080
  krun-iptables --remove
  OUTBOUND_PORTS_EXCLUDE=5432 krun-iptables --show-settings
"""
KINDS = ("auto", "legacy", "nft")


def _option(flag: str, variable: str, metavar: str, text: str, default: str = "") -> Callable[[Any], Any]:
    """A setting: a flag, and the variable that it stands for."""
    return click.option(
        flag, metavar=metavar, envvar=variable, show_envvar=True, default=default, show_default=bool(default), help=text
    )


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@_option(
    "--include", "OUTBOUND_IP_RANGES_INCLUDE", "RANGES", "Intercept TCP to these; * is all.", decisions.DEFAULT_RANGES
)
@_option("--exclude-ports", "OUTBOUND_PORTS_EXCLUDE", "PORTS", "But never to these; 15008 and 15009 are added.")
@_option("--inbound-ports", "ISTIO_INBOUND_PORTS", "PORTS", "Intercept incoming TCP at these; * is all.")
@_option(
    "--inbound-exclude-ports",
    "ISTIO_LOCAL_EXCLUDE_PORTS",
    "PORTS",
    "But never at these; the tunnels' and the status ports are added.",
)
@_option("--proxy-uid", "PROXY_UID", "IDS", "Users that are the proxy.", decisions.DEFAULT_OWNER)
@_option("--proxy-gid", "PROXY_GID", "IDS", "Groups that are the proxy.", decisions.DEFAULT_OWNER)
@_option("--exempt-gid", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "IDS", "Groups that are not intercepted.")
@click.option(
    "--iptables",
    "kind",
    type=click.Choice(KINDS),
    default="auto",
    envvar="KRUN_IPTABLES",
    show_envvar=True,
    show_default=True,
    help="Which kind; auto takes the first that is let do it.",
)
@click.option("--dry-run", is_flag=True, help="Print what iptables-restore would get, with reasons, and end.")
@click.option("--remove", is_flag=True, help="Take our rules away, whatever the settings.")
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
def command(
    *, kind: str, dry_run: bool, remove: bool, show_settings: bool, log_level: str, log_format: str, **texts: str
) -> int:
    """Apply the rules that lead a workload's TCP connections through Envoy.

    They are IPv4, in table nat, and replace all that an earlier run left, in one step. Lists are by comma. It ends with
    77 when the kernel does not permit it, and then nothing was changed.
    """
    log.configure(tool="krun-iptables", level=log_level, style=log_format)
    if dry_run + remove + show_settings > 1:
        raise click.UsageError("--dry-run, --remove, --show-settings: give one of them")
    # Late: --help and --version need neither programs nor rules.
    from krun_iptables import backend

    if remove:
        backend.remove(kind=kind)
        return errors.Exit.OK
    from krun_iptables import restore, rules

    settings = decisions.settings(**texts)
    if show_settings:
        import json

        click.echo(json.dumps(settings.as_json(), indent=2))
    elif dry_run:
        click.echo(restore.apply(rules.rules(settings)), nl=False)
    else:
        backend.apply(rules.rules(settings), kind=kind)
    return errors.Exit.OK


def main() -> NoReturn:
    """The process ``krun-iptables``."""
    errors.run(command, tool="krun-iptables")
