"""Which variables a child gets."""

from __future__ import annotations

import pytest

from krun_launch import environments
from krun_launch.settings import settings

ENV = {
    "PATH": "/usr/bin",
    "HOME": "/home/app",
    "PORT": "15009",
    "PORT_http": "3000",
    "KRUN_LOOPBACK": "127.0.0.2",
    "KRUN_INIT_FD": "3",
    "KRUN_LOG_FORMAT": "json",
    "K_SERVICE": "b",
    "SSH_AUTH": "ssh-ed25519 AAAA",
    "ENVOY_LOG_LEVEL": "debug",
    "HTTPS_PROXY": "http://corporate:3128",
    "HTTP_PROXY": "http://corporate:3128",
    "NO_PROXY": "user.example, localhost",
    "no_proxy": "user.example,second.example",
    "DATABASE_PASSWORD": "canary",
    "API_KEY": "canary",
    "KEYBOARD": "us",
    "APP_WORD": "kept",
}
SETTINGS = settings(ENV)


def test_application_gets_its_port_and_the_way_out_and_nothing_of_ours() -> None:
    env = environments.app(ENV, settings=SETTINGS)
    assert env["PORT"] == "3000"
    assert env["HTTP_PROXY"] == env["http_proxy"] == "http://127.0.0.2:15007"
    assert env["HTTPS_PROXY"] == "http://corporate:3128"
    assert env["APP_WORD"] == "kept"
    assert env["DATABASE_PASSWORD"] == "canary"
    assert set(ENV) - set(env) == {"KRUN_LOOPBACK", "KRUN_INIT_FD", "KRUN_LOG_FORMAT", "SSH_AUTH", "ENVOY_LOG_LEVEL"}


def test_no_proxy_keeps_the_users_names_and_adds_ours_once() -> None:
    wanted = "user.example,localhost,second.example,127.0.0.1,::1,127.0.0.2,metadata.google.internal,169.254.169.254"
    assert environments.no_proxy(ENV, loopback="127.0.0.2") == wanted


def test_envoy_gets_no_proxy_and_no_secret() -> None:
    assert environments.envoy(ENV) == {"PATH": "/usr/bin", "HOME": "/home/app"}


@pytest.mark.parametrize(
    ("offers_ssh", "given", "offer"),
    [(False, "", "15003"), (True, "", "15003,22=15022"), (True, "15003,9000", "15003,9000")],
)
def test_hboned_gets_where_to_listen_and_what_to_offer(offers_ssh: bool, given: str, offer: str) -> None:
    env = environments.hboned({**ENV, "KRUN_OFFER": given}, settings=SETTINGS, offers_ssh=offers_ssh)
    assert env == {
        "PATH": "/usr/bin",
        "HOME": "/home/app",
        "KRUN_LOG_FORMAT": "json",
        "K_SERVICE": "b",
        "PORT": "15009",
        "PORT_http": "3000",
        "KRUN_BIND": "0.0.0.0",
        "KRUN_LOOPBACK": "127.0.0.2",
        "KRUN_OFFER": offer,
        "KRUN_PUBLIC": "app",
        "KRUN_APP_PROTOCOL": "auto",
    }


def test_hboned_gets_the_number_of_its_workers_when_there_is_one() -> None:
    given = {"KRUN_WORKERS": "auto", "KRUN_WORKER_TIMEOUT": "10"}
    env = environments.hboned({**ENV, **given}, settings=SETTINGS, offers_ssh=False)
    assert env.items() >= given.items()


def test_debug_shell_sees_the_applications_environment_without_secrets() -> None:
    env = environments.sshd(ENV, settings=SETTINGS, sees=environments.app(ENV, settings=SETTINGS))
    assert env["SSH_AUTH"] == "ssh-ed25519 AAAA"
    assert env["PORT"] == "3000"
    assert env["APP_WORD"] == "kept"
    assert env["KEYBOARD"] == "us"
    assert "canary" not in env.values()


def test_mode_none_takes_only_the_descriptor_that_is_not_there() -> None:
    assert set(ENV) - set(environments.untouched(ENV)) == {"KRUN_INIT_FD"}
