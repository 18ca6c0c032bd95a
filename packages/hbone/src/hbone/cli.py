"""The start of hbone: the plain form, which ssh waits for, without the machinery of flags; all else by ``command``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from hbone.client import Settings
    from hbone.urls import URL

TOOL = "hbone"
# Of shell completion, and of logging: their values are checked by ``command``.
NOT_PLAIN = ("_HBONE_COMPLETE", "KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT")


def main() -> NoReturn:
    from hbone import errors

    plain = read_plain(sys.argv[1:], os.environ)
    if plain is None:
        from hbone.command import command

        errors.run(command, tool=TOOL)
    url, settings = plain
    errors.run_plain(lambda: _pipe(url=url, settings=settings), tool=TOOL)


def _pipe(*, url: URL, settings: Settings) -> int:
    from hbone import log
    from hbone.pipe import pipe

    log.configure(tool=TOOL)
    return pipe(url=url, settings=settings)


def read_plain(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[URL, Settings] | None:
    """What ``hbone URL`` means; ``None`` when there is more to it, or something is wrong with it."""
    if len(arguments) != 1 or arguments[0].startswith("-") or any(environment.get(name) for name in NOT_PLAIN):
        return None
    from hbone.client import Settings
    from hbone.tokens import Source
    from hbone.urls import parse_address, parse_url

    connect_to = environment.get("KRUN_CONNECT_TO")
    try:
        url = parse_url(arguments[0])
        address = parse_address(connect_to) if connect_to else None
    except ValueError:
        return None
    source = Source(
        command=environment.get("KRUN_ID_TOKEN_COMMAND") or None, file=environment.get("KRUN_ID_TOKEN_FILE") or None
    )
    return url, Settings(token_source=source, ca_file=environment.get("KRUN_CA_FILE") or None, connect_to=address)
