"""One registration by hand, by whoever calls: an annotated Service and the objects that follow from it, or their end.

What the gate in the cluster does of itself, as far as the caller may; whether it is allowed is the gate's to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hgate import declaration as words
from hgate import declaration_read, errors, objects, reconcile, written
from hgate.declaration import Declaration
from hgate.kube_answer import Answer
from hgate.objects import Part, Registered, Surroundings, backing_names
from hgate.policy import NAMESPACE as SYSTEM
from hgate.policy import Accepted
from hgate.reconcile import Create, Delete, Keep
from hgate.refusal import Refused
from hgate.service_url import parse

if TYPE_CHECKING:
    from hgate.kube import Kube

MADE = f"{words.PREFIX}made-by"  # of a Service that goes with its registration
BY_US = "register"
ADDRESSES = ("IMCON_ADDR", "MCON_ADDR")  # in mesh-env: the gate's, inside of the network first
Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says."""

    service: str
    namespace: str
    urls: tuple[str, ...] = ()
    port: int = 8080
    audience: str = ""
    timeout: int = 0
    workload: str = ""
    account: str = ""

    @property
    def annotations(self) -> dict[str, str]:
        """Of the Service that declares it."""
        said = {
            words.URL: " ".join(self.urls),
            words.AUDIENCE: self.audience,
            words.TIMEOUT: str(self.timeout or ""),
            words.WORKLOAD: self.workload,
            words.ACCOUNT: self.account,
        }
        return {key: value for key, value in said.items() if value}


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """What the objects name: the gate's address, and the trust domain."""

    gate: str
    trust_domain: str


