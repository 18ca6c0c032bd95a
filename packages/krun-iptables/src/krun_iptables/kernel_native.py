"""The way to bring rules in by nft's own tables; of iptables' modules it loads those alone that it finds rules for."""

from __future__ import annotations

from krun_iptables import kernel_state, nft, nft_state
from krun_iptables.errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from krun_iptables.kernel_before import Before
    from krun_iptables.nft_waiting import Waiting
    from krun_iptables.rule import Rule


class ByNft:
    """nft's own rules: one transaction. What any kind of iptables holds of ours goes after it."""

    name = "nft"

    def __init__(self, rules: Sequence[Rule], *, waiting: Waiting) -> None:
        self.rules = rules
        self.waiting = waiting
        nft_state.program()  # Denied when it is not there

    def is_done(self, before: Before) -> bool:
        """Whether all is there already, and nothing else of ours."""
        return not (before.holders or before.hidden) and nft_state.is_held(
            kernel_state.numbered(self.rules), listing=before.native
        )

    def steps(self, before: Before) -> int:
        """How many transactions it takes."""
        return 1 + sum(len(before.state(one).tables) for one in before.holders) + len(before.hidden)

    def make(self, before: Before, *, force: bool) -> str:
        """Do it; returns the tool. Raises a Failure when something was left undone."""
        if before.native or not self._create():
            nft_state.put(nft.replace(self.rules), waiting=self.waiting)
        for one in before.holders:
            one.put(before.removal(one))
        for hidden in before.hidden:
            nft_state.put(hidden.clear())
        return self.name

    def _create(self) -> bool:
        """Do it where nothing of ours is. Returns whether that was so: another program may have been there first."""
        try:
            nft_state.put(nft.create(self.rules), waiting=self.waiting)
        except Unreachable:
            return False  # if it is for another reason, replacing fails for it too
        return True
