"""The hgate command: reads settings, starts the gate; its subcommands register services."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hbone.options import client_options, client_settings, log_options
from hgate import errors, log
from hgate.contract import PORTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hbone.client import Settings as ClientSettings
    from hgate.control import Settings
    from hgate.routes import Routes

# Cloud Run's front takes this header, and leaves the application's own Authorization alone.
TOKEN_HEADER = "x-serverless-authorization"
MOST_WORKERS = 4

EXAMPLES = """
\b
Examples:
  hgate --route b.demo=https://b-123456789.us-central1.run.app
  KRUN_ROUTES='b.demo=https://b.example c.demo:8080=https://c.example' \\
    hgate --listen 0.0.0.0:15442
  hgate --kubernetes --listen 0.0.0.0:15442 --status 0.0.0.0:15019
"""


class Group(click.Group):
    """Subcommands by name, imported when they are called: who serves does not wait for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["register", "unregister"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        from hgate import register_cli

        found: click.Command = getattr(register_cli, cmd_name)
        return found


@click.group(
    cls=Group,
    epilog=EXAMPLES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default=f"127.0.0.1:{PORTS['SNI_GATE']}",
    show_default=True,
    help="Where to listen for TLS.",
)
@click.option(
    "--route",
    "routes",
    metavar="NAME=URL",
    multiple=True,
    envvar="KRUN_ROUTES",
    show_envvar=True,
    help="Where a service is: NAME is SERVICE.NAMESPACE, with :PORT for one port only. Can be repeated.",
)
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Watch the cluster for services that are declared, and register them. Without --route, a pod does so anyway.",
)
@click.option(
    "--kubeconfig",
    metavar="FILE",
    help="The cluster to watch, instead of that of the pod we are in. Outside of pods --kubernetes takes KUBECONFIG's.",
)
@click.option(
    "--gate-address",
    metavar="ADDRESS",
    default="",
    help="Where sidecars reach this gate; else it is what the service internal-hgate says.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1, 64),
    help=f"Worker processes. Default: one for each core, at most {MOST_WORKERS}.",
)
@click.option(
    "--worker-timeout",
    metavar="SECONDS",
    type=click.FloatRange(5),  # a worker says once a second that it is well
    default=30.0,
    show_default=True,
    help="Silence after which a worker hangs: it is ended, and replaced.",
)
@click.option(
    "--status",
    metavar="ADDRESS:PORT",
    help="Serve /healthz/ready, /healthz/live and /metrics there; else they are served nowhere.",
)
@click.option(
    "--hello-timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long a client may take for its TLS hello.",
)
@client_options
@log_options
@click.version_option(package_name="krun-hgate", message="%(prog)s %(version)s")
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int | None:
    """Lead TLS connections from the mesh to workloads outside, by the server name in their hello.

    The bytes are tunnelled as they are: TLS ends at the workload's Envoy, not here. SIGTERM drains: connections that
    are open go on, and a second SIGTERM ends them.
    """
    log.configure(tool="hgate", level=given["log_level"], style=given["log_format"])
    if context.invoked_subcommand is not None:
        return None
    # asyncio and h2 are most of the start-up time, and --help needs neither.
    from hbone import stop

    is_watching = _is_watching(given)
    client = client_settings(
        token_command=given["token_command"],
        token_file=given["token_file"],
        ca_file=given["ca_file"],
        connect_to=given["connect_to"],
        token_header=TOKEN_HEADER,
    )
    settings = _settings(
        context, given, routes=_routes(context, given["routes"], may_be_none=is_watching), client=client
    )
    return stop.run(_serve(settings, client=client, given=given, is_watching=is_watching))


def _is_watching(given: Mapping[str, Any]) -> bool:
    """Routes by hand are enough for a gate; without any, a pod is one that was deployed for its cluster."""
    in_pod = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    return bool(given["kubernetes"] or given["kubeconfig"] or (in_pod and not given["routes"]))


def _routes(context: click.Context, texts: tuple[str, ...], *, may_be_none: bool) -> Routes:
    from hgate.routes import read_routes

    if not texts and not may_be_none:
        hint = "give --route NAME=URL, or KRUN_ROUTES, or --kubernetes"
        raise errors.Misconfigured("no route: all connections would be refused", hint=hint)
    try:
        return read_routes(texts)
    except ValueError as error:
        if context.get_parameter_source("routes") is click.core.ParameterSource.ENVIRONMENT:
            raise errors.Misconfigured(f"KRUN_ROUTES: {error}", hint="NAME=URL, by white space") from error
        raise click.BadParameter(str(error), param_hint="'--route'") from error


def _settings(context: click.Context, given: Mapping[str, Any], *, routes: Routes, client: ClientSettings) -> Settings:
    from hbone.urls import parse_listen
    from hgate import control, feed
    from hgate.child import LogStyle

    def address(name: str) -> Any:
        try:
            return parse_listen(given[name])
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=f"'--{name}'") from error

    return control.Settings(
        listen=address("listen"),
        workers=given["workers"] or min(len(os.sched_getaffinity(0)), MOST_WORKERS),
        routes=routes,
        worker=feed.Settings(
            hello_timeout=given["hello_timeout"],
            ca_file=given["ca_file"] or "",
            connect_to=str(client.connect_to or ""),
            token_header=TOKEN_HEADER,
        ),
        log_style=LogStyle(level=given["log_level"], style=_style(given["log_format"])),
        status=address("status") if given["status"] else None,
        worker_timeout=given["worker_timeout"],
    )


def _style(asked: str) -> str:
    """How workers log: they see less of the environment, and do not decide anew."""
    if asked != "auto":
        return asked
    return "json" if log.in_container() and not sys.stderr.isatty() else "text"


async def _serve(settings: Settings, *, client: ClientSettings, given: Mapping[str, Any], is_watching: bool) -> int:
    import logging

    from hbone.stop import Stop
    from hgate import key_file, metadata
    from hgate.checks import check
    from hgate.control import Control
    from hgate.token_source import Configured, Google, TokenSource

    await check(settings.routes, client=client)
    server = metadata.find() if is_watching else None
    credentials = (key_file.find() or server) if is_watching else None
    tokens: TokenSource | None = Configured(client.token_source) if client.token_source else None
    if tokens is None and credentials:
        tokens = Google(credentials)
    stop = Stop()
    stop.listen()
    control = Control(settings=settings, stop=stop, tokens=tokens)
    registrar = None
    if is_watching:
        # The client of Kubernetes takes longer to import than all else together.
        from hgate.kube import open_kube
        from hgate.registrar import Registrar, replica
        from hgate.registrar import Settings as RegistrarSettings

        registrar = Registrar(
            kube=open_kube(kubeconfig=given["kubeconfig"] or ""),
            metadata=server,
            credentials=credentials,
            settings=RegistrarSettings(me=replica(), gate_address=given["gate_address"]),
            routed=control.routed,
        )
    await stop.run(control.serve(registrar))
    logging.getLogger(__name__).info("drained")
    return errors.Exit.OK


def main() -> NoReturn:
    errors.run(command, tool="hgate")
