from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from krun_testbed import addresses, components, processes

pytestmark = pytest.mark.loopback


def sshd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return processes.run([components.command("krun-sshd"), *arguments], env=processes.environment(**environment))


@pytest.fixture
def public(tmp_path: Path) -> str:
    keygen = components.program("ssh-keygen", package="openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    return (tmp_path / "id.pub").read_text()


def test_without_a_key_it_does_not_start() -> None:
    done = sshd()
    assert done.returncode == 78
    assert "neither SSH_AUTH nor --authorized-keys" in done.stderr
    assert done.stdout == ""


def test_a_line_that_is_no_key_is_named(public: str) -> None:
    done = sshd(SSH_AUTH=f"{public}\nnonsense")
    assert done.returncode == 78
    assert "line 3 of SSH_AUTH" in done.stderr


def test_a_file_without_a_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    missing = sshd("--authorized-keys", str(file))
    file.write_text("# nobody\n")
    empty = sshd("--authorized-keys", str(file))
    assert (missing.returncode, empty.returncode) == (78, 78)
    assert str(file) in missing.stderr
    assert f"no public key in {file}" in empty.stderr


def test_an_address_that_is_not_loopback_is_refused(public: str) -> None:
    done = sshd(SSH_AUTH=public, KRUN_LOOPBACK="0.0.0.0")
    assert done.returncode == 78
    assert "KRUN_LOOPBACK" in done.stderr
    assert "--bind" in done.stderr


def test_a_host_key_that_is_none_is_refused(public: str, tmp_path: Path) -> None:
    (tmp_path / "host").write_text("nonsense")
    done = sshd("--host-key", str(tmp_path / "host"), SSH_AUTH=public)
    assert done.returncode == 78
    assert str(tmp_path / "host") in done.stderr


def test_a_taken_port_is_named(public: str, address: str) -> None:
    with socket.create_server((address, 0)) as holder:
        port = holder.getsockname()[1]
        done = sshd("--port", str(port), SSH_AUTH=public, KRUN_LOOPBACK=address)
    assert done.returncode == 78
    assert f"{address}:{port}: the port is taken" in done.stderr


def test_a_bind_address_that_is_none_is_a_usage_error(public: str) -> None:
    assert sshd("--bind", "everywhere", SSH_AUTH=public).returncode == 2


def test_it_listens_on_its_loopback_address_only(public: str, address: str) -> None:
    port = addresses.free_port(address=address)
    other = addresses.loopback()
    env = processes.environment(SSH_AUTH=public, KRUN_LOOPBACK=address)
    with processes.start([components.command("krun-sshd"), "--port", str(port)], env=env) as daemon:
        daemon.wait_for("ready")
        assert processes.listens(address, port)
        assert not processes.listens(other, port)


def test_a_file_given_as_a_flag_wins_over_the_environment_and_two_flags_contradict(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("no key at all\n")
    won = processes.run(["krun-sshd", "--authorized-keys", str(file)], env=processes.environment(SSH_AUTH="x"))
    assert won.returncode == 78
    assert str(file) in won.stderr
    both = processes.run(["krun-sshd", "--auth", "x", "--authorized-keys", str(file)])
    assert both.returncode == 78
    assert "--auth and --authorized-keys: both are given" in both.stderr
    assert "hint: give one of them" in both.stderr
