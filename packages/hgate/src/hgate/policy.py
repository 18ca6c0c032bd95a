"""What the admins of the mesh allow each namespace: the config map ``hgate-policy`` in istio-system, as data.

Which projects and hosts a namespace may name, which audiences, as which account; it decides, and asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from hgate.refusal import Refused, shown
from hgate.routes import RAW, Identity
from hgate.service_url import DOMAIN, ServiceUrl

NAMESPACE = "istio-system"
NAME = "hgate-policy"
KEY = "policy.yaml"
OWN = "own"  # stands for the gate's own project
ANY = "*"
MOST = 1000  # services of a namespace, unless its rule says another number
WHERE = f"{NAMESPACE}/{NAME}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host that is not Cloud Run's: where it is, and for whom its tokens are made; no audience is no token."""

    url: str = ""
    audience: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What one namespace may. ``services``: patterns of names; ``None`` is any name, and lays claim to none."""

    projects: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()
    services: tuple[str, ...] | None = None
    hosts: Mapping[str, Host] = field(default_factory=dict)
    audiences: frozenset[str] = frozenset()
    account: str = ""
    limit: int = MOST  # services in the mesh

    def reaches(self, url: ServiceUrl, *, project: str, own: str) -> bool:
        """Tell whether the service is of a project of the rule's."""
        if url.hash and url.hash in self.hashes:
            return True
        return bool(project) and (project in self.projects or (OWN in self.projects and project == own))

    def allows(self, name: str) -> bool:
        """Tell whether a service of this name may be declared."""
        return self.services is None or _patterns(self.services).fullmatch(name) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A project and the regions of it whose services are asked for at the Cloud Run API."""

    project: str
    regions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """All of it. A namespace that is not named has the rule of ``*``; without that it may nothing."""

    namespaces: Mapping[str, Rule] = field(default_factory=dict)
    cloud_run: tuple[Listed, ...] = ()

    def of(self, namespace: str) -> Rule:
        return self.namespaces.get(namespace) or self.namespaces.get(ANY) or Rule()

    @property
    def names_own(self) -> bool:
        """Whether anything depends on which project is the gate's own."""
        return any(OWN in rule.projects for rule in self.namespaces.values())

    def claims(self) -> Claims:
        """What it gives to single namespaces."""
        return Claims(self.namespaces)


class Claims:
    """The namespaces to which admins gave services by name, and not just their projects."""

    def __init__(self, namespaces: Mapping[str, Rule]) -> None:
        # Asked for each declaration, so it is laid out for that: some meshes have hundreds of namespaces.
        named = [(name, rule) for name, rule in namespaces.items() if name != ANY]
        self._services = [(name, rule, _patterns(rule.services)) for name, rule in named if rule.services]
        self._hosts: dict[str, set[str]] = {}
        for name, rule in named:
            for host in rule.hosts:
                self._hosts.setdefault(host, set()).add(name)

    def of(self, url: ServiceUrl, *, project: str, own: str) -> frozenset[str]:
        """Who was given this very service."""
        found = self._hosts.get(url.host, set()) | self._hosts.get(url.service_host, set())
        if url.is_cloud_run:
            found |= {
                name
                for name, rule, patterns in self._services
                if patterns.fullmatch(url.name) and rule.reaches(url, project=project, own=own)
            }
        return frozenset(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """One URL that a namespace may use: where it really leads, and whose token goes there."""

    url: str
    identity: Identity | None


DEFAULT = Policy(namespaces={ANY: Rule(projects=frozenset({OWN}))})


def check(
    rule: Rule, url: ServiceUrl, *, namespace: str, audience: str = "", project: str = "", own: str = ""
) -> Accepted:
    """Decide about one URL of a declaration.

    ``audience``: what the declaration asks for, if it does. ``project``: of the service, where its URL does not say so
    and the Cloud Run API does.

    Raises:
        Refused: the rule does not allow it.
    """
    host = rule.hosts.get(url.host)
    if host is not None:
        return _by_host(rule, url, host, audience=audience)
    if not url.is_cloud_run:
        raise Refused(
            f"the host {shown(url.host)} is none of Cloud Run's ({DOMAIN}), and not in the admins' map",
            hint=f"ask an admin of the mesh for hosts: in {WHERE}, for namespace {namespace}",
        )
    project = url.project or project
    if not rule.reaches(url, project=project, own=own):
        if OWN in rule.projects and not own:
            raise Refused(
                f"namespace {namespace} may name services of the gate's own project, and the gate does not know which",
                hint="ask an admin of the mesh for PROJECT_NUMBER in the gate's Deployment",
            )
        what = f"project {project}" if project else f"the project with hash {url.hash}"
        key = "projects" if project else "hashes"
        raise Refused(
            f"namespace {namespace} may not name services of {what}",
            hint=f"ask an admin of the mesh for {key}: in {WHERE}, for namespace {namespace}",
        )
    if not rule.allows(url.name):
        raise Refused(
            f"namespace {namespace} may not name the service {shown(url.name)}",
            hint=f"ask an admin of the mesh for services: in {WHERE}, for namespace {namespace}",
        )
    return Accepted(
        url=str(url), identity=Identity(audience=_audience(rule, audience, usual=url.audience), account=rule.account)
    )


def _by_host(rule: Rule, url: ServiceUrl, host: Host, *, audience: str) -> Accepted:
    where = host.url or str(url)
    if where.startswith(RAW) or not host.audience:
        if audience:
            raise Refused(
                f"no token is sent to the host {shown(url.host)}, so none can be for {shown(audience)}",
                hint=f"take hgate.krun/audience away, or ask an admin for an audience of this host in {WHERE}",
            )
        return Accepted(url=where, identity=None)
    made = _audience(rule, audience, usual=host.audience)
    return Accepted(url=where, identity=Identity(audience=made, account=rule.account))


def _audience(rule: Rule, asked: str, *, usual: str) -> str:
    if asked and asked != usual and asked not in rule.audiences:
        raise Refused(
            f"the audience {shown(asked)} is not that of the URL, and not in the admins' map",
            hint=f"leave hgate.krun/audience away, or ask an admin of the mesh for audiences: in {WHERE}",
        )
    return asked or usual


@lru_cache(maxsize=4096)
def _patterns(texts: tuple[str, ...]) -> re.Pattern[str]:
    """All of them as one; of none nothing is, not even the name of no service."""
    return re.compile("|".join(".*".join(re.escape(part) for part in text.split("*")) for text in texts) or r"(?!)")
