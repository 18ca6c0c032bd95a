"""krun-sshd by the real OpenSSH client: what a person at a prompt, a script and a port forward may rely on."""

from __future__ import annotations

import concurrent.futures
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from krun_testbed import addresses, components, processes

pytestmark = pytest.mark.loopback


@dataclass(frozen=True, kw_only=True)
class Sshd:
    """A running krun-sshd and the keys of who may come in."""

    daemon: processes.Running
    address: str
    port: int
    identity: Path

    def argv(self, *arguments: str, user: str = "anybody", identity: Path | None = None) -> list[str]:
        ssh = components.program("ssh", package="openssh-client")
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes"]
        flags = [word for option in (*options, "LogLevel=ERROR") for word in ("-o", option)]
        key = ["-i", str(identity or self.identity), "-p", str(self.port), "-l", user]
        return [ssh, "-F", "/dev/null", *flags, *key, self.address, *arguments]

    def run(self, command: str, *flags: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        argv = self.argv(*([command] if command else []))
        return processes.run([argv[0], *flags, *argv[1:]], stdin=stdin, timeout=30)

    def processes_of_sessions(self) -> list[int]:
        return processes.children(self.daemon.pid)


def make_key(path: Path) -> Path:
    keygen = components.program("ssh-keygen", package="openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture
def options() -> str:
    """Options in front of the authorized key; a test overrides it."""
    return ""


@pytest.fixture
def sshd(tmp_path: Path, address: str, options: str) -> Iterator[Sshd]:
    identity = make_key(tmp_path / "id")
    port = addresses.free_port(address=address)
    public = f"{options} {(tmp_path / 'id.pub').read_text()}".strip()
    env = processes.environment(
        SSH_AUTH=public,
        KRUN_LOOPBACK=address,
        KRUN_LOG_FORMAT="text",
        HOME=str(tmp_path),
        CANARY="of the container",
    )
    with processes.start([components.command("krun-sshd"), "--port", str(port)], env=env) as daemon:
        daemon.wait_for("ready")
        yield Sshd(daemon=daemon, address=address, port=port, identity=identity)


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_a_commands_status_and_streams_come_back_apart(sshd: Sshd, status: int) -> None:
    done = sshd.run(f"echo out; echo err >&2; exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n")


def test_an_end_by_signal_is_told(sshd: Sshd) -> None:
    argv = sshd.argv("kill -TERM $$")
    done = processes.run([argv[0], "-v", *argv[1:]], stdin=None)
    assert done.returncode == 255
    assert "exit-signal" in done.stderr


def test_big_input_and_output_pass_whole(sshd: Sshd) -> None:
    text = "0123456789abcdef" * 400_000
    assert sshd.run("cat", stdin=text).stdout == text


def test_the_end_of_input_is_passed_on(sshd: Sshd) -> None:
    assert sshd.run("wc -c", stdin="four").stdout.strip() == "4"


def test_input_that_nobody_reads_does_not_hang(sshd: Sshd) -> None:
    assert sshd.run("exec <&-; echo done", stdin="x" * 5_000_000).stdout == "done\n"


def test_a_shell_without_terminal_takes_commands_from_stdin(sshd: Sshd) -> None:
    done = sshd.run("", "-T", stdin="echo $0-$CANARY\nexit 5\n")
    assert done.returncode == 5
    assert "-of the container" in done.stdout


def test_the_environment_is_the_containers_without_the_keys(sshd: Sshd, tmp_path: Path) -> None:
    done = sshd.run("env; pwd")
    assert "CANARY=of the container" in done.stdout
    assert f"HOME={tmp_path}" in done.stdout
    assert "SSH_AUTH=" not in done.stdout
    assert done.stdout.endswith(f"\n{tmp_path}\n")


def test_a_terminal_has_the_clients_size_and_follows_it(sshd: Sshd) -> None:
    import fcntl
    import os
    import pty
    import struct
    import termios

    pid, master = pty.fork()
    argv = sshd.argv("stty size; trap 'stty size; exit 3' WINCH; echo waiting; while :; do sleep 0.05; done")
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        os.execve(argv[0], [argv[0], "-tt", *argv[1:]], processes.environment(TERM="xterm"))
    try:
        assert "33 101" in read_until(master, b"waiting")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 202, 0, 0))
        assert "44 202" in read_until(master, b"44 202")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    finally:
        os.close(master)


def read_until(descriptor: int, mark: bytes) -> str:
    import os
    import select

    seen = b""
    while mark not in seen:
        ready, _, _ = select.select([descriptor], [], [], processes.WAIT)
        assert ready, f"{mark!r} never came: {seen!r}"
        seen += os.read(descriptor, 4096)
    return seen.decode(errors="replace")


def test_the_end_of_input_ends_a_shell_on_a_terminal(sshd: Sshd) -> None:
    done = sshd.run("cat; echo at end", "-tt", stdin="line\n")
    assert done.returncode == 0
    assert "at end" in done.stdout


def test_output_on_a_terminal_is_whole(sshd: Sshd) -> None:
    done = sshd.run("seq 1 50000", "-tt")
    assert done.stdout.split()[-1] == "50000"
    assert len(done.stdout.split()) == 50000


