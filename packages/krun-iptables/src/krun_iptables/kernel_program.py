"""Runs a program of the kernel's tools to its end, within a limit.

Not by subprocess: importing that takes longer than most of these programs run.
"""

from __future__ import annotations

import os
import select
import time

from krun_iptables.errors import DeadlinePassed, Denied, Failure, Unreachable
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

AUTO, LEGACY, NFT = "auto", "legacy", "nft"  # kinds of iptables
LOCK_WAIT = 5  # seconds for the lock that programs of this family share
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of root, where none is given
KILL = 9  # SIGKILL
TIMEOUT = 15.0  # seconds for one of them, the lock included
SHORTEST, LONGEST = 0.0001, 0.05  # seconds between two looks at whether one has ended
PERMISSION_HINT = "give the container NET_ADMIN and root (docker run --cap-add NET_ADMIN), or run without interception"

# What the programs say when the kernel will not have it, whoever asks: iptables 1.8.x of both kinds and nft 1.0, on
# Linux and on gVisor.
REFUSED = (
    r"permission denied|operation not permitted|must be root"
    r"|table does not exist|unable to initialize table|can't initialize ip6?tables table"
    r"|failed to initialize nft|protocol not (?:supported|available)|getsockopt failed strangely"
    r"|missing kernel module|_(?:ADD|APPEND|FLUSH) failed \((?:no such file|invalid argument|operation not supported)"
    r"|could not process rule: (?:no such file|operation not supported|invalid argument)"
)


class Done(Record):
    """How a program ended; ``status`` below 0 is the signal that ended it."""

    status: int
    said: str  # on stdout
    complained: str  # on stderr


def find(name: str) -> str:
    """The path of a program in PATH, or nothing."""
    for folder in os.environ.get("PATH", USUAL_PATH).split(os.pathsep):  # os.get_exec_path imports warnings
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112 - pathlib is slow to import
            return path
    return ""


class Program:
    """One that runs; ``finish`` waits for its end. Whoever does neither finish nor close it leaves it to the kernel."""

    def __init__(self, argv: Sequence[str], *, stdin: int, more: Sequence[int] = ()) -> None:
        """Start it; ``more`` are files that it gets as its descriptors from 3 on. Raises Unreachable."""
        self.name = argv[0]
        self._files: list[int] = []
        try:
            self._stderr = self._kept(os.memfd_create("stderr"))
            self._stdout, writes = map(self._kept, os.pipe())
            files = (stdin, writes, self._stderr, *more)
            places = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(files)]
            # Its messages are read. A group of its own, so that what a script has started ends with it.
            environment = {**os.environ, "LC_ALL": "C"}
            self._pid = os.posix_spawn(argv[0], list(argv), environment, file_actions=places, setpgroup=0)
        except OSError as error:
            self.close()
            raise not_started(argv[0], error) from None
        self._files.remove(writes)
        os.close(writes)

    def _kept(self, file: int) -> int:
        self._files.append(file)
        return file

    def finish(self) -> Done:
        """Wait for its end. Raises DeadlinePassed."""
        try:
            said, status = _until_end(self._stdout, pid=self._pid, name=self.name)
            os.lseek(self._stderr, 0, os.SEEK_SET)
            complained = os.read(self._stderr, 1 << 20)
        finally:
            self.close()
        # Rules of others may hold any bytes, and go back as they came.
        return Done(
            status=status,
            said=said.decode(errors="surrogateescape"),
            complained=complained.decode(errors="replace"),
        )

    def close(self) -> None:
        """Close what is read of it."""
        while self._files:
            os.close(self._files.pop())


def run(argv: Sequence[str], text: str = "") -> Done:
    """Run it, with a text as its stdin.

    Raises:
        DeadlinePassed, Unreachable: it has not ended in time, or cannot be started.
    """
    stdin = -1
    try:
        stdin = os.memfd_create("text")
        fill(stdin, text)
        program = Program(argv, stdin=stdin)
    except OSError as error:
        raise not_started(argv[0], error) from None
    finally:
        if stdin >= 0:
            os.close(stdin)
    return program.finish()


def not_started(name: str, error: OSError) -> Unreachable:
    """The failure that it is."""
    return Unreachable(f"{name} cannot be started: {error.strerror}", hint="is the package whole?")


def fill(file: int, text: str) -> None:
    """Write a text into an empty file, and go back to its start. Raises OSError."""
    os.write(file, text.encode(errors="surrogateescape"))
    os.lseek(file, 0, os.SEEK_SET)


def _until_end(stdout: int, *, pid: int, name: str) -> tuple[bytes, int]:
    """All that it writes, and its exit status."""
    poll = select.poll()
    poll.register(stdout, select.POLLIN)
    end = time.monotonic() + TIMEOUT
    parts: list[bytes] = []
    while poll.poll(max(0.0, end - time.monotonic()) * 1000):
        part = os.read(stdout, 1 << 16)
        if not part:
            status = _status(pid, end=end)
            if status is not None:
                return b"".join(parts), status
            break
        parts.append(part)
    os.killpg(pid, KILL)
    os.waitpid(pid, 0)
    raise DeadlinePassed(f"{name} has not ended within {TIMEOUT:g} s")


def _status(pid: int, *, end: float) -> int | None:
    """How it ended; None when it has not in time. It may go on long after it has closed its stdout."""
    pause = SHORTEST
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = min(2 * pause, LONGEST)


def must(argv: Sequence[str], text: str = "") -> str:
    """The same for a program that may not fail; returns its stdout.

    Raises:
        Denied: the kernel will not have it.
        DeadlinePassed, Unreachable: it failed otherwise; nothing of its text was done.
    """
    done = run(argv, text)
    if done.status:
        raise failure(argv[0], done=done, text=text)
    return done.said


def failure(program: str, *, done: Done, text: str = "") -> Failure:
    """What a failed program means, by what it said on stderr, with the line of the text that it names."""
    import re  # late: nothing failed so far

    name = program.rpartition("/")[2]
    if done.status < 0:
        return Unreachable(f"{name} was ended by signal {-done.status}", hint="was there enough memory?")
    said = (line for line in done.complained.splitlines() if not line.startswith(("Try ", "#")))
    words = " ".join(" ".join(said).split())
    words = re.sub(r"^ip[\w-]+( v[\w.]+ \(\w+\))?: ", "", words) or "it said nothing"
    number = re.search(r"line:? (\d+)|^/dev/stdin:(\d+):", words)
    lines = text.splitlines()
    line = int(number[1] or number[2]) if number else 0
    named = lines[line - 1] if 0 < line <= len(lines) else ""
    shown = f"{name}: {words}" + (f": {named!r}" if named else "")
    # The old kind says no reason when the kernel refuses the whole table, which is at its COMMIT.
    if re.search(REFUSED, words, re.IGNORECASE) or (named == "COMMIT" and words.endswith("failed")):
        return Denied(shown, hint=PERMISSION_HINT)
    if "xtables lock" in words:
        return DeadlinePassed(f"{shown}: waited {LOCK_WAIT} s", hint="another program changes rules: try again")
    return Unreachable(shown, hint="krun-iptables --dry-run prints all of it; nothing was changed")
