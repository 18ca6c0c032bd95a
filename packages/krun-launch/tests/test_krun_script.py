"""The entrypoint ``krun``: its own file, under every shell that images have, with the real tools beside it.

Where a test needs a tool to fail in a chosen way, a script stands in for it and keeps to the same argv, streams and
status.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from krun_testbed import components, installed, namespaces, processes, tables

pytestmark = pytest.mark.loopback

SCRIPT = tables.ROOT / "packages" / "krun-launch" / "scripts" / "krun"
HINT = "hint: its message is above; the application was not started"
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "sh": []}
# A krun-launch that takes every step before the plan, and then says what it is going to plan with: the real one would
# need a mesh to go on.
ENTERS = f"""#!{sys.executable}
import os
from krun_launch import errors
from krun_launch.entry import Entry, Interrupted
from krun_launch.facts import Facts
from krun_launch.signals import Signals

def start():
    with Signals() as arriving:
        entry = Entry(os.environ, signals=arriving)
        found = {{**entry.discover(timeout=30), **os.environ}}
        facts = Facts(envoy="/bin/true", cannot_switch="", cannot_capture="")
        try:
            known = entry.intercept(found, facts=facts)
        except Interrupted as interrupted:
            return 128 + interrupted.number
    print("launched", *(f"{{name}}={{value}}" for name, value in known.items()))
    return 0

errors.run_plain(start, tool="krun-launch")
"""


class Image:
    """A folder of commands as an image has it: ``krun``, and the tools that were picked."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.temporary = folder / "temporary"
        self.bin.mkdir()
        self.temporary.mkdir()
        shutil.copy(SCRIPT, self.bin)

    def pick(self, *tools: str) -> Image:
        for tool in tools:
            (self.bin / tool).symlink_to(components.command(tool))
        return self

    def stand_in(self, tool: str, text: str) -> Image:
        return self.write(tool, f"#!/bin/sh\n{text}\n")

    def write(self, tool: str, text: str) -> Image:
        path = self.bin / tool
        path.write_text(text)
        path.chmod(0o755)
        return self

    def argv(self, *arguments: str, shell: Sequence[str] = ()) -> list[str]:
        return [*shell, str(self.bin / "krun"), *arguments]

    def env(self, **variables: str) -> dict[str, str]:
        path = f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"
        own = {"PATH": path, "TMPDIR": str(self.temporary), "KRUN_LOG_FORMAT": "text", "KRUN_MODE": "none"}
        return processes.environment(**{**own, **variables})

    def run(self, *arguments: str, shell: Sequence[str] = (), stdin: str = "", **variables: str) -> Done:
        done = processes.run(self.argv(*arguments, shell=shell), env=self.env(**variables), stdin=stdin)
        assert list(self.temporary.iterdir()) == []
        return done


Done = subprocess.CompletedProcess[str]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """krun alone."""
    return Image(tmp_path)


@pytest.fixture
def whole(image: Image) -> Image:
    """krun and the three tools that it starts."""
    return image.pick("krun-discover", "krun-iptables", "krun-launch")


@pytest.fixture
def capturing(image: Image) -> Image:
    """krun, and a krun-launch that says what came of the steps before its plan."""
    return image.pick("krun-discover").write("krun-launch", ENTERS)


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_the_application_gets_its_arguments_its_stdin_and_what_was_found(whole: Image, shell: str) -> None:
    says = 'cat; printf "<%s>" "$@" "$WORKLOAD_NAMESPACE"; exit 7'
    arguments = ("sh", "-c", says, "sh", "two words", "", "--flag", "$HOME")
    done = whole.run(*arguments, shell=SHELLS[shell], stdin="typed ", PROJECT_ID="mesh-demo-7")
    assert done.returncode == 7, done.stderr
    assert done.stdout == "typed <two words><><--flag><$HOME><demo>"


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_it_becomes_krun_launch_and_leaves_no_process_between(whole: Image, shell: str) -> None:
    argv = whole.argv("--", "sh", "-c", 'echo "below $PPID"; cat /proc/$PPID/comm', shell=SHELLS[shell])
    with processes.start(argv, env=whole.env()) as running:
        assert running.wait() == 0
        assert running.stdout == f"below {running.pid}\nkrun-launch\n"


