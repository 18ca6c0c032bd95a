"""Every way to put krun into an image does its job in a real container: called through the mesh, and calling out."""

from __future__ import annotations

import pytest

from krun_testbed import components, processes
from krun_testbed.containers import Container
from krun_testbed.containers_mesh import Mesh, certificate, fetch, identity

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

# How an image becomes a workload, and who is PID 1 in it.
WHOLE = {
    "pipeline": "krun-launch --init -- /bin/sh -c krun-discover | krun-launch -- app",
    "entrypoint": "krun-launch --init -- krun app",
    "handmade": "krun-launch --enter -- app",
    "file": "krun-launch --env /tmp/env.json -- app",
}


@pytest.mark.parametrize("image", WHOLE)
def test_workload_from_an_image_is_called_and_calls_through_the_mesh(image: str, mesh: Mesh, b: Container) -> None:
    with mesh.workload(image) as a:
        inward = fetch(b, "http://a.demo:8080/in")
        outward = fetch(a, "http://b.demo.svc.cluster.local:8080/out")
        first = next(process for process in a.processes() if process.pid == 1)
    assert (inward["name"], inward["path"]) == ("a", "/in")
    assert (certificate(inward)["By"], certificate(inward)["URI"]) == (identity("a"), identity("b"))
    assert (outward["name"], outward["path"]) == ("b", "/out")
    assert (certificate(outward)["By"], certificate(outward)["URI"]) == (identity("b"), identity("a"))
    assert " ".join(first.argv).endswith(WHOLE[image])


def test_image_with_hbone_alone_offers_an_applications_port_as_a_user_without_rights(mesh: Mesh) -> None:
    with mesh.plain("app") as app, mesh.plain(
        image="tunnel",
        networks=[f"container:{app.identifier}"],
        env={"KRUN_BIND": "0.0.0.0", "KRUN_OFFER": "8080"},
    ) as server:  # fmt: skip
        server.wait_for('"ready"')
        process = server.process("hboned")
        request = b"GET /tunnelled HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
        # The client from the same image, in a container of its own; and the one on this machine.
        with mesh.plain(
            *("sh", "-c", f"printf '{escaped(request)}' | hbone http://{app.address()}:15009/_hbone/8080"),
            image="tunnel",
        ) as client:
            assert client.wait() == 0
            assert '"path": "/tunnelled"' in client.stdout
        here = processes.run(
            [components.command("hbone"), f"http://{app.address()}:15009/_hbone/8080"], stdin=request.decode()
        )
        assert '"path": "/tunnelled"' in here.stdout
        assert server.stop() == 0
    assert (process.pid, process.uid, process.gid, process.effective) == (1, 1000, 1000, 0)


def escaped(text: bytes) -> str:
    return text.decode().replace("\r\n", "\\r\\n")


def test_image_with_two_tools_and_envoy_discovers_and_calls_out(mesh: Mesh) -> None:
    with mesh.workload("picked", bind="") as a:
        outward = fetch(a, "http://b/out")
        tools = a.exec("ls", "/opt/krun/bin").stdout.split()
    assert (certificate(outward)["By"], certificate(outward)["URI"]) == (identity("b"), identity("a"))
    assert {"krun-discover", "krun-launch", "envoy"} <= set(tools)
    assert set(tools) & {"hboned", "hbone", "krun-sshd", "krun-iptables", "hgate"} == set()


def test_application_reaches_a_server_that_is_no_http_and_not_in_the_mesh(mesh: Mesh) -> None:
    with mesh.workload("pipeline", ten=True) as a, mesh.service("redis") as redis:
        answer = a.ask("/tcp?to=redis.vpc.example:6379&send=PING%0D%0A")
        assert answer == {"peer": redis.address(), "said": "+PONG\r\n"}
        assert redis.address().startswith("10.")
