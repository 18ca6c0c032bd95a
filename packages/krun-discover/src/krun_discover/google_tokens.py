"""Google's tokens for whoever we are here: which source is asked, in which order, and what came of each.

The order of application default credentials (https://google.aip.dev/auth/4110), with gcloud's own login after it: a
file that is named, the file that gcloud writes, the metadata server, gcloud. The first that is there answers; when it
fails, no other takes its place, as that would be somebody else. One object is for one run of a tool.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from krun_discover import google_config, google_endpoints, metadata
from krun_discover.errors import Failure, Misconfigured
from krun_discover.google_source import IMPERSONATION, SCOPES, Absent, Source
from krun_discover.issued import Token
from krun_discover.record import Record
from krun_discover.token_cache import Key, TokenCache
from krun_discover.web import Web

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"


class Tried(Record):
    """One source that was looked at, for --explain; no secrets in it."""

    source: str
    outcome: str


class GoogleTokens:
    """Access tokens and ID tokens. ``tried`` tells of each source that was looked at, in order."""

    def __init__(
        self,
        *,
        web: Web,
        environ: Mapping[str, str] | None = None,
        metadata: metadata.Client | None = None,
        cache: TokenCache | None = None,
    ) -> None:
        self._web = web
        self._environ = os.environ if environ is None else environ
        self._client = metadata
        self._cache = cache
        self._endpoints = google_endpoints.read(self._environ)
        self.tried: list[Tried] = []

    def access(self, scopes: Sequence[str] = SCOPES) -> Token:
        """An access token for Google's APIs.

        Raises:
            Misconfigured: there are no credentials, or they cannot be read.
            Denied: Google or gcloud says no.
            Unreachable, DeadlinePassed: nobody says anything.
        """
        return self._first(lambda source: source.access(scopes), kind="access", audience=" ".join(scopes))

    def identity(self, audience: str) -> Token:
        """An ID token for the audience (a URL, or what the receiver is configured with). Raises as ``access``."""
        return self._first(lambda source: source.identity(audience), kind="identity", audience=audience)

    def federated(self, subject: Callable[[], Token], audience: str, *, impersonate: str = "") -> Source:
        """The account whose token ``subject`` mints, as Google's STS knows it; or the service account that it acts as.

        ``audience`` is ``identitynamespace:TRUST_DOMAIN:ISSUER``, where the subject's token is for the trust domain, or
        ``//iam.googleapis.com/projects/…/providers/…``. ID tokens need ``impersonate``, an email.
        """
        from krun_discover.google_sts import Federated

        found = Federated(web=self._web, subject=subject, audience=audience, endpoint=self._endpoints.sts)
        return self._acting(found, impersonate, what="impersonate") if impersonate else found

    def _first(self, ask: Callable[[Source], Token], *, kind: str, audience: str) -> Token:
        for label, make in self._sources(kind=kind, audience=audience):
            try:
                found = self._kept(self._impersonating(make()), ask, kind=kind, audience=audience)
            except Absent as error:
                self.tried.append(Tried(source=label, outcome=str(error)))
                continue
            except Failure as error:
                self.tried.append(Tried(source=label, outcome=f"failed: {error.message}"))
                raise
            self.tried.append(Tried(source=found.source, outcome="used"))
            return found
        told = "; ".join(f"{one.source}: {one.outcome}" for one in self.tried)
        raise Misconfigured(
            f"no Google credentials here ({told})",
            hint=f"gcloud auth application-default login, or set {VARIABLE} to a file of credentials",
        )

    def _kept(self, source: Source, ask: Callable[[Source], Token], *, kind: str, audience: str) -> Token:
        principal = source.principal
        if self._cache is None or not principal:
            return ask(source)
        return self._cache.through(Key(kind=kind, audience=audience, principal=principal), lambda: ask(source))

    def _sources(self, *, kind: str, audience: str) -> Iterator[tuple[str, Callable[[], Source]]]:
        """Each source's name, and what makes it or raises Absent: a source that is not needed is not looked at."""
        yield VARIABLE, self._named
        yield "gcloud's credential file", self._well_known
        yield "metadata server", lambda: self._metadata(kind=kind, audience=audience)
        yield "gcloud's login", self._gcloud

    def _impersonating(self, source: Source) -> Source:
        return self._acting(source, self._environ.get(IMPERSONATION, ""), what=IMPERSONATION)

    def _acting(self, source: Source, accounts: str, *, what: str) -> Source:
        """The source, or the account that it acts as: the last of a list, whose others are the way to it."""
        if not accounts:
            return source
        from krun_discover.google_file import ACCOUNT
        from krun_discover.google_iam import Impersonated

        *delegates, account = (one.strip() for one in accounts.split(","))
        for email in (*delegates, account):
            if not ACCOUNT.fullmatch(email):
                raise Misconfigured(
                    f"{what}={email!r} is no service account", hint="write its email, NAME@PROJECT.iam…"
                )
        url = self._endpoints.account(account)
        return Impersonated(web=self._web, source=source, url=url, delegates=tuple(delegates))

    def _named(self) -> Source:
        if not self._environ.get(VARIABLE):
            raise Absent("not set")
        return self._file(Path(self._environ[VARIABLE]), what=VARIABLE)

    def _well_known(self) -> Source:
        place = google_config.folder(self._environ)
        if place is None:
            raise Absent("not there: no HOME")
        try:
            (place / google_config.CREDENTIALS).stat()
        except OSError as error:  # somebody else's home, too
            raise Absent(f"not there: {error.strerror}") from error
        return self._file(place / google_config.CREDENTIALS, what="gcloud's credential file")

    def _file(self, path: Path, *, what: str) -> Source:
        from krun_discover import google_file

        return google_file.source(path, what=what, web=self._web, endpoints=self._endpoints)

    def _metadata(self, *, kind: str, audience: str) -> Source:
        from krun_discover.google_metadata import MetadataServer

        if self._client is None:
            settings = metadata.settings(self._environ, product=metadata.product_name)
            self._client = metadata.Client(settings=settings, deadline=self._web.deadline)
        if self._client.settings.off:
            raise Absent("not asked: NO_GCE_CHECK=true")
        if not self._client.settings.sign and self._cache is not None:
            # On a laptop its probe would take longer than all the rest.
            principal = self._impersonating(self._gcloud()).principal
            if principal and self._cache.has_fresh(Key(kind=kind, audience=audience, principal=principal)):
                raise Absent("not asked: nothing speaks for one, and a token of gcloud's login is kept")
        return MetadataServer(client=self._client)

    def _gcloud(self) -> Source:
        from krun_discover.google_gcloud import LIMIT, Gcloud

        left = self._web.deadline - time.monotonic()
        return Gcloud(environ=self._environ, seconds=max(0.1, min(LIMIT, left)))
