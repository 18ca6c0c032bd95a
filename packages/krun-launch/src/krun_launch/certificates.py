"""The workload's certificate, key and roots: checked before Envoy reads them, and handed to it again when they change.

cryptography is imported inside of functions: mode none never needs it, and it costs more start-up time than all the
rest of this package.
"""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import datetime
from pathlib import Path

from krun_launch import lines, rundir
from krun_launch.errors import Misconfigured
from krun_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography import x509

CHAIN = "certificates.pem"
KEY = "private_key.pem"
ROOTS = "ca_certificates.pem"
NAMES = (CHAIN, KEY, ROOTS)
HINT = f"KRUN_CERTS is a folder with {CHAIN} (the workload's first), {KEY} and {ROOTS}, all PEM"
LIVE = "live"
GENERATION = "gen-"
MAX_CHAIN = 8
LIMIT = 1 << 20  # bytes of one file; a chain is a few thousand
# What a file of each kind holds, whatever else is in it.
MARKS = {CHAIN: b"-----BEGIN CERTIFICATE-----", KEY: b"PRIVATE KEY-----", ROOTS: b"-----BEGIN CERTIFICATE-----"}


class Identity(Record):
    """Who the certificate says we are, until when (UTC), and its SHA-256 in hex."""

    spiffe_id: str
    expires: datetime
    fingerprint: str


def check(directory: Path, *, trust_domain: str, now: datetime) -> Identity:
    """Check a workload's folder at a time (aware): raises Misconfigured, naming the file, unless all of it fits."""
    return _verify(_read(directory), directory=directory, trust_domain=trust_domain, now=now)


class Keeper:
    """Keeps a checked copy of the workload's folder below ``target/live``, which Envoy watches.

    Envoy must never read a new certificate with the old key. So each set is copied whole into a folder of its own, and
    the symbolic link ``live`` is moved onto it in one step.
    """

    def __init__(self, *, source: Path, target: Path, trust_domain: str, owner: int | None = None) -> None:
        """``owner``: the user whom the copies are given to, when Envoy is another one than we are."""
        self._owner = owner
        self._source = source
        self._target = target
        self._trust_domain = trust_domain
        self._seen: tuple[tuple[int, ...], ...] = ()
        self._complaint = ""
        self._placed: dict[str, bytes] = {}

    def place(self) -> None:
        """Make the set the live one before it is verified, for an Envoy that boots meanwhile; ``verify`` must follow.

        Raises Misconfigured for what can be seen without cryptography, whose import takes as long as Envoy's boot.
        """
        seen = self._state()
        self._placed = _read(self._source)
        if any(MARKS[name] not in data for name, data in self._placed.items()):
            # In our words, before Envoy finds its own.
            self._check(self._placed)
        self._copy(self._placed)
        self._seen = seen

    def verify(self) -> Identity:
        """Check the set that was placed; raises Misconfigured when it does not fit."""
        identity = self._check(self._placed)
        lines.info("certificates installed", **_fields(identity, source=self._source))
        return identity

    def install(self) -> Identity:
        """Check the set and make it the live one; raises Misconfigured when it does not fit."""
        # The state before reading: a file that changes after it was read is seen as a change the next time.
        seen = self._state()
        content = _read(self._source)
        identity = self._check(content)
        self._copy(content)
        self._seen, self._complaint = seen, ""
        return identity

    def refresh(self) -> bool:
        """Install the set again if a file of it has changed; a set that does not fit is logged once, the old one stays.

        Costs three stat calls when nothing has changed. True when the live set was replaced.
        """
        if self._state() == self._seen and not self._complaint:
            return False
        try:
            identity = self.install()
        except Misconfigured as error:
            # It is looked at again each time, not only at its next change: files may be replaced one by one.
            if error.message != self._complaint:
                self._complaint = error.message
                lines.error(
                    "new certificates do not fit, the old ones stay",
                    source=str(self._source),
                    reason=error.message,
                )
            return False
        lines.info("certificates replaced", **_fields(identity, source=self._source))
        return True

    def _check(self, content: dict[str, bytes]) -> Identity:
        return _verify(content, directory=self._source, trust_domain=self._trust_domain, now=_now())

    def _copy(self, content: dict[str, bytes]) -> None:
        try:
            self._write(content)
        except OSError as error:
            raise Misconfigured(
                f"{self._target}: certificates cannot be copied: {error.strerror}",
                hint="set KRUN_RUN_DIR to a folder that can be written",
            ) from error

    def _state(self) -> tuple[tuple[int, ...], ...]:
        """What tells one state of the files from another; stat follows links, so that ..data of a volume is seen."""
        return tuple(_stamp(self._source / name) for name in NAMES)

    def _write(self, content: dict[str, bytes]) -> None:
        self._target.mkdir(parents=True, exist_ok=True, mode=0o700)
        rundir.share(self._target, owner=self._owner)
        old = sorted(self._target.glob(f"{GENERATION}*"))
        folder = self._target / f"{GENERATION}{1 + max((_number(path) for path in old), default=0)}"
        folder.mkdir(mode=0o700)
        rundir.share(folder, owner=self._owner)
        for name, data in content.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                rundir.hand(descriptor, owner=self._owner)
                file.write(data)
        link = self._target / f".{LIVE}.new"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(folder.name)
        link.replace(self._target / LIVE)
        for path in old:
            # Late: it imports every compressor, and at the start there is nothing old.
            import shutil

            shutil.rmtree(path, ignore_errors=True)


