"""Clients that do not look at HTTP_PROXY by themselves, and the variables by which they do: Node's and Java's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# From 22.21 and 24.5 on.
NODE = "NODE_USE_ENV_PROXY"
# Every Java machine reads it, and says so in one line on stderr.
JAVA = "JAVA_TOOL_OPTIONS"
HOST = re.compile(r"[A-Za-z0-9._*-]+")


def variables(env: Mapping[str, str], *, host: str, port: int, direct: Iterable[str]) -> dict[str, str]:
    """What is added to an application's environment. What the user has set stands: options of ours come before his.

    ``direct``: the hosts of NO_PROXY.
    """
    found = {NODE: env.get(NODE, "1")}
    theirs = env.get(JAVA, "")
    if "proxyHost" not in theirs:
        options = [f"-D{scheme}.proxyHost={host} -D{scheme}.proxyPort={port}" for scheme in ("http", "https")]
        options.append(f"-Dhttp.nonProxyHosts={_hosts(direct)}")
        found[JAVA] = " ".join([*options, theirs]).rstrip()
    return found


def _hosts(direct: Iterable[str]) -> str:
    """The list in Java's form: a domain of NO_PROXY stands for all names below it, too. It knows no ranges."""
    patterns: list[str] = []
    for word in direct:
        if word == "*":
            patterns.append(word)
        elif word == "::1":
            patterns.append("[::1]")
        elif re.fullmatch(r"[0-9.]+", word):
            patterns.append("127.*" if word == "127.0.0.1" else word)
        elif HOST.fullmatch(word):
            name = word.lstrip("*").lstrip(".")
            patterns += [name, f"*.{name}"]
    return "|".join(dict.fromkeys(patterns))
