"""A workload that is captured, in a real container: a plain client in the mesh, and nothing else touched."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from krun_testbed import processes
from krun_testbed.containers import Container
from krun_testbed.containers_mesh import Mesh, certificate, fetch, identity

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

ADMIN = ["NET_ADMIN"]
# Envoy's own count of how often the gateway's name was answered.
LOOKED_UP = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:15000/stats?filter=cluster.gateway.update_success").read().decode())
"""
VIRTUAL = "240.240.0.1"
READY = r'"message": "ready", "mode": "static", "interception": "captured"'
# Every form of a name, with and without its port.
NAMES = ("b", "b.demo", "b.demo.svc", "b.demo.svc.cluster.local", "B.Demo")


@pytest.fixture(scope="module")
def captured(mesh: Mesh) -> Iterator[Container]:
    """One workload for the tests that only ask: ``krun app``, with the right to intercept."""
    with mesh.workload("entrypoint", cap_add=ADMIN, ten=True, ready=READY) as a:
        yield a


@pytest.mark.parametrize("port", ["", ":80", ":8080"])
@pytest.mark.parametrize("name", NAMES)
def test_plain_client_calls_the_mesh_by_every_form_of_a_name(name: str, port: str, captured: Container) -> None:
    seen = fetch(captured, f"http://{name}{port}/out")
    assert (seen["name"], seen["path"]) == ("b", "/out")
    assert (certificate(seen)["By"], certificate(seen)["URI"]) == (identity("b"), identity("a"))


def test_application_has_no_proxy_in_its_environment(captured: Container) -> None:
    app = captured.process("/usr/local/bin/app")
    names = captured.exec("cat", f"/proc/{app.pid}/environ", user="65532:65532").stdout.split("\0")
    assert [name for name in names if "proxy" in name.lower()] == []
    assert "PORT=8080" in names


def test_mesh_calls_a_captured_workload(captured: Container, b: Container) -> None:
    seen = fetch(b, "http://a.demo:8080/in")
    assert (certificate(seen)["By"], certificate(seen)["URI"]) == (identity("a"), identity("b"))


def test_names_of_the_mesh_have_the_virtual_address_and_others_their_own(captured: Container, mesh: Mesh) -> None:
    assert captured.ask("/name?name=b") == {"addresses": [VIRTUAL]}
    assert captured.ask("/name?name=nobody.demo") == {"addresses": [VIRTUAL]}
    with mesh.service("redis") as redis:
        # Docker's own resolver, by a name that is none of the mesh's.
        outside = redis.exec("hostname").stdout.strip()
        assert captured.ask(f"/name?name={outside}.{mesh.ten}") == {"addresses": [redis.address()]}
    assert "why" in captured.ask("/name?name=no.such.host.example")


@pytest.mark.parametrize("include", ["", "*", "10.0.0.0/8"])
def test_server_that_speaks_first_or_is_no_http_is_reached_as_ever(include: str, mesh: Mesh) -> None:
    """Also when its address is intercepted: Redis answers, and a server that speaks first is not waited for."""
    env = {"OUTBOUND_IP_RANGES_INCLUDE": include}
    with mesh.workload("entrypoint", cap_add=ADMIN, ten=True, env=env, name="c") as c, mesh.service("redis") as redis:
        assert c.ask(f"/tcp?to={redis.address()}:6379&send=PING%0D%0A") == {
            "peer": redis.address(),
            "said": "+PONG\r\n",
        }
        with greeter(gateway(mesh.ten, redis)) as (host, port):
            assert c.ask(f"/tcp?to={host}:{port}") == {"peer": host, "said": "220 hello\r\n"}
        wanted = f"{include},240.240.0.0/16".removeprefix(",") if include != "*" else "0.0.0.0/0"
        saved = c.exec("sh", "-c", "iptables-legacy-save -t nat; iptables-nft-save -t nat").stdout
        for network in wanted.split(","):
            where = "" if network == "0.0.0.0/0" else f"-d {network} "
            assert f"-A ISTIO_OUTPUT {where}-j ISTIO_REDIRECT" in saved


