"""One tunnel for this process's stdin and stdout: what ssh calls a ProxyCommand."""

from __future__ import annotations

import gc
import time

from hbone import errors, token_source
from hbone.first_flight import first_flight
from hbone.pipe_wire import Deadline, Late, Wire, dial
from hbone.settings import ATTEMPTS
from hbone.urls import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hbone.pipe_tls import TlsWire, Trust
    from hbone.pipe_tunnel import PipeTunnel
    from hbone.settings import Settings
    from hbone.urls import URL


def pipe(*, url: URL, settings: Settings) -> int:
    """Run the tunnel until the other side ends; the exit status is 0.

    Raises:
        Failure: there is no tunnel, or it broke.
    """
    opening = _Opening(url, settings)
    try:
        tunnel = opening.open()
        gc.enable()
        _carry(tunnel, url)
    finally:
        opening.close()
    return errors.Exit.OK


def _carry(tunnel: PipeTunnel, url: URL) -> None:
    from hbone.pipe_tunnel import Broken, StdioBroken

    started = time.monotonic()
    try:
        tunnel.carry()
    except StdioBroken as broken:
        hint = "the program at the other end is gone"
        raise errors.Unreachable(f"stdin or stdout failed: {broken}", hint=hint) from broken
    except Broken as broken:
        what = f"the tunnel to {url} broke after {time.monotonic() - started:.0f} s: {broken}"
        hint = (
            "a serverless front ends a tunnel at its request timeout (Cloud Run: 300 s unless set, 3600 s at most); "
            "else see the server's log"
        )
        raise errors.Unreachable(what, hint=hint) from broken


class _Opening:
    """The way to a tunnel: dialled, asked for, and again while it is sure that nothing was done."""

    def __init__(self, url: URL, settings: Settings) -> None:
        """Raises Failure: what can be known without dialling."""
        source = settings.token_source
        token_source.check(source)
        self._url = url
        self._settings = settings
        self._address = settings.connect_to or Address(host=url.host, port=url.port)
        self._what = f"cannot reach {url.scheme}://{url.authority} at {self._address}"
        self._trust = _trust(settings) if url.scheme == "https" else None
        if source and self._trust is None and not self._address.is_loopback:
            from hbone.unreachable import unencrypted

            raise unencrypted(self._address)
        self._token = token_source.find(source, audience=url.audience)
        self._tunnel: PipeTunnel | None = None

    def open(self) -> PipeTunnel:
        """A tunnel whose server has answered 200. Raises Failure."""
        tunnel = self._dialled()
        from hbone.pipe_tunnel import OK, Broken

        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                tunnel = self._asked_again(tunnel)
            deadline = Deadline(seconds=self._settings.answer_timeout)
            try:
                if tunnel.wait_for_answer(deadline) == OK:
                    return tunnel
                raise self._refused(tunnel, deadline)
            except Broken as broken:
                reason = str(broken)
                # Not a byte of payload was sent, so a tunnel may be asked for again when its connection is gone.
                if not (broken.is_safe or tunnel.is_lost):
                    break
            except Late as late:
                what = f"no answer from {self._url} within {deadline.seconds:g} s"
                raise errors.DeadlinePassed(what, hint="see the server's log") from late
        hint = "the server or its front ended it; see their logs"
        raise errors.Unreachable(f"no tunnel to {self._url}: {reason}", hint=hint)

    def close(self) -> None:
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.close()

    def _refused(self, tunnel: PipeTunnel, deadline: Deadline) -> errors.Failure:
        from hbone.refusal import refusal

        text = tunnel.read_refusal(deadline)
        return refusal(self._url, status=tunnel.status, text=text, token=self._token)

    def _asked_again(self, tunnel: PipeTunnel) -> PipeTunnel:
        if not tunnel.can_ask:
            self.close()
            return self._dialled()
        if tunnel.takes_none:
            from hbone.unreachable import no_streams

            raise no_streams(self._what)
        tunnel.ask()
        return tunnel

    def _dialled(self) -> PipeTunnel:
        """A connection, in which the tunnel is asked for. Raises Failure."""
        deadline = Deadline(seconds=self._settings.connect_timeout)
        while True:
            try:
                return self._asked(deadline)
            except Late as late:
                from hbone.unreachable import too_late

                raise too_late(self._what, seconds=deadline.seconds) from late
            except OSError as error:
                if self._trust is not None and self._trust.grows(error):
                    continue
                from hbone.unreachable import unreachable

                raise unreachable(error, what=self._what) from error

    def _asked(self, deadline: Deadline) -> PipeTunnel:
        """Raises OSError, Late, Unreachable."""
        url, header = self._url, self._settings.token_header
        said = first_flight(url, header=header, token=self._token)
        wire = Wire(dial(self._address, deadline=deadline)) if self._trust is None else self._begun(deadline)
        if self._trust is None:
            wire.send(said)
        # Only now: the other side works while it is imported.
        from hbone.pipe_tunnel import PipeTunnel

        if not wire.shake_hands(deadline):
            from hbone.unreachable import other_protocol

            wire.close(seconds=0)
            raise other_protocol(self._what)
        if self._trust is not None:
            wire.send(said)
        headers = ((header, f"Bearer {self._token}"),) if self._token else ()
        self._tunnel = PipeTunnel(wire, scheme=url.scheme, authority=url.authority, path=url.path, headers=headers)
        self._tunnel.ask(was_said=bool(said))
        return self._tunnel

    def _begun(self, deadline: Deadline) -> TlsWire:
        from hbone.pipe_tls import TlsWire

        assert self._trust is not None  # noqa: S101 - whose turn it is
        wire = TlsWire(dial(self._address, deadline=deadline), trust=self._trust, name=self._url.host)
        wire.begin()
        return wire


def _trust(settings: Settings) -> Trust:
    from hbone.pipe_tls import Trust

    return Trust(ca_file=settings.ca_file)
