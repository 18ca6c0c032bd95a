"""The command line of ``krun-discover doctor``."""

from __future__ import annotations

import json
import os
import textwrap
import time

import click

from krun_discover import discovery, flags, lines, log, mesh, metadata
from krun_discover.assembly import Assembly, Request
from krun_discover.check import Check, Outcome, worst
from krun_discover.doctor import Patient, examine
from krun_discover.errors import Failure
from krun_discover.web import Web

WIDTH = 80
EPILOG = """\b
Exit status: 0 when nothing failed, else that of the worst: 78 settings,
65 malformed, 77 not permitted, 69 unreachable, 75 out of time.

\b
Examples:
  krun-discover doctor
  krun-discover doctor --format json | jq -r '.[] | select(.outcome == "fail") | .fix'
"""


@click.command("doctor", epilog=EPILOG)
@click.option("--mesh", "mesh_text", metavar="MESH", envvar="MESH", show_envvar=True, help="As of krun-discover.")
@click.option(
    "--context", "kube_context", default="", metavar="NAME", help="Of the kubeconfig, instead of its current one."
)
@click.option(
    "--format", "style", type=click.Choice(("text", "json")), default="text", show_default=True, help="Of it."
)
@flags.timeout("all of it")
@click.option("--log-level", type=click.Choice(log.LEVELS), default="error", help="Of stderr.")
@click.option("--log-format", type=click.Choice(log.FORMATS), default="auto", help="Of stderr.")
def command(
    *, mesh_text: str | None, kube_context: str, style: str, timeout: float, log_level: str, log_format: str
) -> int:
    """Look at all that a start depends on: pass, fail, or not applicable, each failure with what mends it."""
    deadline = time.monotonic() + timeout
    lines.configure(tool="krun-discover", level=log_level, style=log_format)
    named = mesh.parse(mesh_text or "")
    client = metadata.Client(settings=metadata.settings(os.environ, product=metadata.product_name), deadline=deadline)
    web = Web(deadline=deadline, environ=os.environ)
    flags = {"MESH": mesh_text} if mesh_text else {}
    request = Request(environ=os.environ, flags=flags, mesh=named, context=kube_context)
    assembly = Assembly(request=request, web=web, client=client)
    try:
        found = discovery.discover(assembly.resolution, environ=os.environ, lost=assembly.failure)
    except Failure as error:  # what it could not read, one of the checks says
        found = discovery.Discovered(found=(), failure=error)
    patient = Patient(assembly=assembly, web=web, client=client, environ=os.environ, found=found)
    checks = []
    for check in examine(patient):
        checks.append(check)
        if style == "text":
            click.echo(shown(check))
    if style == "json":
        click.echo(json.dumps([_row(check) for check in checks]))
    return worst(checks)


def shown(check: Check) -> str:
    """One check for a person."""
    head = f"{check.outcome:<5}{check.name}: {check.text}"
    text = textwrap.fill(head, WIDTH, subsequent_indent=" " * 5, break_on_hyphens=False, break_long_words=False)
    # Not wrapped: it is to be copied.
    return text + (f"\n     fix: {check.fix}" if check.fix and check.outcome is not Outcome.PASS else "")


def _row(check: Check) -> dict[str, str]:
    return {"name": check.name, "outcome": str(check.outcome), "text": check.text, "fix": check.fix}
