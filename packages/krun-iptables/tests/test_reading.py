"""Texts to settings: Istio's defaults, krun's own, what the machine adds, and how a wrong text is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_iptables.arguments import WrongUse
from krun_iptables.choice import choose
from krun_iptables.errors import Failure, Misconfigured
from krun_iptables.network import address, network
from krun_iptables.options import OPTIONS
from krun_iptables.reading import settings
from krun_iptables.settings import Settings

if TYPE_CHECKING:
    from krun_iptables.settings import Address

IPV4, IPV6 = address("10.0.0.2"), address("fd00::2")


class Machine:
    """A machine by its facts."""

    def __init__(self, *addresses: Address, servers: tuple[str, ...] = (), user: int | None = None) -> None:
        self._addresses = addresses or (IPV4,)
        self._servers = tuple(map(address, servers))
        self._user = user

    def addresses(self) -> tuple[Address, ...]:
        return self._addresses

    def servers(self) -> tuple[Address, ...]:
        return self._servers

    def uid(self, name: str) -> int | None:
        return self._user if name == "istio-proxy" else {"root": 0}.get(name)

    def gid(self, name: str) -> int | None:
        return {"java": 202, "ftp": 21}.get(name)


def istio(*arguments: str, machine: Machine | None = None, **env: str) -> Settings:
    """Read as Istio's tool does."""
    return settings(choose(["istio-iptables", *arguments], env), facts=machine or Machine(), environ=env)


def krun(*arguments: str, machine: Machine | None = None, **env: str) -> Settings:
    """Read as krun is called."""
    choice = choose(arguments, env)
    assert not choice.is_istio
    return settings(choice, facts=machine or Machine(), environ=env)


# Istio's


def test_istios_defaults_are_those_of_its_tool() -> None:
    assert istio() == Settings()


def test_every_flag_of_istio_is_a_setting() -> None:
    decided = istio(
        *("-p", "1", "-z", "2", "-e", "3", "-u", "3,4", "-g", "1,2", "-m", "TPROXY", "-t", "7", "-r", "8"),
        *("-b", "4000,5000", "-d", "6000,7000,", "-c", "eth0", "-k", "eth1,eth2"),
        *("-i", "10.0.0.0/8,2001:db8::/32", "-x", "1.1.0.0/16", "-q", "80", "-o", "22,23"),
        *("--drop-invalid", "--dual-stack", "--redirect-dns", "--capture-all-dns", "--native-nftables"),
        *("--iptables-probe-port", "15", "--probe-timeout", "1m30s", "--force-iptables-binary", "legacy"),
        machine=Machine(IPV4, IPV6),
    )
    assert decided == Settings(
        envoy_port=1,
        inbound_capture_port=2,
        inbound_tunnel_port=3,
        proxy_uids=("3", "4"),
        proxy_gids=("1", "2"),
        mode="TPROXY",
        tproxy_mark=7,
        tproxy_table=8,
        inbound_ports=(4000, 5000),
        inbound_exclude_ports=(6000, 7000),
        exclude_interfaces=("eth0",),
        virtual_interfaces=("eth1", "eth2"),
        outbound_ranges=(network("10.0.0.0/8"), network("2001:db8::/32")),
        outbound_exclude_ranges=(network("1.1.0.0/16"),),
        outbound_ports=(80,),
        outbound_exclude_ports=(22, 23),
        drop_invalid=True,
        dual_stack=True,
        ipv6=True,
        redirect_dns=True,
        capture_all_dns=True,
        native_nftables=True,
        probe_port=15,
        probe_timeout=90.0,
        force_iptables_binary="legacy",
    )


def test_lists_keep_their_order_and_their_doubles() -> None:
    assert istio("-b", "81,,80,81,").inbound_ports == (81, 80, 81)


