"""From exec of a client to the first byte of a tunnel on its stdout, as a ProxyCommand is waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from krun_testbed import processes
from krun_testbed.load_generator import Failed
from krun_testbed.load_systems import Values

LONGEST = 10.0  # seconds for one


def first_byte(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Callable[[], Values]:
    """How long one start takes, in milliseconds, when the target speaks first."""
    environment = dict(processes.environment() if env is None else env)
    # With the compiled modules that an installed command has.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def measure() -> Values:
        started = time.monotonic()
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            got = process.stdout.read(1)
            taken = time.monotonic() - started
        finally:
            process.kill()
            _, said = process.communicate(timeout=LONGEST)
        if not got:
            raise Failed(f"{argv[0]}: {said.decode(errors='replace').strip()[-200:]}")
        return {"ms": taken * 1000}

    return measure
