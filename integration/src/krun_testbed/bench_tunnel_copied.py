"""hbone and hboned that copy all payload, as they do where nothing splices: what the rows for copying measure.

``python -m krun_testbed.bench_tunnel_copied hboned ...`` is hboned with these arguments.
"""

from __future__ import annotations

import functools
import importlib
import sys

from hbone import poller, stop

MODULES = {"hbone": "hbone.cli", "hboned": "hbone.server_cli"}


def argv(words: list[str]) -> list[str]:
    """The same command, so changed."""
    return [sys.executable, "-m", "krun_testbed.bench_tunnel_copied", *words]


def main() -> None:
    """Run the command."""
    del sys.argv[0]
    setattr(stop, "new_loop", functools.partial(poller.new_loop, splices=False))  # noqa: B010 - mypy asks for it
    importlib.import_module(MODULES[sys.argv[0]]).main()


if __name__ == "__main__":
    main()
