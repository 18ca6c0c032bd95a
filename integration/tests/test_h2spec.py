"""h2spec, HTTP/2's conformance tests, against hboned and against hbone: all cases pass but for a list with reasons."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import addresses, h2spec, processes, public_peers, tables, tunnels
from krun_testbed.certificates import Authority
from krun_testbed.components import Missing

pytestmark = pytest.mark.loopback

SOAK = bool(os.environ.get("KRUN_SOAK"))
PATHS = {"public": "/", "tunnels": "/_hbone/15003"}
WAYS = [("tunnels", True)]
if SOAK:
    WAYS += [("public", False), ("public", True), ("tunnels", False)]
TOO_LARGE = "http2/4.2/3"


def listed(side: str) -> dict[str, str]:
    """The cases that docs/http2.md has for this side, and where it says they fail."""
    found = {}
    for line in (tables.ROOT / "docs" / "http2.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| http2/") or line.startswith("| generic/") or line.startswith("| hpack/"):
            cases, where, does, why = (cell.strip() for cell in line.strip("|").split("|"))
            assert why
            assert does
            if where.partition(",")[0] in ("both", side):
                found.update({case.strip(): where for case in cases.split(",")})
    return found


@pytest.fixture(scope="module")
def built() -> Path:
    try:
        return h2spec.make()
    except Missing as missing:
        pytest.skip(str(missing))


@contextlib.contextmanager
def hboned(*, is_tls: bool, authority: Authority, folder: Path) -> Iterator[str]:
    address = addresses.loopback()
    flags = tunnels.tls_flags(authority, folder, address) if is_tls else ()
    with tunnels.target(address, tunnels.echo), public_peers.served(address, *flags) as (running, _):
        yield address
        assert "a bug ended" not in running.stderr
        assert "Traceback" not in running.stderr
        assert running.terminate() == 0


@pytest.mark.parametrize(("side", "is_tls"), WAYS, ids=lambda value: {True: "tls", False: "h2c"}.get(value, value))
def test_all_cases_pass_but_those_that_are_listed_with_a_reason(
    side: str, is_tls: bool, built: Path, authority: Authority, tmp_path: Path
) -> None:
    flags = ["--path", PATHS[side], *(["--tls", "--insecure"] if is_tls else [])]
    with hboned(is_tls=is_tls, authority=authority, folder=tmp_path) as address:
        found = h2spec.judge(address, 15009, *flags, expected=list(listed(side)))
    assert len(found) >= 146
    failed = {one.name: f"{one.title}: {one.actual}" for one in found if not one.is_passed}
    assert {name: said for name, said in failed.items() if name not in listed(side)} == {}
    always = {name for name, where in listed(side).items() if "at times" not in where}
    assert always - set(failed) == set(), "listed, and it passes"


def test_head_beyond_what_we_announce_is_refused_as_the_case_wants_it(
    built: Path, authority: Authority, tmp_path: Path
) -> None:
    with hboned(is_tls=False, authority=authority, folder=tmp_path) as address:
        done = processes.run(
            [str(built / "h2spec"), "-h", address, "-p", "15009", "--max-header-length", "60000", TOO_LARGE]
        )
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("section", h2spec.CLIENT_SECTIONS if SOAK else ["6.8"])
def test_client_passes_all_cases_and_ends_with_a_reason(
    section: str, built: Path, address: str, tmp_path: Path
) -> None:
    """A server that breaks a rule is told so, and the person is: no hang, no traceback."""
    # h2specd gives a client three seconds of all: its start on a busy machine is none of them.
    command = tmp_path / "client"
    command.write_text(
        "#!/bin/sh\n"
        f'name="{tmp_path}/$$"\n'
        '(hbone "${1}_hbone/22" </dev/null >"$name.out" 2>"$name.err"; echo $? >"$name.part"; '
        'mv "$name.part" "$name.status") &\n'
    )
    command.chmod(0o755)
    assert h2spec.judge_client(command, address=address, section=section, port=31000)
    processes.wait_until(
        lambda: len(list(tmp_path.glob("*.status"))) == len(list(tmp_path.glob("*.err"))),
        what="all clients have ended",
        timeout=60,
    )
    for status in tmp_path.glob("*.status"):
        said = status.with_suffix(".err").read_text()
        assert int(status.read_text()) in (0, 69, 75), said
        assert not said or re.fullmatch(r"hbone: error: [^\n]+\nhint: [^\n]+\n", said), said
