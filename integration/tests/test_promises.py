"""What a user of a workload is promised across the tools, on the real commands from end to end."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from krun_testbed import addresses, apps, processes
from krun_testbed.certificates import Authority, Pair, spiffe_id, write, write_workload
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.google_tokens import Issuer
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

DOMAIN = "cluster.local"
READY = r"krun-launch: ready mode=static"
ECHO = ["krun-launch", "--no-env", "--", "echo", "ran"]


def identity(account: str, *, domain: str = DOMAIN) -> str:
    return spiffe_id(trust_domain=domain, namespace="demo", account=account)


def give(directory: Path, *, authority: Authority, account: str) -> None:
    """A workload's folder, as whoever issues certificates fills it."""
    pair = authority.workload(spiffe_id=identity(account))
    write_workload(directory=directory, pair=pair, root=authority.root)


def static_environment(*, address: str, certs: Path, gateway: str = "127.0.0.1:1", **extra: str) -> dict[str, str]:
    return processes.environment(
        KRUN_LOOPBACK=address,
        KRUN_CERTS=str(certs),
        KRUN_GATEWAY=gateway,
        WORKLOAD_NAMESPACE="demo",
        KRUN_LOG_FORMAT="text",
        TMPDIR=str(certs.parent),
        **extra,
    )


@pytest.fixture
def workload(address: str, authority: Authority, tmp_path: Path) -> dict[str, str]:
    """The environment of a workload of static mode that could start."""
    give(tmp_path / "certs", authority=authority, account="w")
    return static_environment(address=address, certs=tmp_path / "certs")


def refused(env: dict[str, str], argv: Sequence[str] = ECHO) -> str:
    """What a command says that ends with 78, and has not started the application."""
    done = processes.run(argv, env=env, stdin=None)
    assert done.returncode == 78, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


# Bad certificates.


def expired(authority: Authority) -> Pair:
    return authority.workload(spiffe_id=identity("w"), life=-datetime.timedelta(minutes=1))


def not_yet_valid(authority: Authority) -> Pair:
    return authority.workload(spiffe_id=identity("w"), age=-datetime.timedelta(hours=1))


def with_another_key(authority: Authority) -> Pair:
    mine, other = (authority.workload(spiffe_id=identity("w")) for _ in range(2))
    return Pair(chain=mine.chain, key=other.key)


def of_another_root(_: Authority) -> Pair:
    return Authority(name="a stranger").workload(spiffe_id=identity("w"))


def of_another_domain(authority: Authority) -> Pair:
    return authority.workload(spiffe_id=identity("w", domain="other.example"))


def without_an_identity(authority: Authority) -> Pair:
    return authority.server(hosts=("w.example",))


@pytest.mark.parametrize(
    ("make", "file", "reason"),
    [
        (expired, "certificates.pem", "expired at "),
        (not_yet_valid, "certificates.pem", "not valid before "),
        (with_another_key, "private_key.pem", "certificates.pem"),
        (of_another_root, "certificates.pem", "is not signed by a root in ca_certificates.pem"),
        (of_another_domain, "certificates.pem", "is not in the trust domain cluster.local"),
        (without_an_identity, "certificates.pem", "SPIFFE"),
    ],
)
def test_certificate_that_does_not_fit_is_78_and_named(
    make: Callable[[Authority], Pair],
    file: str,
    reason: str,
    workload: dict[str, str],
    authority: Authority,
) -> None:
    folder = Path(workload["KRUN_CERTS"])
    write_workload(directory=folder, pair=make(authority), root=authority.root)
    said = refused(workload)
    assert f"krun-launch: error: {folder / file}: " in said
    assert reason in said
    assert "hint: " in said