def gateway(network: str, container: Container) -> str:
    """This machine's address in a container's network."""
    return container.address(network).rpartition(".")[0] + ".1"


class greeter:
    """A server that speaks first, on this machine."""

    def __init__(self, address: str) -> None:
        self._server = socket.create_server((address, 0))

    def __enter__(self) -> tuple[str, int]:
        threading.Thread(target=self._greet, daemon=True).start()
        host, port = self._server.getsockname()
        return str(host), int(port)

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _greet(self) -> None:
        client, _ = self._server.accept()
        with client:
            client.sendall(b"220 hello\r\n")


def test_request_that_names_nobody_of_the_mesh_is_refused_at_the_meshs_address(captured: Container) -> None:
    request = "GET / HTTP/1.1%0D%0AHost: example.com%0D%0A%0D%0A".replace(" ", "%20")
    answer = captured.ask(f"/tcp?to={VIRTUAL}:80&send={request}")
    assert "421" in str(answer["said"]), answer


def test_whoever_dials_the_captured_port_itself_gets_nothing_and_makes_no_circle(captured: Container) -> None:
    answer = captured.ask("/tcp?to=127.0.0.1:15001&send=hello%0A")
    assert answer.get("said", "") == "", answer


@pytest.mark.parametrize("gateway", ["gate", "gate.demo"])
def test_gateway_stays_reached_whatever_its_name_looks_like(gateway: str, mesh: Mesh) -> None:
    """Envoy looks its name up again and again: long after the resolver's file was made the application's."""
    env = {"MESH": f"static:{gateway}:15442"}
    with (
        mesh.service("gate") as gate,
        mesh.workload(
            "entrypoint",
            cap_add=ADMIN,
            name="c",
            ready=READY,
            env=env,
            options=("--add-host", f"gate.demo:{gate.address()}"),
        ) as c,
    ):

        def looked_up() -> bool:
            return int(c.exec("python3", "-I", "-c", LOOKED_UP).stdout.rpartition(": ")[2]) > 1

        processes.wait_until(looked_up, what="Envoy has looked the gateway up again", poll=0.5)
        assert fetch(c, "http://b/after")["name"] == "b"


# Who runs as whom


def test_every_part_is_who_it_should_be_and_has_no_right_too_much(captured: Container) -> None:
    found = {
        name: captured.process(pattern)
        for name, pattern in {
            "launch": "krun-launch --enter",
            "envoy": "envoy --config-path",
            "hboned": "hboned$",
            "relay": "names_relay",
            "app": "/usr/local/bin/app$",
        }.items()
    }
    assert found.pop("launch").uid == 0
    assert {name: (process.uid, process.gid, process.groups) for name, process in found.items()} == {
        "envoy": (1337, 1337, [1337]),
        "hboned": (1338, 1337, [1337]),
        "relay": (1339, 1337, [1337]),
        "app": (65532, 65532, [65532]),
    }
    network = 1 << 12 | 1 << 13  # NET_ADMIN, NET_RAW
    for name in ("envoy", "hboned"):
        assert (found[name].effective, found[name].bounding) == (0, 0)
    assert (found["relay"].effective, found["relay"].bounding) == (1 << 10, 1 << 10)  # NET_BIND_SERVICE
    assert found["app"].effective == 0
    assert found["app"].bounding & network == 0
    assert all(process.no_new_privs for process in found.values())


def test_application_reads_no_key_and_flushes_no_rule(captured: Container) -> None:
    keys = captured.exec("sh", "-c", "ls /certs/* /tmp/krun-launch-*/* /tmp/krun-launch-*/*/*/*", check=False).stdout
    files = [line for line in keys.split() if line.endswith((".pem", ".json"))]
    assert any("/certs/live/" in file or "/gen-" in file for file in files), files
    for file in files:
        assert captured.ask(f"/read?path={file}") == {"readable": False, "why": "Permission denied"}, file
    launch = captured.process("krun-launch --enter")
    assert captured.ask(f"/read?path=/proc/{launch.pid}/environ")["readable"] is False
    for kind in ("legacy", "nft"):
        flush = captured.exec(f"iptables-{kind}", "-t", "nat", "-F", user="65532:65532", check=False)
        assert flush.returncode != 0
    assert fetch(captured, "http://b/after")["name"] == "b"


