"""The processes of a workload in a real mesh: who they are, what they are told, and where they write."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from krun_testbed import mesh_cluster, mesh_pod, mesh_workload, processes
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_workload import Workload

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]

# Of a user who has read older texts, and of an application with secrets.
USERS = {
    "ISTIO_META_INTERCEPTION_MODE": "NONE",
    "ISTIO_META_HTTP_PROXY_PORT": "15007",
    "HTTP_PROXY_PORT": "15007",
    "DATABASE_PASSWORD": "canary",
    "NO_PROXY": "corp.example",
}


def programs(workload: Workload) -> dict[str, Path]:
    """The folders in /proc of what runs for it, by the program's name."""
    found = {}
    for pid in processes.children(workload.running.pid):
        folder = Path(f"/proc/{pid}")
        words = (folder / "cmdline").read_bytes().split(b"\0")
        name = "app" if b"krun_testbed.mesh_app" in words else Path(os.fsdecode(words[0])).name
        # A script is known by its own name, and the agent has its version in it.
        name = Path(os.fsdecode(words[1])).name if name.startswith("python") else name
        found[name.partition("-v0")[0]] = folder
    return found


def name(pid: int) -> str:
    """What ps shows of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def environment(folder: Path) -> dict[str, str]:
    """What a process was told."""
    text = (folder / "environ").read_bytes().decode(errors="surrogateescape")
    return dict(item.partition("=")[::2] for item in text.split("\0") if item)


def users(folder: Path) -> tuple[int, int]:
    """The real user and group of a process."""
    lines = dict(line.partition(":")[::2] for line in (folder / "status").read_text().splitlines())
    return int(lines["Uid"].split()[0]), int(lines["Gid"].split()[0])


def test_proxy_variables_reach_the_application_alone_and_istios_the_agent_alone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    with mesh_workload.workload(cluster, "a", namespace=namespace, env=USERS) as a:
        told = {name: environment(folder) for name, folder in programs(a).items()}
        assert {"app", "pilot-agent", "envoy", "hboned"} <= set(told)
        proxies = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
        assert proxies <= set(told["app"])
        assert told["app"]["DATABASE_PASSWORD"] == "canary"
        for name in ("pilot-agent", "envoy", "hboned"):
            assert proxies & set(told[name]) == set()
            assert "canary" not in told[name].values()
        never = set(USERS) - {"NO_PROXY"}
        assert never & {*told["pilot-agent"], *told["envoy"]} == set()
        assert [name for name in told["app"] if name.startswith(("ISTIO_", "PROXY_CONFIG", "KRUN_"))] == []
        # It is whitebox that was asked for, and it is in the mesh.
        with cluster.pod("web", namespace=namespace) as web:
            cluster.settle(a.place, web.place, namespace=namespace)
            mesh_pod.wait_until_served(a.place, web.place.address)
            assert '"name": "web"' in a.curl("--proxy", told["app"]["http_proxy"], "http://web:8080/")


@pytest.mark.parametrize("mode", ["captured", "whitebox"])
def test_the_krun_discover_that_found_the_mesh_gets_the_first_token(cluster: Cluster, mode: str) -> None:
    env = {"KRUN_MODE": mode, "KRUN_LOG_LEVEL": "debug", "KRUN_LOG_FORMAT": "text"}
    with mesh_workload.workload(cluster, "a", namespace=cluster.namespace(), env=env) as a:
        assert "goes on as krun-token part=krun-discover" in a.running.stderr


@pytest.mark.parametrize("mode", ["captured", "whitebox"])
def test_before_a_pipe_a_krun_token_that_was_loaded_ahead_gets_it(cluster: Cluster, mode: str) -> None:
    namespace = cluster.namespace()
    with cluster.network.place(name="a") as place:
        place.resolver(mesh_cluster.OUTSIDE_RESOLVER)
        told = mesh_workload.environment(cluster, place, name="a", namespace=namespace)
        env = {**told, "KRUN_MODE": mode, "KRUN_LOG_LEVEL": "debug", "KRUN_LOG_FORMAT": "text"}
        # Also of an API server within what is captured, before there is an Envoy.
        env["OUTBOUND_IP_RANGES_INCLUDE"] = "*"
        rules = "krun-iptables && " if mode == "captured" else ""
        app = shlex.join(mesh_workload.application("a"))
        argv = ["--init", "--", "sh", "-c", f"{rules}krun-discover | krun-launch -- {app}"]
        with mesh_workload.started(place, argv, env=env, command="krun-launch") as running:
            mesh_workload.wait_until_ready(running)
            assert "goes on as krun-token part=krun-token" in running.stderr
            # It is gone, as any krun-token is, and nobody waits for a command any more.
            assert "krun-token" not in {name(pid) for pid in processes.children(running.pid)}


def test_each_part_is_the_user_that_it_is_said_to_be(cluster: Cluster) -> None:
    with mesh_workload.workload(cluster, "a", namespace=cluster.namespace()) as a:
        who = {name: users(folder) for name, folder in programs(a).items()}
        assert who["pilot-agent"] == who["envoy"] == (1337, 1337)
        assert who["hboned"] == (1338, 1337)
        assert who["app"] == (mesh_workload.APP_USER, mesh_workload.APP_USER)


def test_envoys_access_log_is_written_to_our_stderr_though_it_is_another_user(cluster: Cluster) -> None:
    """Were /dev/stdout closed to Envoy, it would reject every listener."""
    namespace = cluster.namespace()
    logging = {"selector": {"matchLabels": {"app": "a"}}, "accessLogging": [{"providers": [{"name": "envoy"}]}]}
    kind = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry"}
    cluster.apply({**kind, "metadata": {"name": "logs"}, "spec": logging}, namespace=namespace)
    with (
        cluster.pod("web", namespace=namespace) as web,
        mesh_workload.workload(cluster, "a", namespace=namespace) as a,
    ):
        cluster.settle(a.place, web.place, namespace=namespace)
        mesh_pod.wait_until_served(a.place, web.place.address)
        a.curl("http://web:8080/noted")
        a.running.wait_for(r'"GET /noted HTTP/1\.1" 200')
