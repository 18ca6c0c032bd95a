"""The resolver's file: ours, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import resolver
from krun_launch.errors import Misconfigured
from krun_launch.resolver import Resolver, original, parse, render

DOCKER = "search lan\nnameserver 127.0.0.11\noptions ndots:0 timeout:2\n"


def test_ours_asks_us_first_and_completes_names_with_the_namespace() -> None:
    text = render(DOCKER, server="127.0.0.1", namespace="demo")
    assert text.splitlines()[:3] == ["nameserver 127.0.0.1", "search demo.svc.cluster.local lan", "options timeout:2"]
    assert parse(text) == Resolver(
        servers=("127.0.0.1",), search=("demo.svc.cluster.local", "lan"), options=("timeout:2",)
    )


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")))
def test_the_way_back_gives_the_same_text_and_ours_is_never_put_upon_ours(text: str) -> None:
    ours = render(text, server="127.0.0.1", namespace="demo")
    assert original(ours) == original(text)
    again = render(ours, server="127.0.0.1", namespace="web")
    assert original(again) == original(text)


@pytest.mark.parametrize(
    ("text", "servers", "search"),
    [
        ("", ("127.0.0.1",), ()),
        ("nameserver\nnameserver 192.0.2.1 # x\nnameserver fe80::1%eth0\n", ("192.0.2.1", "fe80::1%eth0"), ()),
        ("domain a.example\nsearch b.example c.example\n", ("127.0.0.1",), ("b.example", "c.example")),
        ("# nameserver 192.0.2.9\n; x\n\nbogus\n", ("127.0.0.1",), ()),
    ],
)
def test_the_file_is_read_as_resolvers_do(text: str, servers: tuple[str, ...], search: tuple[str, ...]) -> None:
    found = parse(text)
    assert (found.servers, found.search) == (servers, search)


def test_the_file_is_put_back_and_a_later_one_of_somebody_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(DOCKER)
    with resolver.restored(str(file)):
        resolver.replace(render(DOCKER, server="127.0.0.1", namespace="demo"), path=str(file))
        assert "127.0.0.1" in file.read_text()
    assert file.read_text() == DOCKER
    with resolver.restored(str(file)):
        file.write_text("nameserver 192.0.2.1\n")
    assert file.read_text() == "nameserver 192.0.2.1\n"


def test_what_a_killed_run_has_left_is_put_back_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(DOCKER)
    assert resolver.mend(str(file)) is False
    # An address where nobody can be.
    file.write_text(render(DOCKER, server="127.255.255.254", namespace="demo"))
    assert resolver.mend(str(file)) is True
    assert file.read_text() == DOCKER


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    assert resolver.cannot_answer(str(tmp_path / "none")).endswith("cannot be written")
    with pytest.raises(Misconfigured, match="cannot be written"):
        resolver.replace("", path=str(tmp_path / "none" / "resolv.conf"))
