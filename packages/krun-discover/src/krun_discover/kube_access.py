"""What of the API may be done to what (RBAC), and the commands that grant it. Pure."""

from __future__ import annotations

import re

from krun_discover.record import Record

# Not compiled here: a start in which nothing is refused reads none of it.
USER = r'User "((?:[^"\\]|\\.)+)" cannot '  # kube-apiserver's own words, of every authorizer
MORE = r'(?s)(?:in the namespace "[^"]*"|at the cluster scope)(?:: (.*))?$'
ACCOUNT = r"system:serviceaccount:([a-z0-9-]+:[a-z0-9.-]+)"


class Access(Record):
    """One permission. ``resource`` may have a subresource; without ``namespace`` it is of the whole cluster."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""
    group: str = ""

    def __str__(self) -> str:
        kind = self.resource + (f".{self.group}" if self.group else "")
        name = f" {self.name}" if self.name else ""
        return f"{self.verb} {kind}{name}" + (f" in namespace {self.namespace}" if self.namespace else "")


def grant(access: Access, *, user: str) -> str:
    """The commands that let the user do it, and nothing else; without ``user`` a word stands for it."""
    import shlex  # late, as above

    role = "krun-token" if access.resource == "serviceaccounts/token" else f"krun-{access.resource}"
    role += f"-{access.name}" if access.name else ""
    kind = "role" if access.namespace else "clusterrole"
    resource = access.resource + (f".{access.group}" if access.group else "")
    make = ["kubectl", "create", kind, role, f"--verb={access.verb}", f"--resource={resource}"]
    bind = ["kubectl", "create", f"{kind}binding", role, f"--{kind}={role}", _subject(user)]
    if access.name:
        make.append(f"--resource-name={access.name}")
    if access.namespace:
        place = f"--namespace={access.namespace}"
        make, bind = [*make, place], [*bind, place]
    # Quoted: the user's name is the server's to choose, and a person will run this.
    return f"{shlex.join(make)} && {shlex.join(bind)}"


def _subject(user: str) -> str:
    if found := re.fullmatch(ACCOUNT, user):
        return f"--serviceaccount={found[1]}"
    return f"--user={user or 'USER'}"


def user_of(message: str) -> str:
    """As whom the API server knows us, by its refusal; empty when that does not tell, or not in plain text."""
    found = re.search(USER, message)
    name = found[1].replace('\\"', '"').replace("\\\\", "\\") if found else ""
    return name if name.isprintable() else ""


def more_of(message: str) -> str:
    """What a refusal says beyond the usual words: of the platform's own permissions, for one."""
    found = re.search(MORE, message)
    return (found[1] or "") if found else message