def test_the_application_holds_no_descriptor_of_ours(whole: Image) -> None:
    done = whole.run(sys.executable, "-I", "-c", "import os; print(sorted(os.listdir('/proc/self/fd'))[:-1])")
    assert (done.returncode, done.stdout) == (0, "['0', '1', '2']\n")


def test_version_is_krun_launchs(whole: Image) -> None:
    done = whole.run("--version")
    assert (done.returncode, done.stdout) == (0, "krun-launch 0.1.0\n")


def test_a_discovery_that_fails_ends_the_start_with_its_status_and_message(whole: Image) -> None:
    done = whole.run("echo", "started", MESH="nonsense:")
    assert (done.returncode, done.stdout) == (78, "")
    first, *_, last, hint = done.stderr.splitlines()
    assert first.startswith("krun-discover: error: ")
    assert (last, hint) == ("krun-launch: error: krun-discover ended with 78", HINT)


def test_a_discovery_by_root_is_of_the_group_that_is_not_intercepted(image: Image) -> None:
    image.pick("krun-launch").stand_in("krun-discover", 'echo "group $(id -g)" >&2; echo "{}"')
    done = image.run("true")
    assert done.stderr.splitlines()[0] == f"group {1337 if os.geteuid() == 0 else os.getegid()}"


@pytest.mark.parametrize(("does", "status"), [("kill -KILL $$", 137), ("exec >&-; exec sleep 60", 143)])
def test_a_discovery_that_is_killed_or_says_nothing_and_stays_is_ended_and_named(
    image: Image, does: str, status: int
) -> None:
    image.pick("krun-launch").stand_in("krun-discover", does)
    done = image.run("echo", "started")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == f"krun-launch: error: krun-discover ended with {status}\n{HINT}\n"


def test_what_is_no_environment_ends_the_start_and_the_discovery(image: Image) -> None:
    image.pick("krun-launch").stand_in("krun-discover", 'echo "pid $$" >&2; echo nonsense; exec sleep 60')
    done = image.run("echo", "started")
    assert (done.returncode, done.stdout) == (65, "")
    assert "krun-launch: error: environment from krun-discover: not a JSON object\n" in done.stderr
    first = done.stderr.splitlines()[0].split()
    assert not Path("/proc", first[1]).exists()


def test_a_discovery_that_does_not_end_is_given_up_in_time(image: Image) -> None:
    image.pick("krun-launch").stand_in("krun-discover", "trap '' TERM; sleep 60 & wait; wait")
    done = image.run("echo", "started", KRUN_ENV_TIMEOUT="0.2")
    assert (done.returncode, done.stdout) == (75, "")
    assert "environment from krun-discover: nothing came within 0.2 s" in done.stderr


def test_without_krun_discover_the_environment_is_what_is_set(tmp_path: Path) -> None:
    with installed.environment("krun-launch") as alone:
        argv = [alone.command("krun"), "sh", "-c", 'echo "${PORT_http-unset}"']
        done = processes.run(argv, env=processes.environment(PATH="/usr/bin:/bin", KRUN_MODE="none"))
    assert (done.returncode, done.stdout) == (0, "unset\n")


def test_without_krun_launch_it_says_so(image: Image) -> None:
    done = image.pick("krun-discover").run("echo", "started")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "krun: error: krun-launch: not found\nhint: install krun-launch\n"


def test_help_is_on_stdout_and_another_flag_is_wrong_usage(image: Image) -> None:
    done = image.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: krun ")
    done = image.run("--mode", "none", "echo")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("krun: error: no such option: --mode\nhint: ")


