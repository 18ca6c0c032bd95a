"""The stand-in for Google's ID tokens: claims, key set, and the commands that scripts use."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from krun_testbed import processes
from krun_testbed.google_tokens import Issuer


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(token: str, jwks: dict[str, object]) -> dict[str, object]:
    header, claims, signature = token.split(".")
    keys = jwks["keys"]
    assert isinstance(keys, list)
    key = next(key for key in keys if key["kid"] == json.loads(decode(header))["kid"])
    numbers = rsa.RSAPublicNumbers(*(int.from_bytes(decode(key[name]), "big") for name in ("e", "n")))
    signed = f"{header}.{claims}".encode()
    numbers.public_key().verify(decode(signature), signed, padding.PKCS1v15(), hashes.SHA256())
    result: dict[str, object] = json.loads(decode(claims))
    return result


def test_a_token_verifies_with_the_published_key() -> None:
    issuer = Issuer()
    claims = verify(issuer.id_token("https://b.run.app", "me@p.iam.gserviceaccount.com", 60), issuer.jwks())
    assert claims["iss"] == "https://accounts.google.com"
    assert claims["aud"] == "https://b.run.app"
    assert claims["email"] == "me@p.iam.gserviceaccount.com"
    assert isinstance(claims["exp"], int)
    assert 0 < claims["exp"] - time.time() <= 60


def test_a_changed_token_does_not_verify() -> None:
    issuer = Issuer()
    header, _, signature = issuer.id_token("https://b.run.app").split(".")
    other = issuer.id_token("https://c.run.app").split(".")[1]
    with pytest.raises(InvalidSignature):
        verify(f"{header}.{other}.{signature}", issuer.jwks())


def test_an_issuer_is_the_same_after_save_and_load(tmp_path: Path) -> None:
    issuer = Issuer()
    issuer.save(tmp_path / "issuer")
    assert Issuer.load(tmp_path / "issuer").jwks() == issuer.jwks()
    assert (tmp_path / "issuer" / "key.pem").stat().st_mode & 0o777 == 0o600


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run([sys.executable, "-m", "krun_testbed.google_tokens", *arguments])


@pytest.mark.loopback
def test_the_commands_write_an_issuer_and_print_a_token(tmp_path: Path) -> None:
    assert command("init", str(tmp_path)).returncode == 0
    printed = command("id", "--dir", str(tmp_path), "--audience", "https://b.run.app")
    jwks = json.loads((tmp_path / "jwks.json").read_text())
    assert verify(printed.stdout.strip(), jwks)["aud"] == "https://b.run.app"


@pytest.mark.loopback
def test_a_folder_without_an_issuer_is_told(tmp_path: Path) -> None:
    done = command("id", "--dir", str(tmp_path), "--audience", "https://b.run.app")
    assert done.returncode == 1
    assert "cannot load the issuer" in done.stderr
