"""h2spec, the conformance tests of HTTP/2, built once out of its Go module: for servers, and as h2specd for clients."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import docker_engine, go_build, processes

MODULE = "github.com/summerwind/h2spec"
# Its last version that can be had by a number. What it needs has no go.mod of its own to say so.
NEEDS = {
    MODULE: "v2.2.1+incompatible",
    "github.com/fatih/color": "v1.19.0",
    "github.com/spf13/cobra": "v1.10.2",
    "golang.org/x/net": "v0.57.0",
}
PROGRAMS = ("h2spec", "h2specd")
AT_ONCE = 8  # cases: they wait more than they work
QUICK, PATIENT = 1, 10  # seconds that a case waits for an answer: a machine that is busy needs the second
SPECIFICATIONS = {"Generic": "generic", "Hypertext": "http2", "HPACK:": "hpack"}
# Each in its own process, as a case that takes longer than three seconds ends it: then it is begun again.
CLIENT_SECTIONS = ("1", "4.1", "4.2", "4.3", "5.1", "5.4.1", "5.5", "6.1", "6.2", "6.3", "6.4", "6.5", "6.7", "6.8",
                   "6.9", "6.10")  # fmt: skip
TRIES = 5
PASSED, FAILED = "\u2714", "\u00d7"  # how it marks them

_SECTION = re.compile(r" +([0-9.]+)\. ")
_CASE = re.compile(r" +([0-9]+): (.*)")
_MARKED = re.compile(rf"([{PASSED}{FAILED}]) ([0-9]+): (.*)")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One of its cases: ``http2/8.1.2.3/4``, and what it does."""

    name: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of one."""

    name: str
    title: str
    is_passed: bool
    actual: str  # what the peer did, where that was not enough


def make() -> Path:
    """Build both unless they are there; their folder. Missing without Go, or when the build fails."""
    requires = "".join(f"\t{name} {version}\n" for name, version in NEEDS.items())
    tools = "".join(f"\t{MODULE}/cmd/{name}\n" for name in PROGRAMS)
    text = f"module krun-testbed/h2spec\n\ngo 1.26\n\nrequire (\n{requires})\n\ntool (\n{tools})\n"
    built = docker_engine.cache() / f"h2spec-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=built.parent, prefix="h2spec-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "go.mod").write_text(text, encoding="utf-8")
            go_build.run("mod", "tidy", folder=folder, what="h2spec")
            (folder / "bin").mkdir()
            packages = [f"{MODULE}/cmd/{program}" for program in PROGRAMS]
            go_build.build(["-o", "bin/"], *packages, folder=folder, what="h2spec")
            if not built.exists():
                (folder / "bin").rename(built)
    return built


def cases() -> list[Case]:
    """All cases for servers, the strict ones too."""
    done = subprocess.run(
        [make() / "h2spec", "--strict", "--dryrun"], capture_output=True, text=True, timeout=60, check=True
    )
    found: list[Case] = []
    specification = section = ""
    for line in done.stdout.splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        elif case := _CASE.match(line):
            found.append(Case(name=f"{specification}/{section}/{case[1]}", title=case[2]))
        elif line and not line.startswith(" "):
            specification = SPECIFICATIONS[line.split()[0]]
    return found


def judge(address: str, port: int, *flags: str, expected: Sequence[str] = ()) -> list[Found]:
    """All cases against a server. One that fails without being expected to has another, longer try."""

    def one(case: Case) -> Found:
        found = _try(case, address, port, *flags, seconds=QUICK)
        is_odd = not found.is_passed and case.name not in expected
        return _try(case, address, port, *flags, seconds=PATIENT) if is_odd else found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, cases()))


def _try(case: Case, address: str, port: int, *flags: str, seconds: int) -> Found:
    argv = [str(make() / "h2spec"), "--strict", "--host", address, "--port", str(port), "--timeout", str(seconds)]
    done = subprocess.run([*argv, *flags, case.name], capture_output=True, text=True, timeout=120, check=False)
    said = re.findall(r"(?:Actual|Error): (.*)", done.stdout)
    is_passed = done.returncode == 0 and "1 passed" in done.stdout
    return Found(
        name=case.name, title=case.title, is_passed=is_passed, actual="" if is_passed else "".join(said[-1:]).strip()
    )


def judge_client(command: Path, *, address: str, section: str, port: int) -> list[Found]:
    """A section's cases against a client: ``command`` is run with the URL of a server for each, and need not wait."""
    argv = [str(make() / "h2specd"), "--host", address, "--from-port", str(port), "--timeout", str(QUICK)]
    argv += ["--exec", str(command), f"client/{section}"]
    said = ""
    for _ in range(TRIES):
        env = processes.environment()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)
        said = done.stdout.partition("Failures:")[0]
        found = list(_found_of_client(said))
        if found and "Error: " not in said and all(one.is_passed for one in found):
            return found
    raise RuntimeError(f"h2specd client/{section}: {said}")


def _found_of_client(said: str) -> Iterator[Found]:
    section = ""
    for line in said.splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        elif case := _MARKED.search(line):
            mark, number, title = case.groups()
            yield Found(name=f"client/{section}/{number}", title=title, is_passed=mark == PASSED, actual="")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the server listens.")
@click.option("--port", default=15009, show_default=True, help="On which port.")
@click.option("--path", default="/", show_default=True, help="What is asked for.")
@click.option("--tls", is_flag=True, help="By TLS, whoever signed for it.")
def main(host: str, port: int, path: str, tls: bool) -> None:
    """Say what h2spec finds of a server."""
    flags = ["--path", path, *(["--tls", "--insecure"] if tls else [])]
    found = judge(host, port, *flags)
    for one in found:
        if not one.is_passed:
            click.echo(f"{one.name:<20} {one.title}: {one.actual}")
    click.echo(f"{len(found)} cases, {sum(one.is_passed for one in found)} passed")


if __name__ == "__main__":
    main()
