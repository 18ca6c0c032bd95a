"""`make bench`, its part with a control plane: krun-launch against pilot-agent, Envoy and application started by hand.

``python -m krun_testbed.bench_mesh`` runs it alone, as root. There is one istiod; each run is in a network namespace of
its own that is new. What a platform brings is there before the clock starts, alike for all: files, accounts, rules.
Our commands are those of an installation (``installed``), not of this tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import components, installed, istio_build, istiod, mesh_cluster, mesh_workload, processes
from krun_testbed import kubernetes as kubernetes_api
from krun_testbed.bench import APPLICATION, System, rounds, table
from krun_testbed.installed import Installed
from krun_testbed.mesh_agent import USER, is_ready
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place

NAME = "web"
PACKAGES = ("krun-discover", "krun-iptables", "krun-launch", "hbone")
BY_HAND = "agent, Envoy and app by hand"
BARE = "bare python -I"
TOKEN = "var/run/secrets/tokens/istio-token"
POLL = 0.001  # seconds
GOAL = 250  # ms that krun may add
MOUNTED, ASKED = "krun-launch, token mounted", "krun-launch, token by krun-token"
PIPED = "init, krun-discover | krun-launch"
ALL = "krun: discovery, rules, all"
ANSWER = "of it the API server's answer"
INTERCEPTION = {"captured": "redirect", "whitebox": "none"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A mesh, and a namespace of it for the workloads that are measured."""

    cluster: Cluster
    namespace: str
    installed: Installed

    @contextlib.contextmanager
    def workload(self, mode: str) -> Iterator[Workload]:
        """A place where nothing runs yet, with all that it is told."""
        with self.cluster.network.place(name=NAME) as place:
            place.resolver(mesh_cluster.OUTSIDE_RESOLVER)
            folder = place.folder / "app"
            folder.mkdir()
            os.chown(folder, mesh_workload.APP_USER, mesh_workload.APP_USER)
            told = mesh_workload.environment(self.cluster, place, name=NAME, namespace=self.namespace)
            del told["PYTHONDONTWRITEBYTECODE"]
            env = {**told, "KRUN_MODE": mode, "KRUN_LOG_LEVEL": "warning"}
            yield Workload(scene=self, place=place, mode=mode, env=env)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One run's place and settings."""

    scene: Scene
    place: Place
    mode: str
    env: Mapping[str, str]

    @property
    def note(self) -> Path:
        """Where the application notes when it began."""
        return self.place.folder / "app" / "began"

    @property
    def app(self) -> list[str]:
        """The application's command line."""
        return [sys.executable, "-I", "-c", APPLICATION, str(self.note), "127.0.0.1"]

    def rules(self) -> dict[str, str]:
        """What krun-launch wants krun-iptables to know."""
        told = self.place.run(self.scene.installed.command("krun-launch"), "--rules", "--no-env", env=self.env)
        return dict(word.split("=", 1) for word in shlex.split(told.stdout))

    def intercept(self) -> None:
        """The rules that krun would have, when there are any."""
        if self.mode == "captured":
            wanted = self.rules()
            done = self.place.run(self.scene.installed.command("krun-iptables"), env={**self.env, **wanted})
            if done.returncode or not wanted:
                raise click.ClickException(f"krun-iptables: {done.stderr}")

    def write(self, folder: Path, files: Mapping[str, str]) -> None:
        """Files of the agent's user."""
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.chown(path, USER, USER)

    def token(self) -> str:
        """One that istiod takes."""
        kubernetes = self.scene.cluster.kubernetes
        return kubernetes.token("default", namespace=self.scene.namespace, audiences=(istiod.AUDIENCE,))

    def began(self, running: processes.Running) -> float:
        """Wait until the application has begun, and return when."""

        def is_there() -> bool:
            if running.ends(timeout=0):
                raise click.ClickException(f"it ended\n{running.said()[-4000:]}")
            return self.note.exists() and self.note.read_text() != ""

        processes.wait_until(is_there, what="the application has begun", timeout=60.0, poll=POLL)
        return float(self.note.read_text())


