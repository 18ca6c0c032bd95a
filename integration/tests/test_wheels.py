"""Each package is a wheel that works alone, installed into an empty environment without any index."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from krun_testbed import components, processes, tables
from krun_testbed.certificates import Authority
from krun_testbed.tunnels import connect, digest_after_end, read_all, target, tls_flags

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(300)]

DISTRIBUTIONS = {package: package if package.startswith("krun-") else f"krun-{package}" for package in tables.PACKAGES}


def cache() -> Path:
    home = os.environ.get("KRUN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "krun"
    return Path(home)


@pytest.fixture(scope="session")
def third_party() -> Path:
    """What the six depend on, as wheels; fetched once for each state of constraints.txt and each Python."""
    constraints = tables.ROOT / "constraints.txt"
    projects = [tables.ROOT / "packages" / package / "pyproject.toml" for package in tables.PACKAGES]
    declared = [tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"] for path in projects]
    wanted = sorted({word for words in declared for word in words if not word.startswith("krun-")})
    state = "\n".join([constraints.read_text(encoding="utf-8"), *wanted]).encode()
    name = f"wheels-{sys.version_info.major}.{sys.version_info.minor}-{hashlib.sha256(state).hexdigest()[:16]}"
    folder = cache() / name
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".complete").exists():
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
                + ["--constraint", str(constraints), "--dest", str(folder), *wanted],
                check=True,
            )
            (folder / ".complete").touch()
    return folder


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six wheels, built from this tree."""
    folder = tmp_path_factory.mktemp("wheels")
    for package in tables.PACKAGES:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
            cwd=tables.ROOT / "packages" / package,
            check=True,
            capture_output=True,
        )
    return folder


def install(venv: Path, *distributions: str, wheelhouse: tuple[Path, Path]) -> Path:
    """A new, empty environment with these distributions and what they need, from the wheelhouse only."""
    uv = components.command("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    links = [word for folder in wheelhouse for word in ("--find-links", str(folder))]
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), "--no-index", "--no-cache"]
        + [*links, *distributions],
        check=True,
    )
    return venv


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_wheel_works_alone_in_an_empty_environment(package: str, ours: Path, third_party: Path, tmp_path: Path) -> None:
    venv = install(tmp_path / "venv", DISTRIBUTIONS[package], wheelhouse=(ours, third_party))
    commands = [command for command, home in tables.COMMANDS.items() if home == package]
    for command in commands:
        done = processes.run([str(venv / "bin" / command), "--version"])
        assert (done.returncode, done.stdout.split()) == (0, [command, "0.1.0"]), done.stderr
        # --help imports the command's whole command line, --version might not.
        assert processes.run([str(venv / "bin" / command), "--help"]).returncode == 0
    files = sorted(path.name for path in (venv / "bin").iterdir())
    assert set(commands) <= set(files)
    siblings = {command for command, home in tables.COMMANDS.items() if home != package}
    expected = {"hbone", "hboned"} if package == "hgate" else set()
    assert siblings & set(files) == expected


def test_the_launcher_from_a_wheel_runs_an_application(ours: Path, third_party: Path, tmp_path: Path) -> None:
    venv = install(tmp_path / "venv", "krun-launch", "krun-discover", wheelhouse=(ours, third_party))
    env = {"PATH": f"{venv / 'bin'}:/usr/bin:/bin", "NO_GCE_CHECK": "true", "XDS_ADDR": "-"}
    done = processes.run(["sh", "-c", "krun-discover | krun-launch -- sh -c 'echo ran; exit 7'"], env=env, stdin=None)
    assert (done.returncode, done.stdout) == (7, "ran\n"), done.stderr
    # The entrypoint comes with it, finds both beside itself, and says the same.
    done = processes.run(
        [str(venv / "bin" / "krun"), "sh", "-c", "echo ran; exit 7"], env={**env, "PATH": "/usr/bin:/bin"}
    )
    assert (done.returncode, done.stdout) == (7, "ran\n"), done.stderr


@pytest.mark.parametrize("is_tls", [False, True], ids=["h2c", "tls"])
def test_the_tunnel_from_a_wheel_works_with_its_dependencies_alone(
    address: str, authority: Authority, ours: Path, third_party: Path, tmp_path: Path, *, is_tls: bool
) -> None:
    venv = install(tmp_path / "venv", "krun-hbone", wheelhouse=(ours, third_party))
    hbone, hboned = (str(venv / "bin" / name) for name in ("hbone", "hboned"))
    secure = tls_flags(authority, tmp_path, address) if is_tls else ()
    trust = ("--ca-file", str(tmp_path / "root.pem")) if is_tls else ()
    url = f"{'https' if is_tls else 'http'}://{address}:15009/_hbone/15003"
    env = {"PATH": "/usr/bin:/bin", "KRUN_LOOPBACK": address, "KRUN_LOG_FORMAT": "json"}
    expected = hashlib.sha256(b"hello").hexdigest() + "hello"
    with (
        target(address, digest_after_end),
        processes.start([hboned, "--port", "15009", *secure], env=env) as server,
    ):
        server.wait_for('"ready"')
        done = processes.run([hbone, *trust, url], stdin="hello", env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
        with processes.start([hbone, "-L", f"{address}:0", *trust, url], env=env) as forward:
            port = int(forward.wait_for(r'"ready".*"address": "[^"]*:(\d+)"')[1])
            with connect(address, port) as client:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client).decode() == expected
            assert forward.terminate() == 0
        assert server.terminate() == 0
