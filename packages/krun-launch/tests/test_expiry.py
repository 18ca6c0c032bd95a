"""From when until when a token or a certificate is good, by its file alone."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from krun_launch.expiry import Life, life, stamp
from krun_launch.plan import CERTIFICATE, ROOT, TOKEN, Credential

BEGIN = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)


def token(**claims: object) -> bytes:
    words = (json.dumps({"alg": "none"}), json.dumps(claims), "signature")
    return ".".join(base64.urlsafe_b64encode(word.encode()).decode().rstrip("=") for word in words).encode()


def certificate(*, begins: datetime, ends: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "cluster.local")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def read(data: bytes, *, kind: str, folder: Path) -> Life | None:
    path = folder / "credential"
    path.write_bytes(data)
    return life(Credential(name="x", path=path, kind=kind))


def test_token_lives_from_when_it_was_issued_until_it_expires(tmp_path: Path) -> None:
    assert read(token(iat=1000, exp=4600), kind=TOKEN, folder=tmp_path) == Life(begins=1000, ends=4600)
    assert read(token(exp=4600) + b"\n", kind=TOKEN, folder=tmp_path) == Life(begins=4600, ends=4600)


@pytest.mark.parametrize("years", [1, 40])
def test_certificate_lives_as_its_dates_say_before_and_after_2050(years: int, tmp_path: Path) -> None:
    ends = BEGIN + timedelta(days=365 * years)
    found = read(certificate(begins=BEGIN, ends=ends), kind=CERTIFICATE, folder=tmp_path)
    assert found == Life(begins=BEGIN.timestamp(), ends=ends.timestamp())


def test_workload_tells_its_own_certificate_and_roots_tell_the_one_that_ends_first(tmp_path: Path) -> None:
    dates = [BEGIN + timedelta(days=days) for days in (300, 100, 200)]
    several = b"".join(certificate(begins=BEGIN, ends=ends) for ends in dates)
    own, root = (read(several, kind=kind, folder=tmp_path) for kind in (CERTIFICATE, ROOT))
    assert own is not None
    assert root is not None
    assert own.ends == dates[0].timestamp()
    assert root.ends == dates[1].timestamp()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a.b.c",
        b"no token",
        token(exp="soon"),
        token(iat=9, exp=float("nan")),
        token(iat=9, exp=5),
        token(exp=1e300),
        b".W10=.",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ],
)
@pytest.mark.parametrize("kind", [TOKEN, ROOT, CERTIFICATE])
def test_what_cannot_be_read_has_no_life(data: bytes, kind: str, tmp_path: Path) -> None:
    assert read(data, kind=kind, folder=tmp_path) is None


def test_file_that_is_not_there_has_no_life(tmp_path: Path) -> None:
    assert life(Credential(name="x", path=tmp_path / "absent", kind=TOKEN)) is None


@given(data=st.binary(max_size=200), kind=st.sampled_from([TOKEN, ROOT, CERTIFICATE]))
def test_no_content_is_a_bug(data: bytes, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    block = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    word = b"x." + base64.urlsafe_b64encode(data) + b".y"
    folder = tmp_path_factory.getbasetemp()
    for content in (data, block, word):
        read(content, kind=kind, folder=folder)


def test_time_is_told_in_utc() -> None:
    assert stamp(BEGIN.timestamp()) == "2026-03-01T12:30:15Z"
