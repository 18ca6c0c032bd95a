"""Istio's injection template as data: what it adds to a Pod, in whichever of its branches.

It is a Go template of YAML. Nothing is rendered: all branches count, and what stands in one of them is known as that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATH = "manifests/charts/istio-control/istio-discovery/files/injection-template.yaml"
PROXY = "istio-proxy"
INIT = "istio-init"
ANY = "…"  # what an action would put here
ITEM = "-"  # an item without a name
ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.S)
# What an action puts when nobody says anything else: the last literal of `default` or `valueOrDefault`.
DEFAULT = re.compile(r"(?:\bdefault\s+|\bvalueOrDefault\s+\S+\s+)([\"`])([^\"`]*)\1")
FORMAT = re.compile(r'printf "([^"]*)"')
OPENS = re.compile(r"(if|range|with|define|block)\b")
SILENT = re.compile(r"else\b|/\*|\$\w+ :?=")
VARIABLE = re.compile(r"^\s*- name: ([A-Z][A-Z0-9_]*)\s*$", re.M)


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A key or an item of the YAML, with the way to it, and within how many branches it stands."""

    path: tuple[str, ...]
    value: str
    depth: int


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that Istio says, and whether it always does."""

    value: str
    is_optional: bool


@dataclass(frozen=True, kw_only=True)
class Template:
    """What an injected Pod gets, by name."""

    arguments: dict[str, Fact]  # of the proxy's container; a flag without its value
    rules: dict[str, Fact]  # arguments of the init container
    variables: dict[str, Fact]
    labels: dict[str, Fact]
    annotations: dict[str, Fact]
    files: dict[str, Fact]  # folders that are mounted, and files within them
    container: dict[str, Fact]  # all else that is said of the proxy's container


class Unreadable(Exception):
    """It is not written as this module reads it: what is said of it would not be true."""


def read(source: Path) -> Template:
    """Read it out of Istio's source. Unreadable when something of it cannot be found any more."""
    text = (source / PATH).read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> Template:
    """Read its text."""
    leaves = tuple(_leaves(text))
    proxy = _below(leaves, "spec", "containers", PROXY)
    init = _below(leaves, "spec", "initContainers", INIT)
    made = Template(
        arguments=_flags(proxy),
        rules=_flags(init),
        variables=_variables(proxy),
        labels=_map(_below(leaves, "metadata", "labels")),
        annotations=_map(_below(leaves, "metadata", "annotations")),
        files=_files(leaves, proxy),
        container=_container(proxy),
    )
    _check(made, text=text)
    return made


