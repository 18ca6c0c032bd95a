"""Settings of istio-iptables as hypothesis makes them: values that Istio takes, given in every way that it reads.

The flags, their short forms and their variables are those of tools/istio-iptables/pkg/cmd/root.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from krun_testbed.istio_iptables import V4, V6
from krun_testbed.istio_named import Asked

USERS = ("root", "istio-proxy", "envoy")
GROUPS = ("root", "ftp", "java")
INTERFACES = ("eth0", "eth1", "eth+", "lo", "not-istio-nic", "net1.100", "br-lan", "vethfifteenlong")
YES, NO = ("true", "1", "t", "T", "TRUE", "True"), ("false", "0", "f", "F", "FALSE", "False")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting: its flag, the flag's letter, its variables by rising right, and the texts that it may have."""

    flag: str = ""
    letter: str = ""
    variables: tuple[str, ...] = ()
    values: st.SearchStrategy[str]
    is_switch: bool = False


def _one(flag: str, letter: str, values: st.SearchStrategy[str]) -> Setting:
    return Setting(flag=flag, letter=letter, variables=(flag.upper().replace("-", "_"),), values=values)


def _switch(flag: str, *more: str) -> Setting:
    variables = (flag.upper().replace("-", "_"), *more)
    return Setting(flag=flag, variables=variables, values=st.sampled_from([*YES, *NO]), is_switch=True)


def listed(entries: st.SearchStrategy[str], *, most: int = 4) -> st.SearchStrategy[str]:
    """Lists by comma, as people write them: with entries twice, and with commas that part nothing."""
    commas = st.sampled_from([",", ",", ",", ",,"])
    ends = st.sampled_from(["", "", "", ","])
    several = st.lists(entries, min_size=1, max_size=most)
    return st.builds(lambda found, comma, end: comma.join(found) + end, several, commas, ends)


ports = st.one_of(st.integers(1, 65535), st.sampled_from([53, 80, 443, 8080, 15001, 15006, 15008, 15021])).map(str)
ids = st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 1337])).map(str)
users, groups = st.one_of(ids, st.sampled_from(USERS)), st.one_of(ids, st.sampled_from(GROUPS))
networks_4 = st.one_of(
    st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "127.0.0.0/8", "127.1.2.3/32", "10.1.2.3/8", "240.240.0.0/16"]),
    st.builds(lambda address, bits: f"{address}/{bits}", st.ip_addresses(v=4), st.integers(0, 32)),
)
networks_6 = st.one_of(
    st.sampled_from(["::/0", "2001:db8::/32", "2001:DB8:0:0::/32", "::1/128", "2001:db8::1/32"]),
    st.builds(lambda address, bits: f"{address}/{bits}", st.ip_addresses(v=6), st.integers(0, 128)),
)
networks = st.one_of(networks_4, networks_4, networks_6)
every = st.just("*")
interfaces = st.one_of(st.just(""), listed(st.sampled_from(INTERFACES), most=3))
# 1338 marks other packets of Istio's; the tables are the kernel's own, which only Istio takes.
marks = st.integers(1, 2**31 - 1).filter(lambda number: number != 1338).map(str)
tables = st.integers(1, 2**31 - 1).filter(lambda number: number not in (253, 254, 255)).map(str)
loopbacks = st.builds(
    lambda host, bits: f"127.{host >> 16}.{host >> 8 & 255}.{host & 255}/{bits}",
    st.integers(0, 2**24 - 1),
    st.integers(8, 32),
)