def by_hand(scene: Scene, mode: str) -> Callable[[], float]:
    """As who injects a sidecar: the agent with all its files, until it is ready; then the application."""

    def measure() -> float:
        with scene.workload(mode) as workload:
            place, version = workload.place, scene.cluster.istiod.version
            folder = place.folder / "agent"
            template = istio_build.file(istio_build.TEMPLATE, version=version).read_text(encoding="utf-8")
            files = {
                TOKEN: workload.token(),
                "var/run/secrets/istio/root-cert.pem": scene.cluster.istiod.root(),
                "var/lib/istio/envoy/envoy_bootstrap_tmpl.json": template,
                "etc/istio/pod/labels": f'app="{NAME}"\n',
            }
            workload.write(folder, files)
            workload.intercept()
            agent = [str(istio_build.binary(version=version)), "proxy", "sidecar"]
            agent += ["--domain", f"{scene.namespace}.svc.cluster.local", "--log_output_level=all:warn,grpc:none"]
            env = _agents_environment(workload)
            started = time.monotonic()
            with processes.start(place.inside(_as(USER, *agent), cwd=folder), env=env) as running:
                processes.wait_until(lambda: is_ready(place), what="agent", timeout=60.0, poll=POLL)
                with processes.start(place.inside(mesh_workload.as_app(*workload.app)), env=workload.env):
                    return workload.began(running) - started

    return measure


def launched(scene: Scene, mode: str, *, has_token: bool = False) -> Callable[[], float]:
    """From exec of krun-launch until the application begins; without a token that is mounted it gets one."""

    def measure() -> float:
        with scene.workload(mode) as workload:
            place = workload.place
            workload.intercept()
            if has_token:
                _mount(workload)
            argv = [scene.installed.command("krun-launch"), "--no-env", "--", *workload.app]
            env = {**workload.env, "KRUN_INTERCEPTION": INTERCEPTION[mode]}
            started = time.monotonic()
            with processes.start(place.inside(argv, cwd=place.folder), env=env) as running:
                return workload.began(running) - started

    return measure


def entered(scene: Scene, mode: str) -> Callable[[], float]:
    """From exec of krun, with discovery and rules, until the application begins."""

    def measure() -> float:
        with scene.workload(mode) as workload:
            place = workload.place
            argv = [scene.installed.command("krun"), "--", *workload.app]
            # In whitebox there are to be no rules: krun would have them applied.
            more = {"KRUN_INTERCEPTION": "none"} if mode == "whitebox" else {}
            started = time.monotonic()
            with processes.start(place.inside(argv, cwd=place.folder), env={**workload.env, **more}) as running:
                return workload.began(running) - started

    return measure


def piped(scene: Scene, mode: str) -> Callable[[], float]:
    """From exec of the init of images with ``krun-discover | krun-launch -- app``, the rules there already."""

    def measure() -> float:
        with scene.workload(mode) as workload:
            workload.intercept()
            discover, launch = (scene.installed.command(name) for name in ("krun-discover", "krun-launch"))
            line = f"{shlex.quote(discover)} | {shlex.join([launch, '--', *workload.app])}"
            argv = [launch, "--init", "--", "sh", "-c", line]
            env = {**workload.env, "KRUN_INTERCEPTION": INTERCEPTION[mode]}
            started = time.monotonic()
            with processes.start(workload.place.inside(argv, cwd=workload.place.folder), env=env) as running:
                return workload.began(running) - started

    return measure


def alone(scene: Scene, *argv: str) -> Callable[[], float]:
    """From exec to the end of one step of krun, by itself in a place that is new."""

    def measure() -> float:
        with scene.workload("captured") as workload:
            rules = workload.rules() if argv[0] == scene.installed.command("krun-iptables") else {}
            started = time.monotonic()
            done = workload.place.run(*argv, env={**workload.env, **rules})
            taken = time.monotonic() - started
            if done.returncode:
                raise click.ClickException(f"{argv}: status {done.returncode}: {done.stderr}")
            return taken

    return measure


def answered(scene: Scene) -> Callable[[], float]:
    """What of krun-token is the API server's: a new connection, and the answer to a request for a token."""

    def measure() -> float:
        with scene.workload("captured") as workload:
            started = time.monotonic()
            workload.token()
            return time.monotonic() - started

    return measure


