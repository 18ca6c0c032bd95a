"""The state as JSON and as metrics: what a scraper reads, and what is left out."""

from __future__ import annotations

import re

from krun_launch.expiry import Life
from krun_launch.metrics import State, readyz, text
from krun_launch.tasks import Count
from krun_testbed import tables

STATE = State(
    mode="captured",
    interception="captured",
    is_ready=True,
    step="ready",
    seconds={"token": 0.25, "agent ready": 0.5},
    restarts={"pilot-agent": 1},
    lives={"token": Life(begins=1000, ends=4600), "certificate": None},
    counts=(Count(name="token", succeeded=3, failed=1),),
)
ALONE = State(mode="static", interception="", is_ready=False, step="app", seconds={}, restarts={}, lives={})


def test_readyz_tells_all_and_what_cannot_be_read_is_null() -> None:
    assert readyz(STATE, now=1060.4) == {
        "mode": "captured",
        "interception": "captured",
        "ready": True,
        "step": "ready",
        "steps": {"token": 0.25, "agent ready": 0.5},
        "restarts": {"pilot-agent": 1},
        "credentials": {"token": {"age": 60, "expires": "1970-01-01T01:16:40Z"}, "certificate": None},
        "tasks": {"token": {"succeeded": 3, "failed": 1}},
    }


def test_readyz_leaves_out_what_there_is_none_of() -> None:
    assert readyz(ALONE, now=0) == {"mode": "static", "ready": False, "step": "app", "steps": {}}


def test_metrics_are_prometheus_text() -> None:
    assert text(STATE, now=1060.5) == (
        "# HELP krun_info The mode in force.\n"
        "# TYPE krun_info gauge\n"
        'krun_info{mode="captured",interception="captured"} 1\n'
        "# HELP krun_ready Whether the workload is ready.\n"
        "# TYPE krun_ready gauge\n"
        "krun_ready 1\n"
        "# HELP krun_start_step_seconds Seconds that each step of the start took.\n"
        "# TYPE krun_start_step_seconds gauge\n"
        'krun_start_step_seconds{step="token"} 0.25\n'
        'krun_start_step_seconds{step="agent ready"} 0.5\n'
        "# HELP krun_restarts_total Parts that died and were started again.\n"
        "# TYPE krun_restarts_total counter\n"
        'krun_restarts_total{part="pilot-agent"} 1\n'
        "# HELP krun_credential_age_seconds How long ago a credential was issued.\n"
        "# TYPE krun_credential_age_seconds gauge\n"
        'krun_credential_age_seconds{credential="token"} 60.5\n'
        "# HELP krun_credential_expiry_timestamp_seconds When a credential ends; of roots, the first one.\n"
        "# TYPE krun_credential_expiry_timestamp_seconds gauge\n"
        'krun_credential_expiry_timestamp_seconds{credential="token"} 4600\n'
        "# HELP krun_task_runs_total Runs of what is repeated, such as the renewal of the token.\n"
        "# TYPE krun_task_runs_total counter\n"
        'krun_task_runs_total{task="token",result="success"} 3\n'
        'krun_task_runs_total{task="token",result="failure"} 1\n'
    )


def test_labels_are_escaped() -> None:
    odd = State(mode='a"b\\c\nd', interception="", is_ready=False, step="", seconds={}, restarts={}, lives={})
    assert 'krun_info{mode="a\\"b\\\\c\\nd"} 1\n' in text(odd, now=0)


def test_every_metric_stands_in_the_table_with_its_kind() -> None:
    page = (tables.ROOT / "docs" / "process.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(krun_\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert listed == re.findall(r"^# TYPE (\w+) (\w+)$", text(STATE, now=0), re.MULTILINE)
