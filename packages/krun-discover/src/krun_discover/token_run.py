"""One run of krun-token: a token is minted, and delivered."""

from __future__ import annotations

import os

from krun_discover import lines, token_delivery, token_mint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_discover.token_mint import Mint
    from krun_discover.token_options import Asked


def run(asked: Asked) -> None:
    """Do it, with this process's environment. Raises a Failure."""
    options = asked.options
    lines.configure(tool="krun-token", level=options.log_level, style=options.log_format)
    if options.file:
        options.file.check()
    token_delivery.deliver(_mint(asked), options)


def _mint(asked: Asked) -> Mint:
    match asked.kind:
        case "kubernetes":
            return token_mint.Kubernetes(
                environ=os.environ,
                context=asked.context,
                namespace=asked.namespace,
                account_name=asked.account,
                audiences=asked.audiences,
                seconds=asked.life,
            )
        case "id":
            return token_mint.Google(environ=os.environ, audience=asked.audiences[0], federation=asked.federation)
        case _:
            return token_mint.Google(environ=os.environ, scopes=asked.scopes, federation=asked.federation)
