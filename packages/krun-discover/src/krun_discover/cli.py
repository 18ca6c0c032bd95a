"""The command line of krun-discover."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import NoReturn

import click

from krun_discover import account, discovery, errors, log, mesh, metadata, render
from krun_discover.assembly import Assembly, Request
from krun_discover.web import Web

EPILOG = """\b
Variables:
  Each variable that is printed is also read: one that is set always wins.
  WORKLOAD_NAMESPACE WORKLOAD_NAME WORKLOAD_SERVICE_ACCOUNT PROJECT_ID
  PROJECT_NUMBER CLUSTER_NAME CLUSTER_LOCATION TRUST_DOMAIN XDS_ADDR
  MESH_TENANT MCON_ADDR IMCON_ADDR MESH_NETWORK CA_POOL CAROOT_* PORT_*
  OUTBOUND_IP_RANGES_INCLUDE OUTBOUND_PORTS_EXCLUDE STARTUP_PROBE_HTTP
  STARTUP_PROBE_TCP KRUN_GATEWAY KRUN_CERTS KRUN_MESH_NAMESPACES
  Of the platform: K_SERVICE CLOUD_RUN_JOB CLOUD_RUN_WORKER_POOL
  KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT GCE_METADATA_HOST
  GCE_METADATA_TIMEOUT NO_GCE_CHECK
  Of others' tools: KUBECONFIG PROXY_CONFIG GOOGLE_APPLICATION_CREDENTIALS
  CLOUDSDK_CONFIG CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT
  CLOUDSDK_API_ENDPOINT_OVERRIDES_* CLOUDSDK_AUTH_TOKEN_HOST
  HTTPS_PROXY NO_PROXY
  Where tokens are kept: KRUN_TOKEN_CACHE. Of the doctor: KRUN_MODE
  KRUN_FALLBACK ISTIO_META_INTERCEPTION_MODE

\b
Examples:
  krun-discover | krun-launch -- app
  krun-discover --explain
  krun-discover doctor
  eval "$(MESH=file:mesh.json krun-discover --format shell)"
  krun-discover --format dotenv >mesh.env; docker run --env-file mesh.env app
"""

logger = logging.getLogger(__name__)


class _WithDoctor(click.Group):
    """The command with one below it, which is read only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["doctor"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "doctor":
            return None
        from krun_discover import doctor_cli  # late: it reads all of us

        return doctor_cli.command


@click.command(
    cls=_WithDoctor,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"max_content_width": 80, "help_option_names": ["-h", "--help"]},
)
@click.option(
    "--mesh",
    "mesh_text",
    metavar="MESH",
    envvar="MESH",
    show_envvar=True,
    help="static:HOST[:PORT], a static mesh's SNI gateway; file:PATH, variables as JSON or dotenv; gke://PROJECT; "
    "//container.googleapis.com/projects/P/locations/L/clusters/C; td:projects=N&scopes=S.",
)
@click.option(
    "--format", "style", type=click.Choice(render.FORMATS), default="json", show_default=True, help="What to print."
)
@click.option("--explain", is_flag=True, help="Print instead where each value came from, what lost and what was tried.")
@click.option(
    "--context", "kube_context", default="", metavar="NAME", help="Of the kubeconfig, instead of its current one."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For all of it; status 75 when it passes.",
)
@click.option(
    "--log-level",
    type=click.Choice(log.LEVELS),
    default="info",
    envvar="KRUN_LOG_LEVEL",
    show_envvar=True,
    help="Of stderr.",
)
@click.option(
    "--log-format",
    type=click.Choice(log.FORMATS),
    default="auto",
    envvar="KRUN_LOG_FORMAT",
    show_envvar=True,
    help="Of stderr; auto is JSON in a container.",
)
@click.version_option(package_name="krun-discover", message="%(prog)s %(version)s")
@click.pass_context
def command(
    context: click.Context,
    *,
    mesh_text: str | None,
    style: str,
    explain: bool,
    kube_context: str,
    timeout: float,
    log_level: str,
    log_format: str,
) -> None:
    """Find the mesh, the project and the identity of this workload; print them as one JSON object of strings.

    Sources, in order: the environment, MESH, kubeconfig or the pod we are in, the metadata server and GKE, the config
    map mesh-env, defaults. Nothing is asked that is not needed: with XDS_ADDR, CAROOT_ISTIOD (for istiod) and the
    identity set there is no request at all. No secrets are printed.
    """
    if context.invoked_subcommand:
        return
    if not timeout > 0:  # nan passes click's range
        raise click.BadParameter(f"{timeout} is not a number of seconds", param_hint="--timeout")
    deadline = time.monotonic() + timeout
    log.configure(tool="krun-discover", level=log_level, style=log_format)
    by_flag = context.get_parameter_source("mesh_text") is click.core.ParameterSource.COMMANDLINE
    named = mesh.parse(mesh_text or "")
    client = metadata.Client(settings=metadata.settings(os.environ, product=metadata.product_name), deadline=deadline)
    flags = {"MESH": mesh_text} if by_flag and mesh_text else {}
    request = Request(environ=os.environ, flags=flags, mesh=named, context=kube_context)
    web = Web(deadline=deadline, environ=os.environ)
    assembly = Assembly(request=request, web=web, client=client)
    result = discovery.discover(assembly.resolution, environ=os.environ, lost=assembly.failure)
    if explain:
        _write(render.explain(result.found, dropped=named.dropped, mesh=named.label, remark=client.remark))
        _write(account.rest(assembly, web=web))
    if result.failure:
        raise result.failure
    if not explain:
        _report(result.values, named=named, style=style)
        _write(render.environment(result.values, style=style))


def _report(values: dict[str, str], *, named: mesh.Mesh, style: str) -> None:
    if named.dropped:
        fields = {"source": named.label, "count": len(named.dropped)}
        logger.warning("variables that a mesh file may not set were dropped, see --explain", extra={"fields": fields})
    if style == "shell" and (names := render.unsayable(values)):
        logger.warning(
            "names with a dot are left out, as no shell can export them",
            extra={"fields": {"count": len(names), "reason": " ".join(names)}},
        )


def _write(text: str) -> None:
    """Write to stdout at once, without Python's buffer: what fails is seen here, and not at the interpreter's end."""
    data = text.encode("utf-8", errors="surrogateescape")
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError as error:
        # As a shell reports SIGPIPE. Not left to click, which would end with a status of its own.
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from error
    except OSError as error:
        raise errors.Unreachable(f"stdout cannot be written: {error.strerror}", hint="is the disk full?") from error


def main() -> NoReturn:
    """Run as the process."""
    errors.run(command, tool="krun-discover")
