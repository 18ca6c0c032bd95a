"""Tokens that are kept: for how long, where, and from whom they are kept away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from krun_discover.errors import DeadlinePassed, Denied, Failure, Unreachable
from krun_discover.issued import Token
from krun_discover.token_cache import Key, TokenCache, folder
from krun_discover.token_life import renewal

KEY = Key(kind="identity", audience="https://b", principal="file 1")
START = 1_700_000_000.0
LIFE = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Mint:
    """Gives a new token each time, or fails."""

    def __init__(self, clock: Clock) -> None:
        self.count = 0
        self.failure: Failure | None = None
        self._clock = clock

    def __call__(self) -> Token:
        self.count += 1
        if self.failure:
            raise self.failure
        return Token(value=f"canary-{self.count}", expires=self._clock() + LIFE, source="a test")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mint(clock: Clock) -> Mint:
    return Mint(clock)


def cache_in(place: Path | None, clock: Clock, draw: float = 0.5) -> TokenCache:
    return TokenCache(folder=place, clock=clock, draw=lambda: draw)


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> TokenCache:
    return cache_in(tmp_path / "krun" / "tokens", clock)


def test_a_token_is_kept_for_80_percent_of_its_life(cache: TokenCache, clock: Clock, mint: Mint) -> None:
    assert cache.through(KEY, mint).value == "canary-1"
    clock.now = START + 0.79 * LIFE
    assert cache.through(KEY, mint).value == "canary-1"
    clock.now = START + 0.81 * LIFE
    assert cache.through(KEY, mint).value == "canary-2"
    assert cache.through(KEY, mint).value == "canary-2"


def test_not_all_renew_at_the_same_moment() -> None:
    times = [renewal(issued=0, expires=1000, draw=draw) for draw in (0.0, 0.5, 1.0)]
    assert times == pytest.approx([720, 800, 880])
    assert renewal(issued=100, expires=50, draw=1.0) == 100


def test_a_token_that_has_expired_is_never_handed_out(cache: TokenCache, clock: Clock, mint: Mint) -> None:
    cache.through(KEY, mint)
    mint.failure = Unreachable("nobody answers")
    for late in (0.0, 1.0, 60.0, 1e6):
        clock.now = START + LIFE + late
        assert cache.find(KEY) is None
        with pytest.raises(Unreachable):
            cache.through(KEY, mint)
    clock.now = START + LIFE - 29  # it would be over before it arrives
    with pytest.raises(Unreachable):
        cache.through(KEY, mint)


@pytest.mark.parametrize("failure", [Unreachable("nobody answers"), DeadlinePassed("too slow")])
def test_an_old_token_is_used_while_nobody_can_be_reached_and_it_is_good(
    cache: TokenCache, clock: Clock, mint: Mint, failure: Failure
) -> None:
    cache.through(KEY, mint)
    clock.now = START + 0.95 * LIFE
    mint.failure = failure
    assert cache.through(KEY, mint).value == "canary-1"


def test_an_old_token_is_not_used_when_a_new_one_is_denied(cache: TokenCache, clock: Clock, mint: Mint) -> None:
    cache.through(KEY, mint)
    clock.now = START + 0.95 * LIFE
    mint.failure = Denied("no more")
    with pytest.raises(Denied):
        cache.through(KEY, mint)


def test_a_clock_that_was_set_back_makes_a_kept_token_unknown(cache: TokenCache, clock: Clock, mint: Mint) -> None:
    cache.through(KEY, mint)
    clock.now = START - 10
    assert cache.find(KEY) is None


@pytest.mark.parametrize("field", ["kind", "audience", "principal"])
def test_a_token_is_for_one_kind_audience_and_principal(cache: TokenCache, mint: Mint, field: str) -> None:
    cache.through(KEY, mint)
    other = Key(**{**{"kind": "identity", "audience": "https://b", "principal": "file 1"}, field: "another"})
    assert cache.through(other, mint).value == "canary-2"
    assert cache.through(KEY, mint).value == "canary-1"


def only_file(place: Path) -> Path:
    [found] = [path for path in place.rglob("*") if path.is_file()]
    return found


def test_files_and_folder_are_for_their_owner_only_and_names_tell_nothing(
    cache: TokenCache, tmp_path: Path, mint: Mint
) -> None:
    cache.through(KEY, mint)
    path = only_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(path.name) == 64
    assert set(path.name) <= set("0123456789abcdef")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"value": 1}', "\0\xff", "[" * 100_000])
def test_a_broken_file_is_no_entry(cache: TokenCache, tmp_path: Path, mint: Mint, text: str) -> None:
    cache.through(KEY, mint)
    only_file(tmp_path).write_text(text)
    assert cache.through(KEY, mint).value == "canary-2"
    assert cache.through(KEY, mint).value == "canary-2"


@pytest.mark.parametrize("change", [{"value": "a b"}, {"expires": "soon"}, {"issued": None}, {"expires": float("nan")}])
def test_a_file_with_a_wrong_field_is_no_entry(
    cache: TokenCache, tmp_path: Path, mint: Mint, change: dict[str, object]
) -> None:
    cache.through(KEY, mint)
    path = only_file(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert cache.through(KEY, mint).value == "canary-2"


def opened(place: Path) -> None:
    place.chmod(0o755)


def linked(place: Path) -> None:
    place.rename(place.with_name("elsewhere"))
    place.symlink_to(place.with_name("elsewhere"))


def replaced(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    place.write_text("")


@pytest.mark.parametrize("spoil", [opened, linked, replaced])
def test_a_folder_that_is_not_ours_alone_is_not_used(
    cache: TokenCache, tmp_path: Path, mint: Mint, spoil: Callable[[Path], None]
) -> None:
    cache.through(KEY, mint)
    spoil(tmp_path / "krun" / "tokens")
    assert cache.through(KEY, mint).value == "canary-2"
    assert cache.through(KEY, mint).value == "canary-3"


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, clock: Clock, mint: Mint) -> None:
    place = tmp_path if os.geteuid() == 0 else Path("/")
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, -1)
    cache = cache_in(place, clock)
    cache.through(KEY, mint)
    assert cache.through(KEY, mint).value == "canary-2"


def test_a_file_that_others_may_read_or_that_is_a_link_is_no_entry(
    cache: TokenCache, tmp_path: Path, mint: Mint
) -> None:
    cache.through(KEY, mint)
    only_file(tmp_path).chmod(0o644)
    assert cache.through(KEY, mint).value == "canary-2"
    path = only_file(tmp_path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.through(KEY, mint).value == "canary-3"
    assert "canary-2" in (tmp_path / "elsewhere").read_text()


def test_a_pipe_in_the_place_of_a_file_does_not_hold_up(cache: TokenCache, tmp_path: Path, mint: Mint) -> None:
    cache.through(KEY, mint)
    path = only_file(tmp_path)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert cache.through(KEY, mint).value == "canary-2"


def test_what_has_expired_is_swept_when_something_is_kept(
    cache: TokenCache, tmp_path: Path, clock: Clock, mint: Mint
) -> None:
    cache.through(KEY, mint)
    old = only_file(tmp_path)
    clock.now = START + LIFE + 1
    cache.through(Key(kind="access", audience="", principal=""), mint)
    assert only_file(tmp_path) != old


def test_without_a_folder_and_where_none_can_be_made_tokens_are_minted_each_time(
    tmp_path: Path, clock: Clock, mint: Mint
) -> None:
    (tmp_path / "file").write_text("")
    for place in (None, tmp_path / "file" / "tokens"):
        cache = cache_in(place, clock)
        before = mint.count
        cache.through(KEY, mint)
        cache.through(KEY, mint)
        assert mint.count == before + 2


def test_the_folder_is_the_users_unless_it_is_named_or_switched_off() -> None:
    assert folder({"HOME": "/h"}) == "/h/.cache/krun/tokens"
    assert folder({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == "/c/krun/tokens"
    assert folder({"HOME": "/h", "XDG_CACHE_HOME": "relative"}) == "/h/.cache/krun/tokens"
    assert folder({"HOME": "/h", "KRUN_TOKEN_CACHE": "/t"}) == "/t"
    assert folder({"HOME": "/h", "KRUN_TOKEN_CACHE": "off"}) is None
    assert folder({}) is None
