"""A local certificate authority: SPIFFE certificates for workloads, host certificates for servers.

``python -m krun_testbed.certificates --help`` writes them as files. The layout of a workload's folder is the one of
GKE workload certificates: certificates.pem, private_key.pem, ca_certificates.pem.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate chain and its key, PEM."""

    chain: bytes
    key: bytes


class Authority:
    """One root, made new in memory; two of them do not trust each other."""

    def __init__(self, *, name: str = "krun testbed root") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def root(self) -> bytes:
        """The root certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def workload(self, *, spiffe_id: str, life: datetime.timedelta = DAY, age: datetime.timedelta = DAY) -> Pair:
        """A workload's certificate: one URI SAN, for both ends of mTLS. A negative ``life`` has expired already."""
        return self._issue(common_name="", names=[x509.UniformResourceIdentifier(spiffe_id)], life=life, age=age)

    def server(self, *, hosts: tuple[str, ...], life: datetime.timedelta = DAY, age: datetime.timedelta = DAY) -> Pair:
        """A server's certificate for host names and IP addresses. One of a negative ``age`` begins in the future."""
        names = [_general_name(host) for host in hosts]
        return self._issue(common_name=hosts[0], names=names, life=life, age=age)

    def _issue(
        self, *, common_name: str, names: list[x509.GeneralName], life: datetime.timedelta, age: datetime.timedelta
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - age)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            # RFC 5280 §4.2.1.6 and the SPIFFE X.509-SVID rules: with an empty subject the SAN is critical.
            .add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(
            chain=certificate.public_bytes(serialization.Encoding.PEM),
            key=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def spiffe_id(*, trust_domain: str, namespace: str, account: str) -> str:
    """The identity of a Kubernetes service account, in Istio's form."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"


def write_workload(*, directory: Path, pair: Pair, root: bytes) -> None:
    """Write a workload's folder; each file appears whole, by rename, and the key is readable by its owner only."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {"certificates.pem": pair.chain, "private_key.pem": pair.key, "ca_certificates.pem": root}
    for name, content in files.items():
        write(path=directory / name, content=content)


def write(*, path: Path, content: bytes) -> None:
    """Write one file, mode 0600, by rename."""
    scratch = path.with_name(f".{path.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    scratch.rename(path)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--workload", "workloads", multiple=True, metavar="NAME=SPIFFE-ID", help="A workload's folder below.")
@click.option("--server", "servers", multiple=True, metavar="NAME=HOST[,HOST]", help="NAME.pem and NAME.key below.")
def main(directory: Path, workloads: tuple[str, ...], servers: tuple[str, ...]) -> None:
    """Make a new root in DIRECTORY/root.pem, and certificates signed by it."""
    authority = Authority()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write(path=directory / "root.pem", content=authority.root)
    for text in workloads:
        name, _, identity = text.partition("=")
        pair = authority.workload(spiffe_id=identity)
        write_workload(directory=directory / name, pair=pair, root=authority.root)
    for text in servers:
        name, _, hosts = text.partition("=")
        pair = authority.server(hosts=tuple(hosts.split(",")))
        write(path=directory / f"{name}.pem", content=pair.chain)
        write(path=directory / f"{name}.key", content=pair.key)


if __name__ == "__main__":
    main()
