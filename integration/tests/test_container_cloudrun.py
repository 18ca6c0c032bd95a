"""A container behind Cloud Run's front: the platform's variables are enough, and its rules hold in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from krun_testbed import components, processes
from krun_testbed.certificates import Authority, write
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.containers_mesh import Mesh
from krun_testbed.google_tokens import Issuer

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

HOST = "a-424242.local1.run.app"
# What Cloud Run sets, and so all that a user must set there is the mesh.
PLATFORM = {"K_SERVICE": "a", "K_REVISION": "a-00001", "K_CONFIGURATION": "a", "PORT": "15009"}
REQUEST = "GET /tunnelled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_container_on_cloud_run_is_reached_through_the_front_by_who_has_a_token(
    mesh: Mesh, cloud_run: Callable[..., CloudRun], issuer: Issuer, authority: Authority, tmp_path: Path
) -> None:
    write(path=tmp_path / "root.pem", content=authority.root)
    write(path=tmp_path / "token", content=issuer.id_token(f"https://{HOST}").encode())
    with mesh.workload("pipeline", bind="", env=PLATFORM) as a:
        docker = components.program("docker", package="docker.io")
        # The front's instance is this container: it runs as long as somebody waits for its end.
        service = Service(name="a", host=HOST, address=a.address(), command=[docker, "wait", a.identifier])
        with cloud_run(service) as front:
            connect = ["--connect-to", f"{front.listen[0]}:{front.listen[1]}", "--ca-file", str(tmp_path / "root.pem")]
            hbone = [components.command("hbone"), *connect]
            url = f"https://{HOST}/_hbone/http"
            done = processes.run([*hbone, "--token-file", str(tmp_path / "token"), url], stdin=REQUEST)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout.partition("\n\n")[2])["path"] == "/tunnelled"
            assert processes.run([*hbone, url], stdin=REQUEST).returncode == 77
            # A user's plain request, past Envoy: the application sees nothing that only a peer of the mesh may say.
            curl = [components.program("curl", package="curl"), "--silent", "--cacert", str(tmp_path / "root.pem")]
            curl += ["--connect-to", f"{HOST}:443:{front.listen[0]}:{front.listen[1]}"]
            curl += ["--header", f"Authorization: Bearer {(tmp_path / 'token').read_text()}"]
            curl += ["--header", "X-Forwarded-Client-Cert: By=spiffe://x/y;URI=spiffe://x/z"]
            seen = json.loads(processes.run([*curl, f"https://{HOST}/public?x=1"]).stdout)
            assert seen["path"] == "/public?x=1"
            assert seen["headers"]["host"] == HOST
            assert "x-forwarded-for" in seen["headers"]
            assert "x-forwarded-client-cert" not in seen["headers"]
