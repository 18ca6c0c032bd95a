"""Variables for clients that know HTTP_PROXY under other names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch.istio_whitebox_clients import variables


def found(*direct: str, **env: str) -> dict[str, str]:
    return variables(env, host="127.0.0.1", port=15007, direct=direct)


def test_node_and_java_are_told_in_their_own_words() -> None:
    assert found("localhost", "127.0.0.1", "::1", "169.254.169.254") == {
        "NODE_USE_ENV_PROXY": "1",
        "JAVA_TOOL_OPTIONS": "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=15007"
        " -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=15007"
        " -Dhttp.nonProxyHosts=localhost|*.localhost|127.*|[::1]|169.254.169.254",
    }


@pytest.mark.parametrize("word", ["example.com", ".example.com", "*.example.com"])
def test_a_domain_stands_for_the_names_below_it(word: str) -> None:
    assert found(word)["JAVA_TOOL_OPTIONS"].endswith("=example.com|*.example.com")


def test_what_the_user_has_set_stands() -> None:
    theirs = found(NODE_USE_ENV_PROXY="0", JAVA_TOOL_OPTIONS="-Xmx64m -Da=b")
    assert theirs["NODE_USE_ENV_PROXY"] == "0"
    assert theirs["JAVA_TOOL_OPTIONS"].endswith(" -Xmx64m -Da=b")
    assert "JAVA_TOOL_OPTIONS" not in found(JAVA_TOOL_OPTIONS="-Dhttp.proxyHost=other")


@given(st.lists(st.text(max_size=20)))
def test_no_word_of_a_list_becomes_an_option(words: list[str]) -> None:
    options = found(*words)["JAVA_TOOL_OPTIONS"].split(" ")
    assert len(options) == 5
    assert all(option.startswith("-Dhttp") for option in options)
