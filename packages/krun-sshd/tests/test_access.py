from __future__ import annotations

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_sshd import access
from krun_sshd.errors import Misconfigured


@pytest.fixture(scope="module")
def key() -> str:
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()


def test_line_breaks_may_be_written_as_backslash_n(key: str) -> None:
    text = f"{key} one\\n# note\\n\n{key} two\\n"
    assert len(access.entries(access.split_lines(text), source="SSH_AUTH")) == 2


def test_backslash_n_in_a_quoted_command_is_no_line_break(key: str) -> None:
    lines = access.split_lines(f"command=\"printf 'a\\nb'\" {key}")
    assert len(lines) == 1
    assert access.split_options(lines[0])[0] == [("command", "printf 'a\\nb'")]


def test_a_line_that_is_no_key_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(Misconfigured, match="cannot use line 2 of SSH_AUTH: not a public key") as caught:
        access.entries([key, "ssh-ed25519 hunter2"], source="SSH_AUTH")
    assert "hunter2" not in caught.value.message


def test_a_private_key_is_told_apart() -> None:
    private = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    with pytest.raises(Misconfigured) as caught:
        access.entries(private.splitlines(), source="SSH_AUTH")
    assert "private key" in caught.value.hint


@pytest.mark.parametrize("text", ["", "\n\n", "# only a note\n"])
def test_no_key_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="no public key in SSH_AUTH"):
        access.entries(access.split_lines(text), source="SSH_AUTH")


@pytest.mark.parametrize(
    "options", ['expiry-time="20300101"', "cert-authority", "no-pty,verify-required", 'permitopen="nowhere"', 'pty="1"']
)
def test_an_option_that_cannot_be_honoured_is_refused(options: str, key: str) -> None:
    with pytest.raises(Misconfigured, match="cannot use line 1"):
        access.entries([f"{options} {key}"], source="SSH_AUTH")


def test_restrict_takes_all_permissions_and_a_later_word_gives_one_back(key: str) -> None:
    text = access.normalise(f"restrict,PTY {key}")
    assert text == f"no-X11-forwarding,no-agent-forwarding,no-port-forwarding,no-user-rc {key}"


def test_options_are_understood_by_asyncssh_as_sshd_understands_them(key: str) -> None:
    text = access.normalise(f'command="echo \\"a\\" \\t",from="127.0.0.0/8",no-pty {key} me')
    options = asyncssh.import_authorized_keys(text).validate(asyncssh.import_public_key(key), "h", "127.0.0.1")
    assert options is not None
    assert options["command"] == 'echo "a" \\t'
    assert options["no-pty"] is True
    assert asyncssh.import_authorized_keys(text).validate(asyncssh.import_public_key(key), "h", "10.0.0.1") is None


@given(st.text())
def test_any_text_is_keys_or_a_message(text: str) -> None:
    with pytest.raises(Misconfigured):
        access.entries(access.split_lines(text), source="SSH_AUTH")


@given(st.text(st.characters(exclude_characters='"\\\n', exclude_categories=["Cs"])))
def test_a_quoted_value_survives(value: str) -> None:
    assert access.split_options(f'command="{value}",restrict REST') == (
        [("command", value), ("restrict", None)],
        "REST",
    )