def test_a_wrong_key_and_a_password_are_refused(sshd: Sshd, tmp_path: Path) -> None:
    done = processes.run(sshd.argv("true", identity=make_key(tmp_path / "stranger")), stdin=None)
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
    line = sshd.daemon.wait_for("connection closed.*").group()
    assert "user=anybody" in line
    assert "SHA256" not in line
    assert 'reason="not let in"' in line


def test_one_line_a_connection_names_user_and_key(sshd: Sshd) -> None:
    processes.run(sshd.argv("true", user="alice"), stdin=None)
    line = sshd.daemon.wait_for("connection closed.*").group()
    keygen = components.program("ssh-keygen", package="openssh-client")
    fingerprint = processes.run([keygen, "-lf", str(sshd.identity)]).stdout.split()[1]
    assert "user=alice" in line
    assert fingerprint in line
    assert f"peer={sshd.address}:" in line or "peer=127." in line


def test_several_sessions_at_once(sshd: Sshd) -> None:
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda number: sshd.run(f"echo {number}; exit {number}"), range(6)))
    assert [(one.returncode, one.stdout) for one in done] == [(number, f"{number}\n") for number in range(6)]


def answer_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"answer to " + connection.recv(100))


@pytest.mark.parametrize("name", ["", "localhost"])
def test_a_port_on_loopback_is_forwarded_to(sshd: Sshd, name: str) -> None:
    local = addresses.free_port(address=sshd.address)
    with socket.create_server((sshd.address, 0)) as server:
        thread = threading.Thread(target=answer_once, args=(server,))
        thread.start()
        target = f"{sshd.address}:{local}:{name or sshd.address}:{server.getsockname()[1]}"
        argv = sshd.argv()
        with processes.start([argv[0], "-N", "-L", target, *argv[1:]]):
            processes.wait_until(lambda: listening(sshd.address, local), what="ssh -L listens")
            with socket.create_connection((sshd.address, local), timeout=10) as client:
                client.sendall(b"me")
                assert client.recv(100) == b"answer to me"
        thread.join()


def listening(address: str, port: int) -> bool:
    """A look that makes no connection: the forward's target answers one only."""
    packed = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(f" {packed}:{port:04X} " in line and " 0A " in line for line in lines)


def test_nothing_but_loopback_is_forwarded_to(sshd: Sshd) -> None:
    argv = sshd.argv()
    flags = ["-o", "LogLevel=INFO", "-W", "10.255.255.1:80"]
    done = processes.run([argv[0], *flags, *argv[1:]], stdin=None)
    assert done.returncode == 255
    assert "administratively prohibited: 10.255.255.1: only loopback" in done.stderr


def test_a_remote_forward_is_refused(sshd: Sshd) -> None:
    argv = sshd.argv("true")
    flags = ["-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1"]
    assert processes.run([argv[0], *flags, *argv[1:]], stdin=None).returncode == 255


@pytest.mark.parametrize("options", ['restrict,command="echo forced $SSH_CONNECTION"'])
def test_restrict_and_command_hold(sshd: Sshd, options: str) -> None:
    assert sshd.run("echo mine").stdout.startswith("forced 127.")
    argv = sshd.argv()
    assert processes.run([argv[0], "-W", f"{sshd.address}:{sshd.port}", *argv[1:]], stdin=None).returncode == 255


@pytest.mark.parametrize("flag", ["-T", "-tt"])
def test_processes_do_not_outlive_a_client_that_goes(sshd: Sshd, flag: str) -> None:
    argv = sshd.argv("trap '' HUP; sleep 1000 & echo started; wait")
    with processes.start([argv[0], flag, *argv[1:]]) as client:
        client.wait_for("started")
        assert sshd.processes_of_sessions()
    processes.wait_until(lambda: not sshd.processes_of_sessions(), what="the session's processes end")


def test_a_process_in_the_background_ends_with_its_session(sshd: Sshd) -> None:
    done = sshd.run("sleep 1000 >/dev/null 2>&1 </dev/null & echo $!")
    pid = int(done.stdout)
    processes.wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the background process ends")


def test_sigterm_ends_sessions_by_hang_up_and_the_server_with_one_line(sshd: Sshd) -> None:
    argv = sshd.argv("trap 'echo hung up; exit 0' HUP; echo started; while :; do sleep 0.05; done")
    with processes.start(argv) as client:
        client.wait_for("started")
        below = sshd.processes_of_sessions()
        assert sshd.daemon.terminate(timeout=5) == 0
        client.wait()
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    assert sshd.daemon.stderr.count("drained") == 1
    assert "Traceback" not in sshd.daemon.stderr


def test_a_second_sigterm_ends_at_once(sshd: Sshd) -> None:
    argv = sshd.argv("trap '' HUP; echo started; while :; do sleep 0.05; done")
    with processes.start(argv) as client:
        client.wait_for("started")
        sshd.daemon.signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(sshd.address, sshd.port), what="it stops listening")
        sshd.daemon.signal(signal.SIGTERM)
        assert sshd.daemon.wait(timeout=5) == 143
    assert not sshd.processes_of_sessions()
