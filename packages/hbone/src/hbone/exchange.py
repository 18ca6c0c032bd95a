"""One request and its answer between a client and the application: both directions at once, held back by the slower.

An answer that is not whole is never made to look whole. Nothing is kept: what cannot be handed on is not read.
"""

from __future__ import annotations

import asyncio
import contextlib

from hbone.application import Application
from hbone.inbound import Gone, Inbound, Malformed
from hbone.message import Answer
from hbone.offers import Refusal
from hbone.outbound import AppBroken, AppStopped, Outbound

ENDED = "ended"
CLIENT_GONE = "the client is gone"


class Exchange:
    """The request while it is under way; ``reason`` says at the end how it ended."""

    def __init__(self, *, inbound: Inbound, application: Application) -> None:
        self.received = 0  # bytes of the request's body
        self.sent = 0  # and of the answer's
        self.reason = ENDED
        self.app_reason = ""  # what the application did wrong, if that is what ended it
        self._inbound = inbound
        self._application = application
        self._body: bytes | None = None  # the whole of it, when that is here already
        self._has_begun = False  # the client has the answer's head

    async def run(self) -> None:
        """Serve the request. A client that is gone ends it, and the application is told."""
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout(None)

        def end(after: float) -> None:
            if not scope.expired():
                scope.reschedule(loop.time() + after)

        try:
            async with scope:
                self._inbound.when_gone(end)
                await self._attempts()
                self._inbound.when_gone(None)
        except TimeoutError:
            self._lose(CLIENT_GONE)
        except Gone as error:
            self._lose(str(error))
        except Malformed as error:
            self.reason = str(error)
            self._inbound.when_gone(None)
            await self._give_up(error.refusal)
        except BaseException:
            self._inbound.when_gone(None)
            self._inbound.abort()
            raise

    def _lose(self, reason: str) -> None:
        self.reason = reason
        self._inbound.when_gone(None)
        self._inbound.abort()

    async def _attempts(self) -> None:
        self._body = self._inbound.ready() if self._inbound.request.has_body else b""
        self.received = len(self._body or b"")
        is_fresh = False
        while True:
            try:
                outbound = await self._application.open(self._inbound.request, is_fresh=is_fresh)
            except AppBroken as error:
                await self._fail(error)
                return
            try:
                await self._through(outbound)
                return
            except AppBroken as error:
                # Once more, when it met a connection that the application was just closing.
                if is_fresh or not self._can_repeat(outbound, error):
                    await self._fail(error)
                    return
                is_fresh = True
            finally:
                outbound.release()

    def _can_repeat(self, outbound: Outbound, error: AppBroken) -> bool:
        if self._has_begun or outbound.has_answered:
            return False
        if error.is_safe:
            return self._body is not None or not outbound.has_sent_body
        return outbound.is_reused and self._inbound.request.can_repeat and not outbound.has_sent_body

    async def _fail(self, error: AppBroken) -> None:
        self.reason = self.app_reason = f"the application does not answer: {error}"
        status = 503
        if error.is_malformed:
            self.reason = self.app_reason = f"the application's answer is malformed: {error}"
            status = 502
        await self._give_up(Refusal(status=status, text=f"krun: {self.reason}\n"))

    async def _give_up(self, refusal: Refusal) -> None:
        if self._has_begun:
            self._inbound.abort()
            return
        try:
            await self._inbound.refuse(refusal)
        except Gone:
            self._inbound.abort()

    async def _through(self, outbound: Outbound) -> None:
        with contextlib.suppress(AppStopped):  # its answer says why
            await outbound.begin(self._body, self._inbound.trailers)
        if self._body is not None:
            await self._download(outbound)
            return
        try:
            async with asyncio.TaskGroup() as group:
                upload = group.create_task(self._upload(outbound))
                await self._download(outbound)
                upload.cancel()
        except BaseExceptionGroup as broken:
            raise _first(broken) from None

    async def _upload(self, outbound: Outbound) -> None:
        try:
            while data := await self._inbound.read():
                self.received += len(data)
                await outbound.send(data)
                self._inbound.acknowledge(len(data))
            await outbound.finish(self._inbound.trailers)
        except AppStopped:
            return  # its answer says why

    async def _download(self, outbound: Outbound) -> None:
        answer = await outbound.head()
        while answer.is_information:
            if answer.status == 101:
                await self._switch(outbound, answer)
                return
            await self._inbound.inform(answer)
            answer = await outbound.head()
        await self._answer(outbound, answer)

    async def _answer(self, outbound: Outbound, answer: Answer) -> None:
        has_body = answer.has_body(self._inbound.request.method)
        data, is_ended = outbound.ready()
        is_ended = is_ended or answer.ends
        if not has_body:
            await self._without_body(outbound, answer, is_ended=is_ended)
            return
        self._count(answer, data, is_ended=is_ended)
        self._has_begun = True
        await self._inbound.answer(answer, data, ends=is_ended and not outbound.trailers)
        outbound.acknowledge(len(data))
        while not is_ended:
            data = await outbound.read()
            is_ended = not data
            self._count(answer, data, is_ended=is_ended)
            if data:
                await self._inbound.write(data)
                outbound.acknowledge(len(data))
        await self._inbound.end(outbound.trailers)

    async def _without_body(self, outbound: Outbound, answer: Answer, *, is_ended: bool) -> None:
        self._has_begun = True
        while not is_ended:  # an application may end it in a frame of its own
            is_ended = not await outbound.read()
        await self._inbound.answer(answer, b"", ends=not outbound.trailers)
        await self._inbound.end(outbound.trailers)

    def _count(self, answer: Answer, data: bytes, *, is_ended: bool) -> None:
        self.sent += len(data)
        length = answer.length
        if length is not None and (self.sent > length or (is_ended and self.sent < length)):
            raise AppBroken("its answer's length differs from its content-length", is_malformed=True)

    async def _switch(self, outbound: Outbound, answer: Answer) -> None:
        from hbone.switched import switch  # late: few requests need it

        self._has_begun = True
        sent, received = await switch(self._inbound, outbound, answer)
        self.sent += sent
        self.received += received


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What broke it: what the client did counts before what the application did then."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        else:
            found.append(error)
    return next((error for error in found if isinstance(error, Gone | Malformed)), found[0])
