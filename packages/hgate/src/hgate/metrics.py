"""What hgate tells about itself, in Prometheus' text format: the workers' numbers added up, and the control's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hgate.keeper import Age

ERROR = "error:"
OPEN = "open_"


class Totals:
    """The workers' counts, added up; what a worker had counted before it was replaced stays counted."""

    def __init__(self) -> None:
        self._last: dict[int, Mapping[str, float]] = {}
        self._gone: dict[str, float] = {}

    def take(self, worker: int, values: Mapping[str, float]) -> None:
        """A worker's numbers now."""
        self._last[worker] = dict(values)

    def restart(self, worker: int) -> None:
        """A worker begins, in the place of one that has ended: what that one had open is closed."""
        for name, count in self._last.pop(worker, {}).items():
            if not name.startswith(OPEN):
                self._gone[name] = self._gone.get(name, 0.0) + count

    def values(self) -> dict[str, float]:
        """The sums by name."""
        sums = dict(self._gone)
        for values in self._last.values():
            for name, count in values.items():
                sums[name] = sums.get(name, 0.0) + count
        return sums


@dataclass(frozen=True, kw_only=True)
class State:
    """All that is told. Without a cluster to watch the last ones are empty."""

    is_ready: bool
    workers: int
    routes: int
    totals: Mapping[str, float]
    tokens: Iterable[Age] = ()
    minted: int = 0
    failed: int = 0
    is_leader: bool | None = None
    registrations: int = 0
    refused: int = 0
    watches: Mapping[str, float] = field(default_factory=dict)  # seconds since each was heard
    failures: Mapping[str, int] = field(default_factory=dict)  # of the Kubernetes API, by kind
    writes: Mapping[str, int] = field(default_factory=dict)  # objects, by what was done


def text(state: State, *, now: float) -> str:
    """As metrics."""
    lines = [
        *_family("ready", "gauge", "Whether the gate is ready.", [({}, int(state.is_ready))]),
        *_family("workers", "gauge", "Worker processes that run.", [({}, state.workers)]),
        *_family("routes", "gauge", "Routes that lead somewhere.", [({}, state.routes)]),
        *_traffic(state.totals),
        *_tokens(state, now=now),
    ]
    if state.is_leader is not None:
        lines += _cluster(state)
    return "\n".join(lines) + "\n"


def _traffic(totals: Mapping[str, float]) -> list[str]:
    ways = ("raw", "tunnels")
    causes = {name.removeprefix(ERROR): count for name, count in totals.items() if name.startswith(ERROR)}
    total = totals.get
    return [
        *_family("connections_total", "counter", "Connections that were accepted.", [({}, total("accepted", 0.0))]),
        *_family(
            "connections_open",
            "gauge",
            "Connections that are open, by the way their bytes take.",
            [({"way": way}, total(f"{OPEN}{way}", 0.0)) for way in ways],
        ),
        *_family(
            "carried_total",
            "counter",
            "Connections that reached their workload, by the way their bytes take.",
            [({"way": way}, total(way, 0.0)) for way in ways],
        ),
        *_family(
            "bytes_total",
            "counter",
            "Bytes to workloads (sent) and from them (received).",
            [({"direction": each}, total(f"{each}_bytes", 0.0)) for each in ("sent", "received")],
        ),
        *_family(
            "errors_total",
            "counter",
            "Connections that came to nothing or to a bad end, by cause.",
            [({"cause": cause}, count) for cause, count in sorted(causes.items())],
        ),
    ]


def _tokens(state: State, *, now: float) -> list[str]:
    ages = [(({"audience": each.identity.audience, "account": each.identity.account}), each) for each in state.tokens]
    return [
        *_family(
            "tokens_total",
            "counter",
            "ID tokens that were asked for.",
            [({"result": "success"}, state.minted), ({"result": "failure"}, state.failed)],
        ),
        *_family(
            "token_age_seconds",
            "gauge",
            "How long ago an ID token was issued.",
            [(labels, round(now - age.issued, 3)) for labels, age in ages],
        ),
        *_family(
            "token_expiry_timestamp_seconds",
            "gauge",
            "When it ends.",
            [(labels, round(age.expires, 3)) for labels, age in ages],
        ),
    ]


def _cluster(state: State) -> list[str]:
    return [
        *_family(
            "is_leader", "gauge", "Whether this replica is the one that writes.", [({}, int(bool(state.is_leader)))]
        ),
        *_family("registrations", "gauge", "Declarations that were accepted.", [({}, state.registrations)]),
        *_family("refused", "gauge", "Declarations that were refused.", [({}, state.refused)]),
        *_family(
            "watch_age_seconds",
            "gauge",
            "How long ago the Kubernetes API said something, by watch.",
            [({"watch": name}, round(age, 3)) for name, age in sorted(state.watches.items())],
        ),
        *_family(
            "api_failures_total",
            "counter",
            "Requests of the Kubernetes API that failed, by kind.",
            [({"kind": kind}, count) for kind, count in sorted(state.failures.items())],
        ),
        *_family(
            "writes_total",
            "counter",
            "Objects that were written, by what was done.",
            [({"operation": name}, count) for name, count in sorted(state.writes.items())],
        ),
    ]


def _family(name: str, kind: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    lines = [_sample(name, labels, value) for labels, value in samples]
    return [f"# HELP hgate_{name} {meaning}", f"# TYPE hgate_{name} {kind}", *lines] if lines else []


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = int(value) if float(value).is_integer() else value
    return f"hgate_{name}{{{inner}}} {number}" if inner else f"hgate_{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
