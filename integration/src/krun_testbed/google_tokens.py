"""ID tokens as Google signs them: RS256, issuer accounts.google.com, the keys published as a JWK set.

``python -m krun_testbed.google_tokens init DIR`` writes a key and its set; ``… id --dir DIR --audience URL`` prints a
token. Only what trusts DIR/jwks.json takes such a token; Google's own keys have no part in it.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import click
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from krun_testbed.certificates import write

ISSUER = "https://accounts.google.com"
EMAIL = "k8s-demo@project-demo.iam.gserviceaccount.com"
LIFE = 3600  # seconds, as Google's
KEY = "key.pem"
JWKS = "jwks.json"


class Issuer:
    """Signs ID tokens with one key."""

    def __init__(self, *, key: rsa.RSAPrivateKey | None = None) -> None:
        self._key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashes.Hash(hashes.SHA256())
        digest.update(public)
        self._id = digest.finalize().hex()[:40]

    def jwks(self) -> dict[str, object]:
        """The public key as a JWK set (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self._id}
        return {"keys": [key | {"n": _number(numbers.n), "e": _number(numbers.e)}]}

    def id_token(self, audience: str, email: str = EMAIL, life: int = LIFE) -> str:
        """One token for an audience; ``life`` in seconds, a negative one has expired already."""
        now = int(time.time())
        header = {"alg": "RS256", "kid": self._id, "typ": "JWT"}
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "azp": email,
            "sub": "100000000000000000001",
            "email": email,
            "email_verified": True,
            "iat": now + min(life, 0) - 1,
            "exp": now + life,
        }
        signed = f"{_json(header)}.{_json(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"

    def save(self, directory: Path) -> None:
        """Write the key (readable by its owner only) and the JWK set."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write(path=directory / KEY, content=pem)
        write(path=directory / JWKS, content=json.dumps(self.jwks(), indent=2).encode() + b"\n")

    @classmethod
    def load(cls, directory: Path) -> Issuer:
        """The issuer that ``save`` wrote; OSError or ValueError when there is none."""
        key = serialization.load_pem_private_key((directory / KEY).read_bytes(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError(f"{directory / KEY}: not an RSA key")
        return cls(key=key)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: dict[str, object] | dict[str, str]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@click.group()
def main() -> None:
    """ID tokens as Google signs them, by a key of our own.

    \b
    Examples:
      python -m krun_testbed.google_tokens init /tmp/issuer
      python -m krun_testbed.google_tokens id --dir /tmp/issuer --audience https://b-424242.local1.run.app
    """


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Write a new key and its jwks.json in DIRECTORY."""
    Issuer().save(directory)


@main.command("id")
@click.option("--dir", "directory", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--audience", required=True, help="https://HOST of the service.")
@click.option("--email", default=EMAIL, show_default=True)
@click.option("--life", default=LIFE, show_default=True, help="Seconds.")
def id_(directory: Path, audience: str, email: str, life: int) -> None:
    """Print an ID token."""
    try:
        issuer = Issuer.load(directory)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot load the issuer in {directory}: {error}") from error
    click.echo(issuer.id_token(audience, email, life))


if __name__ == "__main__":
    main()
