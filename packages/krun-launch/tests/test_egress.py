"""The call before the application starts: decided (pure), and made by the real program through a real proxy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from krun_launch import egress
from krun_launch.errors import Misconfigured
from krun_testbed import addresses, processes

APP_ENV = {"HTTP_PROXY": "http://127.0.0.1:15007", "PATH": "/bin"}


def test_without_a_url_there_is_no_step() -> None:
    assert egress.step({}, app_env=APP_ENV, python="python3", identity=None) is None


def test_program_has_the_applications_variables_and_the_url_not_on_its_command_line() -> None:
    env = {"KRUN_EGRESS_PROBE": "http://web.demo:8080/healthy?key=canary", "KRUN_LOG_FORMAT": "json", "KRUN_GRACE": "9"}
    step = egress.step(env, app_env=APP_ENV, python="/usr/bin/python3", identity=None)
    assert step is not None
    assert step.run is not None
    assert step.run.argv == ("/usr/bin/python3", "-I", "-m", "krun_launch.egress", "10", "required")
    assert dict(step.run.env) == {
        **APP_ENV,
        "KRUN_LOG_FORMAT": "json",
        "KRUN_EGRESS_PROBE": "http://web.demo:8080/healthy?key=canary",
    }
    assert step.timeout > 10


def test_settings_are_those_of_the_variables() -> None:
    env = {
        "KRUN_EGRESS_PROBE": "https://web/",
        "KRUN_EGRESS_PROBE_TIMEOUT": "2.5",
        "KRUN_EGRESS_PROBE_REQUIRED": "false",
    }
    step = egress.step(env, app_env=APP_ENV, python="python3", identity=None)
    assert step is not None
    assert step.run is not None
    assert step.run.argv[-2:] == ("2.5", "optional")


@pytest.mark.parametrize(
    "url",
    ["web.demo", "ftp://web/", "http://", "http://web:x/", "http://web:0/", "http://a b/", "http://[::1/", "http://ü/"],
)
def test_what_cannot_be_called_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        egress.step({"KRUN_EGRESS_PROBE": url}, app_env=APP_ENV, python="python3", identity=None)
    assert "KRUN_EGRESS_PROBE" in caught.value.message
    assert url not in caught.value.message


def test_secrets_of_a_url_are_not_shown() -> None:
    assert egress.shown("http://user:canary@web.demo:8080/healthy?key=canary#canary") == "http://web.demo:8080/healthy"


@contextmanager
def proxy(address: str, *statuses: int) -> Iterator[tuple[int, list[str]]]:
    """A proxy that answers by these statuses, the last one for ever; its port, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(statuses[min(len(asked), len(statuses)) - 1])
            self.send_header("Location", "http://elsewhere.example/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def called(url: str, *, proxy: str, timeout: str = "5", need: str = "required") -> tuple[int, str]:
    """Status and stderr of the program."""
    argv = [sys.executable, "-I", "-m", "krun_launch.egress", timeout, need]
    env = processes.environment(KRUN_EGRESS_PROBE=url, http_proxy=proxy, KRUN_LOG_FORMAT="text")
    done = processes.run(argv, env=env)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.loopback
@pytest.mark.parametrize("statuses", [(200,), (503, 404, 204), (302,)])
def test_good_answer_through_the_proxy_ends_it_well(statuses: tuple[int, ...], address: str) -> None:
    with proxy(address, *statuses) as (port, asked):
        assert called("http://web.demo:8080/healthy", proxy=f"http://{address}:{port}") == (0, "")
    assert asked == ["http://web.demo:8080/healthy"] * len(statuses)


@pytest.mark.loopback
def test_no_good_answer_in_time_is_75_with_the_last_one(address: str) -> None:
    with proxy(address, 503) as (port, asked):
        status, said = called("http://web.demo/?key=canary", proxy=f"http://{address}:{port}", timeout="0.5")
    assert status == 75
    assert said.splitlines()[0] == "egress-probe: error: http://web.demo/: no good answer within 0.5 s: HTTP 503"
    assert "KRUN_EGRESS_PROBE_REQUIRED=false" in said
    assert "canary" not in said
    assert len(asked) > 1


@pytest.mark.loopback
def test_no_good_answer_is_a_warning_where_none_is_required(address: str) -> None:
    port = addresses.free_port(address=address)
    status, said = called("http://web/", proxy=f"http://{address}:{port}", timeout="0.3", need="optional")
    assert status == 0
    assert "krun-launch: warning: egress probe failed, going on all the same" in said
    assert "Connection refused" in said