def test_the_proxy_is_the_user_of_that_name_or_1337_and_its_group_has_the_same_number() -> None:
    assert (istio().proxy_uids, istio().proxy_gids) == (("1337",), ("1337",))
    machine = Machine(user=998)
    assert (istio(machine=machine).proxy_uids, istio(machine=machine).proxy_gids) == (("998",), ("998",))
    assert istio(machine=machine, ENVOY_USER="root").proxy_uids == ("0",)
    assert istio(machine=machine, ENVOY_USER="nobody-here").proxy_uids == ("1337",)
    decided = istio("-u", "3,4", machine=machine)
    assert (decided.proxy_uids, decided.proxy_gids) == (("3", "4"), ("3", "4"))


@pytest.mark.parametrize(
    ("addresses", "dual", "ipv6"),
    [
        ((IPV4,), False, False),
        ((IPV4,), True, False),
        ((IPV6,), False, True),
        ((IPV4, IPV6), False, False),
        ((IPV4, IPV6), True, True),
        ((address("127.0.0.1"), address("::1"), address("fe80::1")), True, False),
    ],
)
def test_ipv6_follows_from_the_addresses_of_the_machine(addresses: tuple[Address, ...], dual: bool, ipv6: bool) -> None:
    decided = istio(*(["--dual-stack"] if dual else []), machine=Machine(*addresses))
    assert decided.ipv6 == ipv6


def test_servers_of_dns_are_the_machines_unless_all_are_captured() -> None:
    machine = Machine(servers=("10.0.0.10", "fd00::10"))
    assert istio(machine=machine).dns_servers == ()
    assert istio("--redirect-dns", machine=machine).servers(6) == (address("fd00::10"),)
    assert istio("--redirect-dns", "--capture-all-dns", machine=machine).dns_servers == ()
    assert not istio("--redirect-dns").captures_dns


def test_groups_are_all_but_some_or_some_alone() -> None:
    decided = istio(ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE="888,ftp")
    assert (decided.all_groups, decided.exclude_groups) == (True, ("888", "ftp"))
    decided = istio(ISTIO_OUTBOUND_OWNER_GROUPS="java,202")
    assert (decided.all_groups, decided.groups) == (False, ("java", "202"))
    decided = istio(ISTIO_OUTBOUND_OWNER_GROUPS="")
    assert (decided.all_groups, decided.groups) == (False, ())
    assert istio(ISTIO_OUTBOUND_OWNER_GROUPS="*").all_groups


def test_bits_behind_a_ranges_length_are_nothing_to_istio_and_the_kernel() -> None:
    assert istio("-i", "10.1.2.3/8").outbound_ranges == (network("10.0.0.0/8"),)
    assert istio(ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR="127.0.0.1/8").loopback == network("127.0.0.0/8")


def test_a_range_of_loopback_may_be_named_to_istio() -> None:
    assert istio("-i", "127.1.2.3/32").captures_loopback
    assert not istio("-i", "0.0.0.0/0").captures_loopback


# krun's own


def test_kruns_defaults_intercept_what_goes_to_10_and_nothing_that_comes_in() -> None:
    decided = krun()
    assert decided.outbound_ranges == (network("10.0.0.0/8"),)
    assert set(decided.outbound_exclude_ports) == {15008, 15009}
    assert decided.loopback == network("127.0.0.0/8")
    assert decided.inbound_is_optional
    assert not decided.captures_inbound
    assert not decided.ipv6
    assert (decided.proxy_uids, decided.proxy_gids) == (("1337",), ("1337",))
    # Whoever the user istio-proxy is on this machine: krun starts the proxy as 1337.
    assert krun(machine=Machine(user=998)).proxy_uids == ("1337",)


def test_the_tunnels_ports_are_excluded_whatever_else_is() -> None:
    assert set(krun(OUTBOUND_PORTS_EXCLUDE="5432, 15009 ,22").outbound_exclude_ports) == {22, 5432, 15008, 15009}


def test_tunnels_and_status_ports_are_excluded_inwards_before_every_port_and_before_a_list() -> None:
    exempt = {15008, 15009, 15019, 15020, 15021, 15090}
    decided = krun("--inbound-ports", " * ", "--inbound-exclude-ports", "22")
    assert decided.all_inbound_ports
    assert set(decided.inbound_exclude_ports) == {22, *exempt}
    assert krun("--inbound-ports", "8080,15009,22", "--inbound-exclude-ports", "22").inbound_ports == (8080,)


