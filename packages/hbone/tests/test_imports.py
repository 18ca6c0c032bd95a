"""What a start loads: a ProxyCommand waits for it, and a server of tunnels alone has no use for HTTP/1.1."""

from __future__ import annotations

import subprocess
import sys

import pytest

PURE = ["request", "fields", "reserved", "message", "answer", "blocks", "offers"]


def loaded(*modules: str) -> set[str]:
    """The modules that an interpreter holds after these imports."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["hbone.cli", "hbone.command", "hbone.client", "hbone.stdio", "hbone.forward"])
def test_client_never_loads_http1(module: str) -> None:
    assert not loaded(module) & {"h11", "hbone.inbound_http1", "hbone.app_http1"}


def test_server_loads_http1_when_it_is_needed() -> None:
    assert "h11" not in loaded("hbone.server_cli", "hbone.server")
    assert "h11" in loaded("hbone.connection_http1")


@pytest.mark.parametrize("module", PURE)
def test_module_that_decides_loads_nothing_that_acts(module: str) -> None:
    assert not loaded(f"hbone.{module}") & {"asyncio", "socket", "ssl", "select"}


def test_core_loads_nothing_that_takes_long() -> None:
    """ssh waits for it at each start. What the interpreter itself has loaded is not the core's."""
    slow = {"asyncio", "collections", "dataclasses", "enum", "functools", "hpack", "inspect", "logging", "re", "typing"}
    code = "import sys, hbone.tunnel; print(*sys.modules)"
    found = " ".join(map(str, sys.path))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path = {found.split()!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(done.stdout.split()) & slow
