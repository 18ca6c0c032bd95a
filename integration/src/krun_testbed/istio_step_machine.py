"""What Istio does on a VM, as data: its start script, the settings of that, its unit of systemd, and cluster.env."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from krun_testbed.istio_step_template import Unreadable

SCRIPT = "tools/packaging/common/istio-start.sh"
SETTINGS = "tools/packaging/common/sidecar.env"
UNIT = "tools/packaging/common/istio.service"
# istioctl, which writes cluster.env for one VM.
CLUSTER = "istioctl/pkg/workload/workload.go"
NAME = r"[A-Z][A-Z0-9_]{2,}"
SHELLS = frozenset({"USER"})
FILE = re.compile(r"(?<![\w$}])\.(/[a-z][\w/.-]*)")
CALL = re.compile(r'pilot-agent"? (istio-iptables|proxy)( --cleanup-only)?')


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a VM has."""

    settings: frozenset[str]  # variables that an owner of the VM may set, or that istioctl does
    given: frozenset[str]  # variables that the script itself gives to the agent
    files: frozenset[str]  # as absolute paths
    unit: dict[str, str]  # directives of the unit, with a key's values in order
    order: str  # what the script runs, in order


def read(source: Path) -> Machine:
    """Read it out of Istio's source. Unreadable when something of it cannot be found any more."""
    script, settings, unit, cluster = (
        (source / name).read_text(encoding="utf-8") for name in (SCRIPT, SETTINGS, UNIT, CLUSTER)
    )
    return parse(script=script, settings=settings, unit=unit, cluster=cluster)


def parse(*, script: str, settings: str, unit: str, cluster: str) -> Machine:
    """Read their texts."""
    code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("#"))
    inside = {name for name in re.findall(rf"\b({NAME})=", code) if _is_own(name, code)}
    inside |= set(re.findall(rf"\bread -r -a ({NAME})", code))
    asked = set(re.findall(rf"\$\{{?({NAME})", code)) - SHELLS
    listed = set(re.findall(rf"^# ({NAME})(?:=.*)?$", settings, re.M))
    written = set(re.findall(rf'"({NAME})":', cluster)) | set(re.findall(rf'(?:overrides|md)\["({NAME})"\]', cluster))
    started = [line for line in code.splitlines() if "pilot-agent" in line and " proxy " in line]
    given = {name for line in started for name in re.findall(rf"\b({NAME})=", line)}
    given |= set(re.findall(rf"^export ({NAME})", code, re.M))
    made = Machine(
        settings=frozenset(asked - inside | listed | written),
        given=frozenset(given),
        files=frozenset(found.rstrip("/") for found in FILE.findall(code)),
        unit=_directives(unit),
        order=", ".join(dict.fromkeys(name + flag for name, flag in CALL.findall(code))),
    )
    _check(made, listed=listed, written=written)
    return made


def _is_own(name: str, code: str) -> bool:
    """Whether the script says itself what it is: nothing reads it before, nor where it is set."""
    first = re.search(rf"\b{name}\b[^\n]*", code)
    return first is not None and re.match(rf"{name}=(?!.*\$\{{?{name}\b)", first[0]) is not None


def _directives(unit: str) -> dict[str, str]:
    found: dict[str, str] = {}
    section = unit.partition("[Service]")[2].partition("\n[")[0]
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.M):
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _check(made: Machine, *, listed: set[str], written: set[str]) -> None:
    wanted = {
        SCRIPT: {"ISTIO_CUSTOM_IP_TABLES", "ISTIO_AGENT_FLAGS", "EXEC_USER", "PROXY_CONFIG"} - made.settings,
        f"{SCRIPT}: given": {"INSTANCE_IP", "POD_NAMESPACE", "PROV_CERT", "OUTPUT_CERTS"} - made.given,
        f"{SCRIPT}: files": {"/etc/certs", "/var/lib/istio/envoy/cluster.env"} - made.files,
        SETTINGS: {"ISTIO_SERVICE_CIDR", "ISTIO_INBOUND_PORTS"} - listed,
        CLUSTER: {"ISTIO_NAMESPACE", "ISTIO_META_NETWORK"} - written,
        UNIT: {"ExecStart", "Restart"} - set(made.unit),
        f"{SCRIPT}: order": {"proxy"} - set(made.order.split(", ")),
    }
    for name, missing in wanted.items():
        if missing:
            raise Unreadable(f"{name}: {', '.join(sorted(missing))}: not found any more")
