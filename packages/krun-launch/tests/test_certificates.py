"""The workload's folder: what is wrong is named, what is right is copied whole, what changes is taken."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from krun_launch.certificates import NAMES, Keeper, check
from krun_launch.errors import Misconfigured
from krun_testbed.certificates import Authority, Pair, write, write_workload

TRUST_DOMAIN = "mesh.test"
OURS = f"spiffe://{TRUST_DOMAIN}/ns/demo/sa/default"
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def source(tmp_path: Path, authority: Authority) -> Path:
    directory = tmp_path / "source"
    write_workload(directory=directory, pair=authority.workload(spiffe_id=OURS), root=authority.root)
    return directory


def keeper(source: Path) -> Keeper:
    return Keeper(source=source, target=source.parent / "run" / "certs", trust_domain=TRUST_DOMAIN)


def live(source: Path) -> dict[str, bytes]:
    return {name: (source.parent / "run" / "certs" / "live" / name).read_bytes() for name in NAMES}


def renew(source: Path, authority: Authority, *, spiffe_id: str = OURS) -> None:
    write_workload(directory=source, pair=authority.workload(spiffe_id=spiffe_id), root=authority.root)


def failure(source: Path, *, now: datetime = NOW, trust_domain: str = TRUST_DOMAIN) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        check(source, trust_domain=trust_domain, now=now)
    assert caught.value.hint
    return caught.value


def test_a_set_that_fits_says_who_we_are_and_until_when(source: Path) -> None:
    identity = check(source, trust_domain=TRUST_DOMAIN, now=NOW)
    leaf = x509.load_pem_x509_certificate((source / "certificates.pem").read_bytes())
    assert identity.spiffe_id == OURS
    assert identity.expires == leaf.not_valid_after_utc
    assert identity.fingerprint == leaf.fingerprint(hashes.SHA256()).hex()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(source: Path, name: str) -> None:
    (source / name).unlink()
    assert failure(source).message == f"{source / name}: cannot be read: No such file or directory"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_cannot_be_read_is_named(source: Path, name: str, content: bytes) -> None:
    write(path=source / name, content=content)
    assert failure(source).message.startswith(f"{source / name}: ")


def test_a_folder_in_place_of_a_file_is_named(source: Path) -> None:
    (source / "private_key.pem").unlink()
    (source / "private_key.pem").mkdir()
    assert "private_key.pem: cannot be read: it is not a file" in failure(source).message


def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(source: Path) -> None:
    (source / "private_key.pem").unlink()
    os.mkfifo(source / "private_key.pem")
    assert "private_key.pem: cannot be read: it is not a file" in failure(source).message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("certificates.pem", "certificates.pem: its key is of no known kind"),
        ("ca_certificates.pem", "certificates.pem: is not signed by a root in ca_certificates.pem"),
    ],
)
def test_a_key_of_an_unknown_kind_is_named_and_no_bug(source: Path, name: str, message: str) -> None:
    certificate = x509.load_pem_x509_certificate((source / name).read_bytes())
    # The object identifier of P-256, and one that nobody knows.
    known, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    changed = certificate.public_bytes(serialization.Encoding.DER).replace(known, unknown)
    text = base64.encodebytes(changed).decode()
    (source / name).write_text(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")
    assert message in failure(source).message


def test_an_expired_certificate_says_since_when(source: Path, authority: Authority) -> None:
    pair = authority.workload(spiffe_id=OURS, life=-HOUR)
    write_workload(directory=source, pair=pair, root=authority.root)
    expired = x509.load_pem_x509_certificate(pair.chain).not_valid_after_utc
    assert failure(source).message == f"{source / 'certificates.pem'}: expired at {expired:%Y-%m-%dT%H:%M:%SZ}"


def test_a_certificate_of_tomorrow_is_refused(source: Path, authority: Authority) -> None:
    pair = authority.workload(spiffe_id=OURS, age=-HOUR)
    write_workload(directory=source, pair=pair, root=authority.root)
    assert "certificates.pem: not valid before " in failure(source).message


def test_an_expired_root_is_named(source: Path, authority: Authority) -> None:
    pair = authority.workload(spiffe_id=OURS, life=timedelta(days=90))
    write_workload(directory=source, pair=pair, root=authority.root)
    assert "ca_certificates.pem: expired at " in failure(source, now=NOW + timedelta(days=60)).message


def test_a_key_of_another_certificate_is_refused(source: Path, authority: Authority) -> None:
    write(path=source / "private_key.pem", content=authority.workload(spiffe_id=OURS).key)
    assert failure(source).message == f"{source / 'private_key.pem'}: is not the key of certificates.pem"


def test_a_key_behind_a_password_is_refused_and_never_shown(source: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    write(path=source / "private_key.pem", content=locked)
    error = failure(source)
    assert "holds no private key without a password" in error.message
    assert locked.decode().splitlines()[1] not in error.message + error.hint


def test_a_certificate_without_a_spiffe_identity_is_refused(source: Path, authority: Authority) -> None:
    for pair in (authority.server(hosts=("mesh.test",)), authority.workload(spiffe_id="https://mesh.test/")):
        write_workload(directory=source, pair=pair, root=authority.root)
        assert "certificates.pem: has no SPIFFE identity" in failure(source).message


def test_another_trust_domain_is_refused_also_when_it_begins_the_same(source: Path, authority: Authority) -> None:
    renew(source, authority, spiffe_id="spiffe://mesh.test.example/ns/demo/sa/default")
    assert "is not in the trust domain mesh.test" in failure(source).message
    assert "is not in the trust domain other" in failure(source, trust_domain="other").message


def test_a_root_that_has_not_signed_is_refused_also_with_the_same_name(source: Path) -> None:
    write(path=source / "ca_certificates.pem", content=Authority().root)
    assert failure(source).message == f"{source / 'certificates.pem'}: is not signed by a root in ca_certificates.pem"


def test_one_of_several_roots_is_enough(source: Path, authority: Authority) -> None:
    write(path=source / "ca_certificates.pem", content=Authority().root + authority.root)
    assert check(source, trust_domain=TRUST_DOMAIN, now=NOW).spiffe_id == OURS


def chained(root: Authority, *, life: timedelta = timedelta(days=1)) -> Pair:
    """A workload below an intermediate that is below a root."""
    middle, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.load_pem_x509_certificate(root.root).subject
    middle_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "middle")])
    times = {"life": life}

    def issue(
        subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey
    ) -> bytes:
        builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + times.pop("life", HOUR))
        if subject != middle_name:
            name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(OURS)])
            builder = builder.add_extension(name, critical=True)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    upper = issue(middle_name, root_name, middle.public_key(), root._key)
    lower = issue(x509.Name([]), middle_name, leaf.public_key(), middle)
    key = leaf.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(chain=lower + upper, key=key)


def test_an_intermediate_in_the_chain_leads_to_the_root(source: Path, authority: Authority) -> None:
    write_workload(directory=source, pair=chained(authority), root=authority.root)
    assert check(source, trust_domain=TRUST_DOMAIN, now=NOW).spiffe_id == OURS


def test_an_expired_intermediate_is_refused(source: Path, authority: Authority) -> None:
    write_workload(directory=source, pair=chained(authority, life=-HOUR), root=authority.root)
    assert "certificates.pem: expired at " in failure(source).message


def test_installing_copies_the_set_for_its_owner_only(source: Path) -> None:
    identity = keeper(source).install()
    target = source.parent / "run" / "certs"
    assert identity.spiffe_id == OURS
    assert live(source) == {name: (source / name).read_bytes() for name in NAMES}
    assert (target / "live").readlink() == Path("gen-1")
    assert {path.stat().st_mode & 0o777 for path in (target / "live").iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (target, target / "live")} == {0o700}


def test_only_the_newest_generation_is_kept(source: Path, authority: Authority) -> None:
    kept = keeper(source)
    kept.install()
    for _ in range(11):
        renew(source, authority)
        assert kept.refresh()
    assert sorted(path.name for path in (source.parent / "run" / "certs").iterdir()) == ["gen-12", "live"]


def test_a_folder_that_an_earlier_run_left_is_taken_over(source: Path) -> None:
    keeper(source).install()
    keeper(source).install()
    assert (source.parent / "run" / "certs" / "live").readlink() == Path("gen-2")


def test_a_target_that_cannot_be_written_is_named(source: Path) -> None:
    (source.parent / "run").write_text("a file")
    with pytest.raises(Misconfigured, match="certificates cannot be copied"):
        keeper(source).install()


def test_a_set_is_placed_before_it_is_verified_so_that_envoy_boots_meanwhile(
    source: Path, authority: Authority, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    kept = keeper(source)
    kept.place()
    placed = live(source)
    # What is verified is what was placed, not what has come since.
    renew(source, authority, spiffe_id="spiffe://other.test/ns/demo/sa/default")
    identity = kept.verify()
    assert identity.spiffe_id == OURS
    assert live(source) == placed
    (line,) = logged()
    assert line["identity"] == OURS
    assert line["expires"] == f"{identity.expires:%Y-%m-%dT%H:%M:%SZ}"
    assert not kept.refresh()
    assert live(source) == placed


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_no_pem_is_named_before_envoy_reads_it(source: Path, name: str) -> None:
    (source / name).write_text("words\n")
    kept = keeper(source)
    with pytest.raises(Misconfigured) as caught:
        kept.place()
    assert caught.value.message.startswith(f"{source / name}: ")
    assert not (source.parent / "run").exists()


def test_nothing_changed_is_nothing_done(source: Path) -> None:
    kept = keeper(source)
    kept.install()
    assert not kept.refresh()
    assert (source.parent / "run" / "certs" / "live").readlink() == Path("gen-1")


def test_a_file_written_in_place_is_a_change(source: Path, authority: Authority) -> None:
    kept = keeper(source)
    kept.install()
    pair = authority.workload(spiffe_id=OURS)
    (source / "certificates.pem").write_bytes(pair.chain)
    assert not kept.refresh()
    (source / "private_key.pem").write_bytes(pair.key)
    assert kept.refresh()
    assert live(source)["certificates.pem"] == pair.chain


def test_a_volume_that_swaps_its_data_link_is_a_change(tmp_path: Path, authority: Authority) -> None:
    """How the kubelet and krun itself replace files: links to ..data/NAME, and ..data moved onto a new folder."""
    source = tmp_path / "source"
    pairs = {name: authority.workload(spiffe_id=OURS) for name in ("..1", "..2")}
    for name, pair in pairs.items():
        write_workload(directory=source / name, pair=pair, root=authority.root)
    (source / "..data").symlink_to("..1")
    for name in NAMES:
        (source / name).symlink_to(f"..data/{name}")
    kept = keeper(source)
    kept.install()
    (source / "..new").symlink_to("..2")
    (source / "..new").replace(source / "..data")
    assert kept.refresh()
    assert live(source)["private_key.pem"] == pairs["..2"].key


def test_a_set_that_does_not_fit_is_logged_once_and_the_old_one_stays(
    source: Path, authority: Authority, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    kept = keeper(source)
    kept.install()
    before = live(source)
    (source / "private_key.pem").unlink()
    assert [kept.refresh(), kept.refresh(), kept.refresh()] == [False, False, False]
    said = [line["message"] for line in logged()]
    assert said == ["new certificates do not fit, the old ones stay"]
    assert live(source) == before
    renew(source, authority)
    assert kept.refresh()
    (line,) = logged()
    assert line["message"] == "certificates replaced"
    assert {"source", "identity", "fingerprint", "expires"} <= set(line)
    assert live(source) != before


def test_a_half_written_set_is_looked_at_again_without_another_change(source: Path, authority: Authority) -> None:
    """A set that becomes valid by time alone, or was read in the middle of a write, must not be waited out."""
    kept = keeper(source)
    kept.install()
    good = authority.workload(spiffe_id=OURS)
    write(path=source / "certificates.pem", content=good.chain)
    assert not kept.refresh()
    write(path=source / "private_key.pem", content=good.key)
    assert kept.refresh()
    assert not kept.refresh()