def _check(made: Template, *, text: str) -> None:
    """Everything that is looked for in all versions was found, and every variable that a plain search finds."""
    wanted = {
        "arguments": ({"proxy", "sidecar", "--domain", "--proxyLogLevel"}, made.arguments),
        "rules": ({"istio-iptables", "-p", "-z", "-u", "-m", "-i", "-b", "-d"}, made.rules),
        "variables": (
            set(VARIABLE.findall(text)) | {"POD_NAME", "PROXY_CONFIG", "ISTIO_META_CLUSTER_ID"},
            made.variables,
        ),
        "labels": ({"security.istio.io/tlsMode"}, made.labels),
        "annotations": ({"istio.io/rev"}, made.annotations),
        "files": ({"/etc/istio/pod/labels", "/var/run/secrets/tokens/istio-token"}, made.files),
        "container": ({"securityContext.runAsUser", "readinessProbe.httpGet.port"}, made.container),
    }
    for kind, (names, found) in wanted.items():
        if names - set(found):
            raise Unreadable(f"{PATH}: {kind}: {', '.join(sorted(names - set(found)))}: not found any more")


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Its lines with literals or ANY in place of actions, and how many branches each begins within."""
    depth = 0
    line, at = "", None
    last = 0
    for found in (*ACTION.finditer(text), None):
        literal = text[last : found.start() if found else len(text)]
        for number, part in enumerate(literal.split("\n")):
            if number:
                yield line, depth if at is None else at
                line, at = "", None
            line += part
            if at is None and part.strip():
                at = depth
        if found is None:
            break
        action = found[1]
        if action.split(" ")[0] == "end":
            depth -= 1
        elif OPENS.match(action):
            depth += 1
        elif not SILENT.match(action):
            line += _put(action)
            at = depth if at is None else at
        last = found.end()
    yield line, depth
    if depth:
        raise Unreadable(f"{PATH}: {depth} of its branches do not end")


def _put(action: str) -> str:
    """What an action puts there, as far as it says so itself."""
    if written := FORMAT.match(action):
        return re.sub(r"%[a-z]", ANY, written[1])
    default = DEFAULT.findall(action)
    return default[-1][1] if default else ANY


def _leaves(text: str) -> Iterator[Leaf]:
    stack: list[tuple[int, str, bool]] = []  # indentation, name, whether it is an item
    block: int | None = None  # indentation of the key whose text of several lines this is
    for line, depth in _lines(text):
        content = line.strip()
        if not content.strip(ANY + " ") or content.startswith("#") or content in ("}", "{"):
            continue
        indent = len(line) - len(line.lstrip())
        if block is not None and indent > block:
            continue
        block = None
        is_item = content.startswith("- ")
        # A list's items stand as far to the right as its own name.
        while stack and (stack[-1][0] > indent or (stack[-1][0] == indent and (not is_item or stack[-1][2]))):
            stack.pop()
        key, colon, value = _pair(content[2:].strip() if is_item else content)
        if is_item:
            named = value if colon and key in ("name", "mountPath", "path") else ITEM
            stack.append((indent, named, True))
            indent += 2
        if colon:
            stack.append((indent, key, False))
            block = indent if value.startswith("|") else None
        yield Leaf(path=tuple(part[1] for part in stack), value=value, depth=depth)


def _pair(content: str) -> tuple[str, str, str]:
    """Key, colon, value; without a key, all of it is the value."""
    key, colon, value = re.sub(rf"^[{ANY} ]+(?=[\w.])", "", content).partition(":")
    if not colon or (value and not value.startswith(" ")):
        return "", "", _plain(content)
    return key.strip().strip("\"'"), colon, _plain(value)


def _plain(value: str) -> str:
    """Without quotes and commas of YAML; of branches that say the same, one."""
    words = re.sub(rf",{ANY}$|,$", "", value.strip()).replace('"', " ").replace("'", " ").split()
    return " ".join(dict.fromkeys(words))


def _below(leaves: tuple[Leaf, ...], *path: str) -> tuple[Leaf, ...]:
    """What stands below a path, with the rest of its own; branches are counted from there."""
    size = len(path)
    found = [leaf for leaf in leaves if leaf.path[:size] == path and len(leaf.path) > size]
    least = min((leaf.depth for leaf in found), default=0)
    return tuple(Leaf(path=leaf.path[size:], value=leaf.value, depth=leaf.depth - least) for leaf in found)


def _map(leaves: tuple[Leaf, ...]) -> dict[str, Fact]:
    return {leaf.path[0]: _fact(leaf) for leaf in leaves if len(leaf.path) == 1}


def _fact(leaf: Leaf, value: str | None = None) -> Fact:
    return Fact(value=leaf.value if value is None else value, is_optional=leaf.depth > 0)


def _flags(leaves: tuple[Leaf, ...]) -> dict[str, Fact]:
    """Flags with their values, in either way of writing, and the words before them."""
    found: dict[str, Fact] = {}
    last = ""
    for leaf in leaves:
        if leaf.path != ("args", ITEM):
            continue
        word, _, value = leaf.value.partition("=")
        if word.startswith("-"):
            last = word
            found[word] = _fact(leaf, value)
        elif not last:
            found[leaf.value] = _fact(leaf, "")
        elif not found[last].value:
            found[last] = Fact(value=leaf.value, is_optional=found[last].is_optional)
    return found


def _variables(proxy: tuple[Leaf, ...]) -> dict[str, Fact]:
    """Those with a name; what a user's own proxyMetadata and the like add has none here."""
    return {
        leaf.value: _fact(leaf, "")
        for leaf in proxy
        if leaf.path[0] == "env" and leaf.path[2:] == ("name",) and leaf.value != ANY
    }


def _files(leaves: tuple[Leaf, ...], proxy: tuple[Leaf, ...]) -> dict[str, Fact]:
    """The folders that are mounted, and in them the files that the volumes name."""
    found = {}
    for leaf in proxy:
        if leaf.path[0] != "volumeMounts" or leaf.path[2:] != ("mountPath",) or ANY in leaf.value:
            continue
        folder = leaf.value.rstrip("/")
        found[folder] = _fact(leaf, "")
        # Where the path comes first, the volume's name stands beside it.
        named = (other.value for other in proxy if other.path == ("volumeMounts", leaf.path[1], "name"))
        for file in _below(leaves, "spec", "volumes", next(named, leaf.path[1])):
            if file.path[-1] == "path":
                found[f"{folder}/{file.value}"] = _fact(leaf, "")
    return found


def _container(proxy: tuple[Leaf, ...]) -> dict[str, Fact]:
    """What else it says of the proxy's container: all values that a key has, in whichever branches."""
    values: dict[str, list[str]] = {}
    always: set[str] = set()
    for leaf in proxy:
        if leaf.path[0] in ("args", "env", "volumeMounts", "name", "image") or not leaf.value:
            continue
        name = ".".join(part for part in leaf.path if part != ITEM)
        values.setdefault(name, [])
        if leaf.value not in values[name]:
            values[name].append(leaf.value)
        if leaf.depth == 0:
            always.add(name)
    return {name: Fact(value=" ".join(said), is_optional=name not in always) for name, said in values.items()}
