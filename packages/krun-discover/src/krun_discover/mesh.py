"""The source that ``MESH`` names: a gateway, a file of variables, a project or one cluster of it, Traffic Director."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Mapping

from krun_discover import address, contract, dotenv
from krun_discover.environment import is_port, is_roots
from krun_discover.errors import Malformed, Misconfigured
from krun_discover.record import Record
from krun_discover.resolve import NAME, Answer, Candidate, Known

FILE_LIMIT = 1 << 20  # bytes; an environment is far smaller, and some paths (/dev/zero) never end
SPELLINGS = (
    "write static:HOST:PORT, file:PATH, gke://PROJECT, "
    "//container.googleapis.com/projects/P/locations/L/clusters/C, "
    "//gkehub.googleapis.com/projects/P/locations/L/memberships/M, or td:projects=NUMBER&scopes=NAME"
)
_PROJECT = r"(?P<project>[a-z0-9][a-z0-9.:-]*)"
_PLACE = r"(?:locations|zones|regions)/(?P<location>[a-z0-9-]+)"
_NAME = r"(?P<name>[a-z0-9][a-z0-9-]*)"
TRAFFIC_DIRECTOR_ADDR = "trafficdirector.googleapis.com:443"
PLACES = {
    "project": re.compile(rf"gke://{_PROJECT}/?"),
    "cluster": re.compile(
        rf"(?:https:)?//container\.googleapis\.com/(?:v1/|v1beta1/)?projects/{_PROJECT}/{_PLACE}/clusters/{_NAME}"
    ),
    "membership": re.compile(
        rf"(?:https:)?//gkehub\.googleapis\.com/(?:v1/)?projects/{_PROJECT}/{_PLACE}/memberships/{_NAME}"
    ),
}
TRAFFIC_DIRECTOR = re.compile(r"td:projects=(?P<project>[a-z0-9:.-]+)(?:&scopes=[A-Za-z0-9_-]+)?")


class Place(Record):
    """Where the mesh is: a ``project``, a ``cluster``, a fleet's ``membership``; the last two have all three parts."""

    kind: str
    project: str
    location: str = ""
    name: str = ""


class Mesh(Record):
    """Variables that MESH gives, the names in its file that are not taken from files, the place that it names."""

    label: str
    values: Mapping[str, str]
    dropped: tuple[str, ...] = ()
    place: Place | None = None

    def names(self) -> Iterable[str]:
        """The ports of the application, and roots."""
        return [name for name in self.values if is_port(name) or is_roots(name)]

    def candidates(self, name: str, known: Known) -> Iterable[Candidate]:
        """The value in the file, or the gateway; a static mesh has nothing to say on other names."""
        if name in self.values or self.label.startswith("MESH=file:"):
            yield Candidate(source=self.label, ask=lambda: self._ask(name))

    def _ask(self, name: str) -> Answer:
        value = self.values.get(name)
        return Answer(value=value or "", note="not in it" if value is None else "" if value else "empty")


def parse(text: str) -> Mesh:
    """Read ``MESH``, and the file when it names one; the empty text is a mesh that knows nothing.

    Raises Misconfigured for a spelling that is not understood or a file that cannot be read, Malformed for its content.
    """
    if not text:
        return Mesh(label="MESH", values={})
    kind, colon, rest = text.partition(":")
    if colon and kind == "static":
        gateway = address.parse(rest, what=f"MESH={text}", default_port=contract.PORTS["SNI_PASSTHROUGH"])
        return Mesh(label=f"MESH={text}", values={"KRUN_GATEWAY": str(gateway)})
    if colon and kind == "file":
        return content(_read(rest, mesh=text), path=rest)
    if found := TRAFFIC_DIRECTOR.fullmatch(text):
        project = found["project"]
        values = {"PROJECT_NUMBER" if project.isdecimal() else "PROJECT_ID": project, "XDS_ADDR": TRAFFIC_DIRECTOR_ADDR}
        return Mesh(label="MESH=td:", values=values)
    for kind, pattern in PLACES.items():
        if found := pattern.fullmatch(text):
            place = Place(kind=kind, **found.groupdict())
            return Mesh(label=f"MESH={text}", values=_of(place), place=place)
    raise Misconfigured(f"MESH={text!r} is not understood", hint=SPELLINGS)


def _of(place: Place) -> dict[str, str]:
    values = {"PROJECT_NUMBER" if place.project.isdecimal() else "PROJECT_ID": place.project}
    if place.kind != "project":
        values["CLUSTER_NAME"] = place.name
    if place.kind == "cluster":  # a membership's location is the fleet's
        values["CLUSTER_LOCATION"] = place.location
    return values


def content(text: str, *, path: str) -> Mesh:
    """The variables of a file, JSON or dotenv, without those that a file may not set (pure).

    Only what krun-discover prints is taken: a file is data, and must not set PATH, a loader's variable, a uid or a key.
    """
    is_json = path.endswith(".json") or text.lstrip().startswith(("{", "[", '"'))
    values = _from_json(text, path=path) if is_json else dotenv.parse(text, path=path)
    taken = {name: value for name, value in values.items() if _allowed(name)}
    for name, value in taken.items():
        _check(name, value, path=path)
    dropped = tuple(sorted(name for name in values if name not in taken))
    return Mesh(label=f"MESH=file:{path}", values=taken, dropped=dropped)


def _read(name: str, *, mesh: str) -> str:
    from pathlib import Path  # late: most meshes are no files

    path = Path(name)
    try:
        # Looked at before it is opened: opening a pipe that nobody writes to would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Misconfigured(f"MESH={mesh}: {path} is not a file", hint=SPELLINGS)
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Misconfigured(
            f"MESH={mesh}: {path} cannot be read: {reason}",
            hint="name a file of variables, JSON or dotenv, as 'krun-discover --format dotenv' prints them",
        ) from error
    if len(data) > FILE_LIMIT:
        raise Malformed(f"{path}: larger than {FILE_LIMIT} bytes", hint="a file of variables is a few lines")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from error


def _from_json(text: str, *, path: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Malformed(f"{path}: not JSON: {reason}", hint="write one object of names and strings") from error
    if not isinstance(found, dict):
        raise Malformed(
            f"{path}: not a JSON object but {_kind(found)}", hint='write one object of names and strings: {"NAME": "…"}'
        )
    for name, value in found.items():
        if not isinstance(value, str):
            raise Malformed(
                f"{path}: the value of {json.dumps(name)} is no string but {_kind(value)}",
                hint="every value is a string: put it in quotes",
            )
    return found


def _allowed(name: str) -> bool:
    return (
        is_port(name) or is_roots(name) or (name in contract.SETS and NAME.fullmatch(name) is not None)
    )  # PORT_* itself is no name


def _check(name: str, value: str, *, path: str) -> None:
    """An environment holds bytes without NUL; JSON can also spell half of a surrogate pair, which is no text."""
    try:
        whole = b"\0" not in value.encode()
    except UnicodeEncodeError:
        whole = False
    if not whole:
        raise Malformed(f"{path}: the value of {name} cannot be in an environment", hint="it must be text without NUL")


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
