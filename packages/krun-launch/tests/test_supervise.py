"""The start, the watch and what ends them: krun-launch with the real Envoy, hboned and applications."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from krun_testbed import addresses, apps, components, processes
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

READY = r"krun-launch: ready mode=static"


@contextmanager
def launched(env: dict[str, str], app: Sequence[str] | None = None, *, flags: Sequence[str] = ()) -> Iterator[Running]:
    """krun-launch with an application (default: one that answers); afterwards nothing of it is left, by assertion."""
    words = apps.argv(address=env["KRUN_LOOPBACK"]) if app is None else list(app)
    with processes.start(["krun-launch", "--no-env", *flags, *(["--", *words] if words else [])], env=env) as running:
        yield running


def script(tmp_path: Path, text: str) -> str:
    """A program that stands where Envoy should."""
    program = tmp_path / "envoy-that-is-none"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def child(pid: int, name: str) -> int:
    """The process below krun-launch that runs a program of this name."""
    for below in processes.children(pid):
        words = Path(f"/proc/{below}/cmdline").read_text().split("\0")
        if any(Path(word).name == name for word in words[:3]):
            return below
    raise AssertionError(f"no {name} below {pid}")


def test_application_starts_after_envoy_and_15009_opens_after_the_application(
    workload: dict[str, str], address: str
) -> None:
    with launched(workload, apps.argv(address=address, listen_after=0.7)) as running:
        running.wait_for("app started")
        assert processes.listens(address, 15003)
        while "app listens" not in running.stdout:
            assert not processes.listens(address, 15009) or "app listens" in running.stdout
        running.wait_for(READY)
        assert processes.listens(address, 15009)
        steps = re.findall(r'step done step="?([^"\n]*?)"? at_ms', running.stderr)
        assert steps == ["envoy", "certificates", "envoy ready", "app", "app answers", "hboned", "hboned listens"]
        assert running.terminate() == 0


def test_readyz_tells_mode_and_step_and_turns_at_the_end(workload: dict[str, str], address: str) -> None:
    known = {"mode": "static", "interception": "whitebox"}
    with launched(workload, apps.argv(address=address, listen_after=60)) as running:
        running.wait_for("app started")
        status, state = _readyz(address)
        assert (status, state) == (503, {**state, **known, "ready": False, "step": "app answers"})
        running.terminate()
    with launched(workload) as running:
        running.wait_for(READY)
        status, state = _readyz(address)
        assert (status, state) == (200, {**state, **known, "ready": True, "step": "ready"})
        steps = state["steps"]
        assert isinstance(steps, dict)
        assert list(steps) == sorted(
            ["envoy", "certificates", "envoy ready", "app", "app answers", "hboned", "hboned listens"]
        )
        # There is nothing to tell of these.
        assert not {"restarts", "credentials", "tasks"} & set(state)


def _readyz(address: str) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(f"http://{address}:15019/readyz")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Any())
    with opener.open(request, timeout=5) as answer:
        return answer.status, json.loads(answer.read())


class _Any(urllib.request.HTTPErrorProcessor):
    """Every status is an answer here."""

    def http_response(self, request: urllib.request.Request, response: object) -> object:
        return response


def test_port_is_the_platforms_outside_and_the_applications_inside(workload: dict[str, str], address: str) -> None:
    env = {**workload, "PORT": "15009", "SSH_AUTH": "", "NO_PROXY": "user.example", "HTTPS_PROXY": "http://own:1"}
    with launched({**env, "KRUN_GRACE": "9", "APP_WORD": "kept"}) as running:
        running.wait_for(READY)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{address}:8080/env") as answer:
            seen = json.loads(answer.read())
    assert seen["PORT"] == "8080"
    assert seen["HTTP_PROXY"] == seen["http_proxy"] == f"http://{address}:15007"
    assert seen["HTTPS_PROXY"] == "http://own:1"
    assert seen["NO_PROXY"] == seen["no_proxy"]
    assert seen["NO_PROXY"].split(",")[0] == "user.example"
    assert {"localhost", "127.0.0.1", "::1", address, "metadata.google.internal"} <= set(seen["NO_PROXY"].split(","))
    assert seen["APP_WORD"] == "kept"
    assert [name for name in seen if name.startswith("KRUN_") or name == "SSH_AUTH"] == []


def test_helpers_hold_no_variable_of_the_application(workload: dict[str, str]) -> None:
    with launched({**workload, "DATABASE_PASSWORD": "canary-7f3a"}) as running:
        running.wait_for(READY)
        for name in ("envoy", "hboned"):
            environ = Path(f"/proc/{child(running.pid, name)}/environ").read_text()
            assert "canary-7f3a" not in environ
            assert "HTTP_PROXY" not in environ.upper()
        running.terminate()
        assert "canary-7f3a" not in running.said()


def test_envoy_that_is_never_ready_is_75_and_the_application_never_starts(
    workload: dict[str, str], tmp_path: Path
) -> None:
    env = {**workload, "KRUN_ENVOY": script(tmp_path, "exec sleep 60"), "KRUN_READY_TIMEOUT": "0.5"}
    with launched(env) as running:
        assert running.wait() == 75
        assert "error: envoy ready: envoy did not answer on http://" in running.stderr
        assert "within 0.5 s" in running.stderr
        assert "KRUN_READY_TIMEOUT" in running.stderr
        assert "app started" not in running.stdout


def test_envoy_that_dies_at_its_start_is_69_with_its_status_and_its_words(
    workload: dict[str, str], tmp_path: Path
) -> None:
    env = {**workload, "KRUN_ENVOY": script(tmp_path, "echo 'bad bootstrap' >&2; exit 3")}
    with launched(env) as running:
        assert running.wait() == 69
        assert "bad bootstrap" in running.stderr
        # How soon it is seen is the machine's: the certificates are checked meanwhile.
        message = r"krun-launch: error: envoy ended with status 3 before step '(certificates|envoy ready)' was done"
        assert re.search(message, running.stderr)
        assert "app started" not in running.stdout


def test_application_that_never_answers_is_75(workload: dict[str, str], address: str) -> None:
    with launched({**workload, "KRUN_APP_TIMEOUT": "0.5"}, apps.argv(address=address, listen_after=60)) as running:
        assert running.wait() == 75
        assert f"app answers: app did not answer on {address}:8080 within 0.5 s" in running.stderr


@pytest.mark.parametrize(("probe", "status"), [("/hello", 0), ("/sleep/60", 75)])
def test_http_probe_wants_an_answer(probe: str, status: int, workload: dict[str, str]) -> None:
    with launched({**workload, "STARTUP_PROBE_HTTP": probe, "KRUN_APP_TIMEOUT": "2"}) as running:
        if status == 0:
            running.wait_for(READY)
            assert running.terminate() == 0
        else:
            assert running.wait() == status


def test_application_that_ends_during_the_start_ends_all_with_its_status(workload: dict[str, str]) -> None:
    with launched(workload, ["sh", "-c", "exit 9"]) as running:
        assert running.wait() == 9


def test_application_that_is_not_found_is_127_in_the_mesh_too(workload: dict[str, str]) -> None:
    with launched(workload, ["no-such-program"]) as running:
        assert running.wait() == 127
        assert "no-such-program is not found" in running.stderr


@pytest.mark.parametrize("name", ["envoy", "hboned"])
def test_death_of_a_part_ends_everything_with_69_and_names_it(name: str, workload: dict[str, str]) -> None:
    with launched(workload) as running:
        running.wait_for(READY)
        below = processes.children(running.pid)
        os.kill(child(running.pid, name), signal.SIGKILL)
        assert running.wait() == 69
        assert f"krun-launch: error: {name} ended with status 137 (SIGKILL)" in running.stderr
        assert "app stops" in running.stdout
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []


def test_end_of_the_application_ends_all_quickly_with_its_status(workload: dict[str, str], address: str) -> None:
    with launched(workload) as running:
        running.wait_for(READY)
        below = processes.children(running.pid)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{address}:8080/exit/37").close()
        assert running.wait() == 37
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []


def test_nothing_is_left_and_the_run_folder_is_gone(workload: dict[str, str], tmp_path: Path) -> None:
    with launched(workload) as running:
        running.wait_for(READY)
        (folder,) = tmp_path.glob("krun-launch-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()} == {0o600}
        below = processes.children(running.pid)
        assert running.terminate() == 0
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.glob("krun-launch-*")) == []


def test_run_folder_that_is_named_is_kept(workload: dict[str, str], tmp_path: Path) -> None:
    with launched({**workload, "KRUN_RUN_DIR": str(tmp_path / "run")}) as running:
        running.wait_for(READY)
        assert running.terminate() == 0
    assert json.loads((tmp_path / "run" / "envoy.json").read_text())["admin"]


def test_helpers_die_with_krun_launch(workload: dict[str, str]) -> None:
    with launched(workload) as running:
        running.wait_for(READY)
        below = processes.children(running.pid)
        assert len(below) == 3
        running.signal(signal.SIGKILL)
        running.wait()
        processes.wait_until(lambda: not any(_lives(pid) for pid in below), what="all are gone")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_before_the_application_ends_the_start(
    number: signal.Signals, workload: dict[str, str], tmp_path: Path
) -> None:
    env = {**workload, "KRUN_ENVOY": script(tmp_path, "echo up >&2; exec sleep 60")}
    with launched(env) as running:
        running.wait_for("^up$")
        running.signal(number)
        assert running.wait() == 128 + number
        assert "app started" not in running.stdout
    assert list(tmp_path.glob("krun-launch-*")) == []


def test_sidecar_runs_without_an_application_until_sigterm(workload: dict[str, str], address: str) -> None:
    # A port of this test alone: a sidecar's health port is on all addresses, as a platform's probe comes from outside.
    port = addresses.free_port(address="0.0.0.0")
    with launched({**workload, "KRUN_STATUS_PORT": str(port)}, []) as running:
        running.wait_for(READY)
        assert processes.listens(address, 15009)
        assert f"00000000:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()
        assert running.terminate() == 0


def test_job_has_no_tunnel_and_no_probe(workload: dict[str, str], address: str) -> None:
    with launched({**workload, "CLOUD_RUN_JOB": "nightly"}, ["sh", "-c", "echo worked; sleep 60"]) as running:
        running.wait_for(READY)
        running.wait_for("worked")
        assert not processes.listens(address, 15009)
        assert running.terminate() == 143


def test_application_in_the_background_is_swept_and_counted(workload: dict[str, str], address: str) -> None:
    server = shlex.join(apps.argv(address=address))
    with launched({**workload, "CLOUD_RUN_JOB": "x"}, ["sh", "-c", f"{server} & echo $!; exit 0"]) as running:
        assert running.wait() == 0
        assert "killed what was left count=1" in running.stderr
        assert not _lives(int(running.wait_for(r"^\d+$")[0]))


def test_certificate_that_does_not_fit_is_the_last_line_and_envoy_says_nothing(workload: dict[str, str]) -> None:
    with launched({**workload, "TRUST_DOMAIN": "other.test"}) as running:
        assert running.wait() == 78
        assert "[warning]" not in running.stderr
        assert running.stderr.splitlines()[-2].startswith("krun-launch: error: ")
        assert "is not in the trust domain other.test" in running.stderr.splitlines()[-2]
        assert "step=app" not in running.stderr
        assert "app started" not in running.stdout


def test_log_level_that_envoy_does_not_know_is_78(workload: dict[str, str]) -> None:
    with launched({**workload, "ENVOY_LOG_LEVEL": "loud"}) as running:
        assert running.wait() == 78
        assert "error: ENVOY_LOG_LEVEL='loud': no log level of Envoy" in running.stderr


def test_helpers_hold_no_descriptor_of_somebody_above(workload: dict[str, str]) -> None:
    with launched_with_pipe(workload) as (running, pipe):
        running.wait_for(READY)
        holders = {
            Path(f"/proc/{pid}/comm").read_text().strip()
            for pid in processes.children(running.pid)
            if Path(pipe) in {link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()}
        }
        assert holders == {"sleep"}


@contextmanager
def launched_with_pipe(env: dict[str, str]) -> Iterator[tuple[Running, str]]:
    """krun-launch that was started with a pipe as descriptor 9, and the pipe's name in /proc."""
    script = "exec 9< <(exec sleep 60); readlink /proc/$$/fd/9; exec krun-launch --no-env -- sleep 60"
    with processes.start(["bash", "-c", script], env={**env, "CLOUD_RUN_JOB": "x"}) as running:
        yield running, running.wait_for(r"^pipe:.*$")[0]


