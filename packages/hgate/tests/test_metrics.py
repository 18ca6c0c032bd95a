"""Metrics of all workers together, in Prometheus' text."""

from __future__ import annotations

import re

from hgate.keeper import Age
from hgate.metrics import State, Totals, text
from hgate.routes import Identity

LINE = re.compile(r'# (HELP|TYPE) hgate_\w+ .+|hgate_\w+(\{\w+="(\\.|[^"\\])*"(,\w+="(\\.|[^"\\])*")*\})? -?[0-9.e+]+')


def test_what_a_worker_had_counted_stays_counted_when_another_takes_its_place() -> None:
    totals = Totals()
    totals.take(0, {"accepted": 5.0, "open_raw": 2.0})
    totals.take(1, {"accepted": 7.0, "open_raw": 1.0})
    assert totals.values() == {"accepted": 12.0, "open_raw": 3.0}
    totals.restart(0)
    totals.take(0, {"accepted": 9.0, "open_raw": 0.0})
    assert totals.values() == {"accepted": 21.0, "open_raw": 1.0}


def test_every_line_is_one_of_prometheus() -> None:
    ages = [Age(identity=Identity(audience='https://a"b\\\n', account="x@y"), issued=10.0, expires=3610.0)]
    state = State(
        is_ready=True,
        workers=2,
        routes=3,
        totals={"accepted": 3.0, "error:hello": 1.0, "open_raw": 1.0, "sent_bytes": 1e12},
        tokens=ages,
        minted=1,
        is_leader=False,
        watches={"Service": 1.25},
        failures={"denied": 2},
        writes={"create": 1},
    )
    said = text(state, now=70.0)
    assert [line for line in said.splitlines() if LINE.fullmatch(line) is None] == []
    assert "hgate_is_leader 0" in said
    assert 'hgate_errors_total{cause="hello"} 1' in said
    assert 'hgate_watch_age_seconds{watch="Service"} 1.25' in said
    assert 'hgate_bytes_total{direction="sent"} 1000000000000' in said
    assert re.search(r"hgate_token_age_seconds\{.*\} 60$", said, re.M)


def test_a_gate_of_static_routes_says_nothing_of_a_cluster() -> None:
    said = text(State(is_ready=False, workers=0, routes=1, totals={}), now=0.0)
    assert "leader" not in said
    assert "watch" not in said
