"""Certificates and roots that change, and the drain, in a real Envoy that goes on."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from krun_testbed import processes
from krun_testbed.certificates import Authority
from krun_testbed.static_mesh import (
    OURS,
    THEIRS,
    TRUST_DOMAIN,
    WAIT,
    Mesh,
    ask,
    running_mesh,
)

pytestmark = pytest.mark.loopback


def served_certificate(mesh: Mesh, context: ssl.SSLContext) -> str:
    """The SPIFFE id in the certificate that 15003 shows to a new connection."""
    with socket.create_connection((mesh.address, 15003), timeout=WAIT) as raw, context.wrap_socket(raw) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)[0]


def test_renewed_certificates_reach_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    renewed = f"spiffe://{TRUST_DOMAIN}/ns/demo/sa/renewed"
    with running_mesh(tmp_path) as mesh:
        context = mesh.client(pair=mesh.authority.workload(spiffe_id=THEIRS), directory=tmp_path / "client")
        old = http.client.HTTPSConnection(mesh.address, 15003, timeout=WAIT, context=context)
        with contextlib.closing(old):
            old.request("GET", "/")
            assert f"By={OURS};" in old.getresponse().read().decode()
            assert not mesh.keeper.refresh()
            mesh.workload(spiffe_id=renewed)
            assert mesh.keeper.refresh()
            processes.wait_until(
                lambda: served_certificate(mesh, context) == renewed, what="the renewed certificate is served"
            )
            old.request("GET", "/")
            assert f"By={OURS};" in old.getresponse().read().decode()
        # Outbound: a name that was not called before needs a new connection.
        processes.wait_until(
            lambda: f"URI={renewed}" in str(mesh.seen(f"http://n{datetime.now(UTC):%H%M%S%f}/")),
            what="the renewed certificate is sent",
        )


def test_new_roots_are_trusted_and_old_ones_no_longer(tmp_path: Path) -> None:
    with running_mesh(tmp_path) as mesh:
        old = mesh.client(pair=mesh.authority.workload(spiffe_id=THEIRS), directory=tmp_path / "old")
        other = Authority(name="the next root")
        mesh.workload(spiffe_id=OURS, authority=other)
        mesh.authority = other
        new = mesh.client(pair=other.workload(spiffe_id=THEIRS), directory=tmp_path / "new")
        assert mesh.keeper.refresh()

        def accepted(context: ssl.SSLContext) -> bool:
            connection = http.client.HTTPSConnection(mesh.address, 15003, timeout=WAIT, context=context)
            with contextlib.closing(connection), contextlib.suppress(ssl.SSLError, ConnectionError):
                return ask(connection) != b""
            return False

        processes.wait_until(lambda: accepted(new), what="a certificate of the new root is accepted")
        # The old client trusts nobody of the new root; so let it ask without looking, to see what Envoy says of it.
        old.verify_mode = ssl.CERT_NONE
        assert not accepted(old)
        processes.wait_until(
            lambda: mesh.call(f"http://r{datetime.now(UTC):%H%M%S%f}/")[0] == 200, what="the peer's new root is trusted"
        )
        assert mesh.envoy.stderr == ""


def test_a_draining_envoy_asks_its_peers_to_close(tmp_path: Path) -> None:
    with running_mesh(tmp_path) as mesh:
        context = mesh.client(pair=mesh.authority.workload(spiffe_id=THEIRS), directory=tmp_path / "client")
        connection = http.client.HTTPSConnection(mesh.address, 15003, timeout=WAIT, context=context)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            assert answer.headers["connection"] is None
            with contextlib.closing(http.client.HTTPConnection(mesh.address, 15000, timeout=WAIT)) as control:
                control.request("POST", "/drain_listeners?graceful&inboundonly&skip_exit")
                assert control.getresponse().status == 200
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            assert answer.headers["connection"] == "close"
