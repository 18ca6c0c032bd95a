"""Requests: limits, repeats, whom a token is sent to, and what is written down of them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from krun_discover.errors import DeadlinePassed, Misconfigured
from krun_discover.web import Call, NoReply, Tls, Web, is_local
from krun_testbed.certificates import Authority
from krun_testbed.web_peers import answer, connect_proxy, server_tls, web_peer

SECRET = {"Authorization": "Bearer canary-1234"}


def web(*, seconds: float = 20, limit: float = 5, environ: Mapping[str, str] | None = None) -> Web:
    return Web(deadline=time.monotonic() + seconds, environ=environ or {}, limit=limit)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tls(authority: Authority, tmp_path: Path) -> ssl.SSLContext:
    return server_tls(authority.server(hosts=("api.example", "127.0.0.1")), str(tmp_path))


@pytest.fixture
def roots(authority: Authority) -> str:
    return authority.root.decode()


@pytest.mark.parametrize(
    "url", ["http://metadata.example/", "http://169.254.169.254/", "http://127.evil.example/", "http://localhost.evil/"]
)
def test_a_token_is_never_sent_over_plain_http_to_another_machine(url: str) -> None:
    asked = web()
    with pytest.raises(Misconfigured, match="not sent over plain http") as caught:
        asked.ask(Call(url=url, headers=SECRET))
    assert "canary" not in str(caught.value)
    assert asked.journal == []


@pytest.mark.parametrize("host", ["127.0.0.9:1", "127.0.0.1", "[::1]:8", "localhost", "localhost:1"])
def test_this_machine_is_told_by_its_addresses(host: str) -> None:
    assert is_local(f"http://{host}/x")
    assert is_local(f"http://user:word@{host}/x")


@pytest.mark.parametrize("url", ["ftp://x/", "x", "file:///etc/passwd", ""])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="not a URL"):
        web().ask(Call(url=url))


@pytest.mark.loopback
def test_what_is_asked_arrives_and_the_journal_holds_neither_query_nor_token(address: str) -> None:
    asked = web()
    with web_peer(address, answer(201, b'{"a": 1}', "X-Own: Yes")) as peer:
        url = f"http://{address}:{peer.port}/p?q=1"
        reply = asked.ask(Call(url=url, method="POST", headers={**SECRET, "X": "y"}, body=b"body"))
    assert (reply.status, reply.json(), reply.headers["x-own"]) == (201, {"a": 1}, "Yes")
    (request,) = peer.requests
    assert request.startswith(b"POST /p?q=1 HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nbody")
    (entry,) = asked.journal
    assert (entry.method, entry.url, entry.outcome) == ("POST", f"http://{address}:{peer.port}/p", "201")
    assert "canary" not in repr(asked.journal) + repr(reply) + repr(Call(url=url, headers=SECRET, body=b"canary"))


@pytest.mark.loopback
def test_a_redirect_is_an_answer_and_not_followed(address: str) -> None:
    with web_peer(address, answer(200)) as other:
        moved = answer(302, b"", f"Location: http://{address}:{other.port}/")
        with web_peer(address, moved) as peer:
            assert web().ask(Call(url=f"http://{address}:{peer.port}/", headers=SECRET)).status == 302
        assert other.requests == []


@pytest.mark.loopback
@pytest.mark.parametrize("first", [answer(503), answer(429, b"", "Retry-After: 1"), answer(500), b""])
def test_a_busy_server_and_a_broken_connection_are_tried_again(address: str, first: bytes) -> None:
    asked = web()
    with web_peer(address, first, answer(200)) as peer:
        assert asked.ask(Call(url=f"http://{address}:{peer.port}/")).status == 200
    assert len(asked.journal) == 2


@pytest.mark.loopback
def test_the_last_answer_counts_when_no_try_is_better(address: str) -> None:
    with web_peer(address, answer(503, b"no")) as peer:
        reply = web().ask(Call(url=f"http://{address}:{peer.port}/"), tries=2)
    assert (reply.status, reply.body, len(peer.requests)) == (503, b"no", 2)


@pytest.mark.loopback
@pytest.mark.parametrize("status", [200, 201, 301, 400, 401, 403, 404, 409])
def test_an_answer_that_says_something_is_final(address: str, status: int) -> None:
    with web_peer(address, answer(status)) as peer:
        assert web().ask(Call(url=f"http://{address}:{peer.port}/")).status == status
    assert len(peer.requests) == 1


@pytest.mark.loopback
def test_a_server_that_says_nothing_costs_its_limit_and_leaves_time_for_others(address: str) -> None:
    asked = web(limit=0.2)
    with socket.create_server((address, 0)) as silent, pytest.raises(NoReply, match=r"no answer") as caught:
        asked.ask(Call(url=f"http://{address}:{silent.getsockname()[1]}/"), tries=2)
    assert caught.value.kind == "timeout"
    assert len(asked.journal) == 2


@pytest.mark.loopback
def test_nothing_is_asked_after_the_deadline() -> None:
    asked = web(seconds=0)
    with pytest.raises(DeadlinePassed):
        asked.ask(Call(url="http://127.0.0.1:1/"))


@pytest.mark.loopback
def test_tls_is_verified_by_the_roots_that_are_given(
    address: str, tls: ssl.SSLContext, roots: str, tmp_path: Path
) -> None:
    asked = web()
    with web_peer("127.0.0.1", answer(200), tls=tls) as peer:
        url = f"https://127.0.0.1:{peer.port}/"
        assert asked.ask(Call(url=url, tls=Tls(roots=roots), headers=SECRET)).status == 200
        with pytest.raises(NoReply, match="not trusted") as caught:
            asked.ask(Call(url=url, tls=Tls(roots=Authority().root.decode())))
        assert caught.value.kind == "tls"
        with pytest.raises(NoReply, match="not trusted"):
            asked.ask(Call(url=url))
        assert asked.ask(Call(url=url, tls=Tls(insecure=True))).status == 200
    assert len(peer.requests) == 2
    with web_peer(address, answer(200), tls=tls) as peer:
        url = f"https://{address}:{peer.port}/"
        with pytest.raises(NoReply, match="not trusted"):
            asked.ask(Call(url=url, tls=Tls(roots=roots)))
        assert asked.ask(Call(url=url, tls=Tls(roots=roots, server_name="api.example"))).status == 200


@pytest.mark.parametrize("tls", [Tls(roots="x"), Tls(certificate="/nosuch"), Tls(certificate="/dev/null", key="/x")])
def test_certificates_that_cannot_be_read_are_said(tls: Tls) -> None:
    with pytest.raises(Misconfigured, match=r"certificate"):
        web().ask(Call(url="https://127.0.0.1:1/", tls=tls))


@pytest.mark.loopback
def test_a_proxy_carries_https_and_knows_nothing_of_it(address: str, tls: ssl.SSLContext, roots: str) -> None:
    with connect_proxy(address) as proxy, web_peer("127.0.0.1", answer(200), tls=tls) as peer:
        call = Call(url=f"https://127.0.0.1:{peer.port}/", tls=Tls(roots=roots), headers=SECRET)
        where = f"http://user:pass@{address}:{proxy.port}"
        assert web(environ={"HTTPS_PROXY": where}).ask(call).status == 200
        (head,) = proxy.requests
        assert head.startswith(f"CONNECT 127.0.0.1:{peer.port} ".encode())
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in head
        assert b"canary" not in head
        assert web(environ={"HTTPS_PROXY": where, "NO_PROXY": "127.0.0.1"}).ask(call).status == 200
        assert len(proxy.requests) == 1


@pytest.mark.loopback
def test_a_proxy_that_refuses_is_named(address: str) -> None:
    with connect_proxy(address, refuses="407 Login") as proxy:
        asked = web(environ={"HTTPS_PROXY": f"http://{address}:{proxy.port}"})
        with pytest.raises(NoReply, match="the proxy refused: 407") as caught:
            asked.ask(Call(url="https://127.0.0.1:1/"), tries=1)
    assert caught.value.kind == "proxy"
    with pytest.raises(NoReply, match="proxy"):
        web(environ={"https_proxy": "http://127.0.0.1:1"}).ask(Call(url="https://api.example/"), tries=1)


@pytest.mark.loopback
@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 99])
def test_what_is_not_http_is_no_answer(address: str, said: bytes) -> None:
    with web_peer(address, said) as peer, pytest.raises(NoReply):
        web().ask(Call(url=f"http://{address}:{peer.port}/"), tries=1)


@pytest.mark.loopback
@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_said(address: str, body: bytes) -> None:
    with web_peer(address, answer(200, body)) as peer:
        reply = web().ask(Call(url=f"http://{address}:{peer.port}/"))
    with pytest.raises(NoReply, match="not JSON"):
        reply.json()


@pytest.mark.loopback
def test_requests_to_one_server_share_a_connection_and_one_that_has_closed_is_not_noticed(address: str) -> None:
    kept = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"
    asked = web()
    with socket.create_server((address, 0)) as listener:
        listener.settimeout(20)
        url = f"http://{address}:{listener.getsockname()[1]}/"
        counts = []

        def serve() -> None:
            for requests in (3, 1):
                connected, _ = listener.accept()
                with connected:
                    for number in range(requests):
                        assert connected.recv(65536).startswith(b"GET ")
                        connected.sendall(kept)
                        counts.append(number)

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(4):
            assert asked.ask(Call(url=url), tries=1).body == b"ok"
        thread.join()
    assert counts == [0, 1, 2, 0]
    assert [entry.outcome for entry in asked.journal] == ["200"] * 4


@pytest.mark.loopback
def test_what_must_not_be_sent_twice_gets_a_connection_of_its_own(address: str) -> None:
    kept = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"
    asked = web()
    with web_peer(address, kept) as peer:
        url = f"http://{address}:{peer.port}/"
        assert asked.ask(Call(url=url)).status == 200
        assert asked.ask(Call(url=url, method="POST", body=b"x")).status == 200
    assert len(peer.requests) == 2


@pytest.mark.parametrize(
    "text", ["http://x:port", "http://[", "http://x y", "socks5://canary@x:1", "http://canary:a@["]
)
def test_a_proxy_that_is_none_is_said_without_its_text(text: str) -> None:
    with pytest.raises(Misconfigured, match="proxy") as caught:
        web(environ={"HTTPS_PROXY": text}).ask(Call(url="https://api.example/"), tries=1)
    assert "canary" not in f"{caught.value} {caught.value.hint}"
