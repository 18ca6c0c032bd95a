"""krun-iptables is killed at any step, or a step fails: what is left is a whole set of rules, and is mended."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, kernel_rules, namespaces, processes
from krun_testbed.kernel_rules import SETTINGS, WAYS, Held, held
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns

# Stands in PATH before the real program, by its name; at the step that is asked for, it ends who called it.
STEP = """\
#!/bin/sh
name=${0##*/}
read -r steps <"$FOLDER/steps"
steps=$((steps + 1))
echo "$steps" >"$FOLDER/steps"
PATH=$REST
[ "$steps" = "$AT" ] || exec "$name" "$@"
read -r command <"$FOLDER/command"
end() {
    case $WHO in
    caller) kill -KILL "$PPID" ;;
    command) kill -KILL "$command" ;;
    both) kill -KILL "$command" "$PPID" ;;
    esac
}
case $WHEN in
before) end ;;
during) end && "$name" "$@" ;;
after) "$name" "$@" && end ;;
fails) exit 4 ;;
esac
: >"$FOLDER/ended"
"""
NAMES = [*kernel_rules.PROGRAMS, "iptables", "ip6tables"]
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
ENOUGH = 60  # steps; more is a loop without end


class Steps:
    """A folder of programs, for PATH, that count the steps of krun-iptables and disturb one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ["nft", *(f"{name}{what}" for name in NAMES for what in ("", "-save", "-restore"))]:
            path = folder / name
            path.write_text(STEP)
            path.chmod(0o755)

    def run(
        self, where: Namespace, *arguments: str, at: int, when: str, who: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the command, disturbed at a step; the first is 1. All of it has ended then."""
        rest = processes.environment()["PATH"]
        ended = self.folder / "ended"
        ended.unlink(missing_ok=True)
        (self.folder / "steps").write_text("0\n")
        env = processes.environment(
            PATH=f"{self.folder}:{rest}", REST=rest, FOLDER=str(self.folder), AT=str(at), WHEN=when, WHO=who
        )
        noted = 'echo $$ >"$FOLDER/command" && exec "$@"'
        done = where.run("sh", "-c", noted, "sh", components.command("krun-iptables"), *arguments, env=env)
        if self.count >= at and when != "fails":
            # A program outlives the one that started it.
            processes.wait_until(ended.exists, what=f"step {at} ends")
        # So does who works for the command: it holds the lock, which is the namespace itself.
        with Path(f"/proc/{where.pid}/ns/net").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        return done

    @property
    def count(self) -> int:
        """How many there were in the last run."""
        return int((self.folder / "steps").read_text())


@pytest.fixture
def workload() -> Iterator[Namespace]:
    """A network namespace with addresses of both families, and other people's rules."""
    if os.geteuid() != 0:
        pytest.skip("rules name users that only root can be: run the tests as root")
    with namespaces.namespace() as own:
        for address in kernel_rules.ADDRESSES:
            own.must("ip", "address", "add", address, "dev", "lo")
        kernel_rules.add_others(own)
        yield own


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return WAYS[request.param]


def run(where: Namespace, *arguments: str) -> Held:
    done = where.run(components.command("krun-iptables"), *arguments)
    assert done.returncode == 0, done.stderr
    return held(where)


def is_whole(now: Held, *sets: Held) -> bool:
    """Tell whether each family is as in one of these, with the routes that its rules need."""
    if not all(now.ours.get(name, "") in [one.ours.get(name, "") for one in sets] for name in ALL):
        return False
    # TPROXY's rules without its routes lead into nothing; routes without rules do nothing.
    needed = [one.routes for one in sets if any(now.ours.get(name) and "TPROXY" in now.ours[name] for name in now.ours)]
    return not needed or now.routes == max(needed, key=len)


ALL = (*kernel_rules.PROGRAMS, "native")


def apply(way: tuple[str, ...], name: str) -> list[str]:
    return ["istio-iptables", *way, *SETTINGS[name]]


# When in a step, and who is ended: the caller of the program (who may work for the command), the command, or both.
DISTURBANCES = [
    ("before", "caller"),
    ("during", "both"),
    ("after", "command"),
    ("during", "caller"),
    ("after", "both"),
    ("during", "command"),
    ("after", "caller"),
]


def disturbances(at: int) -> list[tuple[str, str]]:
    """All of them at each step when there is time, else two at each, so that each has its turn."""
    first = 2 * at % len(DISTURBANCES)
    return DISTURBANCES if os.environ.get("KRUN_SOAK") else [*DISTURBANCES, *DISTURBANCES][first : first + 2]


@pytest.mark.parametrize("old", ["", "dns"])
def test_a_run_that_is_killed_leaves_a_whole_set_of_rules(
    workload: Namespace, steps: Steps, way: tuple[str, ...], old: str
) -> None:
    nothing = held(workload)
    new = run(workload, *apply(way, "tproxy"))
    undo = apply(way, old) if old else ["--remove"]
    before = run(workload, *undo)
    for at in range(1, ENOUGH):
        for when, who in disturbances(at):
            done = steps.run(workload, *apply(way, "tproxy"), at=at, when=when, who=who)
            left = held(workload)
            assert is_whole(left, nothing, before, new), (at, when, who, left.ours, left.routes)
            assert left.others == nothing.others, (at, when, who)
            if done.returncode not in KILLED:
                wanted = new if done.returncode == 0 else before
                assert done.returncode in (0, 69), done.stderr
                assert (left.ours, left.routes) == (wanted.ours, wanted.routes), (at, when, who)
            # The next run mends it, whatever it is for.
            again = run(workload, *undo)
            assert (again.ours, again.routes, again.others) == (before.ours, before.routes, nothing.others)
        if steps.count < at:
            break
    assert at > 1


def test_a_removal_that_is_killed_leaves_a_whole_set_of_rules(
    workload: Namespace, steps: Steps, way: tuple[str, ...]
) -> None:
    nothing = held(workload)
    before = run(workload, *apply(way, "tproxy"))
    for at in range(1, ENOUGH):
        for when, who in disturbances(at):
            done = steps.run(workload, "--remove", at=at, when=when, who=who)
            left = held(workload)
            assert is_whole(left, nothing, before), (at, when, who, left.ours, left.routes)
            assert left.others == nothing.others, (at, when, who)
            if done.returncode not in KILLED:
                wanted = nothing if done.returncode == 0 else before
                assert done.returncode in (0, 69), done.stderr
                assert (left.ours, left.routes) == (wanted.ours, wanted.routes), (at, when, who)
            again = run(workload, *apply(way, "tproxy"))
            assert (again.ours, again.routes, again.others) == (before.ours, before.routes, nothing.others)
        if steps.count < at:
            break
    assert at > 1


@pytest.mark.parametrize("old", ["", "dns"])
def test_a_step_that_fails_leaves_both_families_as_they_were(
    workload: Namespace, steps: Steps, way: tuple[str, ...], old: str
) -> None:
    undo = apply(way, old) if old else ["--remove"]
    before = run(workload, *undo)
    for at in range(1, ENOUGH):
        done = steps.run(workload, *apply(way, "redirect"), at=at, when="fails")
        if done.returncode:
            assert done.returncode in (69, 77), done.stderr
            assert len(done.stderr.splitlines()) == 2, done.stderr
            left = held(workload)
            assert (left.ours, left.routes, left.others) == (before.ours, before.routes, before.others), at
        else:
            # Not every step is needed: a program that does not work is not the one that is taken.
            run(workload, *undo)
        if steps.count < at:
            break
    assert at > 1
