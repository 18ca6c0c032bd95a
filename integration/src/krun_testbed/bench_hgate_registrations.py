"""hgate's registrations in a real Kubernetes API: how long for many at once, how long for one more, how many requests.

``python -m krun_testbed.bench_hgate_registrations`` runs it alone. What a request costs here is measured beside it, by
objects of the same kind that are created one after the other over one connection.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from krun_testbed import hgate_control, kubernetes, processes
from krun_testbed.hgate_control import Installed, Replica
from krun_testbed.kubernetes import Kubernetes

NAMESPACES = 10
BARE = 200  # objects that are created by hand
LONGEST = 600.0
REQUESTS = re.compile(r"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
# The lease's beat, the bench's own token, and what the API server asks itself for.
UNCOUNTED = ("leases", "serviceaccounts", "ipaddresses")
OBJECTS = 4  # for each service without a selector: endpoints, Sidecar, PeerAuthentication, DestinationRule
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def report(count: int = 500) -> str:
    """Measure once, and tell."""
    lines = [f"{'':<58} {'s':>8}  requests of the API"]
    with tempfile.TemporaryDirectory() as name, kubernetes.running() as api:
        installed = hgate_control.install(api, folder=Path(name))
        installed.balanced(public="203.0.113.7", internal="10.1.2.3")
        namespaces = [api.namespace() for _ in range(NAMESPACES)]
        for number in range(count):
            _declare(installed, number, namespace=namespaces[number % NAMESPACES])

        def measured(what: str, step: Callable[[], float]) -> float:
            before = requests(api)
            seconds = step()
            made = requests(api) - before
            lines.append(f"{what:<58} {seconds:>8.2f}  {_told(made)}")
            return seconds

        with contextlib.ExitStack() as stack:
            started = time.monotonic()
            before = requests(api)
            replica = stack.enter_context(installed.replica())
            lines.append(
                f"{f'{count} declared, until hgate is ready and routes':<58} {time.monotonic() - started:>8.2f}"
            )
            _settled(replica, count)
            seconds = time.monotonic() - started
            lines.append(
                f"{f'{count} declared, until all is written':<58} {seconds:>8.2f}  {_told(requests(api) - before)}"
            )
            objects = len(_written(installed, namespaces))
            measured("one more, until it is written", lambda: _one_more(installed, replica, namespaces[0], count))
        lines.append(f"{f'objects written: {objects}; hgate, each':<58} {seconds / objects:>8.4f}")
        lines.append(f"{'by hand over one connection, each':<58} {_by_hand(api, installed, namespaces):>8.4f}")

        def again() -> float:
            started = time.monotonic()
            with installed.replica() as replica:
                _one_more(installed, replica, namespaces[0], count + 1)
                return time.monotonic() - started

        measured("hgate again, all there, one more declared: until written", again)
    return "\n".join(lines)


def requests(api: Kubernetes) -> Counter[str]:
    """What the API was asked for so far, by verb and resource."""
    found: Counter[str] = Counter()
    for text, value in REQUESTS.findall(api.admin.get("/metrics")):
        labels = dict(LABEL.findall(text))
        if labels.get("resource") not in (None, "", *UNCOUNTED) and not labels.get("dry_run"):
            found[f"{labels['verb']} {labels['resource']}"] += int(float(value))
    return found


def _told(made: Counter[str]) -> str:
    writes = {name: count for name, count in made.items() if name.split()[0] in WRITES}
    reads = sum(count for name, count in made.items() if name not in writes)
    named = ", ".join(f"{count} {name}" for name, count in sorted(writes.items()))
    return f"{sum(writes.values())} writes, {reads} others" + (f" ({named})" if named else "")


def _declare(installed: Installed, number: int, *, namespace: str) -> None:
    url = f"https://web{number}-{hgate_control.PROJECT['PROJECT_NUMBER']}.us-central1.run.app"
    installed.declare(f"web{number}", namespace=namespace, url=url)


def _settled(replica: Replica, count: int) -> None:
    """Wait for the end of the round that has written the last of what so many declarations need."""
    processes.wait_until(lambda: _writes(replica) >= OBJECTS * count, what="all is written", timeout=LONGEST, poll=0.2)


def _writes(replica: Replica) -> float:
    return sum(replica.metric("hgate_writes_total").values())


def _one_more(installed: Installed, replica: Replica, namespace: str, number: int) -> float:
    before = _writes(replica)
    started = time.monotonic()
    _declare(installed, number, namespace=namespace)
    processes.wait_until(lambda: _writes(replica) > before, what="it is written", timeout=LONGEST)
    return time.monotonic() - started


def _written(installed: Installed, namespaces: list[str]) -> list[str]:
    return [name for namespace in namespaces for name in installed.written(namespace)]


def _by_hand(api: Kubernetes, installed: Installed, namespaces: list[str]) -> float:
    """Seconds for one object, created by one client over one connection."""
    path = f"/apis/networking.istio.io/v1/namespaces/{namespaces[0]}/destinationrules"
    (first, *_) = api.admin.get(path)["items"]
    item: dict[str, Any] = copy.deepcopy(first)
    item["metadata"] = {"name": "", "namespace": namespaces[0]}
    started = time.monotonic()
    with contextlib.closing(api.admin.connection()) as connection:
        for number in range(BARE):
            item["metadata"]["name"] = f"by-hand-{number}"
            connection.request("POST", path, body=json.dumps(item), headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise click.ClickException(f"POST {path}: {answer.status}")
    return (time.monotonic() - started) / BARE


@click.command()
@click.option("--count", default=500, show_default=True, help="Services that are declared.")
def main(count: int) -> None:
    """Measure registrations."""
    click.echo(report(count))


if __name__ == "__main__":
    main()
