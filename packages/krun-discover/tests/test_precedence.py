"""Precedence, for any environment: a set variable wins, output is flat text, and the account agrees with it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import contract, discovery, explain, mesh, metadata, render
from krun_discover.assembly import Assembly, Request
from krun_discover.discovery import LABEL, Discovered
from krun_discover.errors import Failure
from krun_discover.web import Web

# No metadata server, no HOME, no gcloud: nothing can be asked.
OFF = {"NO_GCE_CHECK": "true", "PATH": "/nonexistent"}
NAMES = sorted(name for name in contract.SETS if not name.endswith("*") and name != "MESH")
# One of each kind: what shells, JSON and terminals take for more than text.
VALUES = st.sampled_from(["", "x", "a b", "it's", '"', "$HOME", "\\n", "line\nbreak", "\x1b[2J", "é\u2028", "-", "{}"])
PORTS = st.sampled_from(["PORT_http", "PORT_grpc", "CAROOT_ISTIOD", "CAROOT_X"])
# What is read here must be what it should be; the rest may be any text.
READABLE = {
    "MCON_ADDR": st.sampled_from(["", "m", "m:1", "[::1]:2"]),
    "IMCON_ADDR": st.sampled_from(["", "i", "i:1"]),
    "WORKLOAD_NAMESPACE": st.sampled_from(["", "demo", "a-b"]),
    "XDS_ADDR": st.sampled_from(["", "-", "x:15012", "x:15010"]),
    "KRUN_GATEWAY": st.sampled_from(["", "g:1"]),
}
ENVIRONS = st.fixed_dictionaries({}, optional={name: READABLE.get(name, VALUES) for name in NAMES}).flatmap(
    lambda found: st.dictionaries(PORTS, VALUES, max_size=3).map(lambda more: {**found, **more})
)


def discovered(environ: dict[str, str], *, text: str = "") -> Discovered:
    deadline = time.monotonic() + 20
    client = metadata.Client(settings=metadata.settings(environ, product=lambda: ""), deadline=deadline)
    web = Web(deadline=deadline, environ=environ)
    request = Request(environ=environ, flags={}, mesh=mesh.parse(text))
    assembly = Assembly(request=request, web=web, client=client)
    found = discovery.discover(assembly.resolution, environ=environ, lost=assembly.failure)
    assert web.journal == []
    return found


@given(environ=ENVIRONS)
def test_environment_always_wins_and_what_is_printed_is_a_flat_object_of_texts(environ: dict[str, str]) -> None:
    found = discovered({**OFF, **environ})
    assert found.failure is None
    printed = json.loads(render.environment(found.values, style="json"))
    assert printed == found.values
    assert all(isinstance(value, str) and value for value in printed.values())
    for name, value in environ.items():
        if value:
            assert printed[name] == value
    assert LABEL.fullmatch(printed["WORKLOAD_NAMESPACE"])


@given(environ=ENVIRONS)
def test_account_and_output_agree(environ: dict[str, str]) -> None:
    found = discovered({**OFF, **environ})
    text = explain.values(found.found)
    for name, value in found.values.items():
        shown = value if value.isprintable() else json.dumps(value)
        assert f"\n{name}={shown}\n" in text
    for item in found.found:
        if not item.value:
            assert f"\n{item.name}=" not in text
        elif environ.get(item.name):
            assert item.source == "environment"


@given(
    environ=ENVIRONS, values=st.fixed_dictionaries({}, optional={name: READABLE.get(name, VALUES) for name in NAMES})
)
def test_file_comes_after_the_environment_and_before_all_else(
    environ: dict[str, str], values: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("mesh") / "mesh.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    try:
        found = discovered({**OFF, **environ}, text=f"file:{path}")
    except Failure as error:
        pytest.fail(str(error))
    for name in NAMES:
        if environ.get(name) or values.get(name):
            assert found.values[name] == (environ.get(name) or values[name])
