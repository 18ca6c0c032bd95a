"""The krun-iptables command with its help, its completion, and the commands below it."""

from __future__ import annotations

import os
import sys

import click

from krun_iptables import flags

EPILOG = """\b
Variables without a flag:
  ISTIO_OUTBOUND_OWNER_GROUPS          only these are intercepted; * is all
  ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE  but never these (--exempt-gid)
  ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR    what is loopback: 127.0.0.1/32
  DRY_RUN_FILE_PATH                    --dry-run writes there, too
  ENVOY_USER                           is the proxy: istio-proxy

\b
Examples:
  krun-iptables
  krun-iptables --dry-run --include '*' --inbound-ports 8080
  krun-iptables istio-iptables -u 1337 -i '*' -b '*' -d 15090,15021
  krun-iptables --remove
  krun-iptables verify
  krun-iptables explain 10.0.0.1:443
"""


class _WithCommands(click.Group):
    """The command with those below it, which are read only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["explain", "verify"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "explain":
            from krun_iptables import explain_cli

            return explain_cli.command
        if cmd_name == "verify":
            from krun_iptables import verify_cli

            return verify_cli.command
        return None


@click.command(
    cls=_WithCommands,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@flags.of_all
@click.version_option(package_name="krun-iptables", message="%(prog)s %(version)s")
@click.pass_context
def command(context: click.Context, /, **_: object) -> int:
    """Apply the rules that lead a workload's connections through Envoy.

    The rules are those of Istio's istio-iptables, by the same flags and variables. They replace all that an earlier run
    left, in one step, and others' rules stay. With none of Istio's names, or with krun's own (--include to
    --exempt-gid), what goes to 10.0.0.0/8 is intercepted, and nothing that comes in. Lists are by comma. It ends with
    77 when the kernel does not permit it, and then nothing was changed.
    """
    if context.invoked_subcommand:
        return 0
    from krun_iptables import run

    return run.run(sys.argv[1:], os.environ)
