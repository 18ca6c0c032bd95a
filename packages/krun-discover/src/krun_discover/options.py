"""What krun-discover is asked to do."""

from __future__ import annotations

from krun_discover import plain
from krun_discover.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOOL = "krun-discover"
FORMATS = ("json", "shell", "dotenv")
VALUES = ("--mesh", "--format", "--context", "--timeout", "--stay")
TOKEN = "--token"


class Options(Record):
    """Its flags, and MESH, which is one as well; ``timeout`` in seconds."""

    mesh: str = ""
    mesh_is_flag: bool = False  # and so comes before the environment
    style: str = "json"
    explain: bool = False
    context: str = ""
    timeout: float = 60.0
    tokens: tuple[tuple[str, str], ...] = ()  # audience and file
    stay: int | None = None  # the descriptor by which it is told what to be afterwards
    log_level: str = "info"
    log_format: str = "auto"


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Options | None:
    """The plain form; None when there is more to it, or something is wrong with it."""
    found = plain.read(arguments, values=(*VALUES, TOKEN), switches=["--explain"])
    of_log = plain.of_log(environ, tool=TOOL)
    if found is None or of_log is None or any(len(found.get(name, [])) > 1 for name in VALUES):
        return None
    try:
        tokens = tuple(token(text) for text in found.get(TOKEN, []))
    except ValueError:
        return None
    mesh, style, context, timeout, stay = (found.get(name, [""])[0] for name in VALUES)
    seconds = plain.seconds(timeout or "60")
    if seconds is None or (style and style not in FORMATS) or (tokens and "--explain" in found):
        return None
    if stay and not plain.is_descriptor(stay):
        return None
    return Options(
        mesh=mesh or environ.get("MESH", ""),
        mesh_is_flag=bool(mesh),
        style=style or "json",
        explain="--explain" in found,
        context=context,
        timeout=seconds,
        tokens=tokens,
        stay=int(stay) if stay else None,
        log_level=of_log[0],
        log_format=of_log[1],
    )


def token(text: str) -> tuple[str, str]:
    """Read AUDIENCE=FILE. Raises ValueError."""
    audience, equals, path = text.rpartition("=")
    if not equals or not path or not plain.is_word(audience):
        raise ValueError(f"{text!r} is not AUDIENCE=FILE")
    return audience, path
