"""The last source: rules that derive a variable from others, and constants. Each says which rule it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from krun_discover import address, contract
from krun_discover.resolve import Answer, Candidate, Known

# What Google's platforms call the workload, in the order in which they are tried.
PLATFORM_NAMES = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL")


class Defaults:
    """The rules; ``environ`` is looked at for what the platform sets."""

    def __init__(self, *, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def names(self) -> Iterable[str]:
        """The main port of the application always has a value."""
        return ["PORT_http"]

    def candidates(self, name: str, known: Known) -> Iterable[Candidate]:
        """The rules for the variable."""
        match name:
            case "WORKLOAD_NAMESPACE":
                yield _derived("project id's last but one dash part", "PROJECT_ID", namespace_of_project, known)
                yield _constant("default")
            case "WORKLOAD_NAME":
                yield from self._workload_name(known)
            case "WORKLOAD_SERVICE_ACCOUNT":
                yield _constant("default")
            case "TRUST_DOMAIN":
                yield _derived("PROJECT_ID.svc.id.goog", "PROJECT_ID", lambda project: f"{project}.svc.id.goog", known)
                yield _constant("cluster.local")
            case "KRUN_GATEWAY":
                yield _derived("MCON_ADDR's gateway port", "MCON_ADDR", gateway_of, known)
            case "PORT_http":
                yield _constant(str(contract.PORTS["APP"]))

    def _workload_name(self, known: Known) -> Iterator[Candidate]:
        for platform in PLATFORM_NAMES:
            if value := self._environ.get(platform, ""):
                name = name_of_service(value) if platform == "K_SERVICE" else value
                yield _constant(name, source=f"rule: {platform}")
        yield _derived("the namespace", "WORKLOAD_NAMESPACE", str, known)


def namespace_of_project(project: str) -> str:
    """A project id of three dash parts or more names the namespace last but one: ``mesh-demo-7`` is in ``demo``."""
    parts = project.rpartition(":")[2].split("-")  # an old form has a domain before the id: example.com:my-project
    return parts[-2] if len(parts) > 2 else ""


def name_of_service(service: str) -> str:
    """The workload's name out of a Cloud Run service's: ``VERSION--NAME`` gives NAME."""
    version, _, name = service.partition("--")
    return name if version and name else service


def gateway_of(connector: str) -> str:
    """The mesh's SNI gateway, at the address of the mesh connector."""
    port = contract.PORTS["SNI_PASSTHROUGH"]
    host = address.parse(connector, what=f"MCON_ADDR={connector}", default_port=port).host
    return str(address.Address(host=host, port=port))


def _constant(value: str, *, source: str = "default") -> Candidate:
    return Candidate(source=source, ask=lambda: Answer(value=value))


def _derived(rule: str, other: str, derive: Callable[[str], str], known: Known) -> Candidate:
    def ask() -> Answer:
        value = known.value(other)
        if not value:
            return Answer(note=f"{other} is not known", failed=known.failed(other))
        derived = derive(value)
        return Answer(value=derived, note="" if derived else f"{other}={value} does not have the form")

    return Candidate(source=f"rule: {rule}", ask=ask, free=lambda: known.peek(other) is not None)
