"""A real call of the mesh before the application starts: which one (pure), and the small program that makes it.

The program runs as the application, with the application's variables: it is captured, or uses the proxy, as that will.
"""

from __future__ import annotations

import sys
import time
import urllib.parse
from collections.abc import Mapping

from krun_launch import errors, lines
from krun_launch.errors import DeadlinePassed, Misconfigured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from krun_launch.identity import Identity
    from krun_launch.plan import Step

NAME = "egress probe"
DEFAULT = 10.0  # seconds for an answer that is good
ATTEMPT = 5.0  # seconds for one answer
PAUSES = (0.05, 1.0)  # seconds between attempts: the first, twice as long each time, and the longest
MARGIN = 5.0  # seconds for the program itself
LOGGING = ("KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT")
REQUIRED, OPTIONAL = "required", "optional"


def step(env: Mapping[str, str], *, app_env: Mapping[str, str], python: str, identity: Identity | None) -> Step | None:
    """The step that calls KRUN_EGRESS_PROBE; None when there is none.

    Args:
        env: the environment.
        app_env: what the application gets of it.
        python: the interpreter.
        identity: as whom the application runs.

    Raises:
        Misconfigured: it is no URL.
    """
    url = env.get("KRUN_EGRESS_PROBE", "")
    if not url:
        return None
    # Late: the program needs none of it.
    from krun_launch import settings
    from krun_launch.plan import APP, Step
    from krun_launch.spawn import helper

    _check(url)
    timeout = settings.seconds(env, "KRUN_EGRESS_PROBE_TIMEOUT", default=DEFAULT)
    is_required = settings.one_of(env, "KRUN_EGRESS_PROBE_REQUIRED", "true", "false") == "true"
    # The URL may hold a secret, and a command line can be read by everybody.
    own = {**app_env, **{name: env[name] for name in LOGGING if name in env}, "KRUN_EGRESS_PROBE": url}
    # Isolated, and by its module: nothing in an environment or a folder can put another one there.
    argv = (python, "-I", "-m", "krun_launch.egress", f"{timeout:g}", REQUIRED if is_required else OPTIONAL)
    return Step(
        name=NAME,
        part=APP,
        run=helper(NAME, argv=argv, env=own, identity=identity),
        timeout=timeout + MARGIN,
        setting="KRUN_EGRESS_PROBE_TIMEOUT",
    )


def _check(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or not url.isascii() or not url.isprintable() or " " in url:
        raise Misconfigured(
            "KRUN_EGRESS_PROBE: not a URL that can be called", hint="such as http://web.demo:8080/healthy"
        )


def shown(url: str) -> str:
    """A URL without what may be a secret in it."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def call(url: str, *, timeout: float) -> str:
    """Call once; why the answer is not good, or nothing."""
    # Late: the decision needs no client.
    import http.client
    import urllib.request

    class AsItIs(urllib.request.HTTPErrorProcessor):
        """Every answer is one; a redirect is not followed."""

        def http_response(self, request: object, response: object) -> object:
            return response

        https_response = http_response

    try:
        # Proxies are those of the environment.
        with urllib.request.build_opener(AsItIs()).open(url, timeout=timeout) as answer:
            return "" if 200 <= answer.status < 400 else f"HTTP {answer.status}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def probe(url: str, *, timeout: float) -> None:
    """Call until the answer is good.

    Raises:
        DeadlinePassed: there was none in time.
    """
    until = time.monotonic() + timeout
    pause, longest = PAUSES
    while reason := call(url, timeout=max(0.01, min(ATTEMPT, until - time.monotonic()))):
        if time.monotonic() + pause >= until:
            raise DeadlinePassed(
                f"{shown(url)}: no good answer within {timeout:g} s: {reason}",
                hint="KRUN_EGRESS_PROBE_TIMEOUT sets the limit; KRUN_EGRESS_PROBE_REQUIRED=false starts all the same",
            )
        time.sleep(pause)
        pause = min(2 * pause, longest)


def run() -> None:
    """The program's work."""
    import os

    env = os.environ
    style, level = env.get("KRUN_LOG_FORMAT") or "auto", env.get("KRUN_LOG_LEVEL") or "info"
    lines.configure(tool="krun-launch", level=level, style=style)
    timeout, need = sys.argv[1:]
    try:
        probe(env["KRUN_EGRESS_PROBE"], timeout=float(timeout))
    except DeadlinePassed as failure:
        if need == REQUIRED:
            raise
        lines.warning("egress probe failed, going on all the same", reason=failure.message)


def main() -> NoReturn:
    """Run as a program."""
    errors.run_plain(run, tool="egress-probe")


if __name__ == "__main__":
    main()
