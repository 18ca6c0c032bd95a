"""What a request of the Kubernetes API asks to be allowed, in RBAC's words: reads method and path, asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
HINT = "RBAC does not permit it: apply hgate's manifests again (kubectl apply -k manifests/), or ask who may"


@dataclass(frozen=True, kw_only=True)
class Access:
    """A verb on a resource, as a Role names them."""

    verb: str
    resource: str  # with its subresource, as in ``services/status``
    group: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        """``list workloadentries.networking.istio.io in all namespaces``."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        name = f" {self.name!r}" if self.name else ""
        return (
            f"{self.verb} {resource}{name} in {f'namespace {self.namespace}' if self.namespace else 'all namespaces'}"
        )


def access_of(method: str, path: str) -> Access:
    """What a request is, as the API server understands it; ``path`` may have a query."""
    split = urlsplit(path)
    query = parse_qs(split.query)
    parts = [unquote(part) for part in split.path.strip("/").split("/")]
    group, rest = (parts[1], parts[3:]) if parts[0] == "apis" else ("", parts[2:])
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource = "/".join(rest[:1] + rest[2:3])
    name = rest[1] if len(rest) > 1 else _selected(query)
    verb = _VERBS.get(method) or ("watch" if query.get("watch") else "get" if len(rest) > 1 else "list")
    return Access(verb=verb, resource=resource, group=group, namespace=namespace, name=name)


def _selected(query: dict[str, list[str]]) -> str:
    """The one name that a list or watch is narrowed to: RBAC's ``resourceNames`` hold for it, too."""
    field, _, name = query.get("fieldSelector", [""])[0].partition("=")
    return name if field == "metadata.name" else ""
