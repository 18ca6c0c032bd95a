"""The command line as pflag reads it: every way to write a flag, and what is no flag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_iptables.arguments import WrongUse, flags
from krun_iptables.contract import READS
from krun_iptables.options import OPTIONS
from krun_iptables.settings import Settings

# Istio's flags, with their letters and their variables (tools/istio-iptables/pkg/cmd/root.go).
ISTIOS = {
    "envoy-port": ("p", ()),
    "inbound-capture-port": ("z", ("INBOUND_CAPTURE_PORT",)),
    "inbound-tunnel-port": ("e", ("INBOUND_TUNNEL_PORT",)),
    "proxy-uid": ("u", ("PROXY_UID",)),
    "proxy-gid": ("g", ("PROXY_GID",)),
    "istio-inbound-interception-mode": ("m", ("ISTIO_INBOUND_INTERCEPTION_MODE",)),
    "istio-inbound-ports": ("b", ("ISTIO_INBOUND_PORTS",)),
    "istio-local-exclude-ports": ("d", ("ISTIO_LOCAL_EXCLUDE_PORTS",)),
    "istio-exclude-interfaces": ("c", ("ISTIO_EXCLUDE_INTERFACES",)),
    "istio-service-cidr": ("i", ("ISTIO_SERVICE_CIDR",)),
    "istio-service-exclude-cidr": ("x", ("ISTIO_SERVICE_EXCLUDE_CIDR",)),
    "istio-outbound-ports": ("q", ("ISTIO_OUTBOUND_PORTS",)),
    "istio-local-outbound-ports-exclude": ("o", ("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",)),
    "kube-virt-interfaces": ("k", ("KUBE_VIRT_INTERFACES",)),
    "istio-inbound-tproxy-mark": ("t", ("ISTIO_INBOUND_TPROXY_MARK",)),
    "istio-inbound-tproxy-route-table": ("r", ("ISTIO_INBOUND_TPROXY_ROUTE_TABLE",)),
    "dry-run": ("n", ("DRY_RUN",)),
    "iptables-probe-port": ("", ("IPTABLES_PROBE_PORT",)),
    "probe-timeout": ("", ("PROBE_TIMEOUT",)),
    "skip-rule-apply": ("", ("SKIP_RULE_APPLY",)),
    "run-validation": ("", ("RUN_VALIDATION",)),
    "redirect-dns": ("", ("REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE")),
    "capture-all-dns": ("", ("CAPTURE_ALL_DNS",)),
    "drop-invalid": ("", ("DROP_INVALID", "INVALID_DROP")),
    "dual-stack": ("", ("DUAL_STACK", "ISTIO_DUAL_STACK")),
    "network-namespace": ("", ("NETWORK_NAMESPACE",)),
    "cni-mode": ("", ("CNI_MODE",)),
    "reconcile": ("", ("RECONCILE",)),
    "cleanup-only": ("", ("CLEANUP_ONLY",)),
    "force-apply": ("", ("FORCE_APPLY",)),
    "native-nftables": ("", ("NATIVE_NFTABLES",)),
    "force-iptables-binary": ("", ("FORCE_IPTABLES_BINARY",)),
}
TODAYS = {
    "include": "OUTBOUND_IP_RANGES_INCLUDE",
    "exclude-ports": "OUTBOUND_PORTS_EXCLUDE",
    "inbound-ports": "",
    "inbound-exclude-ports": "",
    "exempt-gid": "",
    "iptables": "KRUN_IPTABLES",
    "log-level": "KRUN_LOG_LEVEL",
    "log-format": "KRUN_LOG_FORMAT",
    "remove": "",
    "show-settings": "",
}


def read(*arguments: str) -> list[tuple[str, str]]:
    return [(found.name, found.text) for found in flags(arguments)]


@pytest.mark.parametrize("flag", ISTIOS)
def test_istios_flags_have_istios_letters_and_variables(flag: str) -> None:
    (option,) = [option for option in OPTIONS if option.flag == flag]
    assert (option.short, option.variables) == ISTIOS[flag]


def test_further_flags_of_istio_are_those_of_its_log_alone() -> None:
    assert {option.flag for option in OPTIONS if option.flag not in ISTIOS} - {""} <= {
        "log_output_level",
        "log_as_json",
        "log_target",
        "log_stacktrace_level",
        "log_caller",
        "vklog",
    }


@pytest.mark.parametrize("flag", TODAYS)
def test_kruns_own_flags_are_there_with_their_variables(flag: str) -> None:
    (option,) = [option for option in OPTIONS if option.own == flag]
    assert option.own_variable == TODAYS[flag]


def test_every_variable_that_is_read_is_in_the_contract() -> None:
    named = {variable for option in OPTIONS for variable in (*option.variables, option.own_variable) if variable}
    assert named <= READS


def test_every_setting_is_set_by_an_option() -> None:
    of_others = {"all_inbound_ports", "all_outbound", "all_groups", "inbound_is_optional", "ipv6", "dns_servers"}
    of_others |= {"dry_run_file", "names_loopback"}
    assert set(Settings._fields) - {option.key for option in OPTIONS} == of_others


@pytest.mark.parametrize(
    "words",
    [["-p", "15001"], ["-p15001"], ["-p=15001"], ["--envoy-port", "15001"], ["--envoy-port=15001"]],
)
def test_a_value_is_written_in_any_of_pflags_ways(words: list[str]) -> None:
    ((name, text),) = read(*words)
    assert name in ("-p", "--envoy-port")
    assert text == "15001"


def test_a_switch_takes_its_value_behind_an_equals_sign_alone() -> None:
    assert read("--redirect-dns") == [("--redirect-dns", "true")]
    assert read("--redirect-dns=false", "-n=0") == [("--redirect-dns", "false"), ("-n", "0")]
    with pytest.raises(WrongUse, match="'false'") as raised:
        read("--redirect-dns", "false")
    assert raised.value.hint == "a switch takes its value so: --redirect-dns=false"


def test_letters_may_stand_together() -> None:
    assert read("-np", "15001") == [("-n", "true"), ("-p", "15001")]
    assert read("-np15001") == [("-n", "true"), ("-p", "15001")]


def test_a_value_may_look_like_a_flag_or_be_empty() -> None:
    assert read("-b", "-1", "-i", "", "--istio-inbound-ports=") == [
        ("-b", "-1"),
        ("-i", ""),
        ("--istio-inbound-ports", ""),
    ]


def test_the_flags_of_an_init_container_are_read() -> None:
    words = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020 --log_output_level=default:info"
    found = dict(read(*words.split(" ")))
    assert (found["-x"], found["-i"], found["--log_output_level"]) == ("", "*", "default:info")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--no-such"], "--no-such"),
        (["--no-such=1"], "--no-such"),
        (["-p"], "-p"),
        (["--envoy-port"], "--envoy-port"),
        (["-y"], "-y"),
        (["-ny"], "-y"),
        (["word"], "'word'"),
        (["-n", "word"], "'word'"),
        (["-"], "'-'"),
        (["--", "word"], "--"),
    ],
)
def test_what_is_no_flag_of_ours_is_named(words: list[str], named: str) -> None:
    with pytest.raises(WrongUse) as raised:
        read(*words)
    assert named in raised.value.message
    assert raised.value.exit_code == 2


@given(st.lists(st.text() | st.text(alphabet="-=npuib10 \n")))
def test_any_words_are_flags_or_wrong_use(words: list[str]) -> None:
    try:
        found = flags(words)
    except WrongUse as error:
        assert "\n" not in error.message  # noqa: PT017 - both ends are right, and each is held
    else:
        assert all(one.is_flag for one in found)
