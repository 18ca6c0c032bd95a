"""What pilot-agent reads: variables, by its source and by its own word, and its flags by its own word."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from krun_testbed.istio_step_template import Unreadable

# The agent's own work. Beside it, it is linked with much of istiod, whose settings it does not act on.
FOLDERS = (
    "pilot/cmd/pilot-agent",
    "pilot/pkg/grpc",
    "pkg/bootstrap",
    "pkg/dns",
    "pkg/envoy",
    "pkg/features",
    "pkg/istio-agent",
    "pkg/keepalive",
    "pkg/security",
    "pkg/wasm",
    "security/pkg/credentialfetcher",
    "security/pkg/nodeagent",
)
# Settings of istiod; those that the agent's own work names are its, too.
FEATURES = "pilot/pkg/features"
# The other command of the same program, and settings that only istiod, or only another platform's tool, acts on.
OTHERS = ("tools", "pilot/pkg", "pkg/kube", "cni")
REGISTERED = re.compile(r'env\.Register\w*(?:\[\w+\])?\(\s*(?:"(\w+)"|([\w.]+))')
KNOWN_AS = re.compile(r"^\s*(?:var )?([A-Z]\w*)\b[^\n=]*=[^=]", re.M)
LOOKED_UP = re.compile(r'os\.(?:Getenv|LookupEnv)\((?:"(\w+)"|([\w.]+))\)')
CONSTANT = re.compile(r'^\s*(?:const )?(\w+)\s*(?:string)?\s*=\s*"([A-Z][A-Z0-9_]+)"', re.M)
ROW = re.compile(r"<td><a [^>]*><code>(\w+)</code>")


@dataclass(frozen=True, kw_only=True)
class Agent:
    """What the program says of itself."""

    variables: frozenset[str]  # of all that it is linked with
    flags: frozenset[str]  # of its command proxy, with those of all commands


def variables(source: Path) -> frozenset[str]:
    """The variables that the agent acts on, by its source. Unreadable when something of it cannot be found any more."""
    texts = tuple(_sources(source, *FOLDERS))
    whole = "\n".join(texts)
    constants = dict(CONSTANT.findall(whole))
    found = set()
    for text in texts:
        for literal, constant in (*REGISTERED.findall(text), *LOOKED_UP.findall(text)):
            found.add(literal or constants.get(constant.rpartition(".")[2], f"{constant}?"))
    used = set(re.findall(r"\bfeatures\.(\w+)", whole))
    found |= {name for known, name in _features(source) if known in used}
    unknown = sorted(name for name in found if name.endswith("?"))
    if unknown or not {"POD_NAME", "PROXY_CONFIG", "ISTIO_BOOTSTRAP", "ISTIO_KUBE_APP_PROBERS", "HOST_IP"} <= found:
        what = ", ".join(unknown) or "some that it has in all versions are missing"
        raise Unreadable(f"pilot-agent's source: its variables cannot be read any more: {what}")
    return frozenset(found)


def said(program: Path) -> Agent:
    """The program's own word, as Istio's documentation is made from it."""
    with tempfile.TemporaryDirectory() as folder:
        for form in ("--html_fragment_with_front_matter", "--yaml"):
            argv = [str(program), "collateral", form, "--outputDir", folder]
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
        table = (Path(folder) / "pilot-agent.html").read_text(encoding="utf-8").partition('id="envvars"')[2]
        proxy = yaml.safe_load((Path(folder) / "pilot-agent_proxy.yaml").read_text(encoding="utf-8"))
    names = frozenset(ROW.findall(table.partition("</table>")[0]))
    flags = frozenset(
        f"--{option['name']}" for part in ("options", "inherited_options") for option in proxy.get(part) or ()
    )
    if "POD_NAME" not in names or not {"--domain", "--log_as_json"} <= flags:
        raise Unreadable(f"{program} collateral: not written as it was")
    return Agent(variables=names, flags=flags)


def strays(source: Path, program: Path) -> frozenset[str]:
    """What the program says that it reads, and neither FOLDERS have nor what is known not to be the agent's."""
    others = "\n".join(_sources(source, *OTHERS))
    return frozenset(name for name in said(program).variables - variables(source) if f'"{name}"' not in others)


def _features(source: Path) -> Iterator[tuple[str, str]]:
    """Istiod's settings: their names in Go, and their variables."""
    for text in _sources(source, FEATURES):
        for match in REGISTERED.finditer(text):
            before = KNOWN_AS.findall(text[: match.start() + 1])
            if before and match[1]:
                yield before[-1], match[1]


def _sources(source: Path, *folders: str) -> Iterator[str]:
    for folder in folders:
        for path in sorted((source / folder).rglob("*.go")):
            if not path.name.endswith("_test.go"):
                yield path.read_text(encoding="utf-8")
