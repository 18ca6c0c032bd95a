"""Work in several steps that a SIGKILL does not leave half done: a second process does it, and this one watches.

When this process is killed, the other one goes on; when the other one is, or its program, this one mends. Only when
both are killed at once is something left, which the next run puts right.
"""

from __future__ import annotations

import marshal
import os
import select
import struct

from krun_iptables import errors
from krun_iptables.errors import Failure, Unreachable
from krun_iptables.kernel_program import TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], tuple[str, str]]

LENGTH = struct.Struct("=I")  # of what the worker says, before it
LOOK = 200  # milliseconds between two looks at whether the worker, which says nothing, is there


def watched(work: Work, *, mend: Callable[[], None]) -> tuple[str, str]:
    """Do the work, and return what it returns.

    Raises:
        Failure: what the work raised, after its own mending.
        Unreachable: it was killed, and is mended; or there may be no second process.
    """
    try:
        reads, writes = os.pipe()
        # Programs that it starts hold the pipe as well: it ends when the last one of them has.
        os.set_inheritable(writes, True)
        pid = os.fork()
    except OSError as error:
        raise Unreachable(f"another process cannot be started: {error.strerror}", hint="nothing was changed") from None
    if pid == 0:
        os.close(reads)
        _worker(work, writes)
    os.close(writes)
    report, status = _report(reads, pid=pid)
    os.close(reads)
    if not report:
        mend()
        why = f"by signal {-status}" if status < 0 else "early"
        raise Unreachable(f"the work was ended {why}: all is as it was before", hint="try again")
    kind, *values = marshal.loads(report)
    if kind:
        message, hint = values
        failure: type[Failure] = getattr(errors, kind)
        raise failure(message, hint=hint)
    what, source = values
    return what, source


def _report(reads: int, *, pid: int) -> tuple[bytes, int]:
    """What the worker says, and its exit status: nothing, when it was ended, and what it has started has ended too."""
    poll = select.poll()
    poll.register(reads, select.POLLIN)
    said = b""
    status: int | None = None
    while len(said) < LENGTH.size or len(said) < LENGTH.size + LENGTH.unpack_from(said)[0]:
        if not poll.poll(LOOK if status is None else TIMEOUT * 1000):
            if status is not None:
                said = b""  # what it has started goes on, beyond its limit
                break
            ended, code = os.waitpid(pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if ended else None
            continue
        part = os.read(reads, 1 << 16)
        if not part:
            said = b""
            break
        said += part
    return said[LENGTH.size :], os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if status is None else status


def _worker(work: Work, writes: int) -> None:
    """The other process, which ends here. A bug in it is shown, and nothing is reported."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    status = errors.Exit.BUG
    try:
        try:
            report = ("", *work())
        except Failure as failure:
            report = (type(failure).__name__, failure.message, failure.hint)
        said = marshal.dumps(report)
        try:  # noqa: SIM105 - contextlib is slow to import
            os.write(writes, LENGTH.pack(len(said)) + said)
        except OSError:
            pass  # who would have read it was ended: the work is done all the same
        status = errors.Exit.OK
    except Exception:  # noqa: BLE001 - the outermost frame of this process
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)
