from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

import pytest

from hbone.errors import DeadlinePassed, Denied, Failure, Misconfigured
from hbone.tokens import Source, Tokens, claims_of, fresh_until

NOW = 1_000_000.0


def jwt(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def test_jwt_is_fresh_for_80_percent_of_its_life() -> None:
    assert fresh_until(jwt(iat=NOW, exp=NOW + 3600), now=NOW + 5) == NOW + 2880
    assert fresh_until(jwt(exp=NOW + 100), now=NOW) == NOW + 80


def test_expired_jwt_is_not_fresh() -> None:
    assert fresh_until(jwt(iat=NOW - 100, exp=NOW - 1), now=NOW) < NOW


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "e30.bm8.x", "..", jwt(exp="soon")])
def test_what_is_no_jwt_is_kept_for_a_minute(token: str) -> None:
    assert fresh_until(token, now=NOW) == NOW + 60


def test_claims_are_read_without_padding() -> None:
    assert claims_of(jwt(aud="https://b.example")) == {"aud": "https://b.example"}


def ask(source: Source, *audiences: str) -> list[str | None]:
    async def main() -> list[str | None]:
        tokens = Tokens(source)
        return [await tokens.find(audience) for audience in audiences]

    return asyncio.run(main())


def failing(source: Source) -> Failure:
    with pytest.raises(Failure) as caught:
        ask(source, "https://b.example")
    assert caught.value.hint
    return caught.value


def counting(tmp_path: Path, *, answer: str) -> Source:
    """A command that prints the answer, and writes down each audience that it is asked for."""
    script = tmp_path / "mint.py"
    script.write_text(
        f"import sys\nopen({str(tmp_path / 'asked')!r}, 'a').write(sys.argv[1] + '\\n')\nprint({answer!r})"
    )
    return Source(command=f"{sys.executable} {script} {{audience}}")


@pytest.mark.loopback
def test_command_is_asked_once_for_each_audience(tmp_path: Path) -> None:
    token = jwt(iat=0, exp=4_000_000_000)
    found = ask(counting(tmp_path, answer=token), "https://a.example", "https://b.example", "https://a.example")
    assert found == [token, token, token]
    assert (tmp_path / "asked").read_text().split() == ["https://a.example", "https://b.example"]


@pytest.mark.loopback
def test_stale_token_is_asked_for_again(tmp_path: Path) -> None:
    ask(counting(tmp_path, answer=jwt(iat=1, exp=2)), "https://a.example", "https://a.example")
    assert len((tmp_path / "asked").read_text().split()) == 2


@pytest.mark.loopback
def test_audience_is_no_shell_text(tmp_path: Path) -> None:
    ask(counting(tmp_path, answer="t"), "https://x; touch y")
    assert (tmp_path / "asked").read_text() == "https://x; touch y\n"


@pytest.mark.loopback
def test_failing_command_is_denied_and_names_it() -> None:
    error = failing(Source(command="false"))
    assert isinstance(error, Denied)
    assert "'false'" in error.message


def test_missing_command_is_misconfigured() -> None:
    with pytest.raises(Misconfigured, match="no-such-program"):
        ask(Source(command="no-such-program"), "x")


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb", "Bearer x", "a\x00b", "caf\u00e9"])
def test_file_without_a_token_is_misconfigured_and_not_quoted(content: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    error = failing(Source(file=str(file)))
    assert isinstance(error, Misconfigured)
    assert str(file) in error.message
    assert not content.strip() or content.strip() not in error.message.replace(str(file), "")


def test_missing_file_is_misconfigured(tmp_path: Path) -> None:
    assert isinstance(failing(Source(file=str(tmp_path / "none"))), Misconfigured)


def test_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"

    async def main() -> list[str | None]:
        tokens = Tokens(Source(file=str(file)))
        found = []
        for text in ("first", "second\n"):
            file.write_text(text)
            found.append(await tokens.find("x"))
        return found

    assert asyncio.run(main()) == ["first", "second"]


def test_both_sources_contradict() -> None:
    with pytest.raises(Misconfigured):
        Tokens(Source(command="x", file="y"))


@pytest.mark.loopback
def test_who_waits_for_a_hanging_command_fails_with_it_and_not_after_it() -> None:
    async def main() -> float:
        tokens = Tokens(Source(command="sleep 60"), timeout=0.3)
        started = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(tokens.find(f"https://{n}") for n in range(20)), return_exceptions=True)
        assert {type(error) for error in found} == {DeadlinePassed}
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) < 20 * 0.3 / 2


@pytest.mark.parametrize("exp", [float("nan"), float("inf"), 10**400])
def test_end_of_life_that_is_no_time_is_not_believed(exp: float) -> None:
    assert fresh_until(jwt(iat=0, exp=exp), now=1000.0) == 1060.0
