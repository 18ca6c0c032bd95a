"""Brings the decided rules into the kernel, and takes them away, so that a failure or a kill leaves a whole set.

nft's own rules are one transaction. Those of iptables are one a table and family: when there is more than one to do,
another process does them (``kernel_worker``), and when one fails those before it are undone (``kernel_before``).
"""

from __future__ import annotations

from krun_iptables import kernel_before, kernel_state, nft, nft_state
from krun_iptables import routes as routing
from krun_iptables.errors import Denied, Failure
from krun_iptables.kernel_place import Alone
from krun_iptables.kernel_program import AUTO, LEGACY, PERMISSION_HINT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from krun_iptables.kernel_before import Before
    from krun_iptables.kernel_iptables import ByIptables
    from krun_iptables.kernel_native import ByNft
    from krun_iptables.nft_waiting import Waiting
    from krun_iptables.routes import Routes
    from krun_iptables.rule import Rule


def apply(
    *,
    rules: Sequence[Rule],
    routes: Routes,
    ipv6: bool,
    native: Waiting | None = None,
    force_binary: str = "",
    force: bool = False,
    reconcile: bool = False,
    namespace: str = "",
    cni: bool = False,
) -> tuple[str, str, tuple[str, ...]]:
    """Leave exactly these rules of ours in the kernel, and the routes that go with them.

    ``native``: by nft's own tables, through this nft. ``force_binary``: the kind of iptables, when it is not to be
    chosen. ``force``: also when they are there already. ``reconcile``: nothing goes in or out while other rules of ours
    are replaced. Returns what was done ("applied", "unchanged"), the tool that did it, and why another could not be
    asked for rules of ours. When it raises, what was there before is there again.

    Raises:
        Denied: the tool is not there, or it is not permitted.
        Unreachable, DeadlinePassed, Misconfigured: it failed otherwise.
    """
    with Alone(namespace=namespace, cni=cni):
        seen = kernel_state.seen()
        change: ByNft | ByIptables
        # Each late: the other one is not needed.
        if native:
            from krun_iptables.kernel_native import ByNft

            change = ByNft(rules, waiting=native)
        else:
            from krun_iptables.kernel_iptables import ByIptables

            kind, families = force_binary or AUTO, (4, 6) if ipv6 else (4,)
            change = ByIptables(rules, families=families, seen=seen, kind=kind, is_guarded=reconcile)  # type: ignore[arg-type]
        before = kernel_before.look(seen)
        is_done = not force and change.is_done(before)
        steps = 0 if is_done else change.steps(before)
        if native and steps > 1:
            native.close()  # the process that takes several steps starts its own

        def work() -> tuple[str, str]:
            routing.add(routes)
            source = change.name if is_done else change.make(before, force=force)
            routing.remove(before.routes, but=routes)
            return "unchanged" if is_done else "applied", source

        return *_whole(work, before, steps=steps), before.refused


def remove(*, kind: str = AUTO, namespace: str = "", cni: bool = False) -> tuple[str, str, tuple[str, ...]]:
    """Take all of ours out of the kernel, whoever applied it and with what settings.

    ``kind``: only from one kind of iptables; nft's own tables are of the kind nft. Returns what was done ("removed",
    "not there"), the tools that did it, and why another could not be asked for rules of ours. When it raises, what was
    there before is there again.

    Raises:
        Denied: it is not permitted.
        Unreachable, DeadlinePassed, Misconfigured: it failed otherwise.
    """
    with Alone(namespace=namespace, cni=cni):
        before = kernel_before.look(kernel_state.seen())
        if before.refused and before.is_empty:
            raise Denied(f"rules cannot be removed: {'; '.join(before.refused)}", hint=PERMISSION_HINT)
        holders = [one for one in before.holders if kind in (AUTO, one.kind)]
        native = before.native if kind != LEGACY else ""
        hidden = before.hidden if kind != LEGACY else ()
        is_all = hidden == before.hidden and native == before.native and len(holders) == len(before.holders)

        def work() -> tuple[str, str]:
            if native:
                nft_state.put(nft.clear(nft.TABLES))
            for one in holders:
                one.put(before.removal(one))
            for table in hidden:
                nft_state.put(table.clear())
            # Last: rules without them would lead packets into nothing.
            removed = is_all and routing.remove(before.routes)
            names = [*(["nft"] if native or hidden else []), *(one.name for one in holders)]
            return "removed" if names or removed else "not there", " ".join(names)

        steps = bool(native) + len(hidden) + sum(len(before.state(one).tables) for one in holders)
        return *_whole(work, before, steps=steps), before.refused


def _whole(work: Callable[[], tuple[str, str]], before: Before, *, steps: int) -> tuple[str, str]:
    """Do all of it, or nothing."""

    def mend() -> None:
        # A failure of this one would hide the one that it is about.
        try:  # noqa: SIM105 - contextlib is slow to import
            kernel_before.bring_back(before)
        except Failure:
            pass

    def carefully() -> tuple[str, str]:
        try:
            return work()
        except Failure:
            mend()
            raise

    if steps < 2:
        return carefully()
    from krun_iptables import kernel_worker  # late: most starts take one step

    return kernel_worker.watched(carefully, mend=mend)
