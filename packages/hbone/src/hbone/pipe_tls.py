"""The same with TLS, by the part of ``ssl`` that is written in C: the rest of it takes as long as a handshake.

What ``tls.client_context`` makes is made here, setting by setting, and a test holds that.
"""

from __future__ import annotations

import _ssl
import os
import sys

from hbone import errors
from hbone.pipe_wire import Deadline, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

ALPN = "h2"
RECORD = 16 * 1024  # what OpenSSL gives at once
# Why OpenSSL does not accept a certificate (x509_vfy.h): none of the roots that it knows has signed it.
UNKNOWN = (2, 18, 19, 20, 21)


class Trust:
    """Whom to believe: the roots in a file, else the system's."""

    def __init__(self, *, ca_file: str | None) -> None:
        """Raises Misconfigured when the file cannot be read, or holds no certificate."""
        context = self.context = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = _ssl.CERT_REQUIRED
        context.check_hostname = True
        if sys.version_info >= (3, 13):  # as ssl.create_default_context has it from there on
            context.verify_flags |= _ssl.VERIFY_X509_PARTIAL_CHAIN | _ssl.VERIFY_X509_STRICT
        context.minimum_version = _ssl.PROTO_TLSv1_2
        protocols = bytes((len(ALPN),)) + ALPN.encode()
        context._set_alpn_protocols(protocols)  # type: ignore[attr-defined]
        if keys := os.environ.get("SSLKEYLOGFILE"):
            context.keylog_filename = keys
        self._is_partial = False
        if ca_file is not None:
            self._load(ca_file)
        else:
            self._load_systems()

    def _load(self, ca_file: str) -> None:
        try:
            self.context.load_verify_locations(ca_file, None, None)
        except OSError as error:
            raise errors.Misconfigured(
                f"cannot read root certificates from {ca_file}: {error.strerror or error}",
                hint="--ca-file (KRUN_CA_FILE) names a PEM file; without it the system's roots are used",
            ) from error

    def _load_systems(self) -> None:
        """The system's roots. In a folder, OpenSSL looks for the one that it needs; a file it must read whole, which
        takes longer than all else here. So the file comes in when the folder does not do."""
        of_file, file, of_folder, folder = _ssl.get_default_verify_paths()
        folder = os.environ.get(of_folder) or folder
        if not _is_same(os.environ.get(of_file) or file, file) or not _is_hashed(folder):
            self.context.set_default_verify_paths()
        else:
            self.context.load_verify_locations(None, folder, None)
            self._is_partial = True

    def grows(self, error: OSError) -> bool:
        """Whether there are more roots, which may do where these did not."""
        is_unknown = isinstance(error, _ssl.SSLCertVerificationError) and error.verify_code in UNKNOWN
        if not (is_unknown and self._is_partial):
            return False
        self._is_partial = False
        self.context.set_default_verify_paths()
        return True


def _is_same(one: str, other: str) -> bool:
    """Whether both are the same file: some set the variable to what it is without."""
    try:
        return one == other or os.path.samefile(one, other)  # noqa: PTH121 - no pathlib
    except OSError:
        return False


def _is_hashed(folder: str) -> bool:
    """Whether certificates are there by the hashes of their subjects, as OpenSSL looks for them."""
    try:
        return any(len(name) == 10 and name.endswith(".0") for name in os.listdir(folder))  # noqa: PTH208 - no pathlib
    except OSError:
        return False


class TlsWire(Wire):
    """A client's."""

    def __init__(self, connected: _socket.socket, *, trust: Trust, name: str) -> None:
        super().__init__(connected)
        self._coming, self._going = _ssl.MemoryBIO(), _ssl.MemoryBIO()
        self._tls = trust.context._wrap_bio(self._coming, self._going, False, name)  # type: ignore[attr-defined]

    def begin(self) -> None:
        """Say hello; the answer takes its time. Raises OSError."""
        self._step()

    def shake_hands(self, deadline: Deadline) -> bool:
        while not self._step():
            self.wait(seconds=deadline.left)
            data = super().receive()
            if self.is_over:
                raise ConnectionResetError(self.reason or "the peer ended the handshake")
            self._coming.write(data)
        return bool(self._tls.selected_alpn_protocol() == ALPN)

    def _step(self) -> bool:
        """Whether the handshake is over. Raises OSError."""
        try:
            self._tls.do_handshake()
        except _ssl.SSLWantReadError:
            self._say()
            return False
        except _ssl.SSLError:
            self._say()  # the alert that says what is wrong
            raise
        return True  # its last word goes out with what follows

    def _say(self) -> None:
        if self._going.pending:
            super().send(self._going.read())

    def send(self, data: bytes) -> None:
        try:
            self._tls.write(data)
        except _ssl.SSLError:
            self._is_deaf = True
        self._say()

    def receive(self) -> bytes:
        data = super().receive()
        if data:
            self._coming.write(data)
        pieces = []
        try:
            while piece := self._tls.read(RECORD):
                pieces.append(piece)
            self.is_over = True
        except _ssl.SSLWantReadError:
            pass
        except _ssl.SSLError as error:
            self.is_over, self.reason = True, f"TLS failed: {getattr(error, 'reason', '') or error}"
        self._say()  # an answer of TLS itself
        return b"".join(pieces)

    def close(self, *, seconds: float) -> None:
        try:  # noqa: SIM105 - contextlib takes long to import
            self._tls.shutdown()
        except OSError:  # it wants the peer's word, which nobody waits for
            pass
        self._say()
        super().close(seconds=seconds)
