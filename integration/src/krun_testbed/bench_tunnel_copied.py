"""hbone and hboned that copy all payload, as they do where nothing splices: what the rows for copying measure.

``python -m krun_testbed.bench_tunnel_copied hboned ...`` is hboned with these arguments.
"""

from __future__ import annotations

import functools
import importlib
import sys

from hbone import stop
from hbone.poller import new_loop

MODULES = {"hbone": "hbone.cli", "hboned": "hbone.server_cli"}


def argv(words: list[str]) -> list[str]:
    """The same command, so changed."""
    return [sys.executable, "-m", "krun_testbed.bench_tunnel_copied", *words]


def main() -> None:
    """Run the command."""
    del sys.argv[0]
    stop.new_loop = functools.partial(new_loop, splices=False)
    importlib.import_module(MODULES[sys.argv[0]]).main()


if __name__ == "__main__":
    main()
