"""Why a server cannot be reached, in words that say what to do. Imported when it cannot."""

from __future__ import annotations

import os
import socket
import ssl

from hbone import errors

# Why OpenSSL does not accept a certificate (x509_vfy.h): not yet, no more; other host, other address.
OUT_OF_TIME, FOR_ANOTHER = (9, 10), (62, 64)


def unreachable(error: OSError, *, what: str) -> errors.Failure:
    """The failure that an error of dialling or of a handshake is; ``what`` names the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "--ca-file (KRUN_CA_FILE) names the roots to trust"
        if error.verify_code in OUT_OF_TIME:
            hint = "its certificate has to be renewed there, or this machine's clock is wrong"
        elif error.verify_code in FOR_ANOTHER:
            hint = "the URL's host must be one of the certificate; --connect-to only says where it is dialled"
        return errors.Unreachable(f"{what}: TLS: {error.verify_message}", hint=hint)
    if isinstance(error, ssl.SSLError):
        return errors.Unreachable(f"{what}: TLS failed: {error.reason or error}", hint="is it a TLS port?")
    if isinstance(error, socket.gaierror):
        is_silent = error.errno == socket.EAI_AGAIN
        hint = "no name server answers; is this machine on the network?" if is_silent else "is the host's name right?"
        return errors.Unreachable(f"{what}: {error.strerror}", hint=hint)
    if isinstance(error, TimeoutError) and error.strerror:  # the kernel's own
        return errors.DeadlinePassed(f"{what}: {error.strerror}", hint="may this machine dial it?")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return errors.Unreachable(f"{what}: {reason}", hint="does the server listen there?")


def too_late(what: str, *, seconds: float) -> errors.DeadlinePassed:
    """The failure of a dial that has taken too long."""
    return errors.DeadlinePassed(
        f"{what}: no connection within {seconds:g} s", hint="is the address right, and may this machine dial it?"
    )


def other_protocol(what: str) -> errors.Unreachable:
    """The failure of a handshake that has not agreed on HTTP/2."""
    return errors.Unreachable(f"{what}: it does not speak HTTP/2", hint="the port must offer h2 by ALPN")


def unencrypted(address: object) -> errors.Misconfigured:
    """The failure of a token that would leave this machine as it is."""
    return errors.Misconfigured(
        f"an ID token is not sent over plain http to {address}", hint="use https, or give no token"
    )


def no_streams(what: str) -> errors.Unreachable:
    """The failure of a server that takes no streams at all."""
    return errors.Unreachable(f"{what}: it takes no streams", hint="see the server's settings")
