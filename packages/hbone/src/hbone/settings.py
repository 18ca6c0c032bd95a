"""How tunnels are opened."""

from __future__ import annotations

from hbone.token_source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hbone.urls import Address

CONNECT_TIMEOUT = 10.0  # seconds for TCP and TLS
# Seconds until the server answers a request: a container that starts from nothing has to come up first.
ANSWER_TIMEOUT = 60.0
ATTEMPTS = 3  # to get a tunnel, when it is sure that the one before has done nothing


class Settings:
    """Of all tunnels of a client."""

    __slots__ = ("answer_timeout", "ca_file", "connect_timeout", "connect_to", "token_header", "token_source")

    def __init__(
        self,
        *,
        token_source: Source,
        token_header: str = "authorization",
        ca_file: str | None = None,
        connect_to: Address | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self.token_source = token_source
        self.token_header = token_header
        self.ca_file = ca_file
        self.connect_to = connect_to
        self.connect_timeout = connect_timeout
        self.answer_timeout = answer_timeout
