"""Reads the admins' policy out of YAML, strictly: a word that is not known here may be a limit that would not hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from hgate.policy import ANY, MOST, OWN, Host, Listed, Policy, Rule
from hgate.refusal import Refused, shown
from hgate.routes import RAW, parse_place
from hgate.service_url import read_host

MAX_SIZE = 1024 * 1024
MAX_LIMIT = 100_000
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]{4,20}")
_HASH = re.compile(r"[a-z0-9]{8,16}")
_PATTERN = re.compile(r"[a-z0-9*-]{1,63}")
_REGION = re.compile(r"[a-z]+(-[a-z]+)+[0-9]+")
_PROJECT = re.compile(r"[a-z0-9:.-]{4,63}")
_ACCOUNT = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com")
_AUDIENCE = re.compile(r"[!-~]{1,500}")


class PolicyError(ValueError):
    """The policy says something that is not known, or not in the form that it must have."""


def read(text: str) -> Policy:
    """Read the policy.

    Raises:
        PolicyError: it is not YAML, or not such a policy; nothing of it holds then.
    """
    if len(text) > MAX_SIZE:
        raise PolicyError(f"{len(text)} characters, {MAX_SIZE} are allowed")
    found = _mapping(_or_empty(_load(text)), where="policy", known=("namespaces", "cloudRun"))
    namespaces = _or_empty(found.get("namespaces"))
    if not isinstance(namespaces, dict):
        raise PolicyError("namespaces: is not a mapping of names")
    rules: dict[str, Rule] = {}
    for name, rule in namespaces.items():
        if name != ANY and not (isinstance(name, str) and _LABEL.fullmatch(name)):
            raise PolicyError(f"namespaces: {shown(str(name))} is no namespace")
        rules[name] = _rule(_or_empty(rule), where=f"namespaces.{name}")
    return Policy(namespaces=rules, cloud_run=tuple(_listed(each) for each in _list(found, "cloudRun", where="policy")))


def _rule(value: object, *, where: str) -> Rule:
    known = ("projects", "hashes", "services", "hosts", "audiences", "account", "limit")
    found = _mapping(value, where=where, known=known)
    account = found.get("account") or ""
    if account and not (isinstance(account, str) and _ACCOUNT.fullmatch(account)):
        raise PolicyError(f"{where}.account: {shown(str(account))} is no email of a service account")
    hosts = _or_empty(found.get("hosts"))
    if not isinstance(hosts, dict):
        raise PolicyError(f"{where}.hosts: is not a mapping of host names")
    projects = _texts(found, "projects", where=where, form=_is_project, what="a project's number or own")
    services = _texts(found, "services", where=where, form=_PATTERN.fullmatch, what="a name or a pattern with *")
    return Rule(
        projects=frozenset(projects),
        hashes=frozenset(_texts(found, "hashes", where=where, form=_HASH.fullmatch, what="a hash as in NAME-HASH-RC")),
        services=tuple(services) if found.get("services") is not None else None,
        hosts={str(name): _host(name, _or_empty(each), where=f"{where}.hosts") for name, each in hosts.items()},
        audiences=frozenset(
            _texts(found, "audiences", where=where, form=_AUDIENCE.fullmatch, what="an audience of an ID token")
        ),
        account=account,
        limit=_limit(found.get("limit"), where=where),
    )


def _limit(value: object, *, where: str) -> int:
    if value is None:
        return MOST
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_LIMIT:
        raise PolicyError(f"{where}.limit: {shown(str(value))} is no number of services up to {MAX_LIMIT}")
    return value


def _host(name: object, value: object, *, where: str) -> Host:
    try:
        url = read_host(str(name), text=str(name))
    except Refused as error:
        raise PolicyError(f"{where}: {error.reason}") from error
    found = _mapping(value, where=f"{where}.{name}", known=("audience", "url"))
    place = found.get("url") or ""
    if place:
        _check_place(place, where=f"{where}.{name}.url")
    # A host without a word about it gets tokens for itself; audience: "" says that it gets none.
    usual = "" if str(place).startswith(RAW) else url.audience
    audience = found.get("audience", usual)
    audience = "" if audience is None else audience
    if not isinstance(audience, str) or (audience and not _AUDIENCE.fullmatch(audience)):
        raise PolicyError(f"{where}.{name}.audience: {shown(str(audience))} is no audience of an ID token")
    if audience and str(place).startswith(RAW):
        raise PolicyError(f"{where}.{name}: bytes to {RAW} carry no token, so there is no audience")
    return Host(url=place, audience=audience)


def _check_place(place: object, *, where: str) -> None:
    if not isinstance(place, str):
        raise PolicyError(f"{where}: is no text")
    try:
        parse_place(place)
        if not place.startswith(RAW) and not urlsplit(place).hostname:
            raise ValueError(f"{shown(place)}: no host")
    except ValueError as error:
        raise PolicyError(f"{where}: {error}") from error


def _listed(value: object) -> Listed:
    found = _mapping(value, where="cloudRun", known=("project", "regions"))
    project = str(found.get("project") or "")
    if not _PROJECT.fullmatch(project):
        raise PolicyError(f"cloudRun.project: {shown(project)} is no project")
    regions = _texts(found, "regions", where="cloudRun", form=_REGION.fullmatch, what="a region")
    if not regions:
        raise PolicyError(f"cloudRun: project {project} has no regions")
    return Listed(project=project, regions=tuple(regions))


def _or_empty(value: object) -> object:
    """A word without anything behind it says nothing."""
    return {} if value is None else value


def _is_project(text: str) -> object:
    return text == OWN or _NUMBER.fullmatch(text)


def _mapping(value: object, *, where: str, known: Iterable[str]) -> Mapping[str, Any]:
    known = tuple(known)
    if not isinstance(value, dict):
        raise PolicyError(f"{where}: is not a mapping of {', '.join(known)}")
    for key in value:
        if key not in known:
            raise PolicyError(f"{where}: {shown(str(key))} is not one of {', '.join(known)}")
    return value


def _list(found: Mapping[str, Any], key: str, *, where: str) -> list[Any]:
    value = found.get(key)
    value = [] if value is None else value
    if not isinstance(value, list):
        raise PolicyError(f"{where}.{key}: is no list")
    return value


def _texts(
    found: Mapping[str, Any], key: str, *, where: str, form: Callable[[str], object], what: str
) -> tuple[str, ...]:
    made = []
    for each in _list(found, key, where=where):
        # A number that nobody put into quotes.
        text = str(each) if isinstance(each, int) and not isinstance(each, bool) else each
        if not (isinstance(text, str) and form(text)):
            raise PolicyError(f"{where}.{key}: {shown(str(each))} is not {what}")
        made.append(text)
    return tuple(made)


def _load(text: str) -> object:
    import yaml  # late: workers and `hgate --route` read none

    class Loader(yaml.SafeLoader):
        """Refuses a name that stands twice: YAML's readers take the last, and forget the first without a word."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [each.value for each, _ in node.value if isinstance(each, yaml.ScalarNode)]
            if twice := {name for name in names if names.count(name) > 1}:
                raise PolicyError(f"{', '.join(sorted(twice))} stands twice in one place")
            return dict(super().construct_mapping(node, deep=deep))

    try:
        found: object = yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"not YAML: {' '.join(str(error).split())[:300]}") from error
    return found
