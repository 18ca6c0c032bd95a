"""A Docker engine for the container tests: the one that runs, or one that is started here, as root.

``python -m krun_testbed.docker_engine start|stop|status``. It touches no engine that it has not started itself: what
it started it finds again by a file in the cache folder, outside of any checkout.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from krun_testbed import components

STARTUP = 60.0  # seconds until dockerd must answer
ENDING = 30.0  # seconds until it must have ended
PIDFILE = Path("/var/run/docker.pid")
# Where docker's client looks for the plugin.
BUILDX = tuple(
    Path(folder).expanduser() / "cli-plugins" / "docker-buildx"
    for folder in (
        "~/.docker",
        "/usr/local/lib/docker",
        "/usr/local/libexec/docker",
        "/usr/lib/docker",
        "/usr/libexec/docker",
    )
)


class Failed(Exception):
    """The engine, or a call of its client, failed; the text has their own words."""


def cache() -> Path:
    """The folder that is kept between runs, and shared by checkouts."""
    named = os.environ.get("KRUN_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "krun"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def docker(*arguments: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run docker's client. Failed with its own words when it does not end with 0 and ``check`` is set."""
    argv = [components.program("docker", package="docker.io"), *arguments]
    # Without its plugin for BuildKit, a newer client builds only when it is told to do so as engines always could.
    env = {"DOCKER_BUILDKIT": "1" if any(os.access(path, os.X_OK) for path in BUILDX) else "0", **os.environ}
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL, env=env
    )
    if check and done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-20:])
        raise Failed(f"docker {' '.join(arguments[:2])}: status {done.returncode}: {said}")
    return done


def answers() -> bool:
    """Tell whether an engine answers, whoever started it."""
    return docker("version", "--format", "{{.Server.Version}}", check=False).returncode == 0


def start(*, keep: bool) -> None:
    """Have an engine that answers: the one that runs, else dockerd, detached.

    One that is started with ``keep`` runs until ``stop``; any other ends with its last user (``used``).
    Missing when this machine has no docker or lets us start none; Failed when dockerd does not come up.
    """
    components.program("docker", package="docker.io")
    with _locked("dockerd.lock"):
        if answers():
            ours = _ours()
            if ours and keep:
                _note(ours, keep=True)
            return
        if os.geteuid() != 0:
            raise components.Missing("docker: no engine answers, and only root may start one")
        _start(keep=keep)


def stop() -> bool:
    """End the engine that was started here, and all its containers; tells whether there was one."""
    with _locked("dockerd.lock"):
        pid = _ours()
        if pid is None:
            return False
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + ENDING
            while _runs(pid):
                if time.monotonic() > deadline:
                    raise Failed(f"dockerd: process {pid} has not ended {ENDING:g} s after SIGTERM")
                time.sleep(0.05)
        finally:
            os.close(descriptor)
        _state().unlink(missing_ok=True)
        return True


@contextlib.contextmanager
def used() -> Iterator[None]:
    """An engine that answers, for a while; the last user ends it, if it was started for users only."""
    with (cache() / "dockerd.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        start(keep=False)
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _ours() is not None and not json.loads(_state().read_text())["keep"]:
                    stop()


def _start(*, keep: bool) -> None:
    _forget()
    log = cache() / "dockerd.log"
    argv = [components.program("dockerd", package="docker.io"), "--storage-driver", "overlay2"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    _note(process.pid, keep=keep)
    deadline = time.monotonic() + STARTUP
    while not answers():
        status = process.poll()
        if status is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            _state().unlink(missing_ok=True)
            said = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise Failed(f"dockerd: {f'ended with {status}' if status is not None else 'does not answer'}:\n{said}")
        time.sleep(0.05)


def _forget() -> None:
    """Remove the pid file of an engine that was killed: dockerd takes any process of that number for an engine."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(PIDFILE.read_text())
        if not _runs(pid) or Path(f"/proc/{pid}/comm").read_text().strip() != "dockerd":
            PIDFILE.unlink()


def _state() -> Path:
    return cache() / "dockerd.json"


def _note(pid: int, *, keep: bool) -> None:
    _state().write_text(json.dumps({"pid": pid, "since": since(pid), "keep": keep}))


def _ours() -> int | None:
    """The process that was started here, if it still runs: its number and its age are those that were noted."""
    try:
        noted = json.loads(_state().read_text())
        return int(noted["pid"]) if since(noted["pid"]) == noted["since"] and _runs(noted["pid"]) else None
    except (OSError, ValueError, KeyError):
        return None


def since(pid: int) -> str:
    """When a process began, in ticks since the machine did (proc(5), field 22 of stat); nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _runs(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    with (cache() / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@click.command()
@click.argument("what", type=click.Choice(["start", "stop", "status"]))
def main(what: str) -> None:
    """Start a Docker engine that stays, stop the one that was started here, or tell whether one answers."""
    try:
        if what == "start":
            start(keep=True)
        if what == "stop" and not stop():
            raise click.ClickException("no engine runs that was started here")
    except (components.Missing, Failed) as error:
        raise click.ClickException(str(error)) from error
    ours = _ours()
    if answers():
        whose = f"process {ours}, started here; log: {cache() / 'dockerd.log'}" if ours else "not started here"
        click.echo(f"an engine answers, {whose}")
    else:
        click.echo("no engine answers")
        sys.exit(0 if what == "stop" else 1)


if __name__ == "__main__":
    main()
