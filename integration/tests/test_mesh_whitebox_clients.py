"""Whitebox with clients as they are: each is given an application's environment, and calls the mesh and the world."""

from __future__ import annotations

import json
import shutil
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from krun_testbed import go_build, mesh_sockets, mesh_whitebox, mesh_workload, processes, web_peers
from krun_testbed.certificates import Authority
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_whitebox import NAME, WORLD, Scene

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

SECURE = b"the world by https"

CURL = """
set -eu
for url; do curl -sS --fail --max-time 20 "$url"; echo; done
"""
PYTHON = """
import sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url, timeout=20).read().decode())
"""
REQUESTS = """
import sys, requests
with requests.Session() as session:
    for url in sys.argv[1:]:
        print(session.get(url, timeout=20).text)
"""
GO = """
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	for _, url := range os.Args[1:] {
		answer, err := http.Get(url)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		body, _ := io.ReadAll(answer.Body)
		fmt.Println(string(body))
	}
}
"""
# Before 22.21 Node has no client that reads the variables by itself: what libraries do for it, by hand.
NODE = """
const http = require("node:http");
const https = require("node:https");
const proxy = new URL(process.env.HTTP_PROXY);
const secure = new URL(process.env.HTTPS_PROXY);
const show = (answer) => new Promise((done) => {
  let text = "";
  answer.on("data", (part) => (text += part)).on("end", () => done(console.log(text)));
});
const plain = (url) => new Promise((done) => {
  const to = { host: proxy.hostname, port: proxy.port, path: url.href, headers: { host: url.host } };
  http.get(to, (answer) => done(show(answer)));
});
const tunnelled = (url) => new Promise((done) => {
  const to = { host: secure.hostname, port: secure.port, method: "CONNECT", path: `${url.hostname}:443` };
  const through = (answer, socket) => {
    const options = { host: url.hostname, path: url.pathname, socket, agent: false, servername: url.hostname };
    https.get(options, (answer) => done(show(answer)));
  };
  http.request(to).on("connect", through).end();
});
(async () => {
  for (const text of process.argv.slice(2)) {
    const url = new URL(text);
    await (url.protocol === "https:" ? tunnelled(url) : plain(url));
  }
})();
"""
# The old client and the new one; only the old one is asked for https, to be quick.
JAVA = """
import java.net.*;
import java.net.http.*;

public class Calls {
  public static void main(String[] urls) throws Exception {
    HttpClient client = HttpClient.newHttpClient();
    for (String url : urls) {
      try (var body = URI.create(url).toURL().openStream()) {
        System.out.println(new String(body.readAllBytes()));
      }
      if (url.startsWith("http:")) {
        var answer = client.send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.body());
      }
    }
  }
}
"""


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who has signed the world's certificate."""
    return Authority()


