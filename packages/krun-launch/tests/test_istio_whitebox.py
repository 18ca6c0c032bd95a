"""What krun adds to the bootstrap of pilot-agent where nothing is captured: as a golden, and its promises."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from krun_launch import istio_settings, istio_whitebox

DATA = Path(__file__).with_name("data")
RUN = Path("/run/krun/agent")
ENV = {
    "KRUN_TCP": "6379=cache:6379",
    "WORKLOAD_NAMESPACE": "demo",
    "WORKLOAD_NAME": "a",
    "XDS_ADDR": "istiod.istio-system.svc:15012",
}


def settings(**env: str) -> istio_settings.IstioSettings:
    return istio_settings.settings({**ENV, **env}, run_dir=RUN, instance="1", is_captured=False)


def objects(value: object) -> Iterator[dict[str, object]]:
    """Every object in it."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from objects(item)


def test_the_files_are_those_on_record() -> None:
    """After a change that is meant: KRUN_TEST_RECORD=1, and read the difference."""
    files = istio_whitebox.files(settings())
    assert sorted(files) == ["istio-override.json", "istio-scopes.json"]
    scripts = {path.name: path.read_text() for path in Path(istio_whitebox.__file__).parent.glob("istio_*.lua")}
    assert len(scripts) == 6
    for name, line in files.items():
        content = json.dumps(json.loads(line), indent=1) + "\n"  # so that a difference can be read
        for script, text in scripts.items():
            content = content.replace(json.dumps(text)[1:-1], f"({script})")
        path = DATA / name
        if os.environ.get("KRUN_TEST_RECORD"):
            path.write_text(content)
        assert content == path.read_text()


def test_everything_listens_on_loopback_alone() -> None:
    listeners = istio_whitebox.override(settings())["static_resources"]["listeners"]
    addresses = [item["address"]["socket_address"] for item in listeners if "address" in item]
    assert [(item["address"], item["port_value"]) for item in addresses] == [("127.0.0.1", 15007), ("127.0.0.1", 6379)]
    assert [item["name"] for item in listeners if "internal_listener" in item] == ["krun_tunnel"]


def test_the_namespace_is_the_only_word_of_a_user_in_a_script_and_ends_nothing() -> None:
    override = istio_whitebox.override(settings(WORKLOAD_NAMESPACE="a-b"))
    texts = [str(item["inline_string"]) for item in objects(override) if "inline_string" in item]
    (script,) = [text for text in texts if "local OWN" in text]
    assert script.startswith('local OWN = "a-b"\nlocal PRIVATE = {')


def test_routes_come_from_istiod_and_scopes_from_the_file_in_the_agents_folder() -> None:
    routes = [item["scoped_routes"] for item in objects(istio_whitebox.override(settings())) if "scoped_routes" in item]
    assert len(routes) == 2
    for item in routes:
        assert isinstance(item, dict)
        assert "ads" in item["rds_config_source"]
        (path,) = [found["path"] for found in objects(item) if isinstance(found.get("path"), str)]
        assert path == "/run/krun/agent/istio-scopes.json"