def test_a_star_among_kruns_ranges_is_every_address() -> None:
    for text in ("*", "10.0.0.0/8,*"):
        decided = krun("--include", text)
        assert decided.all_outbound
        assert decided.outbound_ranges == ()


def test_istios_names_refine_what_krun_decides() -> None:
    machine = Machine(IPV4, IPV6)
    decided = krun(
        machine=machine,
        OUTBOUND_IP_RANGES_INCLUDE="172.16.0.0/12",
        ISTIO_INBOUND_PORTS="80",
        PROXY_UID="7",
        DUAL_STACK="1",
    )
    assert decided.outbound_ranges == (network("172.16.0.0/12"),)
    assert (decided.inbound_ports, decided.proxy_uids, decided.proxy_gids) == ((80,), ("7",), ("1337",))
    assert decided.ipv6


def test_ipv6_is_intercepted_for_krun_where_it_is_named() -> None:
    machine = Machine(IPV4, IPV6)
    assert not krun(machine=machine).ipv6
    assert krun("--include", "10.0.0.0/8,fd00::/8", machine=machine).ipv6
    # Whoever says that it is not served gets none, though the mesh has ranges of it.
    assert not krun("--include", "10.0.0.0/8,fd00::/8", machine=machine, ISTIO_DUAL_STACK="false").ipv6


# What is wrong