SETTINGS = (
    Setting(flag="envoy-port", letter="p", values=ports),
    _one("inbound-capture-port", "z", ports),
    _one("inbound-tunnel-port", "e", ports),
    _one("proxy-uid", "u", st.one_of(st.just(""), listed(users))),
    _one("proxy-gid", "g", st.one_of(st.just(""), listed(groups))),
    _one("istio-inbound-interception-mode", "m", st.sampled_from(["TPROXY", "TPROXY", "REDIRECT", ""])),
    _one("istio-inbound-ports", "b", st.one_of(every, every, st.just(""), listed(ports))),
    _one("istio-local-exclude-ports", "d", st.one_of(st.just(""), listed(ports))),
    _one("istio-exclude-interfaces", "c", interfaces),
    _one("istio-service-cidr", "i", st.one_of(every, st.just(""), listed(networks))),
    _one("istio-service-exclude-cidr", "x", st.one_of(st.just(""), listed(networks))),
    _one("istio-outbound-ports", "q", st.one_of(st.just(""), listed(ports))),
    _one("istio-local-outbound-ports-exclude", "o", st.one_of(st.just(""), listed(ports))),
    _one("kube-virt-interfaces", "k", interfaces),
    _one("istio-inbound-tproxy-mark", "t", marks),
    _one("istio-inbound-tproxy-route-table", "r", tables),
    _one("iptables-probe-port", "", ports),
    _one("probe-timeout", "", st.sampled_from(["5s", "500ms", "1m30s"])),
    _one("force-iptables-binary", "", st.sampled_from(["", "legacy", "nft"])),
    _switch("redirect-dns", "ISTIO_META_DNS_CAPTURE"),
    _switch("capture-all-dns"),
    _switch("drop-invalid", "INVALID_DROP"),
    _switch("dual-stack", "ISTIO_DUAL_STACK"),
    _switch("reconcile"),
    _switch("force-apply"),
    # Those of every command of the agent.
    Setting(flag="log_output_level", values=st.sampled_from(["default:info", "default:debug,dns:warn", "all:error"])),
    Setting(flag="log_as_json", values=st.sampled_from([*YES, *NO]), is_switch=True),
    Setting(flag="log_target", values=st.sampled_from(["stdout", "stderr"])),
    Setting(flag="log_stacktrace_level", values=st.just("default:none")),
    Setting(flag="log_caller", values=st.sampled_from(["", "default"])),
    Setting(flag="vklog", values=st.sampled_from(["0", "9"])),
    Setting(variables=("ISTIO_OUTBOUND_OWNER_GROUPS",), values=st.one_of(every, listed(groups, most=6))),
    Setting(variables=("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",), values=st.one_of(st.just(""), listed(groups))),
    Setting(variables=("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",), values=loopbacks),
    Setting(variables=("ENVOY_USER",), values=st.sampled_from([*USERS, "nobody-here"])),
)


def _written(setting: Setting, value: str) -> st.SearchStrategy[tuple[str, ...]]:
    """The ways to write a flag with its value."""
    long, short = f"--{setting.flag}", f"-{setting.letter}"
    ways: list[tuple[str, ...]] = [(f"{long}={value}",)]
    if setting.is_switch:
        ways += [(long,)] if value in YES else []
    else:
        ways += [(long, value)]
    if setting.letter:
        ways += [(short, value)]
        ways += [(f"{short}{value}",), (f"{short}={value}",)] if value else []
    return st.sampled_from(ways)


@st.composite
def given(draw: st.DrawFn, settings: Sequence[Setting] = SETTINGS) -> tuple[tuple[str, ...], dict[str, str]]:
    """Flags in any order, and an environment; a variable may stand beside its flag and say something else."""
    flags: list[tuple[str, ...]] = []
    env: dict[str, str] = {}
    for setting in draw(st.lists(st.sampled_from(settings), unique_by=lambda one: one.variables or one.flag)):
        for variable in setting.variables:
            if not setting.flag or draw(st.booleans()):
                env[variable] = draw(setting.values)
        if setting.flag and (not any(name in env for name in setting.variables) or draw(st.booleans())):
            flags.append(draw(_written(setting, draw(setting.values))))
    return tuple(word for words in flags for word in words), env


# What is no address, or not written as one, is passed over.
odd_servers = st.sampled_from(["dns.example.com", "10.0.0", "010.0.0.1", "::ffff:10.0.0.1", "2001:DB8:0::1", "::1 ::2"])
servers = st.lists(st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), odd_servers), max_size=3)
addresses = st.sampled_from([(V4,), (V4,), (V6,), (V4, V6)])


@st.composite
def asked(draw: st.DrawFn, *, most: int = 8) -> list[Asked]:
    """Several settings for the same machine, so that they can be asked for beside each other."""
    place, named = draw(addresses), draw(servers)
    several = draw(st.lists(given(), min_size=1, max_size=most))
    return [Asked(flags=flags, env=env, addresses=place, servers=tuple(named)) for flags, env in several]
