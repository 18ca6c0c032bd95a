"""The client of the metadata server: its settings, its patience, and whom it believes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from krun_discover import metadata
from krun_discover.address import Address
from krun_discover.errors import DeadlinePassed, Misconfigured
from krun_testbed.addresses import free_port
from krun_testbed.metadata import Facts, MetadataServer

PATH = "project/project-id"


def settings(**environ: str) -> metadata.Settings:
    return metadata.settings(environ, product=lambda: "")


def test_without_a_sign_of_google_there_is_only_a_short_probe() -> None:
    assert settings() == metadata.Settings()
    assert metadata.Settings().sign == ""


@pytest.mark.parametrize("name", ["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "KUBERNETES_SERVICE_HOST"])
def test_a_platform_is_a_sign(name: str) -> None:
    assert settings(**{name: "x"}).sign == name
    assert settings(**{name: ""}).sign == ""


def test_a_google_machine_is_a_sign() -> None:
    assert metadata.settings({}, product=lambda: "Google Compute Engine").sign
    assert not metadata.settings({}, product=lambda: "ThinkPad").sign


def test_only_the_word_true_switches_it_off() -> None:
    assert settings(NO_GCE_CHECK="true").off
    assert not settings(NO_GCE_CHECK="1").off


def test_the_host_may_have_a_port() -> None:
    found = settings(GCE_METADATA_HOST="127.0.0.9:8080", GCE_METADATA_TIMEOUT="1.5")
    assert (found.server, found.timeout, found.sign) == (Address(host="127.0.0.9", port=8080), 1.5, "GCE_METADATA_HOST")
    assert settings(GCE_METADATA_HOST="metadata.example").server.port == 80


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf", "1e9"])
def test_a_timeout_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="GCE_METADATA_TIMEOUT"):
        settings(GCE_METADATA_TIMEOUT=text)


@pytest.mark.parametrize("text", ["a:b", "http://x", "::1"])
def test_a_host_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="GCE_METADATA_HOST"):
        settings(GCE_METADATA_HOST=text)


@pytest.mark.parametrize(
    ("status", "body", "value", "note"),
    [
        (200, b"demo\n", "demo", ""),
        (200, b"", "", "empty"),
        (200, b"a\nb", "", "not one line of text"),
        (200, b"\x1b[2J", "", "not one line of text"),
        (200, b"x" * 70_000, "", "not one line of text"),
        (404, b"<html>", "", "not set (404)"),
        (403, b"", "", "refused (HTTP 403)"),
        (301, b"x", "", "refused (HTTP 301)"),
    ],
)
def test_an_answer_is_one_line_of_text_or_none(status: int, body: bytes, value: str, note: str) -> None:
    answer = metadata.judge(metadata.Reply(status=status, body=body))
    assert (answer.value, answer.note, answer.failed) == (value, note, False)


def client(host: str, port: int, *, budget: float = 20.0, sign: str = "", **more: bool | float) -> metadata.Client:
    found = metadata.Settings(server=Address(host=host, port=port), sign=sign).but(**more)
    return metadata.Client(settings=found, deadline=time.monotonic() + budget)


def client_of(server: MetadataServer, *, budget: float = 20.0, **more: bool) -> metadata.Client:
    host, _, port = server.address.rpartition(":")
    return client(host, int(port), budget=budget, sign="a test", **more)


@pytest.mark.loopback
def test_each_path_is_asked_once(address: str) -> None:
    with MetadataServer(address=address) as server:
        asker = client_of(server)
        assert not asker.known(PATH)
        assert [asker.ask(PATH).value, asker.ask(PATH).value] == ["demo-project"] * 2
        assert asker.known(PATH)
        assert server.requests == [f"/computeMetadata/v1/{PATH}"]


@pytest.mark.loopback
@pytest.mark.parametrize("flavor", ["", "google", "AWS"])
def test_a_server_without_googles_flavor_is_not_believed_nor_asked_again(address: str, flavor: str) -> None:
    with MetadataServer(address=address, facts=Facts(flavor=flavor)) as server:
        asker = client_of(server)
        assert asker.ask(PATH).value == ""
        assert asker.ask("instance/region").failed
        assert "not believed" in asker.trouble
        assert len(server.requests) == 1


@pytest.mark.loopback
def test_a_server_in_trouble_is_asked_again_in_kubernetes_only(address: str) -> None:
    with MetadataServer(address=address) as server:
        server.failures = [503, 500]
        assert client_of(server, kubernetes=True).ask(PATH).value == "demo-project"
        server.failures = [503]
        other = client_of(server)
        assert other.ask(PATH).failed
        assert other.trouble == "HTTP 503"
        assert len(server.requests) == 4


@pytest.mark.loopback
def test_retries_end_with_the_time_that_the_tool_has(address: str) -> None:
    begun = time.monotonic()
    asker = client(address, free_port(address=address), budget=0.7, sign="a test", kubernetes=True)
    assert asker.ask(PATH).failed
    assert "refused" in asker.trouble
    assert 0.4 < time.monotonic() - begun < 5


@pytest.mark.loopback
def test_a_refused_connection_is_not_tried_again_elsewhere(address: str) -> None:
    begun = time.monotonic()
    assert client(address, free_port(address=address), sign="a test").ask(PATH).failed
    assert time.monotonic() - begun < metadata.PATIENCE / 2


@contextlib.contextmanager
def dripping(address: str) -> Iterator[int]:
    """A server that sends a byte now and then, and never comes to the end of its headers."""
    ended = threading.Event()
    with socket.create_server((address, 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=_drip, args=(listener, ended))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def _drip(listener: socket.socket, ended: threading.Event) -> None:
    with contextlib.ExitStack() as stack:
        peers: list[socket.socket] = []
        while not ended.wait(0.05):
            with contextlib.suppress(TimeoutError):
                peers.append(stack.enter_context(listener.accept()[0]))
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.sendall(b"H")


@pytest.mark.loopback
def test_a_server_that_drips_has_no_more_time_than_the_others(address: str) -> None:
    with dripping(address) as port:
        begun = time.monotonic()
        asker = client(address, port)
        assert asker.ask(PATH).note == "no answer within 0.4 s"
        assert asker.ask("instance/region").note == "not asked again"
        assert time.monotonic() - begun < 2.5


@pytest.mark.loopback
def test_the_tools_own_time_is_a_deadline(address: str) -> None:
    with dripping(address) as port, pytest.raises(DeadlinePassed, match=f"{address}:{port}: no answer to {PATH}"):
        client(address, port, budget=0.2, sign="a test").ask(PATH)


def test_what_is_switched_off_is_not_asked() -> None:
    asker = client("127.0.0.1", 1, off=True)
    assert asker.ask(PATH).note == "not asked: NO_GCE_CHECK=true"
    assert asker.known(PATH)
