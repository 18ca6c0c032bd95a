"""Which kind of iptables: the programs of each that are there, and the order in which they are tried.

The order is Istio's (tools/istio-iptables/pkg/dependencies/implementation.go): the legacy kind where its tables are in
use, else the nft kind, else the plain ``iptables``. Whether one is usable shows when it is used.
"""

from __future__ import annotations

import os

from krun_iptables import kernel_program as program
from krun_iptables.errors import Denied, Unreachable
from krun_iptables.kernel_program import AUTO, LEGACY, NFT
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from krun_iptables.rule import Family

HIDES = "' is incompatible, use 'nft' tool"  # says iptables-nft-save of a table that it leaves out, in a comment
# A rule that matches nothing, made and taken away in one transaction: it is never left behind.
PROBE = "*nat\n-A INPUT -p 255 -j RETURN\n-D INPUT -p 255 -j RETURN\nCOMMIT\n"


class Backend(Record):
    """One kind of iptables for one family: the paths of its two programs."""

    kind: str  # legacy or nft, also where the programs' name does not say it
    family: Family
    save: str
    restore: str

    @property
    def name(self) -> str:
        """What people call it: ``iptables-nft``."""
        return self.restore.rpartition("/")[2].removesuffix("-restore")

    def saved(self) -> str:
        """All of its tables, as text; but for those that are ``kernel_hidden``. Raises a Failure."""
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
        if "lock file" in failure.message:
            # On a read-only root file system for one: that is no reason to go without interception.
            hint = "name another file by XTABLES_LOCKFILE, or make its folder one that can be written"
            raise Unreachable(failure.message, hint=hint) from None
        if program.run(argv, PROBE).status:
            raise Denied(failure.message, hint=program.PERMISSION_HINT) from None


def base(family: Family) -> str:
    """The plain name of a family's programs."""
    return "iptables" if family == 4 else "ip6tables"


def found(family: Family, *, kind: str = AUTO, is_legacy_used: bool = False) -> tuple[Backend, ...]:
    """Those in PATH, the best first, one of a kind.

    ``is_legacy_used``: the legacy kind has tables already, and is the one that others here use. Where a kind is asked
    for, the programs have it in their name.
    """
    named = {one: backend for one in (NFT, LEGACY) if (backend := _named(family, kind=one))}
    if kind != AUTO:
        return (named[kind],) if kind in named else ()
    plain = _plain(family, known=[*named.values()]) if len(named) < 2 else None
    if plain and plain.kind not in named:
        named[plain.kind] = plain
    # Legacy last is not Istio's, unless it is the plain one: in an image that has no other, or where nft is refused.
    order = (LEGACY, NFT) if is_legacy_used else (NFT, LEGACY)
    return tuple(named[one] for one in order if one in named)


def _named(family: Family, *, kind: str) -> Backend | None:
    return _programs(f"{base(family)}-{kind}", family=family, kind=kind)


def _plain(family: Family, *, known: Sequence[Backend]) -> Backend | None:
    """The one without a kind in its name, which is of one nevertheless; None when it is one that is known."""
    backend = _programs(base(family), family=family, kind=LEGACY)
    if backend is None or os.path.realpath(backend.restore) in [os.path.realpath(one.restore) for one in known]:
        return None
    # Two that show the same rules must not be taken for two. One too old to know the flag is legacy, says Istio.
    is_nft = "nf_tables" in program.run([backend.save, "--version"]).said
    return backend.but(kind=NFT) if is_nft else backend


def _programs(name: str, *, family: Family, kind: str) -> Backend | None:
    save, restore = (program.find(f"{name}-{what}") for what in ("save", "restore"))
    return Backend(kind=kind, family=family, save=save, restore=restore) if save and restore else None


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
