"""Whitebox under a real istiod: a workload outside calls the mesh and the world through its proxy, nothing captured."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from krun_testbed import components, mesh_gate, mesh_objects, mesh_pod, mesh_whitebox, mesh_workload, processes
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_cluster import OUTSIDE_RESOLVER, Cluster
from krun_testbed.mesh_whitebox import NAME, PROXY, WORLD, Scene, ask, outsider, plain_user, read_until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def scene(cluster: Cluster) -> Iterator[Scene]:
    with mesh_whitebox.scene(cluster) as made:
        yield made


def theirs(scene: Scene) -> tuple[str, str]:
    """Who calls and who is called, as both sides' certificates say."""
    return f"spiffe://cluster.local/ns/{scene.namespace}/sa/default", scene.web.identity


FORMS = ["web", "web.NS", "web.NS.svc", "web.NS.svc.cluster.local", "WEB.NS"]


@pytest.mark.parametrize("port", ["", ":80", ":8080"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_name_is_called_by_mutual_tls(scene: Scene, form: str, port: str) -> None:
    host = form.replace("NS", scene.namespace) + port
    for answer in (
        scene.outsider.call(f"http://{host}/x?y=1"),
        scene.outsider.call("/x?y=1", headers={"Host": host}),
    ):
        assert (answer.status, answer.by, answer.identities) == (200, "web", theirs(scene))
        assert answer.json["path"] == "/x?y=1"
        assert answer.json["headers"]["host"] == host
        assert not [name for name in answer.json["headers"] if name.startswith("x-krun")]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_name_is_connected_to_by_mutual_tls(scene: Scene, form: str) -> None:
    host = form.replace("NS", scene.namespace) + ":8080"
    with scene.outsider.tunnel(host) as connection:
        for _ in range(2):
            answer = ask(connection, "/")
            assert (answer.status, answer.by, answer.identities) == (200, "web", theirs(scene))
            assert not [name for name in answer.json["headers"] if name.startswith("x-krun")]


def test_a_port_whose_protocol_nobody_has_said_is_called_too(scene: Scene) -> None:
    answer = scene.outsider.call("http://auto:8181/")
    assert (answer.status, answer.by) == (200, "web")


def shares(answers: Iterator[Answer], count: int) -> float:
    """The share of answers by the first of two."""
    counted = Counter(next(answers).by for _ in range(count))
    assert set(counted) == {"web", "two"}
    return counted["web"] / count


def test_weights_of_a_virtual_service_are_followed(scene: Scene) -> None:
    weights = [
        {"destination": {"host": scene.host("web"), "port": {"number": 8080}}, "weight": 25},
        {"destination": {"host": scene.host("two"), "port": {"number": 8080}}, "weight": 75},
    ]
    with routed(scene, "split", http=[{"route": weights}]) as host:
        with scene.outsider.connection() as connection:
            share = shares((ask(connection, f"http://{host}:8080/") for _ in range(1000)), 1000)
        # Six times the standard deviation: a fair run fails once in half a billion.
        assert abs(share - 0.25) < 0.082, share
        # Who uses CONNECT for everything, as gRPC does, has the same, request by request.
        with scene.outsider.tunnel(f"{host}:8080") as connection:
            share = shares((ask(connection, "/") for _ in range(1000)), 1000)
        assert abs(share - 0.25) < 0.082, share


@contextlib.contextmanager
def routed(scene: Scene, name: str, *, http: list[dict[str, object]]) -> Iterator[str]:
    """A service of a name alone, whose routes are these; its short name, when the proxy has it."""
    scene.cluster.service(name, namespace=scene.namespace)
    routes = mesh_objects.virtual_service(name, hosts=[scene.host(name)], http=http)
    (made,) = scene.cluster.apply(routes, namespace=scene.namespace)
    scene.cluster.settle(scene.outsider.place, namespace=scene.namespace)
    try:
        yield name
    finally:
        scene.cluster.kubernetes.admin.delete(scene.cluster.kubernetes.admin.path_of(made))


def to(scene: Scene, name: str) -> list[dict[str, object]]:
    return [{"destination": {"host": scene.host(name), "port": {"number": 8080}}}]


def test_retries_timeouts_faults_and_routes_by_header_are_followed(scene: Scene) -> None:
    http: list[dict[str, object]] = [
        {"match": [{"headers": {"x-version": {"exact": "2"}}}], "route": to(scene, "two")},
        {"match": [{"uri": {"prefix": "/sleep"}}], "route": to(scene, "web"), "timeout": "0.3s"},
        {
            "match": [{"uri": {"prefix": "/abort"}}],
            "route": to(scene, "web"),
            "fault": {"abort": {"percentage": {"value": 100}, "httpStatus": 418}},
        },
        {
            "match": [{"uri": {"prefix": "/flaky"}}],
            "route": to(scene, "web"),
            "retries": {"attempts": 3, "retryOn": "5xx"},
        },
        {"match": [{"uri": {"exact": "/"}}], "route": to(scene, "web")},
    ]
    with routed(scene, "ruled", http=http) as host:
        url = f"http://{host}:8080"
        assert scene.outsider.call(f"{url}/").by == "web"
        assert scene.outsider.call(f"{url}/", headers={"x-version": "2"}).by == "two"
        assert scene.outsider.call(f"{url}/sleep/5").status == 504
        assert scene.outsider.call(f"{url}/abort").status == 418
        assert scene.outsider.call(f"{url}/flaky/{os.urandom(4).hex()}/2").status == 200
        # A path that no route has is nobody's, and not the service's own.
        assert scene.outsider.call(f"{url}/other").status == 404


def test_a_job_that_calls_at_once_is_led_by_the_routes(scene: Scene) -> None:
    """A path without a route is 404; what goes past the routes, to the service itself, is 200."""
    http: list[dict[str, object]] = [{"match": [{"uri": {"exact": "/"}}], "route": to(scene, "web")}]
    with routed(scene, "jobs", http=http) as host, scene.cluster.network.place(name="job") as place:
        place.resolver(OUTSIDE_RESOLVER)
        env = mesh_workload.environment(scene.cluster, place, name="job", namespace=scene.namespace)
        job = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", f"http://{host}:8080/other"]
        argv = place.inside([components.command("krun"), "--", *job], cwd=place.folder)
        done = processes.run(argv, env={**env, "KRUN_MODE": "whitebox", "CLOUD_RUN_JOB": "job"})
    assert (done.returncode, done.stdout) == (0, "404"), done.stderr


def test_names_outside_are_called_as_before_on_any_port(scene: Scene) -> None:
    # 8080 and 80 are ports of the mesh too, 9999 is none.
    for port in (80, 8080, 9999):
        answer = scene.outsider.call(f"http://{NAME}:{port}/a//b/../c")
        assert (answer.status, answer.by, answer.json["path"]) == (200, "world", "/a//b/../c")
        assert answer.identities == ("", "")
        with scene.outsider.tunnel(f"{NAME}:{port}") as connection:
            assert ask(connection, "/").by == "world"
    assert scene.outsider.call(f"http://{WORLD}:9999/").by == "world"
    answer = scene.outsider.call("http://unknown.example:9999/")
    assert (answer.status, answer.body[:34]) == (503, b"krun: unknown.example:9999: no ans")


def test_a_service_entry_is_led_by_the_mesh(scene: Scene) -> None:
    entry = mesh_objects.service_entry(
        "api", hosts=["api.partner.example"], ports={"http": (8080, "HTTP")}, addresses=[WORLD]
    )
    scene.cluster.apply(entry, namespace=scene.namespace)
    scene.cluster.settle(scene.outsider.place, namespace=scene.namespace)
    # No resolver knows this name.
    assert scene.outsider.call("http://api.partner.example:8080/").by == "world"
    with scene.outsider.tunnel("api.partner.example:8080") as connection:
        assert ask(connection, "/").by == "world"


def test_a_tcp_service_on_a_local_port_may_speak_first(scene: Scene) -> None:
    with (
        scene.outsider.place.connect("127.0.0.1", 6379) as local,
        scene.outsider.connect("talk:9000") as (within, status),
    ):
        assert " 200 " in status
        for connected in (local, within):
            assert read_until(connected, b"hello\r\n") == b"220 hello\r\n"
            connected.sendall(b"ehlo\n")
            assert read_until(connected, b"\n") == b"EHLO\n"


def test_a_port_that_comes_while_it_runs_is_called(scene: Scene) -> None:
    scene.cluster.service(
        "late", scene.web, namespace=scene.namespace, ports={"http": (8282, 8080)}, selector={"app": "web"}
    )
    match = [{"uri": {"exact": "/"}}]
    with routed_late(scene, match):
        processes.wait_until(
            lambda: scene.outsider.call("http://late:8282/other").status == 404, what="the port's routes are followed"
        )
        assert scene.outsider.call("http://late:8282/").identities == theirs(scene)


@contextlib.contextmanager
def routed_late(scene: Scene, match: list[dict[str, object]]) -> Iterator[None]:
    """Routes that only a proxy that knows the port follows."""
    destination = {"destination": {"host": scene.host("late"), "port": {"number": 8282}}}
    rule: dict[str, object] = {"match": match, "route": [destination]}
    made = mesh_objects.virtual_service("late", hosts=[scene.host("late")], http=[rule])
    scene.cluster.apply(made, namespace=scene.namespace)
    yield


def test_a_pod_without_a_sidecar_is_called_plain(scene: Scene) -> None:
    with scene.cluster.pod("bare", namespace=scene.namespace, sidecar=False) as bare:
        mesh_pod.wait_until_served(scene.outsider.place, bare.place.address)
        for _ in range(2):
            answer = scene.outsider.call("http://bare:8080/")
            assert (answer.by, answer.identities) == ("bare", ("", ""))
            assert scene.outsider.call("http://web:8080/").identities == theirs(scene)
        with scene.outsider.tunnel("bare:8080") as connection:
            assert ask(connection, "/").by == "bare"


def test_who_may_call_is_decided_by_our_identity(scene: Scene) -> None:
    admin = scene.cluster.kubernetes.admin

    def statuses() -> set[int]:
        with scene.outsider.tunnel("two:8080") as connection:
            return {scene.outsider.call("http://two:8080/").status, ask(connection, "/").status}

    for account, status in (("other", 403), ("default", 200)):
        principal = f"cluster.local/ns/{scene.namespace}/sa/{account}"
        rule = mesh_objects.allow("two", principals=[principal], selector={"app": "two"})
        (made,) = scene.cluster.apply(rule, namespace=scene.namespace)
        # Connections that are open go by the old rule until the sidecar has drained them.
        processes.wait_until(
            lambda wanted=status: statuses() == {wanted}, what=f"{account} may call: {status}", timeout=90
        )
        admin.delete(admin.path_of(made))
    scene.cluster.settle(scene.two.place, namespace=scene.namespace)


def test_a_websocket_passes_straight_and_within_a_connect(scene: Scene) -> None:
    upgrade = "Host: web:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    with (
        scene.outsider.place.connect("127.0.0.1", PROXY) as straight,
        scene.outsider.connect("web:8080") as (within, _),
    ):
        for connected, target in ((straight, "http://web:8080/ws"), (within, "/ws")):
            connected.sendall(f"GET {target} HTTP/1.1\r\n{upgrade}{key}".encode())
            assert b" 101 " in read_until(connected, b"\r\n\r\n")
            connected.sendall(b"\x81\x02hi")
            assert read_until(connected, b"hi") == b"\x81\x02hi"


def test_http2_is_spoken_to_the_proxy_and_within_a_connect(scene: Scene) -> None:
    known = ["--fail", "--http2-prior-knowledge", "--write-out", "%{http_version}"]
    straight = scene.outsider.workload.curl(*known, "--header", "host: web:8080", f"http://127.0.0.1:{PROXY}/")
    within = scene.outsider.workload.curl(
        *known, "--proxytunnel", "--proxy", f"http://127.0.0.1:{PROXY}", "http://web:8080/"
    )
    for said in (straight, within):
        assert said.endswith("}2")
        assert f"URI={theirs(scene)[0]}" in said


def test_a_pod_comes_in_by_a_gate(scene: Scene) -> None:
    with scene.cluster.gate() as gate:
        scene.cluster.register("outsider", gate, namespace=scene.namespace)
        name = mesh_gate.server_name(scene.host("outsider"), 8080)
        gate.lead(scene.outsider.place, name)
        scene.cluster.settle(scene.two.place, scene.outsider.place, namespace=scene.namespace)
        mesh_pod.wait_until_served(scene.two.place, gate.address)
        scene.outsider.workload.wait_for_config("127.0.0.1_15003")
        address = scene.cluster.names.names[scene.host("outsider")]
        answer = scene.two.call("http://outsider:8080/", to=address)
        assert (answer.by, answer.identities) == ("outsider", (scene.two.identity, theirs(scene)[0]))
        assert gate.names == [name]


def test_a_plain_user_without_any_right_is_a_member_too(scene: Scene) -> None:
    match = [{"uri": {"exact": "/"}}]
    with (
        plain_user(scene.cluster, namespace=scene.namespace) as user,
        routed(scene, "exact", http=[{"match": match, "route": to(scene, "web")}]) as host,
    ):
        mesh_pod.wait_until_served(user.place, scene.web.place.address)
        scene.cluster.settle(user.place, namespace=scene.namespace)
        answer = user.call(f"http://{host}:8080/")
        assert (answer.by, answer.identities) == ("web", theirs(scene))
        # Its file of ports is written, too: else this would be the service's own answer.
        processes.wait_until(
            lambda: user.call(f"http://{host}:8080/other").status == 404, what="the routes of the port are followed"
        )


def test_nothing_listens_where_the_application_may(scene: Scene) -> None:
    """Istio's own way, INTERCEPTION_MODE=NONE, takes every service's port on loopback: 8080 is a service's, too."""
    for port in (80, 9000, 8181):
        assert not scene.outsider.place.listens("127.0.0.1", port)
    with scene.outsider.place.connect("127.0.0.1", 8080) as connected:
        connected.sendall(b"GET / HTTP/1.1\r\nHost: web:8080\r\nConnection: close\r\n\r\n")
        assert b'"name": "outsider"' in b"".join(iter(lambda: connected.recv(65536), b""))


@pytest.mark.parametrize("resolution", ["DNS", "NONE"])
def test_hosts_of_service_entries_are_called_where_no_others_are(
    cluster: Cluster, scene: Scene, resolution: str
) -> None:
    """NONE is what a ServiceEntry has that says nothing, and all that one with a pattern may have."""
    namespace = cluster.namespace()
    hosts = [NAME] if resolution == "DNS" else [NAME, "*.wild.example"]
    cluster.outside.names["some.wild.example"] = WORLD
    ports = {"http": (80, "HTTP"), "tls": (8080, "TLS")}
    entry = mesh_objects.service_entry("world", hosts=hosts, ports=ports, resolution=resolution)
    entry["spec"]["exportTo"] = ["."]  # not the business of other tests
    cluster.apply(closing(), entry, namespace=namespace)
    with outsider(cluster, namespace=namespace) as closed:
        cluster.settle(closed.place, namespace=namespace)
        for host in hosts:
            called = host.replace("*", "some")
            assert closed.call(f"http://{called}/").by == "world"
            with closed.tunnel(f"{called}:8080") as connection:
                assert ask(connection, "/").by == "world"
            # Another port of the same host is none of the entry's.
            assert closed.call(f"http://{called}:9999/").status == 502


def closing() -> dict[str, object]:
    """A namespace's proxies allow no hosts that the mesh does not know."""
    policy = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "egress": [{"hosts": ["*/*"]}]}
    return {"apiVersion": mesh_objects.NETWORKING, "kind": "Sidecar", "metadata": {"name": "default"}, "spec": policy}


def test_a_mesh_that_allows_no_others_blocks_them_and_not_its_own(cluster: Cluster, scene: Scene) -> None:
    namespace = cluster.namespace()
    cluster.apply(closing(), namespace=namespace)
    with outsider(cluster, namespace=namespace) as closed:
        mesh_pod.wait_until_served(closed.place, scene.web.place.address)
        cluster.settle(closed.place, namespace=namespace)
        answer = closed.call(f"http://web.{scene.namespace}:8080/")
        assert (answer.by, answer.identities[0]) == ("web", f"spiffe://cluster.local/ns/{namespace}/sa/default")
        for port in (80, 8080, 9999):
            answer = closed.call(f"http://{NAME}:{port}/")
            assert answer.status == 502
            assert answer.body.startswith(f"krun: {NAME}".encode())
            with closed.connect(f"{NAME}:{port}") as (_, status):
                assert " 502 " in status
