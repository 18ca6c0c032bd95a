"""Programs that people use tunnels for, as they use them: ssh, rsync and git by ProxyCommand, databases by -L."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from krun_testbed import bench_tunnel_ssh, components, mesh_postgres, processes, tunnel_programs
from krun_testbed.certificates import Authority
from krun_testbed.tunnel_programs import Shell
from krun_testbed.tunnels import forward, pipe, server, tls_flags, url

pytestmark = pytest.mark.loopback

RANDOM = os.urandom(3 * 1024 * 1024)
DIGEST = hashlib.sha256(RANDOM).hexdigest()
HOST = "b.example"


def run(*argv: str, data: bytes = b"", cwd: Path | None = None, **variables: str) -> bytes:
    """What a program has written when it has ended well."""
    env = processes.environment(**variables)
    done = subprocess.run(list(argv), input=data, capture_output=True, env=env, timeout=90, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def trust(address: str, tmp_path: Path) -> Mapping[str, str]:
    """What hbone is told by its environment, as whoever starts it is not asked for flags."""
    return {"KRUN_CA_FILE": str(tmp_path / "root.pem"), "KRUN_CONNECT_TO": f"{address}:15009"}


@pytest.fixture
def tls(address: str, authority: Authority, tmp_path: Path) -> Iterator[None]:
    with server(address, *tls_flags(authority, tmp_path, HOST), KRUN_OFFER="22=15022,2222"):
        yield


@pytest.fixture
def shell(tls: None, address: str, tmp_path: Path) -> Iterator[Shell]:
    rsync = tunnel_programs.rsync()
    with tunnel_programs.shell(
        address, folder=tmp_path, proxy=f"hbone {HOST}:443/_hbone/22", variables=rsync.environment
    ) as running:
        yield running


def test_ssh_carries_both_ways_at_once_and_tells_the_end_and_the_status(shell: Shell, trust: Mapping[str, str]) -> None:
    where = f"{shell.user}@{shell.host}"
    assert hashlib.sha256(run(*shell.command, where, "cat", data=RANDOM, **trust)).hexdigest() == DIGEST
    argv = [*shell.command, where, "cat >/dev/null; echo all of it; exit 7"]
    done = subprocess.run(
        argv, input=RANDOM, capture_output=True, env=processes.environment(**trust), timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (7, b"all of it\n")


def test_rsync_copies_a_tree_there_and_back(shell: Shell, trust: Mapping[str, str], tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "below").mkdir(parents=True)
    (here / "large").write_bytes(RANDOM)
    for number in range(50):
        (here / "below" / str(number)).write_bytes(RANDOM[number : number + 1000])
    rsync = tunnel_programs.rsync()
    there = f"{shell.user}@{shell.host}:{tmp_path}/there/"
    argv = [rsync.path, "-a", "-e", shell.remote_shell, f"--rsync-path={rsync.path}"]
    run(*argv, f"{here}/", there, **trust, **rsync.environment)
    run(*argv, there, f"{back}/", **trust, **rsync.environment)
    assert contents(back) == contents(here)


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_git_clones_and_pushes(shell: Shell, trust: Mapping[str, str], tmp_path: Path) -> None:
    git = components.program("git", package="git")
    me = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_SSH_COMMAND": shell.remote_shell}
    for role in ("AUTHOR", "COMMITTER"):
        me |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": "a@b.example"}
    origin, clone = tmp_path / "origin.git", tmp_path / "clone"
    run(git, "init", "-q", "--bare", "-b", "main", str(origin))
    run(git, "init", "-q", "-b", "main", str(tmp_path / "first"), **me)
    (tmp_path / "first" / "large").write_bytes(RANDOM)
    for words in (["add", "large"], ["commit", "-q", "-m", "one"], ["push", "-q", str(origin), "main"]):
        run(git, *words, cwd=tmp_path / "first", **me)
    there = f"ssh://{shell.user}@{shell.host}{origin}"
    run(git, "clone", "-q", there, str(clone), **trust, **me)
    assert hashlib.sha256((clone / "large").read_bytes()).hexdigest() == DIGEST
    (clone / "large").write_bytes(RANDOM[::-1])
    run(git, "commit", "-q", "-a", "-m", "two", cwd=clone, **me)
    run(git, "push", "-q", cwd=clone, **trust, **me)
    assert run(git, "show", "main:large", cwd=origin) == RANDOM[::-1]


if os.geteuid() == 0:  # its daemon is started in a namespace of its own

    @pytest.mark.netns
    def test_ssh_to_openssh_itself(tls: None, address: str, trust: Mapping[str, str], tmp_path: Path) -> None:
        with bench_tunnel_ssh.server(address=address, folder=tmp_path / "sshd") as sshd:
            argv = sshd.command("-o", f"ProxyCommand=hbone https://{HOST}/_hbone/2222")
            assert hashlib.sha256(run(*argv, "cat", data=RANDOM, **trust)).hexdigest() == DIGEST


def test_redis_by_forward_and_by_stdin(address: str) -> None:
    tunnel = url(address, "6379")
    with (
        tunnel_programs.redis(address) as cli,
        server(address, KRUN_OFFER="6379"),
        forward(address, tunnel) as (_, port),
    ):
        argv = [cli.path, "-h", address, "-p", str(port)]
        assert run(*argv, "-x", "set", "key", data=RANDOM, **cli.environment) == b"OK\n"
        assert hashlib.sha256(run(*argv, "get", "key", **cli.environment)[:-1]).hexdigest() == DIGEST
        done = pipe(tunnel, data=b"strlen key\r\nquit\r\n")
        assert (done.returncode, done.stdout) == (0, b":%d\r\n+OK\r\n" % len(RANDOM))


if mesh_postgres.PROGRAMS:

    def test_psql_by_forward(address: str) -> None:
        rows = b"".join(
            b"%d\t%s\n" % (number, RANDOM[number : number + 100].hex().encode()) for number in range(10_000)
        )
        with (
            tunnel_programs.postgres(address),
            server(address, KRUN_OFFER="5432"),
            forward(address, url(address, "5432")) as (_, port),
        ):
            psql = [*mesh_postgres.psql(address, port=port), "-qAtc"]
            run(*psql, "create table t (n int primary key, v text)")
            run(*psql, "copy t from stdin", data=rows)
            assert run(*psql, "copy (select * from t order by n) to stdout") == rows