def test_port_that_is_taken_is_named_with_its_holder(workload: dict[str, str], address: str) -> None:
    with socket.create_server((address, 15003)), launched(workload) as running:
        assert running.wait() == 78
        assert f"port 15003 on {address}, for Envoy's mTLS: Address already in use" in running.stderr
        assert f"(pid {os.getpid()})" in running.stderr


def test_port_of_the_platform_that_is_the_applications_is_a_contradiction(workload: dict[str, str]) -> None:
    with launched({**workload, "PORT": "8080"}) as running:
        assert running.wait() == 78
        assert "port 8080: wanted by hboned (PORT) and the application (PORT_http)" in running.stderr


@pytest.mark.parametrize("missing", ["certificates.pem", "private_key.pem", "ca_certificates.pem"])
def test_certificate_that_is_missing_is_78_and_named(missing: str, workload: dict[str, str]) -> None:
    Path(workload["KRUN_CERTS"], missing).unlink()
    with launched(workload) as running:
        assert running.wait() == 78
        assert missing in running.stderr
        assert "app started" not in running.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "mode static (MESH=static:): no envoy in PATH"),
        ({"KRUN_MODE": "static"}, "mode static (KRUN_MODE=static): no envoy in PATH"),
        ({"KRUN_ENVOY": "/no/such/envoy"}, "KRUN_ENVOY=/no/such/envoy: no program that can be executed"),
    ],
)
def test_no_envoy_is_78_with_a_hint(given: dict[str, str], message: str, workload: dict[str, str]) -> None:
    env = {name: value for name, value in workload.items() if name != "KRUN_ENVOY"}
    argv = [components.command("krun-launch"), "--no-env", "--", "/bin/echo", "ran"]
    done = processes.run(argv, env={**env, "PATH": "/no/such/folder", **given}, stdin=None)
    assert done.returncode == 78
    assert message in done.stderr
    assert "hint:" in done.stderr
    assert done.stdout == ""


