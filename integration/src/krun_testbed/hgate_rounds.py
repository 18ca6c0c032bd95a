"""Registration in rounds: a cluster listed, judged and written once, by hgate's own parts and without its daemon.

``python -m krun_testbed.hgate_rounds --kubeconfig FILE --namespace NAME`` is one round, in a process to be killed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from hgate import reconcile, written
from hgate.cloud_run import Service
from hgate.declaration import MANAGER
from hgate.events import Told
from hgate.kube import Kube, open_kube
from hgate.reconcile import Done
from hgate.registration import CLAIMS, SYSTEM, Registry, Result
from krun_testbed import istio_build
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError

GATE = "10.9.8.7"
OWN = "123456789"  # the project of the gate
URL = f"https://web-{OWN}.us-central1.run.app"
DECLARING = ("Service", "ConfigMap", "WorkloadEntry", "Sidecar", "DestinationRule")


def definitions(kubernetes: Kubernetes) -> None:
    """Let an API server without istiod know Istio's kinds: once, as that takes the server a while."""
    if not _has(kubernetes, "/apis/security.istio.io/v1"):
        kubernetes.apply(istio_build.file(istio_build.DEFINITIONS))
    # By itself: other tests at the same server make this namespace, too.
    if not _has(kubernetes, f"/api/v1/namespaces/{SYSTEM}"):
        kubernetes.namespace(SYSTEM)


def _has(kubernetes: Kubernetes, path: str) -> bool:
    try:
        kubernetes.admin.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


@dataclass(kw_only=True)
class Rounds:
    """``namespaces``: of which objects are seen and written; others may be of other tests."""

    kube: Kube
    namespaces: tuple[str, ...]
    policy: str | None = None
    gate: str = GATE
    services: list[Service] | None = None
    told: Told = field(default_factory=Told)

    def registry(self) -> Registry:
        """All that there is, read now."""
        made = Registry(self.policy, self.gate, OWN)
        if self.services is not None:
            made.cloud_run(self.services)
        for kind in DECLARING:
            for item in self._items(kind):
                made.put(kind, item)
        return made

    def result(self) -> Result:
        return self.registry().result()

    def seen(self) -> dict[tuple[str, str, str], Any]:
        """What hgate has written."""
        return {
            (kind, item["metadata"]["namespace"], item["metadata"]["name"]): item
            for kind in reconcile.LEAVING
            for item in self._items(kind)
            if written.is_ours(item)
        }

    def events(self, namespace: str) -> list[dict[str, Any]]:
        """What hgate told: an API server tells of Services whose address its own repair does not know yet, too."""
        told = self.kube.list(f"/api/v1/namespaces/{namespace}/events")
        return [event for event in told if event.get("source", {}).get("component") == MANAGER]

    def run(self, *, api: reconcile.Api | None = None) -> Done:
        """One round."""
        result = self.result()
        return reconcile.step(
            api or self.kube,
            wanted=result.wanted,
            seen=self.seen(),
            refused=[*result.refused, *result.hindered],
            may_delete=result.is_settled,
            known=result.known,
            has_cloud_run=result.has_cloud_run,
            told=self.told,
        )

    def _items(self, kind: str) -> Iterable[dict[str, Any]]:
        for namespace in dict.fromkeys((*self.namespaces, SYSTEM)):
            for item in self.kube.list(reconcile.collection(kind, namespace)):
                if namespace != SYSTEM or item["metadata"]["name"] == CLAIMS:
                    yield item


class Stepped:
    """An API whose every write waits for a line of stdin, before and after: whoever gives it decides when to kill."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def get(self, path: str) -> dict[str, Any] | None:
        return self._kube.get(path)

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._step("create", path):
            return self._kube.create(path, body)

    def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._step("replace", path):
            return self._kube.replace(path, body)

    def delete(self, path: str, *, uid: str = "", version: str = "") -> bool:
        with self._step("delete", path):
            return self._kube.delete(path, uid=uid, version=version)

    @contextlib.contextmanager
    def _step(self, verb: str, path: str) -> Iterator[None]:
        _say(f"{verb} {path}")
        sys.stdin.readline()
        yield
        _say("done")
        sys.stdin.readline()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@click.command()
@click.option("--kubeconfig", required=True)
@click.option("--namespace", "namespaces", multiple=True)
def main(kubeconfig: str, namespaces: tuple[str, ...]) -> None:
    """One round, step by step: a line on stdout before and after each write, and one of stdin lets it go on."""
    rounds = Rounds(kube=open_kube(kubeconfig=kubeconfig), namespaces=namespaces)
    rounds.run(api=Stepped(rounds.kube))
    _say("whole")


if __name__ == "__main__":
    main()