@pytest.mark.parametrize("shell", sorted(SHELLS))
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_it_discovers_ends_the_start_and_what_was_started(
    image: Image, shell: str, number: int, status: int
) -> None:
    image.pick("krun-launch").stand_in("krun-discover", 'echo "pid $$" >&2; exec sleep 60')
    with processes.start(image.argv("echo", "started", shell=SHELLS[shell]), env=image.env()) as running:
        below = int(running.wait_for(r"^pid (\d+)$")[1])
        running.signal(number)
        assert running.wait() == status
        assert running.stdout == ""
    assert not Path(f"/proc/{below}").exists()
    assert list(image.temporary.iterdir()) == []


# Interception


@pytest.mark.parametrize("shell", sorted(SHELLS))
@pytest.mark.parametrize(("status", "word"), [(0, "redirect"), (77, "none")])
def test_what_krun_iptables_could_do_is_told_to_krun_launch(
    capturing: Image, shell: str, status: int, word: str
) -> None:
    capturing.stand_in("krun-iptables", f'echo "told $OUTBOUND_IP_RANGES_INCLUDE"; exit {status}')
    done = capturing.run("app", shell=SHELLS[shell], KRUN_MODE="captured")
    # What krun-iptables is told is its own business: neither krun-launch nor the application sees it.
    assert (done.returncode, done.stdout) == (0, f"launched KRUN_INTERCEPTION={word}\n")
    assert done.stderr == "told 240.240.0.0/16\n"


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_words_that_may_be_the_applications_own_do_not_turn_interception_off(capturing: Image, shell: str) -> None:
    names = {"DRY_RUN": "1", "PROBE_TIMEOUT": "10", "CLEANUP_ONLY": "true", "SKIP_RULE_APPLY": "true"}
    capturing.stand_in(
        "krun-iptables", 'env | grep -E "^(DRY_RUN|PROBE_TIMEOUT|CLEANUP_ONLY|SKIP_RULE_APPLY)="; exit 0'
    )
    done = capturing.run("app", shell=SHELLS[shell], KRUN_MODE="captured", **names)
    assert (done.returncode, done.stdout, done.stderr) == (0, "launched KRUN_INTERCEPTION=redirect\n", "")


@pytest.mark.parametrize("status", [1, 69, 70, 78, 126])
def test_any_other_status_of_krun_iptables_ends_the_start_with_it(capturing: Image, status: int) -> None:
    capturing.stand_in("krun-iptables", f"exit {status}")
    done = capturing.run("app", KRUN_MODE="captured")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == f"krun-launch: error: krun-iptables ended with {status}\n{HINT}\n"


@pytest.mark.parametrize("mode", ["auto", "none", "whitebox"])
def test_no_rule_is_touched_where_none_are_wanted(capturing: Image, mode: str) -> None:
    capturing.stand_in("krun-iptables", "echo touched >&2; exit 70")
    done = capturing.run("app", KRUN_MODE=mode)
    assert (done.returncode, done.stdout, done.stderr) == (0, "launched\n", "")


@pytest.mark.parametrize("word", ["redirect", "none"])
def test_no_rule_is_touched_where_the_user_has_seen_to_them(capturing: Image, word: str) -> None:
    capturing.stand_in("krun-iptables", "echo touched >&2; exit 70")
    done = capturing.run("app", KRUN_MODE="captured", KRUN_INTERCEPTION=word)
    assert (done.returncode, done.stdout, done.stderr) == (0, "launched\n", "")


@pytest.mark.parametrize("shell", sorted(SHELLS))
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_rules_are_applied_ends_that_and_the_start(
    capturing: Image, shell: str, number: int, status: int
) -> None:
    capturing.stand_in("krun-iptables", 'echo "pid $$" >&2; exec sleep 60')
    with processes.start(
        capturing.argv("app", shell=SHELLS[shell]), env=capturing.env(KRUN_MODE="captured")
    ) as running:
        below = int(running.wait_for(r"^pid (\d+)$")[1])
        running.signal(number)
        assert running.wait() == status
    assert not Path(f"/proc/{below}").exists()


