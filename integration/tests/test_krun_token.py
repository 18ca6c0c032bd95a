"""krun-token as a process that keeps a file's token good: renewals, signals, freezes, failures, and no secret said."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import processes
from krun_testbed.google_tokens import Issuer
from krun_testbed.metadata import MetadataServer
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

AUDIENCE = "https://web-1.us-central1.run.app"
WRITTEN = '"message": "token written"'
GOOD = "the old one is still good"


class Google:
    """A metadata server whose tokens live as long as a test wants; ``issued`` are all that it has given."""

    def __init__(self, *, issuer: Issuer, address: str) -> None:
        self.life = 3600
        self.issued: list[str] = []
        self._issuer = issuer
        self.server = MetadataServer(address=address, identity=self._identity)

    def _identity(self, audience: str) -> str:
        # Two tokens of the same second are the same text.
        self.issued.append(self._issuer.id_token(audience, f"me{len(self.issued)}@example.com", self.life))
        return self.issued[-1]


@pytest.fixture
def google(issuer: Issuer, address: str) -> Iterator[Google]:
    google = Google(issuer=issuer, address=address)
    with google.server:
        yield google


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def watch(google: Google, file: Path, tmp_path: Path) -> Iterator[Running]:
    """The watcher, after its first token."""
    with start(file, where=google.server.address, home=tmp_path) as running:
        written(running, 1)
        yield running


def start(file: Path, *, where: str, home: Path) -> contextlib.AbstractContextManager[Running]:
    env = processes.environment(
        HOME=str(home),
        GCE_METADATA_HOST=where,
        NO_GCE_CHECK="",
        KRUN_LOG_FORMAT="json",
        KRUN_LOG_LEVEL="debug",
        PASSWORD="canary",
    )
    return processes.start(["krun-token", "id", "--audience", AUDIENCE, "--to", str(file), "--watch"], env=env)


def written(running: Running, times: int) -> None:
    """Wait until so many tokens were written."""
    running.wait_for(rf"(?s)(?:{WRITTEN}.*?){{{times}}}")


def says_no_secret(running: Running, google: Google) -> bool:
    """Tell whether no part of any token was said, and whatever was said is a log line."""
    said = running.said()
    parts = {part for token in google.issued for part in token.split(".")[1:]}
    lines = [json.loads(line) for line in running.stderr.splitlines()]
    return running.stdout == "" and "canary" not in said and not any(part in said for part in parts) and bool(lines)


def test_the_file_is_renewed_before_its_token_expires(google: Google, watch: Running, file: Path) -> None:
    google.life = 5
    watch.signal(signal.SIGHUP)
    written(watch, 3)
    # The stand-in dates a token one second back, as Google's clocks and ours differ.
    assert claim(google.issued[2], "iat") + 1 <= claim(google.issued[1], "exp")
    assert file.read_text() in google.issued[2:]
    assert watch.terminate() == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".token")] == []
    assert says_no_secret(watch, google)


def test_hup_renews_now_and_term_ends_with_0_and_leaves_the_token(google: Google, watch: Running, file: Path) -> None:
    assert file.read_text() == google.issued[0]
    watch.signal(signal.SIGHUP)
    written(watch, 2)
    assert file.read_text() == google.issued[1]
    assert watch.terminate() == 0
    assert file.read_text() == google.issued[1]
    last = json.loads(watch.stderr.splitlines()[-1])
    assert (last["message"], last["source"]) == ("token written", "metadata server")
    assert last["expires"].startswith("20")
    assert says_no_secret(watch, google)


def test_int_ends_it_as_term_does(google: Google, watch: Running) -> None:
    watch.signal(signal.SIGINT)
    assert watch.wait() == 0
    assert "Traceback" not in watch.stderr


def test_after_a_freeze_that_was_longer_than_the_tokens_life_it_is_renewed(
    google: Google, watch: Running, file: Path
) -> None:
    google.life = 2
    watch.signal(signal.SIGHUP)
    written(watch, 2)
    watch.signal(signal.SIGSTOP)
    processes.wait_until(lambda: time.time() > claim(google.issued[1], "exp"), what="the token expires")
    count = len(google.issued)
    google.life = 3600
    watch.signal(signal.SIGCONT)
    written(watch, count + 1)
    assert file.read_text() == google.issued[-1]


def claim(token: str, name: str) -> float:
    claims = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))[name])


def test_a_failure_is_told_and_the_old_token_stays_until_a_new_one_comes(
    google: Google, watch: Running, file: Path
) -> None:
    google.server.failures = [503]
    watch.signal(signal.SIGHUP)
    watch.wait_for(GOOD)
    assert file.read_text() == google.issued[0]
    written(watch, 2)
    assert file.read_text() == google.issued[1]
    assert watch.terminate() == 0
    assert says_no_secret(watch, google)


def test_a_token_that_has_expired_is_removed_and_comes_back(google: Google, watch: Running, file: Path) -> None:
    google.life = 2
    watch.signal(signal.SIGHUP)
    written(watch, 2)
    google.server.failures = [503] * 1000
    watch.wait_for("the old one has expired and is removed")
    processes.wait_until(lambda: not file.exists(), what="the file is removed")
    google.server.failures = []
    google.life = 3600
    watch.signal(signal.SIGHUP)
    processes.wait_until(file.exists, what="the file is back")
    assert file.read_text() == google.issued[-1]


def test_the_first_failure_is_its_status_and_no_file(google: Google, file: Path, tmp_path: Path) -> None:
    google.server.failures = [403]
    with start(file, where=google.server.address, home=tmp_path) as running:
        assert running.wait() == 77
    assert not file.exists()
    assert "krun-token: error: metadata server" in running.stderr


def test_term_ends_it_at_once_while_nobody_answers(address: str, file: Path, tmp_path: Path) -> None:
    with socket.create_server((address, 0)) as listener:
        where = f"{address}:{listener.getsockname()[1]}"
        with start(file, where=where, home=tmp_path) as running:
            connection, _ = listener.accept()
            with connection:
                begun = time.monotonic()
                assert running.terminate() == 0
                assert time.monotonic() - begun < 2.5
    assert running.said() == "--- stdout\n\n--- stderr\n"


def test_the_token_is_never_in_the_process_list(google: Google, watch: Running) -> None:
    [token] = google.issued
    assert token not in Path(f"/proc/{watch.pid}/cmdline").read_text()
    assert token.encode() not in Path(f"/proc/{watch.pid}/environ").read_bytes()
