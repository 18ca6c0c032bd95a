"""Whether the control plane's address answers, by TLS that proves who it is. No certificate of ours is needed."""

from __future__ import annotations

import socket
import ssl
import time

from krun_discover import address, contract
from krun_discover.errors import Misconfigured, Unreachable
from krun_discover.record import Record

NAME = "istiod.istio-system.svc"  # in istiod's own certificate, whatever its address is
LIMIT = 5.0  # seconds


class Answered(Record):
    """It has proven who it is: as ``name``, until ``ends`` (text, as OpenSSL writes times); ``alpn`` is h2 if it is."""

    name: str
    ends: str
    alpn: str
    seconds: float


def ask(place: str, *, roots: str, left: float) -> Answered:
    """Connect and shake hands. Raises Unreachable, Misconfigured with the reason."""
    port = contract.PORTS["ISTIOD"]
    where = address.parse(place, what=f"XDS_ADDR={place}", default_port=port)
    name = NAME if where.port == port else where.host
    context = _context(roots)
    started = time.monotonic()
    try:
        with (
            socket.create_connection((where.host, where.port), timeout=max(0.1, min(LIMIT, left))) as connected,
            context.wrap_socket(connected, server_hostname=name) as tls,
        ):
            found = tls.getpeercert() or {}
            ends = str(found.get("notAfter", ""))
            alpn = tls.selected_alpn_protocol() or ""
            return Answered(name=name, ends=ends, alpn=alpn, seconds=time.monotonic() - started)
    except ssl.SSLCertVerificationError as error:
        raise Misconfigured(
            f"control plane {place}: its certificate is not trusted as {name}: {error.verify_message}",
            hint="CAROOT_ISTIOD must be the root of this mesh: kubectl get configmap istio-ca-root-cert -o yaml",
        ) from error
    except OSError as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
        raise Unreachable(
            f"control plane {place}: {reason}", hint="is there a way to it from here? VPC access, firewall, MCON_ADDR"
        ) from error


def _context(roots: str) -> ssl.SSLContext:
    try:
        # A dotenv file cannot hold line breaks.
        context = ssl.create_default_context(cadata=roots.replace("\\n", "\n") or None)
    except (ssl.SSLError, ValueError) as error:
        raise Misconfigured("CAROOT_ISTIOD cannot be read", hint="it is PEM text") from error
    context.set_alpn_protocols(["h2"])
    return context
