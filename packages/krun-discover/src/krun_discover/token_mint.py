"""How each of krun-token's commands gets its token: one object for the command, which mints as often as is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from krun_discover.issued import Token
from krun_discover.web import Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from krun_discover.google_tokens import GoogleTokens
    from krun_discover.kube_target import Target
    from krun_discover.token_cache import Key, TokenCache
else:
    Protocol = object


SUBJECT_LIFE = 600  # seconds: it is exchanged at once, and a cluster gives none less


class Mint(Protocol):
    """Something that a command asks for its token."""

    def mint(self, *, seconds: float, is_new: bool) -> Token:
        """The token, within so many seconds; ``is_new``: not one that was kept. Raises a Failure."""

    def account(self) -> list[str]:
        """What was tried for the last one, a line each, without secrets."""


class Google:
    """An ID token for the audience, or an access token where that is None."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        audience: str | None = None,
        scopes: Sequence[str] = (),
        federation: str = "",
    ) -> None:
        """``federation``: as the workload's Kubernetes account, which STS knows by that audience."""
        self._federation = federation
        self._environ = environ
        self._audience = audience
        self._scopes = scopes
        self._lines: list[str] = []

    def mint(self, *, seconds: float, is_new: bool) -> Token:
        """See Mint."""
        web = Web(deadline=time.monotonic() + seconds, environ=self._environ)
        tokens = _google(web, environ=self._environ, cache=_cache(self._environ, is_new=is_new))
        try:
            if self._federation:
                return self._federated(tokens, web=web)
            if self._audience is not None:
                return tokens.identity(self._audience)
            return tokens.access(tuple(self._scopes)) if self._scopes else tokens.access()
        finally:
            self._lines = _tried(tokens) + _asked(web)

    def _federated(self, tokens: GoogleTokens, *, web: Web) -> Token:
        from krun_discover import kube_find
        from krun_discover.google_source import IMPERSONATION, SCOPES
        from krun_discover.google_sts import subject_audience

        account = self._environ.get("WORKLOAD_SERVICE_ACCOUNT") or "default"
        audiences = [subject_audience(self._federation)]

        def subject() -> Token:
            home = kube_find.home(self._environ, web=web, namespace=self._environ.get("WORKLOAD_NAMESPACE", ""))
            return home.cluster.mint_token(
                namespace=home.namespace, account=account, audiences=audiences, seconds=SUBJECT_LIFE
            )

        source = tokens.federated(subject, self._federation, impersonate=self._environ.get(IMPERSONATION, ""))
        if self._audience is not None:
            return source.identity(self._audience)
        return source.access(tuple(self._scopes) or SCOPES)

    def account(self) -> list[str]:
        """See Mint."""
        return self._lines


class Kubernetes:
    """A token of a service account; ``namespace`` may be empty, ``seconds`` is the life that is asked for."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        context: str,
        namespace: str,
        account_name: str,
        audiences: tuple[str, ...],
        seconds: int,
    ) -> None:
        self._environ = environ
        self._context = context
        self._namespace = namespace
        self._account = account_name
        self._audiences = audiences
        self._seconds = seconds
        self._lines: list[str] = []

    def mint(self, *, seconds: float, is_new: bool) -> Token:
        """See Mint."""
        from krun_discover import kube_find

        web = Web(deadline=time.monotonic() + seconds, environ=self._environ)
        self._lines = []
        try:
            home = kube_find.home(self._environ, web=web, context=self._context, namespace=self._namespace)
            cluster, target, namespace = home.cluster, home.cluster.target, home.namespace
            self._lines = [f"{target.source}, {target.server}: namespace {namespace}, account {self._account}"]

            def mint() -> Token:
                return cluster.mint_token(
                    namespace=namespace, account=self._account, audiences=self._audiences, seconds=self._seconds
                )

            cache = _cache(self._environ, is_new=is_new)
            return cache.through(self._key(target, namespace=namespace), mint) if cache else mint()
        finally:
            self._lines += _asked(web)

    def account(self) -> list[str]:
        """See Mint."""
        return self._lines

    def _key(self, target: Target, *, namespace: str) -> Key:
        """Of the account, whoever asks for it; a cluster that is made anew at an old address is another one."""
        from krun_discover.token_cache import Key

        principal = "\n".join([target.server, target.tls.roots, namespace, self._account])
        return Key(kind="kubernetes", audience="\n".join([*self._audiences, str(self._seconds)]), principal=principal)


def _google(web: Web, *, environ: Mapping[str, str], cache: TokenCache | None) -> GoogleTokens:
    from krun_discover.google_tokens import GoogleTokens

    return GoogleTokens(web=web, environ=environ, cache=cache)


def _cache(environ: Mapping[str, str], *, is_new: bool) -> TokenCache | None:
    if is_new:
        return None
    from krun_discover import token_cache

    return token_cache.TokenCache(folder=token_cache.folder(environ))


def _tried(google: GoogleTokens) -> list[str]:
    return [f"{one.source}: {one.outcome}" for one in google.tried]


def _asked(web: Web) -> list[str]:
    return [f"{one.method} {one.url}: {one.outcome} ({one.seconds:.2f} s)" for one in web.journal]