def steps(scene: Scene) -> list[System]:
    """What krun runs in one interpreter, each alone in its own; the last is no step, but a part of the one before."""
    launch, token = scene.installed.command("krun-launch"), scene.installed.command("krun-token")
    asked = ("kubernetes", "--audience", istiod.AUDIENCE, "--namespace", scene.namespace)
    return [
        System(name=BARE, measure=alone(scene, sys.executable, "-I", "-c", "")),
        System(name="krun-discover", measure=alone(scene, scene.installed.command("krun-discover"))),
        System(name="krun-launch --rules", measure=alone(scene, launch, "--rules", "--no-env")),
        System(name="krun-iptables", measure=alone(scene, scene.installed.command("krun-iptables"))),
        System(name="krun-token", measure=alone(scene, token, *asked)),
        System(name=ANSWER, measure=answered(scene)),
    ]


def _agents_environment(workload: Workload) -> dict[str, str]:
    """What the injection template gives it, and what krun-launch says besides that makes work for it."""
    discovery = f"{istiod.INSIDE}:{istiod.XDS}"
    return {
        "PATH": workload.env["PATH"],
        "CLOUD_PLATFORM": "none",
        "INSTANCE_IP": workload.place.address,
        "ISTIOD_SAN": istiod.SAN,
        "ISTIO_META_CLUSTER_ID": "Kubernetes",
        **({"ISTIO_META_DNS_CAPTURE": "true"} if workload.mode == "captured" else {}),
        "POD_NAME": f"{NAME}-1",
        "POD_NAMESPACE": workload.scene.namespace,
        "PROXY_CONFIG": json.dumps({"discoveryAddress": discovery, "binaryPath": components.envoy()}),
        "SERVICE_ACCOUNT": "default",
        "TRUST_DOMAIN": "cluster.local",
    }


def _as(user: int, *argv: str) -> list[str]:
    setpriv = components.program("setpriv", package="util-linux")
    return [setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups", *argv]


def _mount(workload: Workload) -> None:
    """A token where platforms mount one: /run is the place's own."""
    kept = workload.place.folder / "token"
    kept.mkdir()
    workload.write(kept, {"istio-token": workload.token()})
    workload.place.must("mkdir", "-p", f"/{TOKEN}".rpartition("/")[0])
    workload.place.must("cp", "-p", str(kept / "istio-token"), f"/{TOKEN}")


def report(count: int) -> str:
    """The tables: captured and whitebox, each against the same by hand, and the steps."""
    if os.geteuid() != 0:
        return "left out: for root only, as rules name users"
    said = []
    taken: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        commands = stack.enter_context(installed.environment(*PACKAGES))
        kubernetes = stack.enter_context(kubernetes_api.running())
        cluster = stack.enter_context(mesh_cluster.running(kubernetes))
        scene = Scene(cluster=cluster, namespace=cluster.namespace(), installed=commands)
        istio_build.make(istio_build.AGENT, version=cluster.istiod.version)
        for mode in INTERCEPTION:
            systems = [
                System(name=BY_HAND, measure=by_hand(scene, mode)),
                System(name=MOUNTED, measure=launched(scene, mode, has_token=True)),
                System(name=ASKED, measure=launched(scene, mode)),
                System(name=PIPED, measure=piped(scene, mode)),
                System(name=ALL, measure=entered(scene, mode)),
            ]
            taken[mode] = rounds(systems, count=count)
            said.append(f"{mode}:\n{table(taken[mode], peer=BY_HAND)}")
        single = rounds(steps(scene), count=count)
        said.append(f"steps of krun, each by itself:\n{table(single, peer=BARE)}")
    return "\n".join([*said, *verdicts(taken)])


def verdicts(taken: Mapping[str, Mapping[str, list[float]]]) -> list[str]:
    """What krun adds, beside its goal: all of it, the API server's answer too."""
    lines = ["", f"more than by hand (goal: {GOAL} ms at most):"]
    for mode, systems in taken.items():
        for name in (MOUNTED, ASKED, PIPED, ALL):
            more = statistics.median(a - b for a, b in zip(systems[name], systems[BY_HAND], strict=True)) * 1e3
            lines.append(f"{mode + ': ' + name:<44} {more:>6.0f}  {'pass' if more <= GOAL else 'short'}")
    return lines


@click.command()
@click.option("--rounds", "count", default=11, show_default=True, help="Rounds.")
def main(count: int) -> None:
    """Measure, and print ratios."""
    click.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {count} rounds after one thrown away\n")
    click.echo(report(count))


if __name__ == "__main__":
    main()