def service(asked: Asked) -> Object:
    """The Service that is made where there is none."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": asked.service,
            "namespace": asked.namespace,
            "annotations": {**asked.annotations, MADE: BY_US},
        },
        "spec": {
            "ports": [{"name": "http", "port": asked.port, "targetPort": words.APP_PORT, "protocol": "TCP"}],
            "selector": {words.SERVICE: asked.service},
        },
    }


def following(item: Mapping[str, Any], mesh: Mesh, *, around: Surroundings | None = None) -> list[Object]:
    """The objects that follow from an annotated Service.

    Raises:
        errors.Misconfigured: what it declares cannot be.
    """
    try:
        declared = declaration_read.of_service(item)
        if declared is None:
            raise Refused("it is one of the gate's own", hint="its declaration is elsewhere: take that one away")
        registered = _registered(declared)
    except Refused as error:
        where = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        raise errors.Misconfigured(f"cannot register {where}: {error.reason}", hint=error.hint) from error
    made: list[Object] = []
    for side in objects.sides([registered]):
        made += objects.inward(side, around=around or Surroundings())
    return made + objects.manifests(registered, gate=mesh.gate, trust_domain=mesh.trust_domain)


def _registered(declared: Declaration) -> Registered:
    urls = tuple(parse(target.url) for target in declared.targets)
    parts = tuple(
        Part(
            service=name,
            url=url,
            # Which token goes there is between the gate and its admins; objects say nothing of it.
            accepted=Accepted(url=str(url), identity=None),
            weight=target.weight,
            timeout=declared.timeout or words.DEFAULT_TIMEOUT,
        )
        for url, name, target in zip(urls, backing_names(declared, urls), declared.targets, strict=True)
    )
    return Registered(declaration=declared, parts=parts)


def find_mesh(kube: Kube) -> Mesh | None:
    """What ``mesh-env`` says, ``None`` where there is none yet. Raises Answer, Unreachable."""
    found = kube.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/mesh-env")
    data: Mapping[str, str] = (found or {}).get("data") or {}
    gate = next((data[name] for name in ADDRESSES if data.get(name)), "")
    return Mesh(gate=gate, trust_domain=data.get("TRUST_DOMAIN") or "cluster.local") if gate else None


def register(kube: Kube, asked: Asked, mesh: Mesh | None) -> list[str]:
    """Write the Service, or annotate the one that is there, and what follows; say what was done.

    Without a mesh the rest is left to the gate. Raises Answer, Unreachable, Misconfigured.
    """
    path = reconcile.path_of(service(asked))
    old = kube.get(path)
    # Before anything is written: what cannot be read would be there without any effect.
    preview = service(asked) if old is None else {**old, "metadata": _annotated(old["metadata"], asked)}
    if old is not None and written.is_ours(old):
        hint = "take its entry out of the namespace's config map hgate, or its label at Cloud Run away"
        raise errors.Misconfigured(f"Service {asked.namespace}/{asked.service} is registered otherwise", hint=hint)
    following(preview, mesh or Mesh(gate="192.0.2.1", trust_domain="cluster.local"))
    if old is None:
        item = kube.create(path.rpartition("/")[0], service(asked))
        said = [f"created Service {asked.namespace}/{asked.service}"]
    else:
        item = kube.patch(path, {"metadata": {"annotations": asked.annotations}})
        said = [f"annotated Service {asked.namespace}/{asked.service}"]
    if mesh is None:
        return said
    seen = _ours(kube, asked.namespace)
    around = _around(kube, asked.namespace)
    wanted = following(item, mesh, around=around)
    if around is None:
        # Whether a Sidecar is needed is the gate's to see.
        wanted = [each for each in wanted if each["kind"] != "Sidecar"]
    return said + [_take(kube, step) for step in reconcile.plan(wanted, seen)]


def unregister(kube: Kube, asked: Asked) -> list[str]:
    """Take the declaration away, and what followed from it; say what was done. Raises Answer, Unreachable."""
    path = reconcile.path_of(service(asked))
    item = kube.get(path)
    if item is None or words.URL not in (item["metadata"].get("annotations") or {}):
        raise errors.Misconfigured(
            f"no Service {asked.namespace}/{asked.service} declares a Cloud Run service",
            hint=f"kubectl get services -n {asked.namespace} shows those that there are; {words.URL} is the annotation",
        )
    uid = item["metadata"].get("uid", "")
    said = []
    # The declaration first: the gate would write the rest anew.
    if item["metadata"]["annotations"].get(MADE) == BY_US:
        kube.delete(path, uid=uid)
        said.append(f"deleted Service {asked.namespace}/{asked.service}")
    else:
        names = [name for name in item["metadata"]["annotations"] if name.startswith(words.PREFIX)]
        kube.patch(path, {"metadata": {"annotations": dict.fromkeys(names)}})
        said.append(f"took the annotations off Service {asked.namespace}/{asked.service}")
    for step in reconcile.plan([], _of(_ours(kube, asked.namespace), uid), may_delete=True, known={uid}):
        said.append(_take(kube, step))
    return said


def _annotated(metadata: Mapping[str, Any], asked: Asked) -> Object:
    return {**metadata, "annotations": {**(metadata.get("annotations") or {}), **asked.annotations}}


def _ours(kube: Kube, namespace: str) -> dict[written.Key, Object]:
    """What the gate, or somebody like us, has written there."""
    found: dict[written.Key, Object] = {}
    for kind in reconcile.LEAVING:
        if kind == "ConfigMap":
            continue
        path = reconcile.collection(kind, namespace)
        try:
            items = kube.list(f"{path}?labelSelector={words.MANAGED_BY}%3D{words.MANAGER}")
        except Answer as answer:
            # No such kind, or none for the caller's eyes: what is there all the same is told when it is written.
            if answer.status not in (403, 404):
                raise
            items = []
        found |= {(kind, namespace, item["metadata"]["name"]): item for item in items}
    return found


def _of(seen: Mapping[written.Key, Object], uid: str) -> dict[written.Key, Object]:
    """What has this owner alone: what others need, too, the gate keeps right."""
    return {
        key: item
        for key, item in seen.items()
        if [owner["uid"] for owner in item["metadata"].get("ownerReferences") or ()] == [uid]
    }


def _around(kube: Kube, namespace: str) -> Surroundings | None:
    """Sidecars that people have made there, ``None`` where the caller may not see them."""
    try:
        found = kube.list(reconcile.collection("Sidecar", namespace))
    except Answer as answer:
        if not answer.is_denied:
            raise
        return None
    specs = [item.get("spec") or {} for item in found if not written.is_ours(item)]
    labels = [(spec.get("workloadSelector") or {}).get("labels") or {} for spec in specs]
    usual = next((spec for spec, each in zip(specs, labels, strict=True) if not each), {})
    return Surroundings(selectors=tuple(each for each in labels if each), usual=usual)


def _take(kube: Kube, step: reconcile.Step) -> str:
    """One step, in words."""
    item = step.old if isinstance(step, Delete | Keep) else step.item
    name = "{} {}/{}".format(*written.key_of(item))
    if isinstance(step, Keep):
        return f"left {name}: somebody has changed it"
    try:
        if isinstance(step, Create):
            kube.create(reconcile.path_of(item).rpartition("/")[0], item)
            return f"created {name}"
        reconcile.take(kube, step, done=reconcile.Done())
    except Answer as answer:
        if answer.is_denied:
            # The Service declares it already, and the gate may do what its users may not.
            return f"left {name} to the gate: not permitted"
        if answer.is_conflict:
            return f"left {name}: there is one already"
        raise
    return f"deleted {name}" if isinstance(step, Delete) else f"replaced {name}"


def text(items: Sequence[Mapping[str, Any]]) -> str:
    """Objects as YAML that kubectl takes."""
    try:
        import yaml  # late: the gate itself writes none
    except ImportError as error:
        raise errors.Misconfigured(f"YAML cannot be written: {error}", hint="install krun-hgate[kubernetes]") from error
    return str(yaml.safe_dump_all([dict(item) for item in items], sort_keys=False, allow_unicode=True))