def test_an_image_without_krun_iptables_leaves_the_question_open(tmp_path: Path) -> None:
    with installed.environment("krun-launch") as alone:
        (alone.folder / "krun-launch").write_text(ENTERS.replace(sys.executable, alone.command("python")))
        # A PATH that leads nowhere else: a krun-iptables of this machine would be taken, and change its rules.
        env = processes.environment(PATH=str(tmp_path), KRUN_MODE="captured")
        done = processes.run([alone.command("krun"), "app"], env=env)
    assert (done.returncode, done.stdout) == (0, "launched\n")


def test_a_mode_that_krun_launch_refuses_ends_before_any_rule(image: Image) -> None:
    image.pick("krun-discover", "krun-launch").stand_in("krun-iptables", "echo touched >&2; exit 70")
    done = image.run("echo", "started", KRUN_MODE="proxyless")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("krun-launch: error: KRUN_MODE=proxyless")
    assert "touched" not in done.stderr


def rules(where: namespaces.Namespace) -> list[str]:
    text = where.must("iptables-nft-save", "-t", "nat") + where.must("iptables-legacy-save", "-t", "nat")
    return [line for line in text.splitlines() if line.startswith("-A")]


@pytest.mark.netns
def test_a_start_that_fails_leaves_no_rule_behind(whole: Image) -> None:
    with namespaces.namespace() as own:
        for variables in ({"KRUN_MODE": "proxyless"}, {"KRUN_MODE": "captured", "MESH": "nonsense:"}):
            done = own.run(*whole.argv("echo", "started"), env=whole.env(**variables))
            assert (done.returncode, done.stdout) == (78, ""), done.stderr
            assert rules(own) == []
        # Rules that cannot be: nothing of them is there, and the start ends with the tool's status.
        (whole.bin / "krun-launch").unlink()
        whole.write("krun-launch", ENTERS)
        env = whole.env(KRUN_MODE="captured", OUTBOUND_PORTS_EXCLUDE="70000")
        done = own.run(*whole.argv("echo", "started"), env=env)
        assert (done.returncode, done.stdout) == (78, ""), done.stderr
        assert rules(own) == []


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="rules name users that only root can be: run the tests as root")
def test_real_rules_stand_before_krun_launch_starts(capturing: Image) -> None:
    capturing.pick("krun-iptables")
    env = capturing.env(KRUN_MODE="captured")
    with namespaces.namespace() as own:
        without = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", *capturing.argv("app")]
        assert own.run(*without, env=env).stdout == "launched KRUN_INTERCEPTION=none\n"
        assert rules(own) == []
        assert own.run(*capturing.argv("app"), env=env).stdout == "launched KRUN_INTERCEPTION=redirect\n"
        assert "-A OUTPUT -j ISTIO_OUTPUT" in rules(own)


@pytest.mark.netns
@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_as_pid_1_it_ends_on_sigterm_while_it_discovers_and_is_krun_launch_then(image: Image, shell: str) -> None:
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *own, "--pid", "--fork", "--mount-proc"]
    image.pick("krun-launch").stand_in("krun-discover", "echo discovers >&2; exec sleep 60")
    with processes.start([*unshare, *image.argv("app", shell=SHELLS[shell])], env=image.env()) as running:
        running.wait_for("^discovers$")
        os.kill(processes.children(running.pid)[0], signal.SIGTERM)
        assert running.wait() == 143
    image.stand_in("krun-discover", "echo '{}'")
    done = processes.run([*unshare, *image.argv("cat", "/proc/1/comm", shell=SHELLS[shell])], env=image.env())
    assert (done.returncode, done.stdout) == (0, "krun-launch\n"), done.stderr


# The file itself


def test_the_shell_scripts_are_clean() -> None:
    checker = components.program("shellcheck", package="shellcheck")
    for path in (SCRIPT, tables.ROOT / "integration" / "setup.sh"):
        done = processes.run([checker, "--shell=sh", str(path)])
        assert done.returncode == 0, done.stdout


def test_the_installed_command_is_this_file() -> None:
    assert Path(components.command("krun")).read_bytes() == SCRIPT.read_bytes()
