"""The control process: listens, starts the workers, and feeds them routes and tokens; carries no connection itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hbone import sockets
from hbone.restarts import TIMEOUT
from hbone.stop import Stop
from hbone.urls import URL, Address
from hgate import feed
from hgate.child import LogStyle
from hgate.keeper import Keeper
from hgate.metrics import State, Totals, text
from hgate.routes import Identity, Key, Route, parse_place
from hgate.status import Health, StatusServer
from hgate.token_source import TokenSource
from hgate.workers import Workers

if TYPE_CHECKING:
    from hgate.registrar import Registrar
    from hgate.registration import Result

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where to listen, with how many workers, what leads where without any cluster."""

    listen: Address
    workers: int
    routes: tuple[Route, ...]
    worker: feed.Settings
    log_style: LogStyle
    status: Address | None = None
    worker_timeout: float = TIMEOUT


class Control:
    """The daemon's work; ``serve`` returns when it is drained.

    ``tokens`` makes ID tokens, ``registrar`` watches a cluster; without them there are none.
    """

    def __init__(self, *, settings: Settings, stop: Stop, tokens: TokenSource | None) -> None:
        self._settings = settings
        self._stop = stop
        self._source = tokens
        self._static = tuple(_with_identity(route, tokens=tokens) for route in settings.routes)
        self._routes: dict[Key, Route] = {route.key: route for route in self._static}
        self._totals = Totals()
        self._registrar: Registrar | None = None
        self._workers: Workers | None = None
        self._keeper: Keeper | None = None

    async def serve(self, registrar: Registrar | None = None) -> None:
        """Listen, and serve until drained. Raises Misconfigured, and Unreachable when no worker lives."""
        settings = self._settings
        self._registrar = registrar
        listener = sockets.listen(settings.listen.host, settings.listen.port)
        async with asyncio.TaskGroup() as group:
            self._keeper = Keeper(source=self._source, tell=self._tell, group=group) if self._source else None
            if self._keeper:
                self._keeper.allow(self._identities())
            self._workers = Workers(
                listener=listener,
                count=settings.workers,
                settings=settings.worker,
                log_style=settings.log_style,
                heard=self._heard,
                snapshot=self._snapshot,
                timeout=settings.worker_timeout,
            )
            status = await self._open_status()
            others = [group.create_task(self._say_ready(self._workers, sockets.name(listener)))]
            if self._keeper:
                others.append(group.create_task(self._keeper.run()))
            if registrar:
                others.append(group.create_task(registrar.run()))
            giving_up = group.create_task(self._give_up(registrar)) if registrar else None
            try:
                await self._workers.run(self._stop)
                if giving_up:
                    # The lease is given back before we are gone: else the next replica waits until it has run out.
                    await giving_up
            finally:
                for task in [*others, *([giving_up] if giving_up else [])]:
                    task.cancel()
                if self._keeper:
                    self._keeper.allow(())
                if status:
                    status.close()

    def routed(self, result: Result) -> None:
        """What the cluster declares now: the workers are told what is other than before."""
        # What an admin gave by hand wins over what somebody has registered.
        wanted = {route.key: route for route in (*result.routes, *self._static)}
        new = tuple(route for key, route in wanted.items() if self._routes.get(key) != route)
        gone = tuple(key for key in self._routes if key not in wanted)
        self._routes = wanted
        if self._keeper:
            # Before the routes: a worker asks for a token as soon as it has a route.
            self._keeper.allow(self._identities())
        if new or gone:
            self._tell(feed.Routes(set=new, remove=gone))

    def health(self) -> Health:
        """Whether connections are to be sent here."""
        if self._stop.draining.is_set():
            return Health(is_ready=False, reason="draining")
        if self._workers is None or not self._workers.ready:
            return Health(is_ready=False, reason="no worker is ready")
        if self._registrar and not self._registrar.is_settled:
            return Health(is_ready=False, reason="the cluster's declarations are not known yet")
        return Health(is_ready=True)

    def metrics(self) -> str:
        """All numbers, as Prometheus reads them."""
        state = State(
            is_ready=self.health().is_ready,
            workers=self._workers.ready if self._workers else 0,
            routes=len(self._routes),
            totals=self._totals.values(),
        )
        if self._keeper:
            keeper = self._keeper
            state = replace(state, tokens=keeper.ages(), minted=keeper.minted, failed=keeper.failed)
        if self._registrar:
            result = self._registrar.result
            state = replace(
                state,
                is_leader=self._registrar.is_leader,
                registrations=len(result.registered) if result else 0,
                refused=len(result.refused) if result else 0,
                watches=self._registrar.cluster.ages(now=time.monotonic()),
                failures=self._registrar.outages.failures,
                writes=self._registrar.writer.writes,
            )
        return text(state, now=time.time())

    async def _open_status(self) -> asyncio.Server | None:
        where = self._settings.status
        if where is None:
            return None
        return await StatusServer(health=self.health, metrics=self.metrics).serve(where.host, where.port)

    async def _say_ready(self, workers: Workers, address: str) -> None:
        await workers.until_ready()
        if self._registrar:
            await self._registrar.settled.wait()
        log.info("ready", extra={"fields": {"address": address, "count": len(self._routes)}})

    async def _give_up(self, registrar: Registrar) -> None:
        """When we drain, another replica is to write at once."""
        await self._stop.draining.wait()
        await registrar.stop()

    def _heard(self, message: feed.Message, worker: int) -> None:
        match message:
            case feed.Ready():
                self._totals.restart(worker)
            case feed.Need():
                self._need(message)
            case feed.Counts():
                self._totals.take(worker, message.values)

    def _need(self, need: feed.Need) -> None:
        if self._keeper:
            self._keeper.need(need)
        else:
            self._tell(feed.NoToken(identity=need.identity, error="this gate has no source of ID tokens"))

    def _tell(self, message: feed.Message) -> None:
        if self._workers:
            self._workers.tell(message)

    def _snapshot(self) -> Iterable[feed.Message]:
        yield feed.Routes(reset=True, set=tuple(self._routes.values()))
        if self._keeper:
            yield from self._keeper.tokens()

    def _identities(self) -> set[Identity]:
        return {route.identity for route in self._routes.values() if route.identity}


def _with_identity(route: Route, *, tokens: TokenSource | None) -> Route:
    """A route that was given by hand: its token is for its host. The metadata server's never go without TLS."""
    where = parse_place(route.url)
    if tokens is None or not isinstance(where, URL) or not (tokens.is_configured or where.scheme == "https"):
        return route
    return replace(route, identity=Identity(audience=where.audience))
