"""Certificates as text: their dates, their blocks, and the files that stand for what is in memory."""

from __future__ import annotations

import base64
import contextlib
import datetime
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import certificate
from krun_testbed.certificates import Authority

AUTHORITY = Authority()
PEM = AUTHORITY.server(hosts=("x",)).chain.decode()
DER = x509.load_pem_x509_certificate(PEM.encode()).public_bytes(Encoding.DER)


def pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----"


@pytest.mark.parametrize("days", [1, 365, 20_000])
def test_dates_are_read_as_a_whole_library_reads_them(days: int) -> None:
    """Until 2049 they are written with two digits of the year, later with four."""
    chain = AUTHORITY.workload(spiffe_id="spiffe://x", life=datetime.timedelta(days=days)).chain
    known = x509.load_pem_x509_certificate(chain)
    found = certificate.validity(chain.decode())
    assert found.begins == known.not_valid_before_utc.timestamp()
    assert found.ends == known.not_valid_after_utc.timestamp()


def test_the_first_certificate_of_a_chain_counts() -> None:
    chain = PEM + AUTHORITY.root.decode()
    assert certificate.validity(chain) == certificate.validity(PEM)


def test_the_moment_that_matters_is_the_end_only_when_it_has_passed() -> None:
    now = time.time()
    assert certificate.Validity(begins=now + 10, ends=now + 20).moment == now + 10
    assert certificate.Validity(begins=now - 20, ends=now - 10).moment == now - 10


def test_of_a_bundle_only_the_certificates_are_kept() -> None:
    found = certificate.roots(f"# a comment, ö\n{PEM}\n# another\n{AUTHORITY.root.decode()}")
    assert found.isascii()
    assert found.count("BEGIN CERTIFICATE") == 2
    assert "#" not in found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no certificate in it"),
        ("-----BEGIN CERTIFICATE-----", "there is no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\n§\n-----END CERTIFICATE-----", "a certificate in it is not base64"),
        ("-----BEGIN CERTIFICATE-----\neHh4\n-----END CERTIFICATE-----", "a certificate in it is damaged"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "a certificate in it is damaged"),
    ],
)
def test_what_is_no_certificate_is_told(text: str, reason: str) -> None:
    for read in (certificate.roots, certificate.validity):
        with pytest.raises(ValueError, match=reason):
            read(text)


@given(at=st.integers(min_value=0), piece=st.binary(min_size=1, max_size=4), is_cut=st.booleans())
def test_a_damaged_certificate_has_dates_or_is_told(at: int, piece: bytes, is_cut: bool) -> None:
    at %= len(DER)
    data = DER[:at] + piece + (b"" if is_cut else DER[at + len(piece) :])
    with contextlib.suppress(ValueError):
        found = certificate.validity(pem(data))
        assert isinstance(found.ends, float)


@given(data=st.binary())
def test_no_bytes_are_a_certificate_by_chance(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        certificate.validity(pem(data))


def test_what_is_held_can_be_read_again_and_again_and_is_held_once() -> None:
    path = certificate.held(b"some key")
    assert path == certificate.held(b"some key")
    for _ in range(2):
        assert Path(path).read_bytes() == b"some key"
    assert certificate.held(b"another key") != path