WRONG = [
    ("-p", "", ["0", "65536", "-1", "http", "0x3a98", "015001", "1e3", "٣٣", "", "15001,15002"]),
    ("-z", "INBOUND_CAPTURE_PORT", ["0", "70000", "*"]),
    ("-e", "INBOUND_TUNNEL_PORT", ["0", "70000", "*"]),
    ("-b", "ISTIO_INBOUND_PORTS", ["80,*", "*,80", "8000:8010", "65536", "http", "0"]),
    ("-d", "ISTIO_LOCAL_EXCLUDE_PORTS", ["*", "80 81", "-1"]),
    ("-q", "ISTIO_OUTBOUND_PORTS", ["*", "0"]),
    ("-o", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", ["*", "22-23"]),
    (
        "-i",
        "ISTIO_SERVICE_CIDR",
        ["10.0.0.1", "10.0.0.0/33", "10.0.0.0/08", "*,10.0.0.0/8", "fe80::%eth0/64", "all", "/8"]
        + [f"10.0.0.0/{'8' * 5000}", "10.0.0.\udcff/8", "10.0.0.0/\u0668"],
    ),
    ("-x", "ISTIO_SERVICE_EXCLUDE_CIDR", ["*", "10.0.0.0/255.0.0.0", "010.0.0.0/8", "10.0.0.0/"]),
    ("-u", "PROXY_UID", [",", "-1", "4294967295", "no-such-user", "1-5", "*", "1 2"]),
    ("-g", "PROXY_GID", [",", "-1", "4294967295", "no-such-group", "1-5"]),
    ("-c", "ISTIO_EXCLUDE_INTERFACES", ["a name", "sixteen-signs-it", "eth0;x", "-j", "!", '"', "eth0/1"]),
    ("-k", "KUBE_VIRT_INTERFACES", ["a name", "sixteen-signs-it", "{", "#"]),
    ("-m", "ISTIO_INBOUND_INTERCEPTION_MODE", ["tproxy", "NONE", "REDIRECT "]),
    ("-t", "ISTIO_INBOUND_TPROXY_MARK", ["0", "0x539", "4294967296", "-1", "1337/0xff"]),
    ("-r", "ISTIO_INBOUND_TPROXY_ROUTE_TABLE", ["0", "253", "254", "255", "main", "4294967296"]),
    ("--redirect-dns", "REDIRECT_DNS", ["yes", "2"]),
    ("--probe-timeout", "PROBE_TIMEOUT", ["5", "5x", "-5s", "s", "1.2.3s"]),
    ("--iptables-probe-port", "IPTABLES_PROBE_PORT", ["0", "65536"]),
    ("--force-iptables-binary", "FORCE_IPTABLES_BINARY", ["auto", "iptables"]),
    ("", "ISTIO_OUTBOUND_OWNER_GROUPS", ["no-such-group", "*,java", "-1"]),
    ("", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", ["no-such-group", "*"]),
    ("", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", ["", "10.0.0.0/8", "127.0.0.0/7", "::1/128", "127.0.0.1", "*"]),
]
EACH = [(flag, name, text) for flag, name, texts in WRONG for text in texts]


@pytest.mark.parametrize(("flag", "text"), [(flag, text) for flag, _, text in EACH if flag])
def test_a_flag_that_is_wrong_is_named_with_its_value(flag: str, text: str) -> None:
    words = [f"{flag}={text}"] if flag.startswith("--") else [flag, text]
    with pytest.raises(WrongUse) as raised:
        istio(*words)
    assert raised.value.message.startswith(f"{flag}: ")
    assert repr(text) in raised.value.message or any(repr(part) in raised.value.message for part in text.split(","))


@pytest.mark.parametrize(("name", "text"), [(name, text) for _, name, text in EACH if name])
def test_a_variable_that_is_wrong_is_named_with_its_value(name: str, text: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        istio(**{name: text})
    assert raised.value.message.startswith(f"{name}: ")
    assert repr(text) in raised.value.message or any(repr(part) in raised.value.message for part in text.split(","))


def test_64_groups_are_the_most_that_fit_one_rule() -> None:
    assert len(istio(ISTIO_OUTBOUND_OWNER_GROUPS=",".join(map(str, range(64)))).groups) == 64
    with pytest.raises(Misconfigured, match=r"ISTIO_OUTBOUND_OWNER_GROUPS.*65"):
        istio(ISTIO_OUTBOUND_OWNER_GROUPS=",".join(map(str, range(65))))


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "10.0.0.0/33", "everything", "**", ",", "10.0.0.0-10.1.0.0", "127.0.0.0/8", "127.1.2.3/32"]
)
def test_a_range_that_krun_cannot_intercept_is_refused_by_name(text: str) -> None:
    with pytest.raises(Misconfigured, match="OUTBOUND_IP_RANGES_INCLUDE"):
        krun(OUTBOUND_IP_RANGES_INCLUDE=text)
    with pytest.raises(WrongUse, match="--include"):
        krun("--include", text)


@pytest.mark.parametrize("flag", ["--include", "--exclude-ports", "--inbound-ports", "--exempt-gid"])
def test_istios_tool_has_none_of_kruns_flags(flag: str) -> None:
    with pytest.raises(WrongUse, match=flag):
        istio(flag, "7")


def test_istios_tool_reads_none_of_kruns_variables() -> None:
    env = {"OUTBOUND_IP_RANGES_INCLUDE": "no range", "OUTBOUND_PORTS_EXCLUDE": "no port", "KRUN_IPTABLES": "none"}
    assert istio(**env) == Settings()


TEXTS = (
    st.text() | st.text(alphabet="0123456789,./*- :x%abcdef+") | st.sampled_from(["*", "1", "10.0.0.0/8", "fd00::/8"])
)
NAMES = sorted({name for option in OPTIONS for name in (*option.variables, option.own_variable) if name})


@given(env=st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=4), word=st.booleans())
def test_any_texts_are_settings_or_one_line_that_names_a_variable_and_not_a_traceback(
    env: dict[str, str], word: bool
) -> None:
    try:
        choice = choose(["istio-iptables"] if word else [], env)
        decided = settings(choice, facts=Machine(), environ=env)
    except Failure as error:
        assert error.exit_code == 78  # noqa: PT017 - both ends are right, and each is held
        assert error.message.isprintable()  # noqa: PT017
        assert any(name in error.message for name in env)  # noqa: PT017
    else:
        assert decided.proxy_uids
        assert decided.proxy_gids
