"""The doctor: looks at everything that a start depends on, one check after the other, and never stops at the first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from krun_discover import doctor_machine, metadata
from krun_discover.assembly import Assembly
from krun_discover.check import Check, Outcome, absent, failed, passed
from krun_discover.discovery import Discovered, is_without_control_plane
from krun_discover.errors import Denied, Failure, Misconfigured
from krun_discover.kube_access import Access, grant
from krun_discover.mesh_env import NAME_OF_MAP, SYSTEM
from krun_discover.record import Record
from krun_discover.web import Web

NEED_CLUSTER = ("mesh-env", "permission for tokens")


class Patient(Record):
    """What is looked at. ``found`` is what discovery found; it may have failed."""

    assembly: Assembly
    web: Web
    client: metadata.Client
    environ: Mapping[str, str]
    found: Discovered

    def value(self, name: str) -> str:
        """A variable as discovery found it."""
        return self.found.values.get(name, "")


def examine(patient: Patient) -> Iterator[Check]:
    """All checks, in the order in which a start depends on them."""
    yield doctor_machine.platform(patient.environ, client=patient.client)
    yield doctor_machine.metadata_server(patient.client)
    has_failed = False
    for name, look in (
        ("identity", _identity),
        ("google credentials", _google),
        ("cluster", _cluster),
        ("mesh-env", _map),
        ("permission for tokens", _tokens),
        ("control plane", _control_plane),
        ("interception", lambda patient: doctor_machine.interception(patient.environ)),
    ):
        found = _guarded(name, lambda look=look: look(patient))  # type: ignore[misc]
        if name in NEED_CLUSTER and has_failed:
            found = absent(name, "not looked at: it needs the cluster")
        has_failed = has_failed or (name == "cluster" and found.outcome is Outcome.FAIL)
        yield found
    from krun_discover import doctor_run

    for name, look in doctor_run.CHECKS:
        yield _guarded(name, lambda look=look: look(patient))  # type: ignore[misc]


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Failure as error:
        return failed(name, error)


def _identity(patient: Patient) -> Check:
    namespace, account = patient.value("WORKLOAD_NAMESPACE"), patient.value("WORKLOAD_SERVICE_ACCOUNT")
    if not namespace:
        raise patient.found.failure or Misconfigured("the namespace is not known", hint="set WORKLOAD_NAMESPACE")
    text = f"spiffe://{patient.value('TRUST_DOMAIN')}/ns/{namespace}/sa/{account}"
    sources = [item.source for item in patient.found.found if item.name == "WORKLOAD_NAMESPACE"]
    return passed("identity", f"{text} (namespace from {sources[0]})")


def _google(patient: Patient) -> Check:
    """Only where somebody needs Google: a cluster of GKE, the metadata server, MESH."""
    name = "google credentials"
    is_google = not patient.client.settings.off and not patient.client.trouble
    if not is_google and patient.assembly.google is None:
        return absent(name, "nothing here needs Google")
    token = patient.assembly.token()
    return passed(name, f"{token.source}, good for {max(0, token.expires - time.time()) / 60:.0f} minutes")


def _cluster(patient: Patient) -> Check:
    name = "cluster"
    if _has_no_control_plane(patient):
        return absent(name, "there is no control plane: none is needed")
    try:
        cluster = patient.assembly.cluster()
    except Misconfigured as error:
        return absent(name, error.message, fix=error.hint)
    cluster.can_i(verb="get", resource="configmaps", namespace=SYSTEM, name=NAME_OF_MAP)  # that there is an answer
    target = cluster.target
    return passed(name, f"{target.server} answers ({target.source}), verified by {target.roots}")


def _map(patient: Patient) -> Check:
    name = "mesh-env"
    if _has_no_control_plane(patient):
        return absent(name, "there is no control plane: none is needed")
    namespace = patient.value("WORKLOAD_NAMESPACE")
    try:
        cluster = patient.assembly.cluster()
    except Misconfigured as error:
        return absent(name, error.message)
    denied: Denied | None = None
    for place in dict.fromkeys([namespace, SYSTEM]):
        try:
            data = cluster.get_config_map(namespace=place, name=NAME_OF_MAP)
        except Denied as error:
            denied = denied or error
            continue
        if data is not None:
            return passed(name, f"in {place}, {len(data)} entries")
    if denied is not None:
        raise denied
    raise Misconfigured(
        f"there is none in {namespace} or {SYSTEM}",
        hint=f"deploy hgate, which writes it, or kubectl create configmap {NAME_OF_MAP} --namespace={SYSTEM} "
        "--from-literal=XDS_ADDR=HOST:15012",
    )


def _tokens(patient: Patient) -> Check:
    name = "permission for tokens"
    namespace, account = patient.value("WORKLOAD_NAMESPACE"), patient.value("WORKLOAD_SERVICE_ACCOUNT")
    if _has_no_control_plane(patient):
        return absent(name, "there is no control plane: no token is needed")
    try:
        cluster = patient.assembly.cluster()
    except Misconfigured as error:
        return absent(name, error.message)
    access = Access(verb="create", resource="serviceaccounts/token", namespace=namespace, name=account)
    if cluster.can_i(verb=access.verb, resource=access.resource, namespace=namespace, name=account):
        return passed(name, f"may {access}")
    return failed(name, Denied(f"may not {access}", hint=grant(access, user="")))


def _control_plane(patient: Patient) -> Check:
    name = "control plane"
    place = patient.value("XDS_ADDR")
    if _has_no_control_plane(patient) or place == "-":
        return absent(name, "there is none, by setting")
    if not place:
        return absent(name, "XDS_ADDR is not known", fix="set XDS_ADDR, or KUBECONFIG and MESH to have it found")
    from krun_discover import doctor_xds

    left = patient.web.deadline - time.monotonic()
    answered = doctor_xds.ask(place, roots=patient.value("CAROOT_ISTIOD"), left=left)
    if answered.alpn != "h2":
        raise Misconfigured(f"{place} does not speak HTTP/2", hint="is XDS_ADDR the port of istiod's gRPC, 15012?")
    return passed(name, f"{place} is {answered.name} until {answered.ends}, {answered.seconds * 1000:.0f} ms")


def _has_no_control_plane(patient: Patient) -> bool:
    return is_without_control_plane(patient.assembly.resolution)