# Settings that contradict each other.


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"PORT": "8080"}, ["PORT", "PORT_http", "8080"]),
        ({"PORT": "15003"}, ["PORT", "Envoy's mTLS", "15003"]),
        ({"KRUN_STATUS_PORT": "15007"}, ["KRUN_STATUS_PORT", "Envoy's HTTP proxy", "15007"]),
        ({"PORT_http": "15003"}, ["PORT_http", "Envoy's mTLS", "15003"]),
        ({"PORT_grpc": "15000"}, ["PORT_grpc", "Envoy's admin", "15000"]),
        ({"KRUN_GRACE": "3", "KRUN_DRAIN": "5"}, ["KRUN_GRACE=3", "KRUN_DRAIN=5"]),
        ({"STARTUP_PROBE_TCP": "9", "STARTUP_PROBE_HTTP": "/up"}, ["STARTUP_PROBE_TCP", "STARTUP_PROBE_HTTP"]),
        ({"TRUST_DOMAIN": "other.example"}, ["certificates.pem", "other.example"]),
        ({"KRUN_MODE": "static", "KRUN_GATEWAY": "", "MESH": ""}, ["static", "KRUN_GATEWAY"]),
        ({"KRUN_BIND": "192.0.2.1"}, ["192.0.2.1", "hboned"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_contradict_each_other_are_78_and_named(
    extra: dict[str, str], named: list[str], workload: dict[str, str]
) -> None:
    said = refused({**workload, **extra})
    assert [word for word in named if word not in said] == []


def test_gateway_that_is_the_workload_itself_is_a_contradiction(workload: dict[str, str], address: str) -> None:
    assert f"the gateway {address}:15003 is this workload itself" in refused(
        {**workload, "KRUN_GATEWAY": f"{address}:15003"}
    )


@pytest.mark.parametrize(
    ("argv", "extra", "named"),
    [
        (["hboned", "--tls-cert", "cert.pem"], {}, "--tls-key"),
        (["hbone", "b:22"], {"KRUN_ID_TOKEN_COMMAND": "t", "KRUN_ID_TOKEN_FILE": "t"}, "KRUN_ID_TOKEN_FILE"),
        (
            ["hgate", "--route", "b.demo=https://b"],
            {"KRUN_ID_TOKEN_COMMAND": "t", "KRUN_ID_TOKEN_FILE": "t"},
            "KRUN_ID_TOKEN_FILE",
        ),
        (["krun-sshd", "--auth", "ssh-ed25519 x", "--authorized-keys", "keys"], {}, "--authorized-keys"),
    ],
    ids=["hboned", "hbone", "hgate", "krun-sshd"],
)
def test_flags_that_contradict_each_other_are_78_in_every_tool(
    argv: list[str], extra: dict[str, str], named: str, address: str
) -> None:
    said = refused(processes.environment(KRUN_LOOPBACK=address, **extra), argv)
    assert named in said
    assert "hint: " in said


@pytest.mark.parametrize("port", [8080, 15000, 15003, 15007, 15009, 15019])
def test_every_port_that_is_taken_is_named_with_its_holder(port: int, workload: dict[str, str], address: str) -> None:
    with socket.create_server((address, port)):
        said = refused(workload)
    assert f"port {port} on {address}" in said
    assert f"(pid {os.getpid()})" in said


# stdin, with the timeout as users set it.


def test_pipe_held_open_without_a_byte_is_75_after_the_timeout_of_the_environment() -> None:
    env = processes.environment(KRUN_MODE="none", KRUN_ENV_TIMEOUT="0.7", KRUN_LOG_FORMAT="text")
    with processes.start(["krun-launch", "--", "echo", "ran"], env=env, stdin=subprocess.PIPE) as running:
        assert running.wait() == 75
        assert "environment from stdin: nothing came within 0.7 s" in running.stderr
        assert "ran" not in running.stdout


def test_whole_object_starts_the_workload_though_the_pipe_is_held_open(workload: dict[str, str], address: str) -> None:
    env = {**workload, "WORKLOAD_NAMESPACE": "", "KRUN_ENV_TIMEOUT": "60"}
    argv = ["krun-launch", "--", *apps.argv(address=address)]
    with processes.start(argv, env=env, stdin=subprocess.PIPE) as running:
        assert running.process.stdin is not None
        os.write(running.process.stdin.fileno(), b'{"WORKLOAD_NAMESPACE": "demo"}')
        running.wait_for(READY)
        assert not running.process.stdin.closed
        assert running.terminate() == 0


# Certificates that change, with traffic.


@dataclass(kw_only=True)
class Caller:
    """Calls one name without a pause, each call on a connection of its own to Envoy, and notes what came back."""

    address: str
    statuses: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def call(self, url: str) -> tuple[int, dict[str, str]]:
        with contextlib.closing(http.client.HTTPConnection(self.address, 15007, timeout=10)) as connection:
            connection.request("GET", url)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if answer.status == 200 else {}

    @contextlib.contextmanager
    def calling(self, url: str) -> Iterator[None]:
        def go() -> None:
            while not self._stop.is_set():
                self.statuses.append(self.call(url)[0])

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def by_rename(folder: Path, pair: Pair, root: bytes) -> None:
    write_workload(directory=folder, pair=pair, root=root)


def in_place(folder: Path, pair: Pair, root: bytes) -> None:
    """As ``cp`` does: each file is emptied and written again, so for a moment chain and key do not fit."""
    files = {"certificates.pem": pair.chain, "private_key.pem": pair.key, "ca_certificates.pem": root}
    for name, content in files.items():
        with (folder / name).open("wb", buffering=0) as file:
            for start in range(0, len(content), 100):
                file.write(content[start : start + 100])


def served(address: str) -> bytes:
    """The certificate that 15003 shows to a new connection, PEM; no client certificate is needed to see it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((address, 15003), timeout=10) as plain,
        context.wrap_socket(plain) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(der or b"").encode()


@contextlib.contextmanager
def mesh_of_one(address: str, folder: Path, authority: Authority) -> Iterator[Running]:
    """A workload that calls itself by its mesh name, over a real hgate: its certificate serves both directions."""
    give(folder / "certs", authority=authority, account="before")
    gate = f"127.0.0.1:{addresses.free_port()}"
    env = static_environment(address=address, certs=folder / "certs", gateway=gate)
    route = ["hgate", "--listen", gate, "--route", f"b.demo=http://{address}:15009"]
    argv = ["krun-launch", "--no-env", "--", *apps.argv(address=address)]
    with processes.start(route) as gateway, processes.start(argv, env=env) as running:
        gateway.wait_for("ready")
        running.wait_for(READY)
        yield running


@pytest.mark.parametrize("replace", [by_rename, in_place])
def test_certificates_that_change_are_taken_up_while_traffic_flows(
    replace: Callable[[Path, Pair, bytes], None], address: str, authority: Authority, tmp_path: Path
) -> None:
    caller = Caller(address=address)
    fresh = iter(range(8081, 9000))

    def seen() -> str:
        """What the application is told on a connection that did not exist: each port of a name has its own."""
        status, headers = caller.call(f"http://b:{next(fresh)}/headers")
        assert status == 200
        return headers["x-forwarded-client-cert"]

    with mesh_of_one(address, tmp_path, authority) as running:
        first = seen()
        assert f"By={identity('before')};" in first
        assert f"URI={identity('before')}" in first
        with caller.calling("http://b/headers"):
            pair = authority.workload(spiffe_id=identity("after"))
            replace(tmp_path / "certs", pair, authority.root)
            running.wait_for("certificates replaced")
            processes.wait_until(lambda: served(address) == pair.chain, what="15003 shows the new certificate")
            processes.wait_until(
                lambda: {f"By={identity('after')}", f"URI={identity('after')}"} <= set(seen().split(";")),
                what="both directions use the new certificate",
            )
        assert caller.statuses
        assert set(caller.statuses) == {200}
        assert running.terminate() == 0


# Names outside of the mesh.

CALL = (
    "import json, sys, urllib.request\n"
    "for url in sys.argv[1:]:\n"
    "    with urllib.request.urlopen(url, timeout=10) as answer:\n"
    "        print(json.dumps(json.load(answer)), flush=True)\n"
)


def test_names_outside_of_the_mesh_work_as_before_and_no_proxy_holds(workload: dict[str, str]) -> None:
    outside, excepted = addresses.loopback(), addresses.loopback()
    ports = {host: addresses.free_port(address=host) for host in (outside, excepted)}
    with contextlib.ExitStack() as stack:
        for host, port in ports.items():
            server = stack.enter_context(processes.start(apps.argv(address=host, port=port)))
            server.wait_for("app listens")
        urls = [f"http://{host}:{port}/headers" for host, port in ports.items()]
        # A job: its application answers on no port.
        env = {**workload, "CLOUD_RUN_JOB": "calls", "NO_PROXY": excepted}
        argv = ["krun-launch", "--no-env", "--", sys.executable, "-I", "-c", CALL, *urls]
        done = processes.run(argv, env=env, stdin=None)
    assert done.returncode == 0, done.stderr
    through, direct = (json.loads(line) for line in done.stdout.splitlines())
    assert through["host"] == f"{outside}:{ports[outside]}"
    # Only Envoy adds it: this is how a call that went through the proxy is told from one that did not.
    assert through["x-forwarded-proto"] == "http"
    assert direct["host"] == f"{excepted}:{ports[excepted]}"
    assert "x-forwarded-proto" not in direct
    assert [name for name in through | direct if name.startswith(("x-krun-", "x-envoy-", "x-forwarded-client"))] == []


# Identities on the whole way: a, hgate, Cloud Run's front, hboned, Envoy, b.

HOST = "b-424242.local1.run.app"
FORGED = f"By={identity('b')};Hash={'0' * 64};URI={identity('admin')}"
FORGE = (
    "import sys, urllib.request\n"
    f"request = urllib.request.Request('http://b/headers', headers={{'X-Forwarded-Client-Cert': {FORGED!r}}})\n"
    "print(urllib.request.urlopen(request, timeout=10).read().decode(), flush=True)\n"
)


@contextlib.contextmanager
def behind_the_front(folder: Path, authority: Authority) -> Iterator[str]:
    """Workload b behind Cloud Run's front, and a gateway to it; the gateway's HOST:PORT."""
    address, front = addresses.loopback(), addresses.free_port()
    give(folder / "b", authority=authority, account="b")
    issuer = Issuer()
    issuer.save(folder / "tokens")
    write(path=folder / "root.pem", content=authority.root)
    service = Service(
        name="b",
        host=HOST,
        command=["krun-launch", "--no-env", "--", *apps.argv(address=address)],
        env=static_environment(address=address, certs=folder / "b", KRUN_BIND=address),
        address=address,
        startup_timeout=60,
        log=folder / "b.log",
    )
    tokens = f"{sys.executable} -m krun_testbed.google_tokens id --dir {folder / 'tokens'} --audience {{audience}}"
    env = processes.environment(
        KRUN_CONNECT_TO=f"127.0.0.1:{front}",
        KRUN_CA_FILE=str(folder / "root.pem"),
        KRUN_ID_TOKEN_COMMAND=tokens,
        KRUN_LOG_FORMAT="text",
    )
    gate = f"127.0.0.1:{addresses.free_port()}"
    argv = ["hgate", "--listen", gate, "--route", f"b.demo=https://{HOST}"]
    listen = ("127.0.0.1", front)
    with (
        CloudRun(services=(service,), issuer=issuer, authority=authority, listen=listen, directory=folder),
        processes.start(argv, env=env) as running,
    ):
        running.wait_for("ready")
        yield gate


def by_hand(gate: str, folder: Path) -> dict[str, str]:
    """A client of the mesh without an Envoy of its own: nothing on its side takes the forged header away."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca_certificates.pem")
    context.check_hostname = False
    context.load_cert_chain(folder / "certificates.pem", folder / "private_key.pem")
    host, _, port = gate.partition(":")
    request = (
        "GET /headers HTTP/1.1\r\nHost: b\r\nConnection: close\r\n"
        f"x-forwarded-client-cert: {FORGED}\r\nX-Forwarded-Client-Cert: {FORGED}\r\nx-envoy-internal: true\r\n\r\n"
    )
    name = "outbound_.80_._.b.demo.svc.cluster.local"
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.sendall(request.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        headers: dict[str, str] = json.loads(answer.read())
        return headers


def test_forged_identity_of_a_mesh_client_never_reaches_the_application(
    address: str, authority: Authority, tmp_path: Path
) -> None:
    give(tmp_path / "a", authority=authority, account="a")
    with behind_the_front(tmp_path, authority) as gate:
        env = static_environment(address=address, certs=tmp_path / "a", gateway=gate, CLOUD_RUN_JOB="calls")
        argv = ["krun-launch", "--no-env", "--", sys.executable, "-I", "-c", FORGE]
        done = processes.run(argv, env=env, stdin=None)
        assert done.returncode == 0, done.stderr
        seen = [json.loads(done.stdout), by_hand(gate, tmp_path / "a")]
    for headers in seen:
        words = headers["x-forwarded-client-cert"].split(";")
        assert identity("admin") not in str(headers)
        assert "," not in headers["x-forwarded-client-cert"]
        assert words.count(f"By={identity('b')}") == 1
        assert words.count(f"URI={identity('a')}") == 1
        assert "x-envoy-internal" not in headers
        # The front's ID token is the front's business.
        assert "authorization" not in str(headers).lower()


def test_certificates_made_by_the_testbeds_command_start_a_workload(address: str, tmp_path: Path) -> None:
    maker = [sys.executable, "-m", "krun_testbed.certificates", str(tmp_path), "--workload", f"w={identity('w')}"]
    assert processes.run(maker).returncode == 0
    assert (tmp_path / "w" / "private_key.pem").stat().st_mode & 0o777 == 0o600
    argv = ["krun-launch", "--no-env", "--", *apps.argv(address=address)]
    with processes.start(argv, env=static_environment(address=address, certs=tmp_path / "w")) as running:
        running.wait_for(READY)
        assert running.terminate() == 0
