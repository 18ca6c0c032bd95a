"""Kubeconfig files: which ones, and which of their contexts; the first file that has an entry wins (client-go's rule).

They are read only, and only what a request needs of them. The rest of an entry may be anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping

from krun_discover import kube_file, kubeconfig_cluster, kubeconfig_name, kubeconfig_user
from krun_discover.errors import Malformed, Misconfigured
from krun_discover.issued import Token
from krun_discover.kube_credentials import Anonymous
from krun_discover.kube_target import Absent, Target
from krun_discover.kubeconfig_entry import Entry
from krun_discover.record import Record

VARIABLE = "KUBECONFIG"
DEFAULT = ".kube/config"  # below HOME
FILE_LIMIT = 4 * 1024 * 1024  # bytes
SHOWN = 20  # names in an error


class Merged(Record):
    """The entries of all files by name."""

    contexts: Mapping[str, Entry]
    clusters: Mapping[str, Entry]
    users: Mapping[str, Entry]
    current: str


def load(environ: Mapping[str, str], *, context: str = "", google: Callable[[], Token]) -> Target | Absent:
    """Read the files that ``KUBECONFIG`` names, or ~/.kube/config; without ``context`` the current one is taken.

    ``google`` gives an access token where a user's entry stands for one. Nothing is asked of it here.

    Raises:
        Malformed: a file is broken; names file and key.
        Misconfigured: a file cannot be read, a context or what it names is not there, something is not supported.
    """
    paths, reason = files(environ)
    if not paths:
        if context:
            raise Misconfigured(f"context {context!r}: there is no kubeconfig: {reason}", hint=f"set {VARIABLE}")
        return Absent(reason=reason)
    merged = merge([parse(kube_file.read(path, what="kubeconfig", limit=FILE_LIMIT), file=path) for path in paths])
    chosen = context or merged.current
    if not chosen:
        return Absent(reason=f"{_all(paths)}: no current-context")
    return target(merged, context=chosen, where=_all(paths), google=google, environ=environ)


def _all(paths: list[str]) -> str:
    return ":".join(paths)


def files(environ: Mapping[str, str]) -> tuple[list[str], str]:
    """The files that are there, in order, and the reason when there are none.

    Raises Misconfigured when KUBECONFIG is set and none of its files is there: whoever set it means a certain cluster.
    """
    named = list(dict.fromkeys(filter(None, environ.get(VARIABLE, "").split(":"))))
    if named:
        if not (found := [path for path in named if _is_there(path)]):
            raise Misconfigured(f"{VARIABLE}={environ[VARIABLE]}: there is no such file", hint="unset it to go without")
        return found, ""
    home = environ.get("HOME", "")
    default = os.path.join(home, DEFAULT)
    # In images HOME is often root's, where other users cannot even look: nobody has meant a kubeconfig by that.
    if home and os.access(default, os.F_OK):
        return [default], ""
    return [], f"{VARIABLE} is not set, and ~/{DEFAULT} is not there"


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True  # what is wrong with it, reading it will tell
    return True


def parse(data: bytes, *, file: str) -> Entry:
    """One file, YAML or JSON; an empty one has nothing in it. Raises Malformed."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{file}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None
    try:
        found = _json(text) or _yaml(text)
    except ValueError as error:
        raise Malformed(f"{file}: {error}", hint="it is YAML or JSON, as 'kubectl config view' prints it") from None
    except RecursionError:
        raise Malformed(f"{file}: nested too deeply", hint="is it a kubeconfig?") from None
    if not isinstance(found, dict | None):
        raise Malformed(f"{file}: not an object of clusters, contexts and users", hint="is it a kubeconfig?")
    return Entry(file=file, key="", values=found or {})


def _json(text: str) -> object:
    """None when it is not JSON: it may still be YAML, which looks alike."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found: object = json.loads(text)
        return found
    except ValueError:
        return None


def _yaml(text: str) -> object:
    from krun_discover import kubeconfig_yaml  # late: 30 ms, and there is no kubeconfig in a container

    return kubeconfig_yaml.parse(text)


def merge(documents: list[Entry]) -> Merged:
    """Put files together. Raises Malformed for what is no list of named entries."""
    contexts: dict[str, Entry] = {}
    clusters: dict[str, Entry] = {}
    users: dict[str, Entry] = {}
    current = ""
    for document in documents:
        current = current or document.line("current-context")
        for found, plural, singular in (
            (contexts, "contexts", "context"),
            (clusters, "clusters", "cluster"),
            (users, "users", "user"),
        ):
            for one in document.entries(plural):
                name = one.line("name")
                inner = one.entry(singular)
                named = Entry(file=one.file, key=f"{plural}[name={name}].{singular}", values=inner.values)
                found.setdefault(name, named)
    return Merged(contexts=contexts, clusters=clusters, users=users, current=current)


def target(
    merged: Merged, *, context: str, where: str, google: Callable[[], Token], environ: Mapping[str, str]
) -> Target:
    """The server that a context names. Raises Malformed, Misconfigured."""
    if context not in merged.contexts:
        raise Misconfigured(f"{where}: there is no context {context!r}", hint=_known("contexts", merged.contexts))
    chosen = merged.contexts[context]
    cluster, user = chosen.line("cluster"), chosen.line("user")
    if cluster not in merged.clusters:
        raise chosen.refused("cluster", f"there is no cluster {cluster!r}", hint=_known("clusters", merged.clusters))
    if user and user not in merged.users:
        raise chosen.refused("user", f"there is no user {user!r}", hint=_known("users", merged.users))
    server = kubeconfig_cluster.server(merged.clusters[cluster])
    place = kubeconfig_name.parse(context, cluster)
    return Target(
        server=server.url,
        source=f"kubeconfig {chosen.file}, context {context}",
        tls=server.tls,
        roots=server.roots,
        proxy=server.proxy,
        credentials=kubeconfig_user.credentials(merged.users[user], google=google, environ=environ, told=server.told)
        if user
        else Anonymous(),
        namespace=chosen.line("namespace"),
        project=place.project,
        location=place.location,
        cluster=place.cluster,
    )


def _known(plural: str, names: Mapping[str, Entry]) -> str:
    listed = [*names][:SHOWN]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"known {plural}: {', '.join(listed)}{more}" if listed else f"there are no {plural}"
