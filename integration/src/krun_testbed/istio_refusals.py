"""Settings of istio-iptables that are wrong: what Istio refuses, what it takes and only krun refuses, and any text.

What Istio refuses is read of tools/common/config/{config,validation}.go, tools/istio-iptables/pkg/capture/run.go, and
of pflag, which its flags are read with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from krun_testbed.istio_iptables import V4, V6
from krun_testbed.istio_named import Asked


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """One wrong setting: by ``flag``, or by ``variable``, and which part of the text is the mistake."""

    value: str
    flag: str = ""
    variable: str = ""
    entry: str = ""

    @property
    def asked(self) -> Asked:
        """With servers of DNS, on a machine of IPv4."""
        if self.variable:
            return Asked(env={self.variable: self.value}, servers=("10.3.0.53",))
        return Asked(flags=(f"{self.flag}={self.value}",), servers=("10.3.0.53",))

    @property
    def name(self) -> str:
        """What a message must name."""
        return self.flag or self.variable

    @property
    def mistake(self) -> str:
        """What of the value a message must name."""
        return self.entry or self.value


def _wrong(names: str, *values: str, entry: str = "") -> list[Wrong]:
    """Each value by each of the names, which are flags and variables."""
    return [
        Wrong(flag=name if name[0] == "-" else "", variable=name if name[0] != "-" else "", value=value, entry=entry)
        for name in names.split()
        for value in values
    ]


_RANGES = (
    "10.0.0.1",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "10.0.0.0/+8",
    "10.0.0.0/",
    "/8",
    "10.0.0/8",
    "010.0.0.0/8",
    "10.0.0.256/8",
    "2001:db8::/129",
    "2001:db8::",
    "2001:db8:::/32",
    "fe80::1%eth0/64",
    "10.0.0.0/255.0.0.0",
    "10.0.0.0-10.0.0.9",
    "example.com",
    "*/8",
)
_INCLUDED = "ISTIO_OUTBOUND_OWNER_GROUPS"
_LOOPBACK = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"
REFUSED: Sequence[Wrong] = [
    *_wrong("-i ISTIO_SERVICE_EXCLUDE_CIDR", *_RANGES),
    *_wrong("-x --istio-service-cidr --istio-service-exclude-cidr ISTIO_SERVICE_CIDR", "10.0.0.1", "10.0.0.0/33"),
    *_wrong("-i", "10.0.0.0/8,10.0.0.1", entry="10.0.0.1"),
    *_wrong("-i", "10.0.0.0/8,*", "*,10.0.0.0/8", entry="*"),
    *_wrong("-x ISTIO_SERVICE_EXCLUDE_CIDR", "*"),
    *_wrong(_LOOPBACK, "", "127.0.0.1", "127.0.0.0/7", "126.0.0.0/8", "10.0.0.0/8", "::1/128", "127.0.0.1/33", "*"),
    *_wrong("--force-iptables-binary FORCE_IPTABLES_BINARY", "random", "NFT", "iptables-nft"),
    *_wrong("--iptables-probe-port", "65536", "-1", "http", "1.5", ""),
    *_wrong("--probe-timeout", "5", "soon", "5 s", "5x", ""),
    *_wrong("--redirect-dns --dual-stack --drop-invalid --capture-all-dns --reconcile", "yes"),
    *_wrong("--redirect-dns", "2", "tRUE", ""),
    Wrong(variable=_INCLUDED, value=",".join(map(str, range(65))), entry="65"),
]
# Wrong words, each by itself; and what a message must name.
WORDS: Mapping[tuple[str, ...], str] = {
    ("--bogus",): "--bogus",
    ("--bogus=1",): "--bogus",
    ("-y",): "-y",
    ("-nj",): "-j",
    ("-p",): "-p",
    ("--envoy-port",): "--envoy-port",
    ("-i", "*", "-o"): "-o",
    ("---i=1",): "---i",
    ("--=1",): "--",
}
# Istio's own takes these, and hands them on to iptables, or reads something else than was meant. We refuse them.
OURS: Sequence[Wrong] = [
    *_wrong("-p", "0", "65536", "-1", "http", "", "080", "0x50", "8_0", "1-2", "1:2"),
    *_wrong("--envoy-port -z -e", "65536", ""),
    *_wrong("INBOUND_CAPTURE_PORT INBOUND_TUNNEL_PORT", "0", "65536", "http"),
    *_wrong("-b -d -q -o", "0", "65536", "http", "80:90", "80-90", "-1"),
    *_wrong("ISTIO_INBOUND_PORTS ISTIO_LOCAL_EXCLUDE_PORTS ISTIO_OUTBOUND_PORTS", "65536", "http"),
    *_wrong("-d -q -o", "*"),
    *_wrong("-b", "*,80", "80,*", entry="*"),
    *_wrong("-q", "80,65536", entry="65536"),
    *_wrong("-m ISTIO_INBOUND_INTERCEPTION_MODE", "tproxy", "NONE", "REDIRECT "),
    *_wrong("-u PROXY_UID", "nobody-here", "-1", "4294967295", "1000-2000"),
    *_wrong("-g PROXY_GID", "no-group-here", "-1", "4294967295", "1000-2000"),
    *_wrong("-u PROXY_UID", ","),
    *_wrong(f"{_INCLUDED} {_INCLUDED}_EXCLUDE", "no-group-here", "4294967295", "1-2"),
    *_wrong(_INCLUDED, "*,java", entry="*"),
    *_wrong("-c -k ISTIO_EXCLUDE_INTERFACES KUBE_VIRT_INTERFACES", "longer-than-fifteen", "a b", "a/b", "-j"),
    *_wrong("-t -r", "0", "-1", "0x539", "4294967296", "", "mark"),
    *_wrong("-r", "255", "254", "253"),
    *_wrong("REDIRECT_DNS ISTIO_META_DNS_CAPTURE DUAL_STACK INVALID_DROP", "yes", "2"),
    *_wrong("IPTABLES_PROBE_PORT", "65536", "http"),
    *_wrong("PROBE_TIMEOUT", "5", "soon"),
]
# Words that Istio passes over.
PASSED_OVER: Mapping[tuple[str, ...], str] = {
    ("word",): "'word'",
    ("--redirect-dns", "false"): "'false'",
    ("-n", "true"): "'true'",
    ("--", "word"): "--",
}

# Texts near to what is right, and some that are far from it.
_SIGNS = st.sampled_from(list("0123456789abf.,:/*-+%= x\t\né😀_"))
_PIECES = st.sampled_from(
    ["80", "15001", "0", "65536", "10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32", "::1/128", "*", "java", "root", "eth0"]
    + ["eth0:1", "veth+", "log", "1eth", "a@b", "a~b", "lo"]
    + ["TPROXY", "true", "false", "legacy", "nft", "5s", ",", ",,", " ", "-", "--", "", "ISTIO_OUTPUT", '"', "'", "\\"]
)
texts = st.lists(st.one_of(_PIECES, _PIECES, _SIGNS), max_size=4).map("".join)
FLAGS = (
    *(f"-{letter}" for letter in "pzeugmbdcixqoktr"),
    *("--redirect-dns", "--capture-all-dns", "--dual-stack", "--drop-invalid", "--iptables-probe-port"),
)
SERVERS = ("10.3.0.53", "2001:db8::53")
# Where they are empty Istio makes rules that no kernel takes; to us they are not set.
NUMBERS = (
    *("INBOUND_CAPTURE_PORT", "INBOUND_TUNNEL_PORT"),
    *("ISTIO_INBOUND_TPROXY_MARK", "ISTIO_INBOUND_TPROXY_ROUTE_TABLE"),
)
VARIABLES = (
    *("PROXY_UID", "PROXY_GID", "ISTIO_INBOUND_INTERCEPTION_MODE"),
    *("ISTIO_INBOUND_PORTS", "ISTIO_LOCAL_EXCLUDE_PORTS", "ISTIO_EXCLUDE_INTERFACES", "ISTIO_SERVICE_CIDR"),
    *("ISTIO_SERVICE_EXCLUDE_CIDR", "ISTIO_OUTBOUND_PORTS", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"),
    *("KUBE_VIRT_INTERFACES", "REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"),
    *("DUAL_STACK", "DROP_INVALID", "CAPTURE_ALL_DNS", "ENVOY_USER"),
    *(_INCLUDED, f"{_INCLUDED}_EXCLUDE", _LOOPBACK),
)


@st.composite
def any_asked(draw: st.DrawFn, *, most: int = 8) -> list[Asked]:
    """Several settings of any texts for the same machine: a flag or three, a variable or two."""
    place = draw(st.sampled_from([(V4,), (V6,), (V4, V6)]))
    found = []
    for _ in range(draw(st.integers(1, most))):
        flags = draw(st.lists(st.builds("{}={}".format, st.sampled_from(FLAGS), texts), max_size=3))
        env = draw(st.dictionaries(st.sampled_from(VARIABLES), texts, max_size=2))
        more = draw(st.dictionaries(st.sampled_from(NUMBERS), texts.filter(bool), max_size=1))
        found.append(Asked(flags=tuple(flags), env={**env, **more}, addresses=place, servers=SERVERS))
    return found
