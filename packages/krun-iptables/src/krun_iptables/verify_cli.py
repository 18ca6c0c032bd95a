"""The command line of ``krun-iptables verify``."""

from __future__ import annotations

import os

import click

from krun_iptables import flags, rules, verify
from krun_iptables.errors import Denied, Exit

EPILOG = """\b
Exit status: 0 when nothing failed and something was proven; 126 when a proof
failed, or nothing could be proven; 77 when it takes root to prove anything.

\b
Examples:
  krun-iptables verify
  krun-iptables verify --include '*' --inbound-ports 8080
  krun-iptables verify --redirect-dns -i '*' -b '*'
"""


@click.command(
    "verify", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Limit for all of it.",
)
@flags.of_settings
def command(*, timeout: float, **given: object) -> None:
    """Prove that the rules work, by connections that they intercept and by some that they must not.

    Give it the flags and variables that the rules were applied with. It listens where connections are led to (15001,
    15006, 15053; where Envoy has these, the kernel's list of sockets is read instead), and connects: as the application
    and, when root, as the proxy. It prints a line for each proof: ok, fail, or unknown, where it could not be tried.
    """
    checks = verify.prove(rules.rules(flags.settings(given, os.environ)), timeout=timeout)
    hints = []
    for check in checks:
        click.echo(check.line)
        hints += [check.hint] if check.hint and check.outcome == "fail" else []
    failed = sum(check.outcome == "fail" for check in checks)
    match verify.status(checks):
        case Exit.OK:
            return
        case Exit.DENIED:
            raise Denied("nothing can be proven as this user", hint="run it as root, or as a user that is no proxy's")
    if failed:
        raise verify.Unproven(f"{failed} of {len(checks)} proofs failed", hint=hints[0] if hints else "")
    raise verify.Unproven("nothing could be proven", hint="give it the settings that the rules were applied with")
