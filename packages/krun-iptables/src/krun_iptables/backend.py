"""Which kind of iptables: the programs of each that are there, and the order in which they are tried.

The order is Istio's (tools/istio-iptables/pkg/dependencies/implementation.go): the legacy kind where its tables are in
use, else the nft kind, else the plain ``iptables``. Whether one is usable shows when it is used.
"""

from __future__ import annotations

import os

from krun_iptables import kernel_program as program
from krun_iptables.errors import Denied, Unreachable
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from krun_iptables.rule import Family

AUTO, LEGACY, NFT, PLAIN = "auto", "legacy", "nft", "plain"
# A rule that matches nothing, made and taken away in one transaction: it is never left behind.
PROBE = "*nat\n-A INPUT -p 255 -j RETURN\n-D INPUT -p 255 -j RETURN\nCOMMIT\n"


class Backend(Record):
    """One kind of iptables for one family: the paths of its two programs."""

    kind: str  # legacy, nft, or plain: one of these two under the name that has none
    family: Family
    save: str
    restore: str

    @property
    def name(self) -> str:
        """What people call it: ``iptables-nft``."""
        return self.restore.rpartition("/")[2].removesuffix("-restore")

    def saved(self) -> str:
        """All of its tables, as text. Raises a Failure."""
        return program.must([self.save])

    def put(self, text: str) -> None:
        """Do what a text says, table by table. Raises Denied when it is not permitted, or another Failure."""
        if not text:
            return
        argv = [self.restore, "--noflush", "--wait", str(program.LOCK_WAIT)]
        try:
            program.must(argv, text)
        except Unreachable as failure:
            self._probe(argv, failure)
            raise

    def _probe(self, argv: Sequence[str], failure: Unreachable) -> None:
        """Raise Denied when even a throw-away rule is refused: then it was not the text."""
        if program.run(argv, PROBE).status:
            raise Denied(failure.message, hint=program.PERMISSION_HINT) from None


def base(family: Family) -> str:
    """The plain name of a family's programs."""
    return "iptables" if family == 4 else "ip6tables"


def found(family: Family, *, kind: str = AUTO, is_legacy_used: bool = False) -> tuple[Backend, ...]:
    """Those in PATH, the best first, each once: the plain one is often another one under a second name.

    ``is_legacy_used``: the legacy kind has tables already, and is the one that others here use.
    """
    plain = base(family)
    kinds = {LEGACY: f"{plain}-legacy", NFT: f"{plain}-nft", PLAIN: plain}
    # The last one is not Istio's: legacy alone, in an image that has no other name for it, or where nft is refused.
    order = [LEGACY] * is_legacy_used + [NFT, PLAIN, LEGACY] if kind == AUTO else [kind]
    backends: dict[str, Backend] = {}
    for one in order:
        save, restore = (program.find(f"{kinds[one]}-{what}") for what in ("save", "restore"))
        if save and restore:
            backend = Backend(kind=one, family=family, save=save, restore=restore)
            backends.setdefault(os.path.realpath(restore), backend)
    return tuple(backends.values())


def some(family: Family, *, kind: str = AUTO, is_legacy_used: bool = False) -> tuple[Backend, ...]:
    """The same, but one at least.

    Raises:
        Denied: there is none.
    """
    backends = found(family, kind=kind, is_legacy_used=is_legacy_used)
    if not backends:
        plain = base(family)
        names = f"{plain}-restore" if kind == AUTO else f"{plain}-{kind}-restore"
        raise Denied(f"rules need {plain}, and there is no {names} in PATH", hint="install iptables")
    return backends
