"""The machine that a proof is carried out on: its ways, and whom it can be tried as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krun_iptables import explain_owner, explain_route, verify_owner
from krun_iptables.rule import OUT
from krun_iptables.verify_owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from krun_iptables.explain_route import Route
    from krun_iptables.packet import Address, Network
    from krun_iptables.rule import Rule

NOBODY = 65534  # what most systems call so: no proxy is it


class Machine:
    """This one. ``rules`` name owners that an application may have to be one of."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._owners = tuple(owner for owner in dict.fromkeys(_applications(rules)) if verify_owner.can_be(owner))
        self._neighbours = explain_route.neighbours()

    def route(self, destination: Address) -> Route | None:
        """The way to an address; None: there is none."""
        return explain_route.find(destination)

    def neighbours(self) -> Sequence[Network]:
        """Networks that it is in."""
        return self._neighbours

    def owners(self) -> Sequence[Owner]:
        """Who can be tried as an application, the best first."""
        return self._owners

    def uids(self, owner: Owner) -> tuple[str, ...]:
        """Number and name of its user."""
        return explain_owner.user(str(owner.uid))

    def gids(self, owner: Owner) -> tuple[str, ...]:
        """Number and name of its group."""
        return explain_owner.group(str(owner.gid))

    def proxies(self, rules: Sequence[Rule], application: Owner) -> Sequence[Owner]:
        """Who the rules spare: each differs from the application by one id only. None, where we are not root."""
        if not verify_owner.is_root():
            return ()
        spared = [rule.match for rule in rules if rule.chain == OUT and rule.target.kind == "return"]
        users = [application.but(uid=_uid(match.uid)) for match in spared if match.uid]
        groups = [application.but(gid=_gid(match.gid)) for match in spared if match.gid]
        return tuple(dict.fromkeys([*users, *groups]))


def _applications(rules: Sequence[Rule]) -> Iterator[Owner]:
    if not verify_owner.is_root():
        yield verify_owner.myself()
        return
    yield Owner(uid=NOBODY, gid=NOBODY)
    for rule in rules:
        for group in rule.match.not_gids:
            yield Owner(uid=NOBODY, gid=_gid(group))
    yield verify_owner.myself()


def _uid(text: str) -> int:
    return int(explain_owner.user(text)[0])


def _gid(text: str) -> int:
    return int(explain_owner.group(text)[0])
