"""Who may call the API server by a client certificate: the user is its common name, the groups its organisations."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from krun_testbed.certificates import Pair

ADMINISTRATORS = "system:masters"  # the group that is asked for no role
DAY = datetime.timedelta(days=1)


class ClientAuthority:
    """The authority of client certificates, another than the one of the server's own, as clusters have it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes clients")])
        self._certificate = (
            self._builder(subject=self._name, key=self._key.public_key(), life=30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def root(self) -> bytes:
        """What the server believes, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def certificate(self, *, user: str, groups: tuple[str, ...] = (), life: datetime.timedelta = DAY) -> Pair:
        """A user's certificate and key. A negative ``life`` has expired already."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        certificate = (
            self._builder(subject=subject, key=key.public_key(), life=life)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(chain=certificate.public_bytes(serialization.Encoding.PEM), key=_pem(key))

    def _builder(
        self, *, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + life)
        )


def signing_key() -> tuple[bytes, bytes]:
    """A key pair that signs the tokens of service accounts, private and public, PEM; RSA, as GKE's."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _pem(key), public


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
