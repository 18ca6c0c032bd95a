"""One run of krun-launch, by whichever way its command line was read."""

from __future__ import annotations

import gc
import os

from krun_launch import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.options import Options


def run(asked: Options) -> int:
    """Do it, with this process's environment, and return the exit status. Raises a Failure."""
    lines.configure(tool="krun-launch", level=asked.log_level, style=asked.log_format)
    if asked.is_init:
        return _init(asked.app)
    # Late: an init needs none of it.
    from krun_launch.launch import Request, launch

    request = Request(
        app=asked.app,
        flags=asked.flags,
        env_file=asked.env_file,
        reads_env=not asked.no_env,
        is_dry=asked.dry_run,
        wants_rules=asked.wants_rules,
        enters=asked.enters,
    )
    return launch(request, env=dict(os.environ))


def _init(app: tuple[str, ...]) -> int:
    from krun_launch.init import Init
    from krun_launch.signals import Signals

    gc.enable()  # it stays as long as all else
    with Signals() as signals:
        return Init(signals).run(app, env=dict(os.environ))
