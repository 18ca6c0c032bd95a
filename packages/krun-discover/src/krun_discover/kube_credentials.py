"""As whom the API server is asked: what goes along with a request, of each kind that a configuration may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from krun_discover import kube_file
from krun_discover.errors import Malformed
from krun_discover.issued import Token
from krun_discover.record import NONE, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

TOKEN_LIMIT = 64 * 1024  # bytes


class Proof(Record, hidden=("headers",)):
    """What goes along with one request; ``certificate`` and ``key`` are files."""

    headers: Mapping[str, str] = NONE
    certificate: str = ""
    key: str = ""


class Credentials(Protocol):
    """Who we are. ``title`` and ``remedy`` are for a person: what it is, and what to do when it is not accepted."""

    @property
    def title(self) -> str:
        """What it is, without any of its content."""

    @property
    def remedy(self) -> str:
        """What to do when the server does not accept it."""

    def proof(self, *, deadline: float) -> Proof:
        """What to send now; ``deadline`` is of time.monotonic. Raises a Failure that names the source."""

    def renew(self) -> bool:
        """Forget what the server has just refused; tell whether the next proof may be another."""


class Anonymous(Record):
    """Nothing is sent; right for `kubectl proxy`."""

    title: str = "no credentials"
    remedy: str = "the kubeconfig names no user for this context: kubectl config set-context --current --user=NAME"

    def proof(self, *, deadline: float) -> Proof:
        """Nothing."""
        return Proof()

    def renew(self) -> bool:
        """Nothing is never another."""
        return False


class Text(Record, hidden=("token",)):
    """A token as it stands in a file of configuration."""

    token: str
    title: str
    remedy: str = "it may have expired: sign in again, or write a new one there"

    def proof(self, *, deadline: float) -> Proof:
        """The token."""
        return bearer(self.token, title=self.title)

    def renew(self) -> bool:
        """It is the same each time."""
        return False


class File(Record):
    """A token in a file of its own, which others rotate: it is read anew each time."""

    path: str
    title: str
    remedy: str = "it may have expired: whoever writes that file must go on doing so"

    def proof(self, *, deadline: float) -> Proof:
        """The token as the file holds it now."""
        data = kube_file.read(self.path, what=self.title, limit=TOKEN_LIMIT)
        return bearer(data.decode("latin-1").strip(), title=f"{self.title}: {self.path}")

    def renew(self) -> bool:
        """Whatever is in it has been read already."""
        return False


class Google(Record, hidden=("google",)):
    """An access token of Google's, which stands for gke-gcloud-auth-plugin and the like without running them."""

    google: Callable[[], Token]
    title: str = "Google access token"
    remedy: str = "is its account in this project, and known to the cluster?"

    def proof(self, *, deadline: float) -> Proof:
        """The token that is asked for now; its keeper knows when it must be a new one."""
        return bearer(self.google().value, title=self.title)

    def renew(self) -> bool:
        """Its keeper gives the same one again."""
        return False


def bearer(token: str, *, title: str) -> Proof:
    """A token's header. Raises Malformed for what no header can hold, without showing it."""
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        reason = "is empty" if not token else "is not one word of ASCII"
        raise Malformed(f"{title}: the token {reason}", hint="a token is one line, without spaces or quotes")
    return Proof(headers={"Authorization": f"Bearer {token}"})
