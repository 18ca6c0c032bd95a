"""What krun does otherwise than one version of Istio, held against the list of docs/istio.md.

``python -m krun_testbed.istio_step`` says what of a version is not on it; ``make istio`` runs it, then the mesh tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from krun_testbed import istio_build, istio_step_agent, istio_step_machine, istio_step_ours, istio_step_template, tables
from krun_testbed.components import Missing
from krun_testbed.istio_step_list import (
    ARGUMENTS,
    CONTAINER,
    FILES,
    LABELS,
    MACHINE,
    RULES,
    UNIT,
    VARIABLES,
    Difference,
    decisions,
    undecided,
)
from krun_testbed.istio_step_machine import Machine
from krun_testbed.istio_step_ours import GIVEN, NEVER, SET, Ours
from krun_testbed.istio_step_template import ANY, Fact, Template, Unreadable

ALWAYS = "always"
AT_TIMES = "at times"
UNKNOWN = "not known"


@dataclass(frozen=True, kw_only=True)
class Istio:
    """One version."""

    version: str
    template: Template
    machine: Machine
    variables: frozenset[str]  # that the agent reads
    flags: frozenset[str]  # that it knows; empty when that version is not built


@dataclass(frozen=True, kw_only=True)
class Krun:
    """This tree."""

    ours: Ours
    variables: Mapping[str, str]
    rules: Mapping[str, bool]  # whether krun-iptables takes a flag


def istio(version: str) -> Istio:
    """What a version says. Missing when it cannot be had, Unreadable when it is written otherwise than before."""
    source = istio_build.source(version=version)
    program = istio_build.binary(version=version)
    return Istio(
        version=version,
        template=istio_step_template.read(source),
        machine=istio_step_machine.read(source),
        variables=istio_step_agent.variables(source),
        flags=istio_step_agent.said(program).flags if program.exists() else frozenset(),
    )


def krun(versions: Sequence[Istio]) -> Krun:
    """What krun does with all names that these versions have."""
    names: set[str] = set()
    rules: dict[str, str] = {}
    for version in versions:
        names |= version.variables | set(version.template.variables) | version.machine.settings | version.machine.given
        rules |= {name: fact.value for name, fact in version.template.rules.items() if name.startswith("-")}
    # Any agent will do, as none is started: one that is there, if possible.
    known = sorted(
        (one.version for one in versions), key=lambda version: not istio_build.binary(version=version).exists()
    )
    with istio_step_ours.machine(known[0]) as machine:
        return Krun(
            ours=machine.ours,
            variables=machine.variables(names),
            rules=machine.takes(rules),
        )


def differences(istio: Istio, krun: Krun) -> tuple[Difference, ...]:
    """All of them, in the order of the list."""
    return (
        *_arguments(istio, krun.ours),
        *_variables(istio, krun.variables),
        *_named(LABELS, istio.template.labels, krun.ours.labels),
        *_named(LABELS, istio.template.annotations, {}),
        *_files(istio, krun.ours),
        *_rules(istio.template.rules, krun),
        *_container(istio.template.container, krun.ours),
        *_settings(istio.machine, krun.variables),
        *(Difference(kind=UNIT, name=name, istio=value) for name, value in istio.machine.unit.items()),
        Difference(kind=UNIT, name="order", istio=istio.machine.order),
    )


def _word(fact: Fact) -> str:
    return AT_TIMES if fact.is_optional else ALWAYS


def _arguments(istio: Istio, ours: Ours) -> Iterator[Difference]:
    theirs = istio.template.arguments
    krun = {**dict.fromkeys(ours.arguments, ALWAYS), **dict.fromkeys(ours.arguments_at_times, AT_TIMES)}
    for name, fact in theirs.items():
        word = _word(fact)
        value = fact.value.replace("$(POD_NAMESPACE)", istio_step_ours.NAMESPACE)
        if name not in krun or (word == ALWAYS and krun[name] == AT_TIMES):
            yield Difference(kind=ARGUMENTS, name=name, istio=word, krun=krun.get(name, NEVER))
        elif not _fits(ours.arguments.get(name, ""), value):
            yield Difference(kind=ARGUMENTS, name=name, istio=fact.value, krun=ours.arguments[name])
    for name in sorted(krun):
        if istio.flags and name.startswith("-") and name not in istio.flags:
            # The agent drops such a flag without a word.
            yield Difference(kind=ARGUMENTS, name=name, istio=UNKNOWN, krun=krun[name])
        elif name not in theirs:
            yield Difference(kind=ARGUMENTS, name=name, istio=NEVER, krun=krun[name])


def _fits(value: str, pattern: str) -> bool:
    """Whether a value is what Istio's template would make, whatever its actions put there."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split(ANY))), value) is not None


def _variables(istio: Istio, krun: Mapping[str, str]) -> Iterator[Difference]:
    pods = istio.template.variables
    for name in sorted(
        istio.variables | set(pods) | istio.machine.given | {n for n, word in krun.items() if SET in word}
    ):
        word = krun.get(name, NEVER)
        wanted = name in istio.machine.given or (name in pods and not pods[name].is_optional)
        if wanted:
            is_same = word == SET
        elif name in pods:
            is_same = word in (SET, GIVEN)
        else:
            is_same = word == GIVEN
        if not is_same:
            yield Difference(kind=VARIABLES, name=name, istio=_who(istio, name), krun=word)


