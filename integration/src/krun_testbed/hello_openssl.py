"""What a TLS server takes a ClientHello for, by OpenSSL: the second opinion on what the gate reads."""

from __future__ import annotations

import contextlib
import ssl
import sys
from pathlib import Path

from krun_testbed.certificates import Authority, write


class Server:
    """Asks OpenSSL, which answers no hello: it is stopped as soon as it knows the name."""

    def __init__(self, folder: Path) -> None:
        pair = Authority().server(hosts=("b.example",))
        write(path=folder / "server.pem", content=pair.chain + pair.key)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "server.pem")
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.sni_callback = self._named
        self._names: list[str] = []

    def name(self, data: bytes) -> str | None:
        """The server name, empty when the client names none; None when it is no hello, or not a whole one."""
        self._names.clear()
        incoming = ssl.MemoryBIO()
        incoming.write(data)
        server = self._context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
        told = sys.unraisablehook
        # Python says so on stderr when a name is not ASCII; to us it is none.
        sys.unraisablehook = lambda _: None
        try:
            with contextlib.suppress(ssl.SSLError):
                server.do_handshake()
        finally:
            sys.unraisablehook = told
        return self._names[0] if self._names else None

    def _named(self, _: object, name: str | None, __: object) -> int:
        self._names.append(name or "")
        return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
