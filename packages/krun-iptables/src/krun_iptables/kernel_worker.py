"""Work in several steps that a SIGKILL does not leave half done: a second process does it, and this one watches.

When this process is killed, the other one goes on; when the other one is, or its program, this one mends. Only when
both are killed at once is something left, which the next run puts right.
"""

from __future__ import annotations

import marshal
import os

from krun_iptables import errors
from krun_iptables.errors import Failure, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], tuple[str, str]]


def watched(work: Work, *, mend: Callable[[], None]) -> tuple[str, str]:
    """Do the work, and return what it returns.

    Raises:
        Failure: what the work raised, after its own mending.
        Unreachable: it was killed, and is mended.
    """
    reads, writes = os.pipe()
    # Programs that it starts hold the pipe as well: it ends when the last one of them has.
    os.set_inheritable(writes, True)
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        _worker(work, writes)
    os.close(writes)
    report = b""
    while part := os.read(reads, 1 << 16):
        report += part
    os.close(reads)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
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
        os.write(writes, marshal.dumps(report))
        status = errors.Exit.OK
    except Exception:  # noqa: BLE001 - the outermost frame of this process
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)
