"""A plan as JSON for ``--dry-run``: names of variables, never their values."""

from __future__ import annotations

import json
from collections.abc import Mapping

from krun_launch.identity import Identity
from krun_launch.plan import Plan, Step
from krun_launch.spawn import ProcessSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def describe(plan: Plan, *, env: Mapping[str, str]) -> str:
    """The plan, as text that can be pasted into a bug report; ``env`` is the environment it was made from."""
    certificates = plan.certificates
    document = {
        "mode": plan.mode,
        "reason": plan.reason,
        "interception": plan.interception,
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "run_dir": str(plan.run_dir),
        "certificates": certificates and {"from": str(certificates.source), "trust_domain": certificates.trust_domain},
        "files": {name: _content(text) for name, text in sorted(plan.files.items())},
        "credentials": [{"name": item.name, "path": str(item.path)} for item in plan.credentials],
        "folders": list(plan.folders),
        "links": dict(plan.links),
        "ports": [{"port": port.number, "on": port.host, "for": port.name} for port in plan.ports],
        "steps": [_step(step) for step in plan.steps],
        "tasks": [
            {
                "task": task.name,
                "run": task.process.name,
                "every_s": task.every,
                "retry_s": task.retry,
                "renews": task.renews,
            }
            for task in plan.tasks
        ],
        "processes": [_process(spec, env=env) for spec in plan.processes],
        "end": {
            "grace_s": plan.settings.grace,
            "drain_s": plan.settings.drain,
            "kill_after_s": plan.settings.kill_after,
        },
    }
    # ASCII: an argument may hold bytes that no encoding of stdout has.
    return json.dumps(document, indent=2)


def _step(step: Step) -> dict[str, Any]:
    if step.checks_certificates:
        return {"step": step.name, "check": "certificates"}
    if step.writes_resolver:
        return {"step": step.name, "write": "/etc/resolv.conf"}
    if step.run is not None:
        return {"step": step.name, "run": step.part, "at_most_s": step.timeout}
    if step.wait is None:
        return {"step": step.name, "start": step.part}
    return {"step": step.name, "wait_for": str(step.wait), "of": step.part, "at_most_s": step.timeout}


def _process(spec: ProcessSpec, *, env: Mapping[str, str]) -> dict[str, Any]:
    shown = {
        "name": spec.name,
        "argv": list(spec.argv),
        "stdin": spec.stdin,
        "group": spec.group,
        **({"folder": spec.folder} if spec.folder else {}),
        **({} if spec.identity is None else {"runs_as": _identity(spec.identity)}),
        "sets": sorted(name for name, value in spec.env.items() if env.get(name) != value),
    }
    if spec.is_helper:
        return {**shown, "variables": sorted(spec.env)}
    return {**shown, "removes": sorted(set(env) - set(spec.env))}


def _identity(identity: Identity) -> dict[str, Any]:
    drops = "all" if identity.drops is None else sorted(identity.drops)
    return {"uid": identity.uid, "gid": identity.gid, "drops": drops, "keeps": sorted(identity.keeps)}


def _content(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
