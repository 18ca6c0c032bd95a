"""Credentials of a kubeconfig that a workload hardly ever has; imported late, as each class costs a start its time."""

from __future__ import annotations

import time
from base64 import b64encode

from krun_discover import certificate, kube_file
from krun_discover.errors import Denied, Malformed, Misconfigured
from krun_discover.kube_credentials import Credentials, Proof
from krun_discover.record import Record


class Login(Record, hidden=("password",)):
    """A user's name and password (RFC 7617)."""

    username: str
    password: str
    title: str
    remedy: str = "newer clusters take no passwords: use a token, a certificate or an exec plugin"

    def proof(self, *, deadline: float) -> Proof:
        """Both, encoded."""
        login = b64encode(f"{self.username}:{self.password}".encode()).decode()
        return Proof(headers={"Authorization": f"Basic {login}"})

    def renew(self) -> bool:
        """It is the same each time."""
        return False


class Certificate(Record):
    """A client certificate and its key, as files."""

    certificate: str
    key: str
    title: str
    remedy: str = "is the certificate of an authority that this API server trusts?"

    def proof(self, *, deadline: float) -> Proof:
        """Both, after a look at the dates: an expired one looks to the server as if there were none."""
        try:
            pem = kube_file.read(self.certificate, what=self.title, limit=certificate.LIMIT).decode("latin-1")
            validity = certificate.validity(pem)
        except ValueError as error:
            raise Malformed(f"{self.title}: {error}", hint="it is PEM text") from error
        if not validity.begins <= time.time() <= validity.ends:
            state = "has expired on" if time.time() > validity.ends else "is not valid before"
            stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(min(validity.moment, certificate.LAST)))
            raise Denied(f"{self.title} {state} {stamp}", hint="sign in to the cluster again, or renew the certificate")
        if reason := certificate.objection(self.certificate, self.key):
            hint = "both are PEM, the key belongs to the certificate and has no passphrase"
            raise Misconfigured(f"{self.title} and its key cannot be used: {reason}", hint=hint)
        return Proof(certificate=self.certificate, key=self.key)

    def renew(self) -> bool:
        """It is the same each time."""
        return False


class Together(Record):
    """Several at once: a certificate and a token, or a user to act as."""

    parts: tuple[Credentials, ...]

    @property
    def title(self) -> str:
        """All of them."""
        return " and ".join(part.title for part in self.parts)

    @property
    def remedy(self) -> str:
        """That of the last: a token expires sooner than a certificate."""
        return self.parts[-1].remedy

    def proof(self, *, deadline: float) -> Proof:
        """All of them."""
        proofs = [part.proof(deadline=deadline) for part in self.parts]
        return Proof(
            headers={name: value for proof in proofs for name, value in proof.headers.items()},
            certificate=next((proof.certificate for proof in proofs if proof.certificate), ""),
            key=next((proof.key for proof in proofs if proof.certificate), ""),
        )

    def renew(self) -> bool:
        """Any of them may be another."""
        renewed = [part.renew() for part in self.parts]  # each of them, also after the first that may be another
        return any(renewed)


class Acting(Record):
    """Who else to act as (`as` in a kubeconfig): beside the credentials of who we are."""

    user: str
    title: str
    remedy: str = "is the user allowed to impersonate?"

    def proof(self, *, deadline: float) -> Proof:
        """The header that kubectl sends."""
        return Proof(headers={"Impersonate-User": self.user})

    def renew(self) -> bool:
        """It is the same each time."""
        return False
