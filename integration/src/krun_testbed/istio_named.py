"""The configurations that Istio's own tests of its rules name, as flags, variables and machines.

The names, and what each is, are those of ``getCommonTestCases`` in tools/istio-iptables/pkg/capture/run_test.go; what
is expected of each stands beside it, in testdata/NAME.golden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from krun_testbed.istio_iptables import V4, V6


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Flags after ``istio-iptables``, the environment, and the machine: its addresses and its servers of DNS."""

    flags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = (V4,)
    servers: tuple[str, ...] = ()

    @property
    def resolv(self) -> str:
        """The text of /etc/resolv.conf, with lines in it that name no server to use."""
        lines = ["# nameserver 192.0.2.1", "search example.com", "options ndots:5", "nameserver"]
        return "".join(f"{line}\n" for line in [*lines, *(f"nameserver {server}" for server in self.servers)])


def _asked(
    flags: str = "", *, ids: bool = False, ipv6: bool = False, servers: str = "", env: Mapping[str, str] | None = None
) -> Asked:
    # Istio's tests give the proxy's owner as 1337 where they do not give some.
    owner = ("-u", "3,4", "-g", "1,2") if ids else ("-u", "1337")
    return Asked(
        flags=(*owner, *flags.split(), *(("--redirect-dns",) if servers else ())),
        env=env or {},
        addresses=(V6,) if ipv6 else (V4,),
        servers=tuple(servers.split()),
    )


INCLUDED, EXCLUDED = "ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
_NETS = "-b 4000,5000 -k eth0,eth1 -x 2001:db8::/32 -i 2001:db8::/32"
_TPROXY = "-b * -m TPROXY -x 1.1.0.0/16 -i 9.9.0.0/16 -c not-istio-nic"
NAMED: Mapping[str, Asked] = {
    "empty": _asked(),
    "ipv6-empty-inbound-ports": _asked(ipv6=True),
    "ipv6-inbound-ports": _asked("-b 4000,5000", ipv6=True),
    "ipv6-virt-interfaces": _asked("-b 4000,5000 -k eth0,eth1", ipv6=True),
    "ipv6-ipnets": _asked(f"{_NETS} -d 6000,7000,", ipv6=True),
    "ipv6-uid-gid": _asked(f"{_NETS} -d 6000,7000", ids=True, ipv6=True),
    "ipv6-outbound-ports": _asked("-q 32000,31000", ipv6=True),
    "ipv6-dns-uid-gid": _asked("--redirect-dns", ids=True, ipv6=True),
    "ipv6-dns-outbound-owner-groups": _asked("--redirect-dns", ipv6=True, env={INCLUDED: "java,202"}),
    "ipv6-dns-outbound-owner-groups-exclude": _asked("--redirect-dns", ipv6=True, env={EXCLUDED: "888,ftp"}),
    "ip-range": _asked("-x 1.1.0.0/16 -i 9.9.0.0/16", ids=True, servers="127.0.0.53"),
    "ipnets": _asked("-i 10.0.0.0/8"),
    "ipnets-with-kube-virt-interfaces": _asked("-i 10.0.0.0/8 -k eth1,eth2"),
    "kube-virt-interfaces": _asked("-i * -k eth1,eth2"),
    "inbound-ports-include": _asked("-b 32000,31000"),
    "inbound-ports-wildcard": _asked("-b *"),
    "inbound-ports-tproxy": _asked("-b 32000,31000 -m TPROXY"),
    "inbound-ports-wildcard-tproxy": _asked("-b * -m TPROXY"),
    "tproxy": _asked(_TPROXY, ipv6=True, servers="127.0.0.53"),
    "dns-uid-gid": _asked(ids=True, ipv6=True, servers="127.0.0.53 ::127.0.0.53"),
    "outbound-owner-groups": _asked(env={INCLUDED: "java,202"}),
    "outbound-owner-groups-exclude": _asked(env={EXCLUDED: "888,ftp"}),
    "outbound-ports-include": _asked("-q 32000,31000"),
    "loopback-outbound-iprange": _asked("-i 127.1.2.3/32", ids=True, servers="127.0.0.53"),
    "basic-exclude-nic": _asked("-c not-istio-nic"),
    "drop-invalid": _asked("--drop-invalid"),
    "host-ipv4-loopback-cidr": _asked(env={"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.1/8"}),
}