def test_application_that_stays_root_cannot_change_the_network(mesh: Mesh) -> None:
    with mesh.workload("entrypoint", cap_add=ADMIN, env={"K8S_UID": ""}, name="c") as c:
        app = c.process("/usr/local/bin/app$")
        assert (app.uid, app.no_new_privs) == (0, True)
        assert (app.effective | app.bounding) & (1 << 12 | 1 << 13) == 0
        # As one of its children: a shell with the same rights.
        flush = c.exec(
            *("setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw", "--no-new-privs"),
            *("iptables-legacy", "-t", "nat", "-F"),
            check=False,
        )
        assert flush.returncode != 0
        assert fetch(c, "http://b/after")["name"] == "b"


# Without the right


def test_without_the_right_it_is_whitebox_and_says_so(mesh: Mesh) -> None:
    with mesh.workload("entrypoint", name="c") as c:
        said = [str(line["message"]) for line in c.messages()]
        assert any("nothing is intercepted, though it was tried" in message for message in said)
        ready = next(line for line in c.messages() if line["message"] == "ready")
        assert (ready["mode"], ready["interception"]) == ("static", "whitebox")
        assert fetch(c, "http://b.demo/out")["name"] == "b"


@pytest.mark.parametrize("env", [{"KRUN_MODE": "captured"}, {"KRUN_FALLBACK": "deny"}])
@pytest.mark.parametrize("image", ["entrypoint", "pipeline"])
def test_what_was_asked_for_and_is_not_permitted_is_77(image: str, env: dict[str, str], mesh: Mesh) -> None:
    with mesh.workload(image, env=env, name="c", ready="") as c:
        assert c.wait() == 77
        assert "app listens" not in c.stdout
        assert "krun-launch: error: " in c.stderr
        assert "NET_ADMIN" in c.stderr


def test_user_without_root_asks_for_captured_in_vain(mesh: Mesh) -> None:
    env = {"KRUN_MODE": "captured", "K8S_UID": ""}
    with mesh.workload("entrypoint", env=env, cap_add=ADMIN, name="c", user="65532", ready="") as c:
        assert c.wait() == 77
        assert "not root" in c.stderr


def test_rules_that_cannot_be_made_for_another_reason_end_the_start(mesh: Mesh) -> None:
    with mesh.workload("entrypoint", cap_add=ADMIN, env={"OUTBOUND_PORTS_EXCLUDE": "70000"}, name="c", ready="") as c:
        assert c.wait() == 78
        assert "krun-iptables ended with 78" in c.stderr
        assert "app listens" not in c.stdout


def test_rules_of_somebody_else_before_are_found(mesh: Mesh) -> None:
    command = (
        "sh",
        "-c",
        "OUTBOUND_IP_RANGES_INCLUDE=240.240.0.0/16 krun-iptables && krun-discover | krun-launch -- app",
    )
    with mesh.workload("pipeline", *command, cap_add=ADMIN, name="c", ready=READY) as c:
        assert fetch(c, "http://b/out")["name"] == "b"


# The end


def test_captured_workload_drains_and_gives_the_resolver_back(mesh: Mesh, b: Container) -> None:
    with mesh.workload("entrypoint", cap_add=ADMIN, name="c", env={"STATUS": "7"}, ready=READY) as c:
        assert "krun-launch answers names" in c.exec("cat", "/etc/resolv.conf").stdout
        with b.asking("/fetch?url=http://c.demo:8080/slow/1.5") as call:
            c.wait_for("^slow begins$")
            assert c.stop() == 7
            assert call.wait() == 0
        assert json.loads(call.stdout)["status"] == 200


def test_neighbour_finds_only_the_promised_port_of_a_captured_workload(mesh: Mesh) -> None:
    with mesh.workload("entrypoint", cap_add=ADMIN, name="c", ready=READY) as c:
        assert mesh.scan(c.address()) == [15009]
