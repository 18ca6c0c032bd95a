"""TLS contexts: HTTP/2 by ALPN, a server also has HTTP/1.1, and nothing below TLS 1.2 (RFC 9113 §9.2)."""

from __future__ import annotations

import ssl

from hbone import errors

ALPN = "h2"
HTTP1 = "http/1.1"


def client_context(*, ca_file: str | None) -> ssl.SSLContext:
    """Verify the server by the roots in ``ca_file``, else by the system's.

    Raises:
        Misconfigured: the file cannot be read, or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise errors.Misconfigured(
            f"cannot read root certificates from {ca_file}: {error.strerror or error}",
            hint="--ca-file (KRUN_CA_FILE) names a PEM file; without it the system's roots are used",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    return context


def server_context(*, certificate: str, key: str) -> ssl.SSLContext:
    """Serve with this certificate chain and key, PEM files.

    Raises:
        Misconfigured: they cannot be read, or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN, HTTP1])
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise errors.Misconfigured(
            f"cannot use certificate {certificate} with key {key}: {error.strerror or error}",
            hint="both are PEM files, and the key is the certificate's",
        ) from error
    return context
