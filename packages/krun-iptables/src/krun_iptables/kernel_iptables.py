"""The way to bring rules in by iptables: a kind of it for each family."""

from __future__ import annotations

from krun_iptables import backend as backends
from krun_iptables import guard, kernel_program, kernel_state, nft, nft_state, restore
from krun_iptables.errors import Denied
from krun_iptables.kernel_program import NFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from krun_iptables.backend import Backend
    from krun_iptables.kernel_before import Before
    from krun_iptables.kernel_hidden import Hidden
    from krun_iptables.kernel_state import Seen
    from krun_iptables.rule import Family, Rule


class ByIptables:
    """For each family the first kind of iptables that is let do it; what the others hold of ours goes."""

    def __init__(
        self, rules: Sequence[Rule], *, families: Iterable[Family], seen: Seen, kind: str, is_guarded: bool
    ) -> None:
        self.rules = {family: [rule for rule in rules if rule.family == family] for family in families}
        self.tried = {
            family: backends.some(family, kind=kind, is_legacy_used=seen.is_legacy_used(family))
            for family in self.rules
        }
        self.is_guarded = is_guarded

    @property
    def name(self) -> str:
        """The kind that is tried first."""
        return self.tried[4][0].name

    def is_done(self, before: Before) -> bool:
        """Whether all is there already, and nothing else of ours."""
        first = {backends_of[0] for backends_of in self.tried.values()}
        if set(before.holders) != first or before.native or before.hidden:
            return False
        return all(self._is_held(one, before) for one in first)

    def steps(self, before: Before) -> int:
        """How many transactions it takes, at most."""
        wanted = {(self.tried[family][0], rule.table) for family, rules in self.rules.items() for rule in rules}
        there = {(one, table) for one in before.holders for table, _ in before.state(one).tables}
        return len(wanted | there) + bool(before.native) + len(before.hidden)

    def make(self, before: Before, *, force: bool) -> str:
        """Do it; returns which kind was let do it. Raises a Failure when something was left undone."""
        guarded = self._guard(before) if self.is_guarded and not before.is_empty else []
        chosen = [self._first(family, before, force=force) for family in self.rules]
        for one in before.holders:
            if one not in chosen:
                one.put(restore.remove(before.state(one)))
            one.put(guard.down(before.saved[one]) if one not in guarded else "")
        if before.native:
            nft_state.put(nft.clear(nft.TABLES))
        for hidden in before.hidden:
            # Of a guard that was left there, too, only what leads to it: ours is up.
            nft_state.put(hidden.clear(but=(*self._chains(hidden, chosen), *([guard.CHAIN] if guarded else []))))
        for one in guarded:
            one.put(guard.GONE)
        return chosen[0].name

    def _chains(self, hidden: Hidden, chosen: Iterable[Backend]) -> tuple[str, ...]:
        """Which chains of ours have been made anew in a table."""
        is_made = any(one.kind == NFT and one.family == hidden.family for one in chosen)
        return restore.chains(self.rules[hidden.family], table=hidden.table) if is_made else ()

    def _first(self, family: Family, before: Before, *, force: bool) -> Backend:
        refusals: list[str] = []
        for one in self.tried[family]:
            if not force and self._is_held(one, before):
                return one
            try:
                one.put(restore.apply(self.rules[family], present=before.state(one)))
            except Denied as denied:
                refusals.append(denied.message)
            else:
                return one
        raise Denied(f"rules cannot be applied: {'; '.join(refusals)}", hint=kernel_program.PERMISSION_HINT)

    def _is_held(self, one: Backend, before: Before) -> bool:
        if one not in before.saved or guard.is_up(before.saved[one]):
            return False
        return kernel_state.is_held(kernel_state.numbered(self.rules[one.family]), state=before.state(one))

    def _guard(self, before: Before) -> list[Backend]:
        guarded: list[Backend] = []
        for family in self.rules:
            for one in self.tried[family]:
                try:
                    one.put(guard.down(before.saved.get(one, "")) + guard.UP)
                except Denied:
                    continue
                guarded.append(one)
                break
        return guarded
