"""The krun-discover command with all its flags, its help and its completion."""

from __future__ import annotations

import click

from krun_discover import flags
from krun_discover.options import FORMATS, Options, token

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
  krun-discover --token istio-ca=/run/krun/token | krun-launch -- app
  krun-discover --explain
  krun-discover doctor
  eval "$(MESH=file:mesh.json krun-discover --format shell)"
  krun-discover --format dotenv >mesh.env; docker run --env-file mesh.env app
"""


class _WithDoctor(click.Group):
    """The command with one below it, which is read only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["doctor"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "doctor":
            return None
        from krun_discover import doctor_cli  # late: it reads all of us

        return doctor_cli.command


def _tokens(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(token(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=context, param=parameter) from None


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
@click.option("--format", "style", type=click.Choice(FORMATS), default="json", show_default=True, help="What to print.")
@click.option("--explain", is_flag=True, help="Print instead where each value came from, what lost and what was tried.")
@click.option(
    "--token",
    "token_texts",
    multiple=True,
    metavar="AUDIENCE=FILE",
    callback=_tokens,
    help="Also mint the workload's Kubernetes token for AUDIENCE, to FILE, as krun-token does, by the same connection.",
)
@click.option(
    "--context", "kube_context", default="", metavar="NAME", help="Of the kubeconfig, instead of its current one."
)
@flags.stay("afterwards be the krun-token whose command line comes by this socket.")
@flags.timeout("all of it")
@flags.of_log
@click.version_option(package_name="krun-discover", message="%(prog)s %(version)s")
@click.pass_context
def command(
    context: click.Context,
    *,
    mesh_text: str | None,
    style: str,
    explain: bool,
    token_texts: tuple[tuple[str, str], ...],
    kube_context: str,
    stay: int | None,
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
    if token_texts and explain:
        raise click.UsageError("--explain writes no token: it does not go with --token")
    by_flag = context.get_parameter_source("mesh_text") is click.core.ParameterSource.COMMANDLINE
    from krun_discover import run  # late: neither help nor the doctor needs it

    run.run(
        Options(
            mesh=mesh_text or "",
            mesh_is_flag=by_flag,
            style=style,
            explain=explain,
            context=kube_context,
            timeout=timeout,
            tokens=token_texts,
            stay=stay,
            log_level=log_level,
            log_format=log_format,
        )
    )
