"""What krun-launch is asked to do, and the plain form of its command line: flags written out, with good values.

All else (help, mistakes, completion) is click's, which is a third of a start. What is read here, click reads the same;
a test holds that.
"""

from __future__ import annotations

from krun_launch.record import NONE, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOOL = "krun-launch"
COMPLETE = "_KRUN_LAUNCH_COMPLETE"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "text", "json")
LEVEL, FORMAT = "KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT"
STDIN = "-"
# Each flag with a value, and the variable that it stands for.
SECONDS = {
    "--env-timeout": "KRUN_ENV_TIMEOUT",
    "--ready-timeout": "KRUN_READY_TIMEOUT",
    "--app-timeout": "KRUN_APP_TIMEOUT",
    "--grace": "KRUN_GRACE",
    "--drain": "KRUN_DRAIN",
}
PORTS = {"--status-port": "KRUN_STATUS_PORT"}
TEXTS = {
    "--mode": "KRUN_MODE",
    "--envoy": "KRUN_ENVOY",
    "--run-dir": "KRUN_RUN_DIR",
    "--loopback": "KRUN_LOOPBACK",
    "--bind": "KRUN_BIND",
}
OF_LOG = {"--log-level": LEVEL, "--log-format": FORMAT}
VARIABLES = {**SECONDS, **PORTS, **TEXTS, **OF_LOG}
ENV = "--env"
SWITCHES = ("--enter", "--no-env", "--dry-run", "--rules", "--init")


class Options(Record):
    """The command line; ``flags`` are variables that were given as flags."""

    app: tuple[str, ...] = ()
    flags: Mapping[str, str] = NONE
    env_file: str | None = None
    no_env: bool = False
    dry_run: bool = False
    wants_rules: bool = False
    enters: bool = False
    is_init: bool = False
    log_level: str = "info"
    log_format: str = "auto"


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Options | None:
    """The plain form; None when there is more to it, or something is wrong with it."""
    found = _split(arguments)
    if found is None or environ.get(COMPLETE):
        return None
    given, app = found
    values = {VARIABLES[name]: value for name, value in given.items() if name in VARIABLES}
    level = values.get(LEVEL) or environ.get(LEVEL) or "info"
    style = values.get(FORMAT) or environ.get(FORMAT) or "auto"
    if level not in LEVELS or style not in FORMATS or not _are_good(values):
        return None
    asked = Options(
        app=app,
        flags=values,
        env_file=given.get(ENV),
        no_env="--no-env" in given,
        dry_run="--dry-run" in given,
        wants_rules="--rules" in given,
        enters="--enter" in given,
        is_init="--init" in given,
        log_level=level,
        log_format=style,
    )
    return None if contradiction(asked) else asked


def contradiction(asked: Options) -> str:
    """Which flags do not go together; empty when all do."""
    if asked.is_init:
        others = asked.no_env or asked.dry_run or asked.wants_rules or asked.enters or asked.env_file is not None
        alone = "--init takes a command and nothing else: krun-launch --init -- CMD [ARG]..."
        return alone if others or not asked.app else ""
    if asked.enters and (asked.env_file is not None or asked.no_env or asked.dry_run or asked.wants_rules):
        return "--enter finds its environment and applies rules: --env, --no-env, --dry-run and --rules are other ways"
    if asked.env_file is not None and asked.no_env:
        return "--env and --no-env: give one of them"
    return "--dry-run and --rules: give one of them" if asked.dry_run and asked.wants_rules else ""


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """The flags, ``--name value`` or ``--name=value``, and the application's command line behind them."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        if rest[0] == "--":
            return found, tuple(rest[1:])
        if not rest[0].startswith("-") or rest[0] == STDIN:
            break
        name, equals, value = rest.pop(0).partition("=")
        if name in found:
            return None
        if name in SWITCHES and not equals:
            found[name] = ""
            continue
        if name not in VARIABLES and name != ENV:
            return None
        if not equals and not rest:
            return None
        value = value if equals else rest.pop(0)
        if not value or (value.startswith("-") and not (name == ENV and value == STDIN)):
            return None
        found[name] = value
    return found, tuple(rest)


def _are_good(values: Mapping[str, str]) -> bool:
    seconds = [name for name in SECONDS.values() if name in values]
    ports = [name for name in PORTS.values() if name in values]
    if not seconds and not ports:
        return True
    # Late: a start of every day has none of them.
    from krun_launch import settings
    from krun_launch.errors import Misconfigured

    try:
        for name in seconds:
            settings.seconds(values, name, default=0)
        for name in ports:
            settings.port(values, name, default=1)
    except Misconfigured:
        return False
    return True
