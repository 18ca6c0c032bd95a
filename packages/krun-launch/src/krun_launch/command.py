"""The krun-launch command with all its flags, its help and its completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from krun_launch import errors, settings
from krun_launch.options import FORMATS, LEVELS, Options, contradiction

EXAMPLES = """\b
Examples:
  krun-discover | krun-launch -- ./app --flag   the application, in the mesh
  krun-launch --enter -- ./app --flag           and with rules, as krun does
  krun-launch --env mesh.json                   a sidecar, no application
  krun-launch --no-env --mode none -- ./app     the application alone
  krun-launch --dry-run --no-env -- ./app       what would run, as JSON
  krun-launch --init -- sh -c 'krun-discover | krun-launch -- ./app'   PID 1

\b
Further variables (docs/environment.md): MESH, XDS_ADDR, KRUN_GATEWAY,
KRUN_CERTS, TRUST_DOMAIN, PORT, PORT_http, STARTUP_PROBE_TCP,
STARTUP_PROBE_HTTP, SSH_AUTH, KRUN_OFFER, ENVOY_LOG_LEVEL,
  KRUN_INTERCEPTION, KRUN_FALLBACK, KRUN_PUBLIC, KRUN_APP_PROTOCOL, K8S_UID."""


def _seconds(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    return _flag(context, option, value, read=lambda env, name: settings.seconds(env, name, default=0))


def _port(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    return _flag(context, option, value, read=lambda env, name: settings.port(env, name, default=1))


def _flag(
    context: click.Context,
    option: click.Parameter,
    value: str | None,
    *,
    read: Callable[[dict[str, str], str], object],
) -> str | None:
    """A wrong flag is wrong usage; a wrong variable is a wrong setting, and found when settings are read."""
    if value is not None and _is_flag(context, option):
        try:
            read({str(option.envvar): value}, str(option.envvar))
        except errors.Misconfigured as error:
            raise click.BadParameter(error.message, ctx=context, param=option) from None
    return value


def _is_flag(context: click.Context, option: click.Parameter) -> bool:
    return context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE


def _option(flag: str, variable: str, metavar: str, text: str, **more: Any) -> Callable[[Any], Any]:
    """A setting: a flag, and the variable that it stands for."""
    return click.option(flag, variable.lower(), envvar=variable, show_envvar=True, metavar=metavar, help=text, **more)


@click.command(epilog=EXAMPLES, context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option(
    "--env", "env_file", metavar="FILE", help="Read the environment JSON here; - is stdin (default: if a pipe)."
)
@click.option("--enter", "enters", is_flag=True, help="Run krun-discover and krun-iptables first, if they are there.")
@click.option("--no-env", is_flag=True, help="Read no environment JSON; the application gets our stdin.")
@_option("--mode", "KRUN_MODE", "MODE", "auto, captured, whitebox, static or none (default auto).")
@_option("--envoy", "KRUN_ENVOY", "PATH", "The Envoy binary (default: envoy in PATH).")
@_option("--run-dir", "KRUN_RUN_DIR", "FOLDER", "Write here, and keep it (default: a private one, removed).")
@_option("--loopback", "KRUN_LOOPBACK", "ADDRESS", "Where local ports are (default 127.0.0.1).")
@_option("--bind", "KRUN_BIND", "ADDRESS", "Where hboned listens (default: loopback; 0.0.0.0 under K_SERVICE).")
@_option("--status-port", "KRUN_STATUS_PORT", "PORT", "Port of /readyz (default 15019).", callback=_port)
@_option(
    "--env-timeout", "KRUN_ENV_TIMEOUT", "SECONDS", "Until the JSON must have come (default 75).", callback=_seconds
)
@_option(
    "--ready-timeout", "KRUN_READY_TIMEOUT", "SECONDS", "Until Envoy must be ready (default 30).", callback=_seconds
)
@_option(
    "--app-timeout",
    "KRUN_APP_TIMEOUT",
    "SECONDS",
    "Until the application must answer (default 240).",
    callback=_seconds,
)
@_option("--grace", "KRUN_GRACE", "SECONDS", "From SIGTERM to the end of all (default 10).", callback=_seconds)
@_option("--drain", "KRUN_DRAIN", "SECONDS", "Of these, for requests under way (default 4).", callback=_seconds)
@click.option("--dry-run", is_flag=True, help="Print the plan as JSON, and start nothing.")
@click.option("--rules", "wants_rules", is_flag=True, help="Print what krun-iptables must be told, as shell, and end.")
@click.option(
    "--init", "is_init", is_flag=True, help="Be a small PID 1 for CMD, with a krun-launch somewhere below it."
)
@_option(
    "--log-level",
    "KRUN_LOG_LEVEL",
    "LEVEL",
    "debug, info, warning or error.",
    type=click.Choice(LEVELS),
    default="info",
)
@_option("--log-format", "KRUN_LOG_FORMAT", "FORMAT", "auto, text or json.", type=click.Choice(FORMATS), default="auto")
@click.version_option(package_name="krun-launch", message="%(prog)s %(version)s")
@click.argument("app", nargs=-1, type=click.UNPROCESSED, metavar="[--] [APP [ARG]...]")
@click.pass_context
def command(
    context: click.Context,
    /,
    app: tuple[str, ...],
    env_file: str | None,
    enters: bool,
    no_env: bool,
    dry_run: bool,
    wants_rules: bool,
    is_init: bool,
    **values: str | None,
) -> int:
    """Run Envoy and an application in the right order.

    Reads the environment JSON of krun-discover, starts Envoy, waits for it, starts the application, waits for it, and
    then lets the mesh in. Ends with the application's exit status. Without an application it is a sidecar, which runs
    until SIGTERM.
    """
    given = {option.name: str(option.envvar) for option in context.command.params if _is_flag(context, option)}
    asked = Options(
        app=app,
        flags={given[name]: value for name, value in values.items() if name in given and value is not None},
        env_file=env_file,
        no_env=no_env,
        dry_run=dry_run,
        wants_rules=wants_rules,
        enters=enters,
        is_init=is_init,
        log_level=values["krun_log_level"] or "info",
        log_format=values["krun_log_format"] or "auto",
    )
    if wrong := contradiction(asked):
        raise click.UsageError(wrong)
    # Late: --help and --version need none of it.
    from krun_launch import run

    return run.run(asked)
