"""MESH: its spellings, and what a file may say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import mesh
from krun_discover.errors import Failure, Malformed, Misconfigured


@pytest.mark.parametrize(
    ("text", "gateway"),
    [
        ("static:gw", "gw:15443"),
        ("static:127.0.0.9:15442", "127.0.0.9:15442"),
        ("static:[::1]:7", "[::1]:7"),
        ("static:[::1]", "[::1]:15443"),
    ],
)
def test_static_names_the_gateway(text: str, gateway: str) -> None:
    assert mesh.parse(text).values == {"KRUN_GATEWAY": gateway}


CLUSTER = {"PROJECT_ID": "p-1", "CLUSTER_LOCATION": "l", "CLUSTER_NAME": "c"}


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("gke://p-1", "project", {"PROJECT_ID": "p-1"}),
        ("gke://example.com:p-1", "project", {"PROJECT_ID": "example.com:p-1"}),
        ("gke://77", "project", {"PROJECT_NUMBER": "77"}),
        ("//container.googleapis.com/projects/p-1/locations/l/clusters/c", "cluster", CLUSTER),
        ("//container.googleapis.com/projects/p-1/zones/l/clusters/c", "cluster", CLUSTER),
        ("https://container.googleapis.com/v1/projects/p-1/locations/l/clusters/c", "cluster", CLUSTER),
        (
            "//gkehub.googleapis.com/projects/p-1/locations/global/memberships/c",
            "membership",
            {"PROJECT_ID": "p-1", "CLUSTER_NAME": "c"},
        ),
    ],
)
def test_project_comes_out_of_every_spelling_of_a_place(text: str, kind: str, values: dict[str, str]) -> None:
    """The original took the wrong part for the project in the second form."""
    found = mesh.parse(text)
    assert (found.place.kind if found.place else "", found.values) == (kind, values)


@pytest.mark.parametrize("scopes", ["", "&scopes=gke-mesh"])
def test_traffic_director_is_its_own_control_plane(scopes: str) -> None:
    xds = {"XDS_ADDR": "trafficdirector.googleapis.com:443"}
    assert mesh.parse(f"td:projects=77{scopes}").values == {"PROJECT_NUMBER": "77", **xds}
    assert mesh.parse(f"td:projects=p-1{scopes}").values == {"PROJECT_ID": "p-1", **xds}


@pytest.mark.parametrize(
    "text",
    ["static", "file", "x", "STATIC:gw", " static:gw", "http://x", "gke:p", "gke://", "gke://a/b", "td:", "td:p"]
    + ["//container.googleapis.com/projects/p", "//container.googleapis.com/projects/p/clusters/c", "gke://p?x"]
    + ["https://container.googleapis.com.evil/v1/projects/p/locations/l/clusters/c"],
)
def test_an_unknown_spelling_is_refused_and_the_known_ones_are_told(text: str) -> None:
    with pytest.raises(Misconfigured, match="not understood") as caught:
        mesh.parse(text)
    assert "static:HOST:PORT" in caught.value.hint


@pytest.mark.parametrize("text", ["static:", "static:gw:0", "static:gw:99999", "static:::1", "static:a b"])
def test_a_bad_gateway_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="MESH=static:"):
        mesh.parse(text)


def test_a_file_is_read_as_json_and_as_dotenv(tmp_path: Path) -> None:
    wanted = {"WORKLOAD_NAMESPACE": "demo", "PORT_http": "9"}
    (tmp_path / "a").write_text("\ufeff\n" + json.dumps(wanted))
    (tmp_path / "b").write_text("WORKLOAD_NAMESPACE=demo\nPORT_http=9\n")
    assert mesh.parse(f"file:{tmp_path}/a").values == wanted
    assert mesh.parse(f"file:{tmp_path}/b").values == wanted


def test_names_that_a_file_may_not_set_are_dropped() -> None:
    names = ["LD_PRELOAD", "PYTHONPATH", "PATH", "K8S_UID", "SSH_AUTH", "NO_SUCH", "K_SERVICE", "PORT", "PORT_*"]
    names += ["PORT_", "PORT_a;b", "PORT_a\n", "NO_GCE_CHECK", ""]
    found = mesh.content(json.dumps(dict.fromkeys([*names, "PORT_a.b", "TRUST_DOMAIN"], "x")), path="f")
    assert found.dropped == tuple(sorted(names))
    assert found.values == {"PORT_a.b": "x", "TRUST_DOMAIN": "x"}


@pytest.mark.parametrize("text", ["[]", '"x"', "{", '{"A": 1', "[" * 100_000, '{"A": "x"} y', "{'A': 1}"])
def test_what_is_no_json_object_is_malformed_and_names_the_file(text: str) -> None:
    with pytest.raises(Malformed, match=r"^some/file: not "):
        mesh.content(text, path="some/file")


def test_a_file_called_json_is_json() -> None:
    with pytest.raises(Malformed, match=r"m\.json: not JSON"):
        mesh.content("A=1\n", path="m.json")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, "a number"),
        (1.5, "a number"),
        (None, "null"),
        (True, "true or false"),
        ([], "a list"),
        ({}, "an object"),
    ],
)
def test_a_value_that_is_no_string_is_malformed_and_names_the_key(value: object, kind: str) -> None:
    with pytest.raises(Malformed, match=f'f: the value of "PROJECT_ID" is no string but {kind}'):
        mesh.content(json.dumps({"TRUST_DOMAIN": "x", "PROJECT_ID": value}), path="f")


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_value_that_no_environment_can_hold_is_malformed(value: str) -> None:
    with pytest.raises(Malformed, match="PROJECT_ID cannot be in an environment"):
        mesh.content(json.dumps({"PROJECT_ID": value}), path="f")


@given(
    st.text(max_size=60)
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_any_content_is_a_mesh_or_malformed(text: str) -> None:
    try:
        found = mesh.content(text, path="f")
    except Malformed:
        return
    assert all(isinstance(value, str) for value in found.values.values())


def test_a_file_that_cannot_be_read_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", "", "a\0b"):
        with pytest.raises(Misconfigured, match="MESH=file:") as caught:
            mesh.parse(f"file:{path}")
        assert caught.value.hint


def test_a_file_that_is_no_text_or_has_no_end_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"A=\xff\n")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(mesh.FILE_LIMIT + 1)
    for name, reason in (("binary", "not UTF-8 at byte 2"), ("huge", "larger than")):
        with pytest.raises(Failure, match=reason) as caught:
            mesh.parse(f"file:{tmp_path / name}")
        assert caught.value.exit_code == 65
