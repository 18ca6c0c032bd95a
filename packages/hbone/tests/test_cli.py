"""Which call is plain, and what it means: the machinery of flags does the rest."""

from __future__ import annotations

import pytest

from hbone import plain

URL = "https://b.example/_hbone/22"


def test_url_alone_is_plain_with_the_variables_of_the_flags() -> None:
    variables = {
        "KRUN_ID_TOKEN_COMMAND": "mint {audience}",
        "KRUN_CA_FILE": "root.pem",
        "KRUN_CONNECT_TO": "127.0.0.1:8443",
        "KRUN_LOG_LEVEL": "",
    }
    found = plain.read([URL], variables)
    assert found is not None
    url, settings = found
    assert str(url) == URL
    assert (settings.token_source.command, settings.token_source.file) == ("mint {audience}", None)
    assert (settings.ca_file, str(settings.connect_to)) == ("root.pem", "127.0.0.1:8443")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ([], {}),
        (["--help"], {}),
        (["-L", "1", URL], {}),
        (["--", URL], {}),
        (["nonsense"], {}),
        ([URL], {"KRUN_CONNECT_TO": "nonsense"}),
        ([URL], {"KRUN_LOG_LEVEL": "loud"}),
        (["--log-format=toml", URL], {}),
        ([URL, URL], {}),
        (["--token-file", "a", "--token-file", "b", URL], {}),
        (["--ca-file", "-x", URL], {}),
        (["--ca-file=", URL], {}),
        ([URL, "--ca-file"], {}),
        ([URL], {"_HBONE_COMPLETE": "bash_source"}),
    ],
)
def test_all_else_is_not_plain(arguments: list[str], variables: dict[str, str]) -> None:
    assert plain.read(arguments, variables) is None