def test_missing_hboned_is_one_warning(workload: dict[str, str], address: str, tmp_path: Path) -> None:
    # An image that picked krun-launch alone: the same packages, with an interpreter that has no commands beside it.
    python = tmp_path / "python"
    python.symlink_to(Path(sys.executable).resolve())
    packages = sysconfig.get_paths()["purelib"]
    code = f"import site; site.addsitedir({packages!r}); from krun_launch.cli import main; main()"
    # Neither the system's packages nor the user's: only those that are named.
    argv = [str(python), "-I", "-S", "-c", code, "--no-env", "--", *apps.argv(address=address)]
    with processes.start(argv, env={**workload, "PATH": "/usr/bin:/bin", "SSH_AUTH": "ssh-ed25519 x"}) as running:
        running.wait_for(READY)
        warnings = [
            line
            for line in running.stderr.splitlines()
            if "warning: " in line and not re.search("PID 1 is|run as root", line)
        ]
        assert len(warnings) == 1
        assert "inbound tunnels are off: hboned is not installed" in warnings[0]
        assert not processes.listens(address, 15009)
        assert running.terminate() == 0


def test_debug_server_is_started_with_keys_and_its_death_is_only_a_warning(
    workload: dict[str, str], address: str, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    with launched({**workload, "SSH_AUTH": (tmp_path / "key.pub").read_text()}) as running:
        running.wait_for(READY)
        processes.wait_for_port(address, 15022)
        os.kill(child(running.pid, "krun-sshd"), signal.SIGKILL)
        running.wait_for("krun-sshd died: no debug shell from now on status=137")
        assert processes.listens(address, 15009)
        assert running.terminate() == 0


def test_bad_certificate_set_while_running_is_logged_and_the_old_one_stays(
    workload: dict[str, str], address: str
) -> None:
    with launched(workload) as running:
        running.wait_for(READY)
        Path(workload["KRUN_CERTS"], "private_key.pem").write_text("no key")
        running.wait_for("private_key.pem")
        assert processes.listens(address, 15003)
        assert running.terminate() == 0


def test_interactive_application_shares_the_terminal(alone: dict[str, str]) -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, lambda n, f: (os.write(1, b'app got it'), sys.exit(5)));"
        "print('same group', os.tcgetpgrp(0) == os.getpgrp(), flush=True); signal.pause()"
    )
    argv = ["setsid", "--ctty", "--wait", "krun-launch", "--no-env", "--", sys.executable, "-I", "-c", code]
    master, slave = os.openpty()
    with processes.start(argv, env=alone, stdin=slave) as running:
        os.close(slave)
        running.wait_for("same group True")
        os.write(master, b"\x03")
        assert running.wait() == 5
        assert running.stdout.count("app got it") == 1
    os.close(master)
