"""What krun-launch tells about itself: the state of /readyz, and the same as metrics in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from krun_launch.expiry import Life, stamp
from krun_launch.record import Record
from krun_launch.tasks import Count


class State(Record):
    """All that is told; ``lives`` are those of credentials by name, None where there is none to be read."""

    mode: str
    interception: str
    is_ready: bool
    step: str
    seconds: Mapping[str, float]  # that each step of the start took
    restarts: Mapping[str, int]  # by part
    lives: Mapping[str, Life | None]
    counts: Sequence[Count] = ()


def readyz(state: State, *, now: float) -> dict[str, object]:
    """As the JSON of /readyz; what there is none of is left out."""
    told: dict[str, object] = {"mode": state.mode, "ready": state.is_ready, "step": state.step}
    if state.interception:
        told["interception"] = state.interception
    told["steps"] = {name: round(seconds, 3) for name, seconds in state.seconds.items()}
    if state.restarts:
        told["restarts"] = dict(state.restarts)
    if state.lives:
        told["credentials"] = {name: _life(life, now=now) for name, life in state.lives.items()}
    if state.counts:
        told["tasks"] = {count.name: {"succeeded": count.succeeded, "failed": count.failed} for count in state.counts}
    return told


def _life(life: Life | None, *, now: float) -> dict[str, object] | None:
    return None if life is None else {"age": round(now - life.begins), "expires": stamp(life.ends)}


def text(state: State, *, now: float) -> str:
    """As metrics."""
    lives = {name: life for name, life in state.lives.items() if life is not None}
    way = {"interception": state.interception} if state.interception else {}
    families = (
        ("krun_info", "gauge", "The mode in force.", [_sample(1, mode=state.mode, **way)]),
        ("krun_ready", "gauge", "Whether the workload is ready.", [_sample(int(state.is_ready))]),
        (
            "krun_start_step_seconds",
            "gauge",
            "Seconds that each step of the start took.",
            [_sample(round(seconds, 6), step=name) for name, seconds in state.seconds.items()],
        ),
        (
            "krun_restarts_total",
            "counter",
            "Parts that died and were started again.",
            [_sample(count, part=name) for name, count in state.restarts.items()],
        ),
        (
            "krun_credential_age_seconds",
            "gauge",
            "How long ago a credential was issued.",
            [_sample(round(now - life.begins, 3), credential=name) for name, life in lives.items()],
        ),
        (
            "krun_credential_expiry_timestamp_seconds",
            "gauge",
            "When a credential ends; of roots, the first one.",
            [_sample(life.ends, credential=name) for name, life in lives.items()],
        ),
        (
            "krun_task_runs_total",
            "counter",
            "Runs of what is repeated, such as the renewal of the token.",
            [
                _sample(number, task=count.name, result=result)
                for count in state.counts
                for result, number in (("success", count.succeeded), ("failure", count.failed))
            ],
        ),
    )
    return "".join(
        _family(name, kind=kind, meaning=meaning, samples=samples) for name, kind, meaning, samples in families
    )


def _family(name: str, kind: str, meaning: str, samples: Sequence[str]) -> str:
    if not samples:
        return ""
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n" + "".join(f"{name}{sample}\n" for sample in samples)


def _sample(value: float, **labels: str) -> str:
    pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{{{pairs}}} {value!r}" if pairs else f" {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
