"""Whom a ProxyCommand believes: the same as every other client of ours."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from hbone import tls
from hbone.errors import Misconfigured
from hbone.pipe_tls import Trust
from krun_testbed.certificates import Authority, write

SETTINGS = ("check_hostname", "maximum_version", "minimum_version", "options", "verify_flags", "verify_mode")


def settings(context: object) -> dict[str, object]:
    """What a context does, as numbers."""
    return {name: int(getattr(context, name)) for name in SETTINGS if hasattr(context, name)}


@pytest.fixture
def root(authority: Authority, tmp_path: Path) -> str:
    write(path=tmp_path / "root.pem", content=authority.root)
    return str(tmp_path / "root.pem")


def test_context_is_as_strict_as_the_one_of_ssl(root: str) -> None:
    ours, theirs = Trust(ca_file=root).context, tls.client_context(ca_file=root)
    assert settings(ours) == settings(theirs)
    assert ours.get_ciphers() == theirs.get_ciphers()
    assert ours.cert_store_stats() == theirs.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 1}
    assert ours.verify_mode == ssl.CERT_REQUIRED
    assert ours.check_hostname


def test_root_certificates_that_cannot_be_read_are_told_as_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("no certificate")
    for file in (str(tmp_path / "missing"), str(tmp_path / "empty")):
        said = []
        for make in (lambda file=file: Trust(ca_file=file), lambda file=file: tls.client_context(ca_file=file)):
            with pytest.raises(Misconfigured) as caught:
                make()
            said.append((caught.value.message, caught.value.hint))
        assert said[0] == said[1]


def test_roots_of_a_folder_come_first_and_those_of_the_file_when_they_do_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert not Trust(ca_file=None).grows(unknown_issuer())  # no folder of hashes: all was read at once
    (tmp_path / "01234567.0").write_text("looked into when its hash is asked for")
    trust = Trust(ca_file=None)
    assert trust.context.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}
    assert not trust.grows(ConnectionResetError("no certificate's fault"))
    assert trust.grows(unknown_issuer())
    assert not trust.grows(unknown_issuer())
    assert trust.context.cert_store_stats() == systems_roots()


def test_file_that_somebody_names_is_read_at_once(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "01234567.0").write_text("")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", root)
    trust = Trust(ca_file=None)
    assert trust.context.cert_store_stats()["x509_ca"] == 1
    assert not trust.grows(unknown_issuer())


def unknown_issuer() -> ssl.SSLCertVerificationError:
    """What OpenSSL says of a certificate whose root it does not know."""
    error = ssl.SSLCertVerificationError()
    error.verify_code = 20
    return error


def systems_roots() -> dict[str, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_default_verify_paths()
    return context.cert_store_stats()
