"""What krun-token is asked to do, and the plain form of its command line."""

from __future__ import annotations

from krun_discover import plain
from krun_discover.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from krun_discover.token_file import TokenFile

TOOL = "krun-token"
KINDS = ("kubernetes", "id", "access")
COMMON = ("--to", "--owner", "--mode", "--timeout")
OF_KIND = {
    "kubernetes": ("--audience", "--namespace", "--service-account", "--context"),
    "id": ("--audience",),
    "access": ("--scope",),
}
MANY = {"kubernetes": "--audience", "access": "--scope"}  # what may be given more than once
STAY = "--stay"
LIFE = 3600  # seconds that a cluster is asked for


class Options(Record):
    """Where the token goes; ``timeout`` in seconds."""

    file: TokenFile | None = None
    watch: bool = False
    explain: bool = False
    timeout: float = 60.0
    log_level: str = "info"
    log_format: str = "auto"


class Asked(Record):
    """Which token: one of KINDS, and for whom. The account and what follows is of Kubernetes; ``life`` in seconds."""

    kind: str
    options: Options
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    namespace: str = ""
    account: str = "default"
    context: str = ""
    life: int = LIFE
    federation: str = ""  # the audience at STS by which the workload's Kubernetes account is known to Google


def stays(arguments: Sequence[str]) -> int | None:
    """The descriptor by which it is told later what it is asked to do; None when that is on the command line."""
    found = plain.read(arguments, values=[STAY]) or {}
    given = found.get(STAY, [])
    return int(given[0]) if len(given) == 1 and plain.is_descriptor(given[0]) else None


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Asked | None:
    """The plain form; None when there is more to it, or something is wrong with it."""
    of_log = plain.of_log(environ, tool=TOOL)
    if not arguments or arguments[0] not in KINDS or of_log is None:
        return None
    kind = arguments[0]
    found = plain.read(arguments[1:], values=(*OF_KIND[kind], *COMMON), switches=["--watch", "--explain"])
    if found is None or any(len(values) > 1 for name, values in found.items() if name != MANY.get(kind)):
        return None
    audiences, scopes = tuple(found.get("--audience", [])), tuple(found.get("--scope", []))
    options = _options(found, of_log=of_log)
    if options is None or (kind != "access" and not audiences) or not all(map(plain.is_word, (*audiences, *scopes))):
        return None
    if kind != "kubernetes":
        return Asked(kind=kind, options=options, audiences=audiences, scopes=scopes)
    return Asked(
        kind=kind,
        options=options,
        audiences=audiences,
        namespace=_one(found, "--namespace") or environ.get("WORKLOAD_NAMESPACE", ""),
        account=_one(found, "--service-account") or environ.get("WORKLOAD_SERVICE_ACCOUNT") or "default",
        context=_one(found, "--context"),
    )


def _options(found: Mapping[str, Sequence[str]], *, of_log: tuple[str, str]) -> Options | None:
    timeout = plain.seconds(_one(found, "--timeout") or "60")
    to, watch, explain = _one(found, "--to"), "--watch" in found, "--explain" in found
    of_file = watch or "--owner" in found or "--mode" in found
    if timeout is None or (of_file and not to) or (explain and to):
        return None
    try:
        file = _file(to, owner=_one(found, "--owner"), mode=_one(found, "--mode")) if to else None
    except ValueError:
        return None
    level, style = of_log
    return Options(file=file, watch=watch, explain=explain, timeout=timeout, log_level=level, log_format=style)


def _file(path: str, *, owner: str, mode: str) -> TokenFile:
    """Raises ValueError."""
    from krun_discover import token_file

    uid, gid = token_file.owner(owner) if owner else (-1, -1)
    return token_file.TokenFile(path=path, mode=token_file.mode(mode) if mode else token_file.MODE, uid=uid, gid=gid)


def _one(found: Mapping[str, Sequence[str]], name: str) -> str:
    return found[name][0] if name in found else ""
