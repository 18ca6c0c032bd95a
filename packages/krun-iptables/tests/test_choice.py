"""Which text counts for a setting, and whose defaults hold: Istio's or krun's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_iptables.arguments import WrongUse
from krun_iptables.choice import choose
from krun_iptables.errors import Failure, Misconfigured
from krun_iptables.options import OPTIONS

OWN_NAMES = [
    (["--include", "10.0.0.0/8"], {}),
    (["--exclude-ports", "22"], {}),
    (["--inbound-ports", "80"], {}),
    (["--inbound-exclude-ports", "22"], {}),
    (["--exempt-gid", "7"], {}),
    (["--iptables", "nft"], {}),
    ([], {"OUTBOUND_IP_RANGES_INCLUDE": "10.0.0.0/8"}),
    ([], {"OUTBOUND_PORTS_EXCLUDE": "22"}),
    ([], {"KRUN_IPTABLES": "legacy"}),
]


def test_nothing_given_is_kruns_own() -> None:
    assert not choose([], {}).is_istio
    assert not choose(["--dry-run", "--log-level", "debug"], {"KRUN_LOG_FORMAT": "json"}).is_istio


def test_the_first_word_asks_for_istios() -> None:
    assert choose(["istio-iptables"], {}).is_istio
    assert choose(["istio-iptables", "--dry-run"], {}).is_istio


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["-i", "*"], {}),
        (["--istio-service-cidr", ""], {}),
        (["-u", "7"], {}),
        ([], {"ISTIO_INBOUND_PORTS": "*"}),
        ([], {"PROXY_UID": "7"}),
        ([], {"ISTIO_META_DNS_CAPTURE": "true"}),
        ([], {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "7"}),
    ],
)
def test_istios_names_alone_are_istios(arguments: list[str], env: dict[str, str]) -> None:
    assert choose(arguments, env).is_istio


@pytest.mark.parametrize(("arguments", "env"), OWN_NAMES)
def test_one_of_kruns_names_makes_it_kruns_own_whatever_of_istios_is_there(
    arguments: list[str], env: dict[str, str]
) -> None:
    assert not choose(arguments, env).is_istio
    choice = choose([*arguments, "-x", "10.1.0.0/16"], {**env, "PROXY_UID": "7"})
    assert not choice.is_istio
    assert (choice.text("outbound_exclude_ranges"), choice.text("proxy_uids")) == ("10.1.0.0/16", "7")


def test_variables_that_are_empty_are_not_there() -> None:
    empty = {name: "" for option in OPTIONS for name in (*option.variables, option.own_variable) if name}
    del empty["ISTIO_OUTBOUND_OWNER_GROUPS"], empty["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"]
    assert choose([], empty) == choose([], {})


def test_a_list_of_groups_that_is_empty_is_one() -> None:
    choice = choose([], {"ISTIO_OUTBOUND_OWNER_GROUPS": ""})
    assert choice.given["groups"].text == ""
    assert choice.is_istio


def test_a_flag_wins_over_its_variable_and_the_last_one_over_those_before() -> None:
    choice = choose(
        ["-b", "80", "--istio-inbound-ports=81", "-i", ""], {"ISTIO_INBOUND_PORTS": "82", "ISTIO_SERVICE_CIDR": "*"}
    )
    assert (choice.text("inbound_ports"), choice.given["inbound_ports"].name) == ("81", "--istio-inbound-ports")
    assert choice.given["outbound_ranges"].text == ""
    # krun's name for the same flag, too.
    assert choose(["--inbound-ports", "83"], {"ISTIO_INBOUND_PORTS": "82"}).text("inbound_ports") == "83"


@pytest.mark.parametrize("key", ["redirect_dns", "drop_invalid", "dual_stack"])
def test_the_later_variable_of_a_switch_wins_unless_it_is_empty(key: str) -> None:
    plain, other = next(option.variables for option in OPTIONS if option.key == key)
    assert not choose([], {plain: "true", other: "false"}).is_on(key)
    assert choose([], {plain: "false", other: "true"}).is_on(key)
    assert choose([], {plain: "true", other: ""}).is_on(key)


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_a_switch_is_on_in_all_of_gos_ways(text: str) -> None:
    assert choose([], {"REDIRECT_DNS": text}).is_on("redirect_dns")
    assert choose([f"--redirect-dns={text}"], {"REDIRECT_DNS": "false"}).is_on("redirect_dns")


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_a_switch_is_off_in_all_of_gos_ways(text: str) -> None:
    assert not choose([], {"REDIRECT_DNS": text}).is_on("redirect_dns")
    assert not choose([f"--redirect-dns={text}"], {"REDIRECT_DNS": "true"}).is_on("redirect_dns")


@pytest.mark.parametrize("text", ["yes", "tRUE", "on", "2"])
def test_a_switch_that_is_neither_on_nor_off_is_named(text: str) -> None:
    with pytest.raises(Misconfigured, match=f"REDIRECT_DNS: '{text}'"):
        choose([], {"REDIRECT_DNS": text}).is_on("redirect_dns")
    with pytest.raises(WrongUse, match=f"--redirect-dns: '{text}'"):
        choose([f"--redirect-dns={text}"], {}).is_on("redirect_dns")


@pytest.mark.parametrize(
    ("own", "istio"),
    [
        ("OUTBOUND_IP_RANGES_INCLUDE", "ISTIO_SERVICE_CIDR"),
        ("OUTBOUND_PORTS_EXCLUDE", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"),
        ("KRUN_IPTABLES", "FORCE_IPTABLES_BINARY"),
    ],
)
def test_two_variables_for_one_setting_may_not_contradict(own: str, istio: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        choose([], {own: "22", istio: "23"})
    assert own in raised.value.message
    assert istio in raised.value.message
    choose([], {own: "22", istio: "22"})


def test_two_flags_for_one_setting_may_not_contradict() -> None:
    with pytest.raises(WrongUse) as raised:
        choose(["--include", "10.0.0.0/8", "-i", "*"], {})
    assert "--include" in raised.value.message
    assert "-i" in raised.value.message
    with pytest.raises(Misconfigured, match="--include and ISTIO_SERVICE_CIDR"):
        choose(["--include", "10.0.0.0/8"], {"ISTIO_SERVICE_CIDR": "*"})


names = st.sampled_from([name for option in OPTIONS for name in (*option.variables, option.own_variable) if name])


@given(st.dictionaries(names, st.text(min_size=1)))
def test_any_environment_is_a_choice_or_a_failure_of_one_line(env: dict[str, str]) -> None:
    try:
        choice = choose([], env)
    except Failure as error:
        assert error.message.isprintable()  # noqa: PT017 - both ends are right, and each is held
    else:
        assert {found.name for found in choice.given.values()} <= set(env)