@pytest.fixture(scope="module")
def scene(cluster: Cluster, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """With a host of the world that speaks TLS."""
    pair = authority.server(hosts=(NAME,))
    file = tmp_path_factory.mktemp("world") / "pair.pem"
    file.write_bytes(pair.chain + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with mesh_whitebox.scene(cluster) as made:

        def serve(connected: object) -> None:
            with context.wrap_socket(connected, server_side=True) as stream:  # type: ignore[arg-type]
                while b"\r\n\r\n" not in stream.recv(65536):
                    pass
                stream.sendall(web_peers.answer(200, SECURE))

        with mesh_sockets.serving(made.world.listener(WORLD, 443), serve):
            yield made


def curl(folder: Path) -> list[str]:
    return ["sh", "-c", CURL, "curl"]


def python(folder: Path) -> list[str]:
    return [sys.executable, "-I", "-c", PYTHON]


def python_requests(folder: Path) -> list[str]:
    return [sys.executable, "-I", "-c", REQUESTS]


def go(folder: Path) -> list[str]:
    (folder / "main.go").write_text(GO)
    go_build.build(["-o", str(folder / "calls")], str(folder / "main.go"), folder=folder, what="a client")
    return [str(folder / "calls")]


def node(folder: Path) -> list[str]:
    (folder / "calls.js").write_text(NODE)
    return ["node", str(folder / "calls.js")]


def java(folder: Path) -> list[str]:
    (folder / "Calls.java").write_text(JAVA)
    store = ["-keystore", str(folder / "store.p12"), "-storepass", "changeit"]
    root = ["-alias", "world", "-file", str(folder / "root.pem")]
    done = processes.run(["keytool", "-importcert", "-noprompt", *root, *store])
    assert done.returncode == 0, done.stdout
    trust = [f"-Djavax.net.ssl.trustStore={folder / 'store.p12'}", "-Djavax.net.ssl.trustStorePassword=changeit"]
    return ["java", *trust, str(folder / "Calls.java")]


# Languages of which this machine has none are not tried; Go comes from a wheel where it is missing.
CLIENTS: dict[str, Callable[[Path], list[str]]] = {
    "curl": curl,
    "python": python,
    "requests": python_requests,
    "go": go,
    **({"node": node} if shutil.which("node") else {}),
    **({"java": java} if shutil.which("java") and shutil.which("keytool") else {}),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_calls_the_mesh_and_the_world_with_the_applications_environment(
    scene: Scene, authority: Authority, client: str
) -> None:
    folder = scene.outsider.place.folder / client
    folder.mkdir()
    (folder / "root.pem").write_bytes(authority.root)
    argv = CLIENTS[client](folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    # How each is told of a root that is not the system's.
    root = str(folder / "root.pem")
    trust = {"CURL_CA_BUNDLE": root, "SSL_CERT_FILE": root, "REQUESTS_CA_BUNDLE": root, "NODE_EXTRA_CA_CERTS": root}
    environment = {**scene.outsider.environment(), **trust}
    urls = [
        "http://web:8080/a",
        f"http://{scene.host('web')}/b",
        f"http://{NAME}:9999/c",
        f"https://{NAME}/d",
    ]
    done = scene.outsider.place.run(*mesh_workload.as_app(*argv, *urls), env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines.pop().encode() == SECURE
    said = [json.loads(line) for line in lines]
    by_path = {item["path"]: item for item in said}
    assert {path: item["name"] for path, item in by_path.items()} == {"/a": "web", "/b": "web", "/c": "world"}
    for item in said:
        identity = item["headers"].get("x-forwarded-client-cert", "")
        assert (f"URI={scene.outsider.workload.identity}" in identity) == (item["name"] == "web")


GRPC_SERVER = """
import sys, grpc
from concurrent import futures
name = sys.argv[1].encode()
handlers = {"Unary": grpc.unary_unary_rpc_method_handler(lambda message, context: name)}
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("krun.Testbed", handlers),))
server.add_insecure_port("0.0.0.0:9090")
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""
GRPC_CLIENT = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.unary_unary("/krun.Testbed/Unary")
    for _ in range(60):
        print(call(b"", timeout=20).decode())
"""


def test_grpc_comes_by_connect_and_its_calls_are_led_one_by_one(scene: Scene) -> None:
    """Grpcio reads the variables by itself; its channel is one connection, for all calls."""
    with (
        processes.start(scene.web.place.inside([sys.executable, "-c", GRPC_SERVER, "web"])) as web,
        processes.start(scene.two.place.inside([sys.executable, "-c", GRPC_SERVER, "two"])) as two,
    ):
        for server in (web, two):
            server.wait_for("^ready$")
        pods = (scene.web, scene.two)
        scene.cluster.service(
            "rpc", *pods, namespace=scene.namespace, ports={"grpc": (9090, 9090)}, selector={"group": "pods"}
        )
        for pod in pods:
            pod.wait_for_config("inbound.9090")
        scene.cluster.settle(scene.outsider.place, namespace=scene.namespace)
        argv = mesh_workload.as_app(sys.executable, "-c", GRPC_CLIENT, f"rpc.{scene.namespace}:9090")
        done = scene.outsider.place.run(*argv, env=scene.outsider.environment())
    assert done.returncode == 0, done.stderr
    counted = Counter(done.stdout.split())
    assert set(counted) == {"web", "two"}
    assert min(counted.values()) > 10, counted


def test_the_proxys_variables_reach_the_application_alone(scene: Scene) -> None:
    """In both cases of letters, and with what is not to be asked of it."""
    environment = scene.outsider.environment()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        assert environment[name] == "http://127.0.0.1:15007"
    assert {"localhost", "127.0.0.1", "::1", "169.254.169.254"} <= set(environment["NO_PROXY"].split(","))
    others = scene.outsider.environments()
    assert {"pilot-agent", "envoy"} <= set(others)
    for name, variables in others.items():
        assert not [variable for variable in variables if variable.lower() == "http_proxy"], name
