"""Says why a proxy did not become ready: what pilot-agent and Envoy complained of, in our words and with our statuses.

The texts are of Go's own libraries (x509, net, grpc) and of istiod and Envoy; they are the same in all versions known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from krun_launch.errors import DeadlinePassed, Denied, Failure, Misconfigured, Unreachable
from krun_launch.plan import Diagnosis, Step

LONGEST = 400  # characters of what others said
# Of a start under way, or of an end: no cause of anything.
HARMLESS = ("concurrency is set to", "starting attempt", "config stream to", "failed to warm certificate")

ROOTS = re.compile(r"x509: certificate signed by unknown authority")
NAMES = re.compile(r"x509: certificate is (?:valid for (.*?), not|not valid for any names)")
TIME = re.compile(r"x509: certificate has expired or is not yet valid: (current time \S+ is (?:before|after) [\w:+-]+)")
TOKEN = re.compile(r"code = Unauthenticated desc = ([^\"\\]*)")
PERMISSION = re.compile(r"code = PermissionDenied desc = ([^\"\\]*)")
LOOKUP = re.compile(r"dial tcp: lookup \S+?:? (?:on \S+ )?(.*?)(?:\\?\"|$)")
DIALLED = re.compile(r"dial tcp \S+: (?:connect: )?([\w/ ]+)")
CONFIG = re.compile(r"could not parse proxy config: (.*?)(?:\"?}?$)")
TEMPLATE = re.compile(r"failed to generate bootstrap config: (.*?)(?:\"?}?$)")
BOUND = re.compile(r"cannot bind '([\d.:\[\]a-f]+)': ([\w ]+)")
REJECTED = re.compile(r"(?:rejected: |initializing configuration '[^']*': )(.*?)(?:\tthread=\d+|\"?}?$)")


def failure(diagnosis: Diagnosis, *, step: Step, ended: str = "") -> Failure:
    """The failure that ends the start.

    Args:
        diagnosis: where to look.
        step: what was waited for.
        ended: how the agent ended, when it did.
    """
    lines = _read(diagnosis)
    found = cause(lines, diagnosis=diagnosis)
    if found is not None:
        return found
    if ended:
        what = f"{step.part} {ended} before step {step.name!r} was done"
        return Unreachable(f"{what}{_last(lines)}", hint=f"see what {step.part} says above")
    if not lines:
        # We cannot ask it ourselves: while captured, our own call would end at Envoy.
        return DeadlinePassed(
            f"the control plane {diagnosis.discovery} has said nothing to {step.part} within {step.timeout:g} s",
            hint=f"is XDS_ADDR reachable from here, and istiod up? {step.setting} sets the limit",
        )
    return DeadlinePassed(
        f"{step.name}: {step.part} did not answer on {step.wait} within {step.timeout:g} s{_last(lines)}",
        hint=f"see what {step.part} says above; {step.setting} sets the limit",
    )


def cause(lines: Sequence[str], *, diagnosis: Diagnosis) -> Failure | None:
    """The failure that the complaints tell of, the last first; None when they tell of none that is known (pure)."""
    for line in reversed(lines):
        for pattern, told in KINDS:
            if match := pattern.search(line):
                return told(diagnosis, match)
    return None


def _roots(diagnosis: Diagnosis, _: re.Match[str]) -> Failure:
    return Misconfigured(
        f"the control plane {diagnosis.discovery} is not that of CAROOT_ISTIOD: another root has signed for it",
        hint="the right one: kubectl get configmap istio-ca-root-cert -o yaml, in the workload's namespace",
    )


def _names(diagnosis: Diagnosis, match: re.Match[str]) -> Failure:
    own = match[1] or "no name at all"
    return Misconfigured(
        f"the control plane {diagnosis.discovery} is not {diagnosis.discovery_san}: its certificate is for {own}",
        hint="set ISTIOD_SAN to one of these names",
    )


def _time(diagnosis: Diagnosis, match: re.Match[str]) -> Failure:
    return Misconfigured(
        f"the certificate of the control plane {diagnosis.discovery} is not valid by our clock: {match[1]}",
        hint="is this machine's clock right? see: date",
    )


def _token(diagnosis: Diagnosis, match: re.Match[str]) -> Failure:
    return Denied(
        f"the control plane {diagnosis.discovery} does not take our token ({diagnosis.token}): {_short(match[1])}",
        hint="KRUN_TOKEN_AUDIENCE and ISTIO_META_CLUSTER_ID must be what istiod expects; mostly istio-ca, Kubernetes",
    )


def _permission(diagnosis: Diagnosis, match: re.Match[str]) -> Failure:
    return Denied(
        f"the control plane {diagnosis.discovery} refuses us ({diagnosis.token}): {_short(match[1])}",
        hint="namespace and account of the token must be those of the workload",
    )


def _lookup(diagnosis: Diagnosis, match: re.Match[str]) -> Failure:
    host = diagnosis.discovery.rpartition(":")[0]
    return Unreachable(
        f"the control plane {diagnosis.discovery}: no address for {host}: {_short(match[1])}",
        hint="XDS_ADDR takes an address, too; names of a cluster are known in the cluster only",
    )


def _dialled(diagnosis: Diagnosis, match: re.Match[str]) -> Failure:
    return Unreachable(
        f"the control plane {diagnosis.discovery} cannot be reached: {match[1].strip()}",
        hint="is XDS_ADDR right, and istiod up?",
    )


def _config(_: Diagnosis, match: re.Match[str]) -> Failure:
    return Misconfigured(
        f"PROXY_CONFIG: pilot-agent cannot read it: {_short(match[1])}",
        hint="it is a ProxyConfig of Istio: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/",
    )


def _template(_: Diagnosis, match: re.Match[str]) -> Failure:
    return Misconfigured(
        f"pilot-agent cannot write Envoy's bootstrap: {_short(match[1])}",
        hint="ISTIO_BOOTSTRAP must be the template of the same version as pilot-agent",
    )


def _bound(_: Diagnosis, match: re.Match[str]) -> Failure:
    return Misconfigured(
        f"Envoy cannot listen on {match[1]}: {match[2]}", hint="let the application listen on another port"
    )


def _rejected(_: Diagnosis, match: re.Match[str]) -> Failure:
    return Misconfigured(
        f"Envoy rejects its configuration: {_short(match[1])}",
        hint="Envoy must know what istiod sends: a plain one needs PILOT_ENABLE_METADATA_EXCHANGE=false and "
        "PILOT_ENABLE_ALPN_FILTER=false in istiod",
    )


KINDS: Sequence[tuple[re.Pattern[str], Callable[[Diagnosis, re.Match[str]], Failure]]] = (
    (CONFIG, _config),
    (TEMPLATE, _template),
    (BOUND, _bound),
    (REJECTED, _rejected),
    (ROOTS, _roots),
    (NAMES, _names),
    (TIME, _time),
    (TOKEN, _token),
    (PERMISSION, _permission),
    (LOOKUP, _lookup),
    (DIALLED, _dialled),
)


def _read(diagnosis: Diagnosis) -> list[str]:
    try:
        text = diagnosis.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if not any(word in line for word in HARMLESS)]


def _last(lines: Sequence[str]) -> str:
    return f": {_short(lines[-1].split(chr(9), 1)[-1])}" if lines else ""


def _short(text: str) -> str:
    # One line, and nothing that steers a terminal.
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain.strip()[:LONGEST]
