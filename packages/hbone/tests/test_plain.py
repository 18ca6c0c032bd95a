"""The plain form of the command line means what click makes of it."""

from __future__ import annotations

import click
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hbone import plain
from hbone.command import command
from hbone.options import client_settings
from hbone.settings import Settings
from hbone.urls import URL, parse_url

FLAGS = (*plain.FLAGS, "-L", "--listen", "--help", "--nonsense", "--token", "--")
VALUES = (
    "https://b.example/_hbone/22",
    "b.example:22",
    "nonsense",
    "127.0.0.1:8443",
    "file",
    "info",
    "error",
    "json",
    "loud",
    "",
    "-x",
    "a=b",
)
WORDS = st.sampled_from([*FLAGS, *VALUES, *(f"{flag}={value}" for flag in plain.FLAGS for value in VALUES)])
ENVIRONMENT = st.dictionaries(st.sampled_from(list(plain.FLAGS.values())), st.sampled_from(VALUES), max_size=3)


def by_click(arguments: list[str], environment: dict[str, str]) -> tuple[URL, Settings]:
    """What the command would do. Raises what click raises."""
    # Variables that are empty are set, so that none of the machine's own counts.
    variables = {name: environment.get(name, "") for name in plain.FLAGS.values()}
    with CliRunner(env=variables).isolation():
        values = command.make_context("hbone", list(arguments)).params
    assert not values.pop("listens"), "a forward is not plain"
    names = ("token_command", "token_file", "ca_file", "connect_to")
    return parse_url(values["url"]), client_settings(**{name: values[name] for name in names})


def told(url: URL, settings: Settings) -> tuple[object, ...]:
    source = settings.token_source
    return url, source.command or None, source.file or None, settings.ca_file or None, settings.connect_to


@given(arguments=st.lists(WORDS, max_size=5), environment=ENVIRONMENT)
def test_what_is_plain_is_what_click_reads(arguments: list[str], environment: dict[str, str]) -> None:
    found = plain.read(arguments, environment)
    if found is not None:
        assert told(*found) == told(*by_click(arguments, environment))


@given(
    flags=st.dictionaries(st.sampled_from(["--token-file", "--ca-file", "--log-level"]), st.just("error"), max_size=3),
    is_joined=st.booleans(),
    is_first=st.booleans(),
)
def test_url_with_flags_is_plain(flags: dict[str, str], *, is_joined: bool, is_first: bool) -> None:
    words = [word for flag in flags.items() for word in (["=".join(flag)] if is_joined else flag)]
    arguments = [VALUES[0], *words] if is_first else [*words, VALUES[0]]
    found = plain.read(arguments, {})
    assert found is not None
    assert told(*found) == told(*by_click(arguments, {}))


def test_flags_of_the_plain_form_are_clicks() -> None:
    options = {
        parameter.opts[-1]: parameter.envvar for parameter in command.params if isinstance(parameter, click.Option)
    }
    assert {flag: options.get(flag) for flag in plain.FLAGS} == plain.FLAGS
    choices = {
        parameter.envvar: tuple(parameter.type.choices)
        for parameter in command.params
        if isinstance(parameter.type, click.Choice) and isinstance(parameter, click.Option)
    }
    assert choices == plain.OF_LOG