def _fields(identity: Identity, *, source: Path) -> dict[str, object]:
    return {
        "source": str(source),
        "identity": identity.spiffe_id,
        "fingerprint": identity.fingerprint,
        "expires": f"{identity.expires:%Y-%m-%dT%H:%M:%SZ}",
    }


def _read(directory: Path) -> dict[str, bytes]:
    content = {}
    for name in NAMES:
        try:
            # Looked at before it is opened: opening a pipe that nobody writes to would wait for ever.
            if not stat.S_ISREG((directory / name).stat().st_mode):
                raise Misconfigured(f"{directory / name}: cannot be read: it is not a file", hint=HINT)
            with (directory / name).open("rb") as file:
                content[name] = file.read(LIMIT)
        except OSError as error:
            raise Misconfigured(f"{directory / name}: cannot be read: {error.strerror}", hint=HINT) from error
    return content


def _verify(content: dict[str, bytes], *, directory: Path, trust_domain: str, now: datetime) -> Identity:
    from cryptography.hazmat.primitives import hashes

    chain = _certificates(content[CHAIN], path=directory / CHAIN)
    roots = _certificates(content[ROOTS], path=directory / ROOTS)
    for certificate in chain:
        _check_times(certificate, path=directory / CHAIN, now=now)
    _check_key(content[KEY], leaf=chain[0], directory=directory)
    spiffe_id = _spiffe_id(chain[0], path=directory / CHAIN, trust_domain=trust_domain)
    _check_signatures(chain, roots=roots, directory=directory, now=now)
    return Identity(
        spiffe_id=spiffe_id,
        expires=chain[0].not_valid_after_utc,
        fingerprint=chain[0].fingerprint(hashes.SHA256()).hex(),
    )


def _certificates(data: bytes, *, path: Path) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise Misconfigured(f"{path}: holds no certificate that can be read: {error}", hint=HINT) from error


def _check_times(certificate: x509.Certificate, *, path: Path, now: datetime) -> None:
    if now >= certificate.not_valid_after_utc:
        raise Misconfigured(
            f"{path}: expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            hint="renew the workload's certificate, or correct the clock",
        )
    if now < certificate.not_valid_before_utc:
        raise Misconfigured(
            f"{path}: not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
            hint="correct the clock of this machine, or of the one that signed",
        )


def _check_key(data: bytes, *, leaf: x509.Certificate, directory: Path) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The reason is not shown: a parser's words may quote the file, and this one is a secret.
        raise Misconfigured(f"{directory / KEY}: holds no private key without a password", hint=HINT) from error
    try:
        expected = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Misconfigured(f"{directory / CHAIN}: its key is of no known kind: {error}", hint=HINT) from error
    if key.public_key() != expected:
        raise Misconfigured(
            f"{directory / KEY}: is not the key of {CHAIN}",
            hint="both files must come from one renewal; the workload's certificate is the first in its file",
        )


def _spiffe_id(leaf: x509.Certificate, *, path: Path, trust_domain: str) -> str:
    from cryptography import x509

    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        uris = []
    else:
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    # SPIFFE X.509-SVID §2: exactly one URI.
    if len(uris) != 1 or not uris[0].startswith("spiffe://"):
        raise Misconfigured(
            f"{path}: has no SPIFFE identity: {uris or 'no URI name'}",
            hint="the certificate needs one URI name, spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT",
        )
    if not uris[0].startswith(f"spiffe://{trust_domain}/"):
        raise Misconfigured(
            f"{path}: {uris[0]} is not in the trust domain {trust_domain}",
            hint="set TRUST_DOMAIN to the mesh's, or use a certificate of this mesh",
        )
    return uris[0]


def _check_signatures(
    chain: list[x509.Certificate], *, roots: list[x509.Certificate], directory: Path, now: datetime
) -> None:
    """Follow the signatures from the workload up to a root. Early and clear; the verdict that counts is Envoy's."""
    current = chain[0]
    for _ in range(MAX_CHAIN):
        if root := _issuer(current, among=roots):
            return _check_times(root, path=directory / ROOTS, now=now)
        found = _issuer(current, among=chain[1:])
        if found is None:
            break
        current = found
    raise Misconfigured(
        f"{directory / CHAIN}: is not signed by a root in {ROOTS}",
        hint=f"{CHAIN} needs the intermediate certificates below the workload's, {ROOTS} the mesh's roots",
    )


def _issuer(certificate: x509.Certificate, *, among: list[x509.Certificate]) -> x509.Certificate | None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    for candidate in among:
        with contextlib.suppress(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            certificate.verify_directly_issued_by(candidate)
            return candidate
    return None


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ino, status.st_dev, status.st_size)


def _number(path: Path) -> int:
    text = path.name.removeprefix(GENERATION)
    return int(text) if text.isdecimal() else 0


def _now() -> datetime:
    from datetime import UTC

    return datetime.now(UTC)
