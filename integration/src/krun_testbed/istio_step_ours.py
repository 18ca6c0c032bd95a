"""What krun would start and write in a mesh with Istio's control plane, by its own dry runs, captured and whitebox."""

from __future__ import annotations

import contextlib
import functools
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from krun_testbed import components, istio_build, mesh_network, processes
from krun_testbed.istio_step_template import ANY
from krun_testbed.mesh_network import Place

MODES = {"captured": "redirect", "whitebox": "none"}  # and whether there are rules
AGENT = "pilot-agent"
FOLDER = "agent"
NAMESPACE = "demo"
NAME = "web"
ROOT = "-----BEGIN CERTIFICATE-----\nnobody reads it in a dry run\n-----END CERTIFICATE-----\n"
SET = "set"
GIVEN = "when given"
NEVER = "never"
MALFORMED = 2  # status of a command line that is not understood
# For flags whose value Istio's template leaves to what is around it.
SAMPLES = {"-m": "REDIRECT", "-i": "*", "-b": "*", "-x": "10.1.0.0/16", "-k": "eth9", "-c": "eth9"}
SAMPLES |= {"--log_output_level": "default:info"}
SAMPLE = "8080"


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What dry runs say. A name is always there, or only with JSON logs."""

    arguments: Mapping[str, str]  # of the agent; a flag with its value
    arguments_at_times: frozenset[str]
    labels: Mapping[str, str]
    files: frozenset[str]  # of the agent, as if its working directory were the root
    user: str  # UID:GID of the agent
    capabilities: str  # that the agent is without
    ready: str  # what is waited for before the application starts
    ports: frozenset[int]
    rules: str  # as krun has them applied


class Unanswered(Exception):
    """A dry run failed."""


@contextlib.contextmanager
def machine(version: str) -> Iterator[Machine]:
    """A place with an agent and its template, whose users can all reach them. For root only."""
    (agent,) = istio_build.make(istio_build.AGENT, version=version)
    with mesh_network.network() as network, network.place(name="step") as place:
        shutil.copyfile(agent, place.folder / AGENT)
        (place.folder / AGENT).chmod(0o755)
        shutil.copyfile(
            istio_build.file(istio_build.TEMPLATE, version=version), place.folder / "envoy_bootstrap_tmpl.json"
        )
        yield Machine(place=place)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where dry runs are made."""

    place: Place

    def environment(self, mode: str) -> dict[str, str]:
        """What a workload is told, and nothing that is for the agent."""
        return {
            "PATH": processes.environment()["PATH"],
            "WORKLOAD_NAMESPACE": NAMESPACE,
            "WORKLOAD_NAME": NAME,
            "XDS_ADDR": "istiod.istio-system.svc:15012",
            "CAROOT_ISTIOD": ROOT,
            "KRUN_PILOT_AGENT": str(self.place.folder / AGENT),
            "KRUN_ENVOY": components.envoy(),
            "KRUN_MODE": mode,
            "KRUN_INTERCEPTION": MODES[mode],
        }

    def _run(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.place.run(components.command(argv[0]), *argv[1:], env=env)

    def plan(self, mode: str, **more: str) -> dict[str, Any]:
        """One dry run. Unanswered when it fails."""
        argv = ("krun-launch", "--no-env", "--dry-run", "--", "true")
        done = self._run(*argv, env={**self.environment(mode), **more})
        if done.returncode != 0:
            raise Unanswered(f"krun-launch --dry-run ({mode}): {done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def variables(self, names: Iterable[str]) -> dict[str, str]:
        """Of each name, and of each that the agent gets anyway: whether it is set, passed on, or kept from it."""
        by_mode = {mode: self._variables(mode, frozenset(names)) for mode in MODES}
        found = {}
        for name in sorted({name for states in by_mode.values() for name in states}):
            words = {mode: states.get(name, NEVER) for mode, states in by_mode.items()}
            same = len(set(words.values())) == 1
            found[name] = words["captured"] if same else ", ".join(f"{mode}: {word}" for mode, word in words.items())
        return found

    def _variables(self, mode: str, names: frozenset[str]) -> dict[str, str]:
        own = _agent(self.plan(mode))
        sets = frozenset(own["sets"])
        asked = sorted(names - sets)
        try:
            passed = frozenset(_agent(self.plan(mode, **dict.fromkeys(asked, "1")))["variables"])
        except Unanswered:
            # One of them is refused, or needs another value: each by itself.
            passed = frozenset(name for name in asked if self._passes(mode, name))
        states = {name: GIVEN if name in passed else NEVER for name in asked}
        return {**states, **dict.fromkeys(sets, SET)}

    def _passes(self, mode: str, name: str) -> bool:
        try:
            return name in _agent(self.plan(mode, **{name: "1"}))["variables"]
        except Unanswered:
            return False

    def takes(self, rules: Mapping[str, str]) -> dict[str, bool]:
        """Whether krun-iptables understands each flag of Istio's istio-iptables, with its value in the template."""
        flags = {name: [name, *([_sample(name, value)] if value else [])] for name, value in rules.items()}
        # All at once, as almost always; otherwise each by itself.
        if self._takes(*(word for words in flags.values() for word in words)):
            return dict.fromkeys(flags, True)
        return {name: self._takes(*words) for name, words in flags.items()}

    def _takes(self, *flags: str) -> bool:
        return self._run("krun-iptables", "istio-iptables", "--dry-run", *flags).returncode != MALFORMED

    @functools.cached_property
    def ours(self) -> Ours:
        """All that two dry runs and one with JSON logs say."""
        plans = {mode: self.plan(mode) for mode in MODES}
        agents = {mode: _agent(plan) for mode, plan in plans.items()}
        captured = agents["captured"]
        arguments = _flags(captured["argv"])
        if any(_flags(agent["argv"]) != arguments for agent in agents.values()):
            raise Unanswered("the agent's arguments are not the same captured and whitebox: istio_step compares one")
        json_logs = _flags(_agent(self.plan("captured", KRUN_LOG_FORMAT="json"))["argv"])
        runs_as = captured.get("runs_as") or {}
        ready = [step["wait_for"] for step in plans["captured"]["steps"] if step.get("of") == AGENT]
        return Ours(
            arguments=arguments,
            arguments_at_times=frozenset(json_logs) - frozenset(arguments),
            labels=dict(line.split("=", 1) for line in _labels(plans["captured"])),
            files=frozenset(path for plan in plans.values() for path in _files(plan)),
            user=f"{runs_as.get('uid')}:{runs_as.get('gid')}",
            capabilities=str(runs_as.get("drops")),
            ready=" ".join(ready),
            ports=frozenset(port["port"] for port in plans["captured"]["ports"]),
            rules=self._rules(),
        )

    def _rules(self) -> str:
        """The rules of a workload that is called, too, as `krun` has them applied."""
        env = {name: value for name, value in self.environment("captured").items() if name != "KRUN_INTERCEPTION"}
        told = self._run("krun-launch", "--rules", "--no-env", env=env)
        wanted = dict(word.split("=", 1) for word in shlex.split(told.stdout))
        done = self._run("krun-iptables", "--dry-run", env={**env, **wanted, "ISTIO_INBOUND_PORTS": "*"})
        if told.returncode or done.returncode or not wanted:
            raise Unanswered(f"krun-launch --rules, krun-iptables --dry-run: {told.stderr}{done.stderr}")
        return done.stdout


def _sample(rule: str, value: str) -> str:
    return SAMPLES.get(rule, SAMPLE) if ANY in value else value


def _agent(plan: Mapping[str, Any]) -> dict[str, Any]:
    return next(dict(process) for process in plan["processes"] if process["name"] == AGENT)


def _flags(argv: list[str]) -> dict[str, str]:
    """As istio_step_template reads them."""
    found: dict[str, str] = {}
    last = ""
    for word in argv[1:]:
        name, _, value = word.partition("=")
        if word.startswith("-"):
            last = name
            found[name] = value
        elif last and not found[last]:
            found[last] = word
        else:
            found[word] = ""
    return found


def _labels(plan: Mapping[str, Any]) -> list[str]:
    text: str = plan["files"][f"{FOLDER}/etc/istio/pod/labels"]
    return [line.replace('"', "") for line in text.splitlines()]


def _files(plan: Mapping[str, Any]) -> Iterator[str]:
    below = [*plan["files"], *plan["folders"], *plan["links"]]
    inside = f"{plan['run_dir']}/{FOLDER}/"
    below += [f"{FOLDER}/{one['path'].removeprefix(inside)}" for one in plan["credentials"]]
    for path in below:
        if path.startswith(f"{FOLDER}/"):
            yield path.removeprefix(FOLDER)
