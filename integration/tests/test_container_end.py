"""``docker stop`` drains a workload, whoever is PID 1 in it, and docker then has the application's own exit status."""

from __future__ import annotations

import json

import pytest

from krun_testbed import components, processes
from krun_testbed.containers import Container
from krun_testbed.containers_mesh import Mesh

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

WHOLE = ("pipeline", "entrypoint", "handmade", "file")
# The order of the end that the man page promises.
STEPS = ["not ready", "no new tunnels", "envoy drains", "inbound at zero", "app ends", "tunnels close", "helpers end"]


def steps(container: Container) -> list[object]:
    return [line["step"] for line in container.messages() if line["message"] == "end step done"]


@pytest.mark.parametrize("image", WHOLE)
def test_stop_lets_a_request_from_the_mesh_finish_and_gives_the_applications_status(
    image: str, mesh: Mesh, b: Container
) -> None:
    with mesh.workload(image, env={"STATUS": "7"}) as a:
        with b.asking("/fetch?url=http://a.demo:8080/slow/1.5") as call:
            a.wait_for("^slow begins$")
            assert a.stop() == 7
            assert call.wait() == 0
        answer = json.loads(call.stdout)
    assert answer["status"] == 200
    assert json.loads(answer["body"])["path"] == "/slow/1.5"
    # The application's request had ended before it was told to stop, and our own steps came in order.
    assert a.stdout.split("\n") == ["app listens", "slow begins", "slow ends", "app stops", ""]
    assert steps(a) == STEPS
    assert a.messages()[-1]["message"] == "ended"
    assert a.messages()[-1]["status"] == 7


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("image", WHOLE)
def test_stop_lets_a_public_request_finish_also_one_that_outlasts_the_drain(image: str, flag: str, mesh: Mesh) -> None:
    """The application waits for its requests when it is told to stop; what it then answers still gets out."""
    curl = components.program("curl", package="curl")
    env = {"STATUS": "7", "KRUN_DRAIN": "0.5" if flag == "--http1.1" else "4"}
    with mesh.workload(image, env=env, name="c") as c:
        url = f"http://{c.address()}:15009/slow/2"
        with processes.start([curl, "--silent", "--show-error", flag, "--write-out", " %{http_code}", url]) as call:
            c.wait_for("^slow begins$")
            assert c.stop() == 7
            assert call.wait() == 0, call.said()
    assert call.stdout.endswith(" 200"), call.said()
    assert json.loads(call.stdout.rpartition(" ")[0])["path"] == "/slow/2"
    assert steps(c) == STEPS


@pytest.mark.parametrize("image", WHOLE)
def test_container_ends_with_the_status_of_an_application_that_ends_by_itself(image: str, mesh: Mesh) -> None:
    with mesh.workload(image) as a:
        a.ask("/exit/3")
        assert a.wait() == 3


def test_stop_kills_an_application_that_heeds_no_signal_before_docker_kills_all(mesh: Mesh) -> None:
    deaf = "trap '' TERM; app & while :; do wait; done"
    with mesh.workload("pipeline", "sh", "-c", f'krun-discover | krun-launch -- sh -c "{deaf}"') as a:
        assert a.stop(grace=10) == 137
    # 137 is what krun-launch says of the application, while it still could: not what docker says of krun-launch.
    said = {line["message"]: line for line in a.messages()}
    assert "app" in str(said["grace is over: killed"]["part"])
    assert said["ended"]["status"] == 137


def test_failed_discovery_is_the_containers_status_and_the_application_does_not_start(mesh: Mesh) -> None:
    for image in WHOLE:
        with mesh.workload(image, env={"MESH": "nowhere:"}, ready="") as a:
            assert a.wait() == 78
            assert "app listens" not in a.stdout
            assert "krun-discover: error: " in a.stderr