def _who(istio: Istio, name: str) -> str:
    """Who sets a variable for Istio's agent; when nobody does, whether the agent reads it."""
    pods = istio.template.variables
    words = [f"Pods{' at times' if pods[name].is_optional else ''}"] if name in pods else []
    words += ["VMs"] if name in istio.machine.given else []
    is_read = name in istio.variables or name.startswith(("ISTIO_META_", "ISTIO_METAJSON_"))
    return ", ".join(words) or ("read" if is_read else "not read")


def _named(kind: str, theirs: Mapping[str, Fact], ours: Mapping[str, str]) -> Iterator[Difference]:
    for name, fact in theirs.items():
        if name not in ours:
            yield Difference(kind=kind, name=name, istio=_word(fact), krun=NEVER)
        elif not _fits(ours[name], fact.value):
            yield Difference(kind=kind, name=name, istio=fact.value, krun=ours[name])
    for name in sorted(set(ours) - set(theirs)):
        yield Difference(kind=kind, name=name, istio=NEVER, krun=ALWAYS)


def _files(istio: Istio, ours: Ours) -> Iterator[Difference]:
    theirs = {name: _word(fact) for name, fact in istio.template.files.items()}
    for name in istio.machine.files:
        theirs[name] = f"{theirs[name]}, VMs" if name in theirs else "VMs"
    for name, word in sorted(theirs.items()):
        if not any(path == name or path.startswith(f"{name}/") for path in ours.files):
            yield Difference(kind=FILES, name=name, istio=word, krun=NEVER)
    for path in sorted(ours.files):
        # What is below a folder of ours goes with it.
        if any(path.startswith(f"{folder}/") for folder in ours.files):
            continue
        if not any(path == name or path.startswith(f"{name}/") for name in theirs):
            yield Difference(kind=FILES, name=path, istio=NEVER, krun=ALWAYS)


def _rules(theirs: Mapping[str, Fact], krun: Krun) -> Iterator[Difference]:
    for name, fact in theirs.items():
        if not name.startswith("-"):
            continue
        if not krun.rules[name]:
            yield Difference(kind=RULES, name=name, istio=_word(fact), krun="not taken")
        missing = [word for word in re.findall(r"\d+", fact.value) if not re.search(rf"\b{word}\b", krun.ours.rules)]
        if missing:
            yield Difference(kind=RULES, name=name, istio=fact.value, krun=f"without {', '.join(missing)}")


def _container(theirs: Mapping[str, Fact], ours: Ours) -> Iterator[Difference]:
    """What krun has in its own way is in words of people; what it can have the same is compared."""
    uid, _, gid = ours.user.partition(":")
    same = {
        "securityContext.runAsUser": uid,
        "securityContext.runAsGroup": gid,
        "securityContext.capabilities.drop": ours.capabilities.upper(),
    }
    probes: dict[str, str] = {}
    for name, fact in theirs.items():
        probe, dot, rest = name.partition("Probe.")
        if dot:
            probes[f"{probe}Probe"] = f"{probes.get(f'{probe}Probe', '')} {rest}={fact.value}".strip()
        elif name not in same:
            yield Difference(kind=CONTAINER, name=name, istio=fact.value)
        elif same[name] not in fact.value.split():
            yield Difference(kind=CONTAINER, name=name, istio=fact.value, krun=same[name])
    for name, said in probes.items():
        yield Difference(kind=CONTAINER, name=name, istio=said, krun=f"waits for {ours.ready}")


def _settings(machine: Machine, krun: Mapping[str, str]) -> Iterator[Difference]:
    """Settings of Istio's start script that mean nothing to us under that name."""
    listed = tables.variables()
    for name in sorted(machine.settings - machine.given):
        if name not in listed and krun.get(name, NEVER) == NEVER:
            yield Difference(kind=MACHINE, name=name, istio="read", krun=NEVER)


@click.command()
@click.option("--version", default=istio_build.NEWEST, show_default=True, help="Version of Istio's Go module.")
@click.option("--rows", is_flag=True, help="Print all differences as rows of docs/istio.md.")
def main(version: str, rows: bool) -> None:
    """Build pilot-agent in a version, unless it is there, and compare krun with that version."""
    try:
        (agent,) = istio_build.make(istio_build.AGENT, version=version)
        theirs = istio(version)
        strays = istio_step_agent.strays(istio_build.source(version=version), agent)
        found = differences(theirs, krun([theirs]))
    except (Missing, Unreadable, istio_step_ours.Unanswered) as error:
        raise click.ClickException(str(error)) from error
    if strays:
        raise click.ClickException(f"Istio {version}: who reads {', '.join(sorted(strays))}? See istio_step_agent")
    listed = decisions()
    if rows:
        why = {(row.kind, row.name): row for row in listed}
        for one in found:
            row = why.get((one.kind, one.name))
            cells = (f"`{one.name}`", one.istio, one.krun or (row.krun if row else ""), row.why if row else "")
            click.echo(f"{one.kind} | {' | '.join(cells)} |")
    open_ones = undecided(found, listed)
    for line in open_ones:
        click.echo(line, err=True)
    if open_ones:
        raise click.ClickException(f"Istio {version}: {len(open_ones)} differences are to be decided")
    click.echo(f"Istio {version}: {len(found)} differences, all on the list of docs/istio.md")


if __name__ == "__main__":
    main()
