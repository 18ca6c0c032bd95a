"""The golden image and the gateway's, as users get them: commands, accounts, compiled code, size."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import components, containers, containers_mesh, images, images_base, processes, tables
from krun_testbed.containers import Container
from krun_testbed.containers_mesh import Mesh, identity
from krun_testbed.docker_engine import docker

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300), pytest.mark.usefixtures("engine")]

COMMANDS = [*tables.COMMANDS, "krun", "envoy"]
# Each module's compiled form: whether it is there, and whether it is taken without a look at the source (PEP 552).
COMPILED = """
import importlib.util, pathlib, sys
for source in pathlib.Path(sys.prefix, "lib").rglob("*.py"):
    compiled = pathlib.Path(importlib.util.cache_from_source(source))
    state = int.from_bytes(compiled.read_bytes()[4:8], "little") if compiled.exists() else -1
    print(state, source)
"""


def run(image: str, *argv: str, **options: Any) -> str:
    """The stdout of a command in a new container of an image, without its entrypoint."""
    with containers.started(images.tag(image), *argv[1:], entrypoint=argv[0], **options) as container:
        assert container.wait() == 0, container.said()
        return container.stdout


@pytest.mark.parametrize("user", ["0:0", "1337:1337", "1338:1337", "65532:65532", "4711:4711"])
def test_every_command_runs_as_every_user(user: str) -> None:
    script = "set -e; for tool in " + " ".join(COMMANDS) + "; do $tool --version; done"
    said = run("golden", "sh", "-c", script, user=user)
    ours = [line.split()[0] for line in said.splitlines() if line.endswith(" 0.1.0")]
    assert ours == [*tables.COMMANDS, "krun-launch"]  # krun answers by krun-launch
    assert "/1.40.0/" in said


def test_application_keeps_its_own_python_and_gets_only_our_commands() -> None:
    assert run("golden", "python3", "-c", "import sys; print(sys.prefix)") == "/usr\n"
    assert sorted(run("golden", "ls", "/usr/local/bin").split()) == sorted(COMMANDS)


def test_accounts_are_those_that_the_rules_and_the_launcher_name() -> None:
    said = run("golden", "sh", "-c", "getent passwd istio-proxy krun-hboned krun-names app; stat -c %U:%G /home/app")
    rows = [line.split(":") for line in said.splitlines()]
    assert [row[:4] for row in rows[:4]] == [
        ["istio-proxy", "x", "1337", "1337"],
        ["krun-hboned", "x", "1338", "1337"],
        ["krun-names", "x", "1339", "1337"],
        ["app", "x", "65532", "65532"],
    ]
    assert rows[4] == ["app", "app"]


def test_image_starts_our_init_as_root_and_names_the_applications_user() -> None:
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", images.tag("golden")).stdout)
    assert config["Entrypoint"] == ["krun-launch", "--init", "--"]
    assert config.get("User", "") == ""  # root
    assert "K8S_UID=65532:65532" in config["Env"]


def test_all_code_is_compiled_and_not_checked_again() -> None:
    said = run("golden", "/opt/krun/bin/python3", "-I", "-c", COMPILED)
    lines = said.splitlines()
    assert len(lines) > 300
    # 0b01: by hash, not checked.
    assert [line for line in lines if not line.startswith("1 ")] == []


def test_image_adds_little_beside_envoy() -> None:
    envoy = Path(components.envoy()).stat().st_size
    assert images.size(images.tag("golden")) - images.size(images.tag("base")) < 1.35 * envoy
    # The client of Kubernetes, without its classes for each kind, and what it wants: 44 MB of it, compiled.
    assert images.size(images.tag("hgate")) - images.size(images.tag("base")) < 60e6


def test_gateway_runs_without_rights_and_drains() -> None:
    env = {"KRUN_ROUTES": "b.demo=http://b:15009"}
    with containers.started(images.tag("hgate"), env=env) as gate:
        gate.wait_for('"ready"')
        control, *workers = sorted(
            (one for one in gate.processes() if "hgate" in " ".join(one.argv)), key=lambda one: one.pid
        )
        assert control.pid == 1
        assert workers
        assert {(one.uid, one.gid, one.effective) for one in (control, *workers)} == {(65532, 65532, 0)}
        assert gate.stop() == 0
        assert [line["message"] for line in gate.messages("hgate")] == ["ready", "drained"]


# A web server that answers by its Python's version.
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.version.encode())
http.server.HTTPServer(('127.0.0.1', 8080), Handler).serve_forever()
"""


@contextlib.contextmanager
def called(mesh: Mesh, image: str, *command: str) -> Iterator[Container]:
    """A workload a from any image, ready; gives the workload b that may call it."""
    with (
        containers.started(
            image,
            *command,
            env=mesh.environment("a", SERVER=SERVER),
            networks=[mesh.network],
            alias="a",
            volumes={mesh.folder / "a": "/certs"},
        ) as a,
        mesh.service("b") as b,
    ):
        a.wait_for(containers_mesh.READY)
        yield b


def test_sample_is_built_on_the_golden_image_and_called_through_the_mesh(mesh: Mesh) -> None:
    # As its README has it, in its own folder.
    name = f"krun-testbed/sample:{os.getpid()}"
    folder = tables.ROOT / "samples" / "plain"
    docker("build", "--build-arg", f"BASE={images.tag('golden')}", "--tag", name, str(folder))
    try:
        with called(mesh, name) as b:
            answer = b.ask("/fetch?url=http://a.demo:8080/")
        seen = json.loads(str(answer["body"]))
        assert (seen["from"], f"URI={identity('b')}" in seen["client-certificate"]) == ("a", True)
    finally:
        docker("image", "rm", name)


def test_make_images_builds_both_images_on_a_newer_debian_and_they_work(mesh: Mesh) -> None:
    # What `make images BASE=IMAGE` runs, under another tag than a user's; on Debian 13, whose Python is 3.13.
    shown = processes.run(["make", "--dry-run", "-C", str(tables.ROOT), "images", "BASE=mine"], stdin=None).stdout
    assert "-m krun_testbed.images --base 'mine'" in shown
    version = f"test-{os.getpid()}"
    argv = [sys.executable, "-m", "krun_testbed.images", "--base", images_base.make("trixie"), "--tag", version]
    done = processes.run(argv, env=dict(os.environ), stdin=None, timeout=250)
    try:
        assert done.returncode == 0, done.stderr
        with containers.started(f"krun/hgate:{version}", "--route", "a.demo=http://a:15009") as gate:
            gate.wait_for('"ready"')
        with called(
            mesh, f"krun/golden:{version}", "sh", "-c", 'krun-discover | krun-launch -- python3 -c "$SERVER"'
        ) as b:
            answer = b.ask("/fetch?url=http://a.demo:8080/")
        assert (answer["status"], str(answer["body"])[:5]) == (200, "3.13.")
    finally:
        docker("image", "rm", f"krun/golden:{version}", f"krun/hgate:{version}", check=False)
