from __future__ import annotations

from pathlib import Path

import pytest

from krun_sshd.process import Plan, Request, find_shell, plan


def request(**changes: object) -> Request:
    values: dict[str, object] = {
        "command": None,
        "terminal": None,
        "variables": {},
        "granted": {},
        "user": "app",
        "connection": "127.0.0.1 1 127.0.0.1 2",
    }
    return Request(**(values | changes))  # type: ignore[arg-type]


def decide(what: Request, **environment: str) -> Plan:
    return plan(what, environment=environment, shell="/bin/sh", home="/")


def test_a_session_has_the_environment_of_the_container_without_the_keys() -> None:
    environment = decide(request(), PATH="/app/bin", SSH_AUTH="ssh-ed25519 AAAA", KRUN_INIT_FD="3").environment
    assert environment["PATH"] == "/app/bin"
    assert not {"SSH_AUTH", "KRUN_INIT_FD"} & set(environment)
    assert environment["HOME"] == "/"


def test_a_client_sets_its_language_and_nothing_else() -> None:
    environment = decide(
        request(variables={"LANG": "de", "LC_ALL": "C", "LD_PRELOAD": "/x.so", "PATH": "/x"})
    ).environment
    assert environment["LANG"] == "de"
    assert environment["LC_ALL"] == "C"
    assert not {"LD_PRELOAD", "PATH"} & set(environment)


def test_a_command_runs_in_the_shell_and_a_terminal_has_a_type() -> None:
    assert decide(request(command="id")).argv == ("/bin/sh", "-c", "id")
    shell = decide(request(terminal="xterm"))
    assert shell.argv == ("/bin/sh",)
    assert shell.terminal
    assert shell.environment["TERM"] == "xterm"


def test_a_home_that_is_not_there_is_no_working_directory() -> None:
    assert decide(request(), HOME="/nowhere/at/all").directory == "/"


def test_a_shell_that_does_not_exist_is_passed_over(tmp_path: Path) -> None:
    assert find_shell({"SHELL": str(tmp_path / "none")}) in ("/bin/bash", "/bin/sh")
    assert find_shell({"SHELL": "bin/sh"}) != "bin/sh"


def test_the_shell_of_the_environment_comes_first(tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.symlink_to("/bin/sh")
    assert find_shell({"SHELL": str(shell)}) == str(shell)


def test_no_descriptor_is_left_when_a_process_cannot_start(tmp_path: Path) -> None:
    import asyncio

    from krun_sshd.process import spawn

    what = Plan(argv=(str(tmp_path / "none"),), environment={}, directory="/", terminal=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        asyncio.run(spawn(what, size=(80, 24)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
