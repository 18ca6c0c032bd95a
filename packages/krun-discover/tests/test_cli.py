"""The real command: precedence, defaults, formats, statuses, and what it does not do."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krun_discover import contract, render
from krun_testbed import components, processes
from krun_testbed.addresses import free_port
from krun_testbed.metadata import Facts, MetadataServer

pytestmark = pytest.mark.loopback

# Everything that discovery looks for, set.
ALL = {
    "MESH": "static:gw.example",
    "WORKLOAD_NAMESPACE": "demo",
    "WORKLOAD_NAME": "web",
    "WORKLOAD_SERVICE_ACCOUNT": "robot",
    "PROJECT_ID": "p",
    "PROJECT_NUMBER": "1",
    "CLUSTER_NAME": "c",
    "CLUSTER_LOCATION": "l",
    "TRUST_DOMAIN": "td",
    "XDS_ADDR": "x:15012",
    "MESH_TENANT": "t",
    "MCON_ADDR": "m",
    "IMCON_ADDR": "i",
    "MESH_NETWORK": "n",
    "CA_POOL": "pool",
    "CAROOT_ISTIOD": "pem",
    "OUTBOUND_IP_RANGES_INCLUDE": "10.0.0.0/8",
    "OUTBOUND_PORTS_EXCLUDE": "1",
    "STARTUP_PROBE_HTTP": "/h",
    "STARTUP_PROBE_TCP": "1",
    "PORT_http": "8081",
    "KRUN_GATEWAY": "g:1",
    "KRUN_CERTS": "/certs",
    "KRUN_MESH_NAMESPACES": "a,b",
}


def discover(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command; there is no metadata server, but for ``**at(server)``."""
    return processes.run(
        [components.command("krun-discover"), *arguments], env=processes.environment(**{"HOME": "/nonexistent", **env})
    )


def at(server: MetadataServer) -> dict[str, str]:
    """The variables that lead to a metadata server."""
    return {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": ""}


def found(**env: str) -> dict[str, str]:
    """The variables that the command prints; it must say nothing on stderr."""
    done = discover(**env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    values: dict[str, str] = json.loads(done.stdout)
    assert list(values) == sorted(values)
    return values


@pytest.fixture
def server(metadata_server: MetadataServer) -> MetadataServer:
    return metadata_server


def asked(server: MetadataServer) -> list[str]:
    return [target.removeprefix("/computeMetadata/v1/") for target in server.requests]


def test_with_nothing_set_there_are_only_defaults() -> None:
    assert found() == {
        "PORT_http": "8080",
        "TRUST_DOMAIN": "cluster.local",
        "WORKLOAD_NAME": "default",
        "WORKLOAD_NAMESPACE": "default",
        "WORKLOAD_SERVICE_ACCOUNT": "default",
    }


def test_with_everything_set_it_is_printed_and_no_request_is_made(server: MetadataServer) -> None:
    assert set(ALL) == {name for name in contract.SETS if not name.endswith("*")} | {"PORT_http", "CAROOT_ISTIOD"}
    assert found(**at(server), **ALL, K_SERVICE="svc", KUBERNETES_SERVICE_HOST="10.0.0.1") == ALL
    assert server.requests == []


def test_on_cloud_run_the_rest_comes_from_the_metadata_server(server: MetadataServer) -> None:
    server.facts = Facts(project="mesh-demo-7", number="42")
    assert found(**at(server), K_SERVICE="v2--web") == {
        "CLUSTER_LOCATION": "us-central1",
        "PORT_http": "8080",
        "PROJECT_ID": "mesh-demo-7",
        "PROJECT_NUMBER": "42",
        "TRUST_DOMAIN": "mesh-demo-7.svc.id.goog",
        "WORKLOAD_NAME": "web",
        "WORKLOAD_NAMESPACE": "demo",
        "WORKLOAD_SERVICE_ACCOUNT": "default",
    }
    assert sorted(asked(server)) == [
        "instance/region",
        "instance/service-accounts/default/email",
        "instance/service-accounts/default/token?scopes=https://www.googleapis.com/auth/cloud-platform",
        "project/attributes/mesh-namespace",
        "project/numeric-project-id",
        "project/project-id",
    ]


def test_in_gke_the_cluster_is_asked_for(server: MetadataServer) -> None:
    server.facts = Facts(
        region="",
        zone="us-east1-b",
        project_attributes={"mesh-namespace": "of-project"},
        instance_attributes={"cluster-name": "big", "cluster-location": "us-east1"},
    )
    values = found(**at(server), KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert (values["CLUSTER_NAME"], values["CLUSTER_LOCATION"]) == ("big", "us-east1")
    assert values["WORKLOAD_NAMESPACE"] == values["WORKLOAD_NAME"] == "of-project"
    server.requests.clear()
    values = found(**at(server))
    assert values["CLUSTER_LOCATION"] == "us-east1"
    assert "CLUSTER_NAME" not in values
    assert not [path for path in asked(server) if "cluster" in path]


def test_the_service_account_names_the_namespace_before_all_other_rules(server: MetadataServer) -> None:
    server.facts = Facts(
        project="a-b-c", email="k8s-mine@p.iam.gserviceaccount.com", project_attributes={"mesh-namespace": "other"}
    )
    assert found(**at(server))["WORKLOAD_NAMESPACE"] == "mine"
    assert "project/attributes/mesh-namespace" not in asked(server)


def test_each_platform_names_the_workload() -> None:
    assert found(CLOUD_RUN_JOB="job", CLOUD_RUN_WORKER_POOL="pool")["WORKLOAD_NAME"] == "job"
    assert found(CLOUD_RUN_WORKER_POOL="pool")["WORKLOAD_NAME"] == "pool"
    assert found(K_SERVICE="web")["WORKLOAD_NAME"] == "web"


def test_in_a_static_mesh_only_the_identity_is_asked_for(server: MetadataServer) -> None:
    identity = {"WORKLOAD_NAMESPACE": "demo", "TRUST_DOMAIN": "td"}
    values = found(**at(server), MESH="static:127.0.0.9:1", K_SERVICE="web", **identity)
    assert values["KRUN_GATEWAY"] == "127.0.0.9:1"
    assert server.requests == []
    values = found(**at(server), XDS_ADDR="-", WORKLOAD_NAMESPACE="demo")
    assert asked(server) == ["project/project-id"]
    assert values["TRUST_DOMAIN"] == "demo-project.svc.id.goog"
    assert values["PROJECT_ID"] == "demo-project"


# Each source against the next one below it.
@pytest.mark.parametrize(
    ("high", "low"), [("flag", "environment"), ("environment", "file"), ("file", "metadata"), ("metadata", "rule")]
)
def test_the_higher_source_wins_and_the_lower_is_told_as_lost(
    server: MetadataServer, tmp_path: Path, high: str, low: str
) -> None:
    if high == "flag":
        done = discover("--mesh", "static:a", "--explain", MESH="static:b")
        assert "MESH=static:a\n  > command line\n  x environment: static:b\n" in done.stdout
        return
    env: dict[str, str] = {}
    path = tmp_path / "mesh"
    if "file" in (high, low):
        path.write_text("WORKLOAD_NAMESPACE=of-file\n")
        env["MESH"] = f"file:{path}"
    if high == "environment":
        env["WORKLOAD_NAMESPACE"] = "of-environment"
    server.facts = Facts(project="p-of-x", email="k8s-of-metadata@p")
    assert found(**at(server), **env)["WORKLOAD_NAMESPACE"] == f"of-{high}"
    text = discover("--explain", **at(server), **env).stdout
    block = text.partition(f"WORKLOAD_NAMESPACE=of-{high}\n")[2].partition("\n\n")[0]
    winner = {"environment": "environment", "file": f"MESH=file:{path}", "metadata": "metadata: instance/service-ac"}
    assert f"  > {winner[high]}" in block
    if low == "file":
        assert f"  x MESH=file:{path}: of-file" in block
    if low == "rule":
        assert "  x rule: project id's last but one dash part: of" in block


def test_an_empty_variable_counts_as_not_set(server: MetadataServer) -> None:
    assert found(**at(server), PROJECT_ID="", MESH="")["PROJECT_ID"] == "demo-project"


def test_ports_are_passed_on_and_what_is_no_name_is_not() -> None:
    values = found(**{"PORT_grpc": "9000", "PORT_a.b": "1", "PORT_x;y": "2", "PORT_": "3", "PORT": "4", "PORT_q": ""})
    assert {name for name in values if name.startswith("PORT")} == {"PORT_http", "PORT_grpc", "PORT_a.b"}


def test_secrets_and_foreign_variables_are_never_printed() -> None:
    canary = "canary-0b5e"
    done = discover("--explain", SSH_AUTH=canary, MY_TOKEN=canary, PATH_X=canary)
    both = done.stdout + done.stderr + discover(SSH_AUTH=canary, MY_TOKEN=canary).stdout
    assert canary not in both


def test_the_gateway_follows_the_connector() -> None:
    assert found(MCON_ADDR="34.1.2.3")["KRUN_GATEWAY"] == "34.1.2.3:15443"


def test_a_mesh_file_gives_what_it_may_and_the_rest_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"TRUST_DOMAIN": "td", "PORT_x": "1", "PATH": "/evil", "SSH_AUTH": "k"}))
    done = discover(MESH=f"file:{path}")
    assert done.returncode == 0
    values = json.loads(done.stdout)
    assert values["TRUST_DOMAIN"] == "td"
    assert values["PORT_x"] == "1"
    assert "PATH" not in values
    assert "were dropped" in done.stderr
    text = discover("--explain", MESH=f"file:{path}").stdout
    assert f"Dropped, as MESH=file:{path} may not set them:\n  PATH SSH_AUTH\n" in text


def test_dotenv_that_was_printed_can_be_given_back_as_a_file(tmp_path: Path) -> None:
    first = {"KRUN_CERTS": "a b\nc", "WORKLOAD_NAMESPACE": "demo", "XDS_ADDR": "-"}
    (tmp_path / "e").write_text(discover("--format", "dotenv", **first).stdout)
    values = found(MESH=f"file:{tmp_path}/e")
    assert first.items() <= values.items()


def test_bytes_that_are_no_text_come_through(tmp_path: Path) -> None:
    done = subprocess.run(
        [components.command("krun-discover"), "--format", "shell"],
        env={**os.environb, b"NO_GCE_CHECK": b"true", b"KRUN_CERTS": b"/\xff"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"export KRUN_CERTS='/\xff'\n" in done.stdout


def test_a_shell_takes_the_output_by_eval_and_names_with_dots_are_said_to_be_left_out() -> None:
    script = """out=$(krun-discover --format shell); unset KRUN_CERTS; eval "$out"; printf %s "$KRUN_CERTS" """
    nasty = """a'b"c $(exit 3) `x` \\ \n é"""
    done = processes.run(["sh", "-c", script], env=processes.environment(KRUN_CERTS=nasty))
    assert (done.returncode, done.stdout) == (0, nasty)
    done = discover("--format", "shell", **{"PORT_a.b": "1"})
    assert "a.b=" not in done.stdout
    assert "PORT_a.b" in done.stderr


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_any_value_survives_a_real_shell(value: str) -> None:
    script = render.environment({"A": value}, style="shell") + "printf '%s.' \"$A\"\n"
    done = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True, timeout=60)
    assert done.stdout == value.encode() + b"."


def fails(status: int, /, *arguments: str, **env: str) -> str:
    """Run a command that must fail: nothing on stdout, one line and a hint on stderr, which are returned."""
    done = discover(*arguments, **env)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    line, hint = done.stderr.splitlines()[-2:]
    assert line.startswith("krun-discover: error: ")
    assert hint.startswith("hint: ")
    return done.stderr


def test_bad_settings_end_with_78_and_name_the_setting(tmp_path: Path) -> None:
    assert "no Google credentials" in fails(78, MESH="gke://p")
    assert "gke:p" in fails(78, MESH="gke:p")
    assert "no/such" in fails(78, MESH="file:no/such")
    assert "'99999' is not a port" in fails(78, MESH="static:gw:99999")
    assert "GCE_METADATA_TIMEOUT" in fails(78, GCE_METADATA_TIMEOUT="soon")
    for name in ("Demo", "a.b", "-a", "a-", "a" * 64, "a\n", "é"):
        assert "(from environment)" in fails(78, WORKLOAD_NAMESPACE=name)


def test_a_malformed_mesh_file_ends_with_65_and_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"PROJECT_NUMBER": 12}')
    text = fails(65, MESH=f"file:{path}")
    assert str(path) in text
    assert "PROJECT_NUMBER" in text


def test_bad_flags_end_with_2() -> None:
    for arguments in (["--format", "xml"], ["--timeout", "0"], ["--timeout", "nan"], ["--no-such"], ["argument"]):
        fails(2, *arguments)
    fails(2, KRUN_LOG_LEVEL="loud")


def test_a_metadata_server_that_a_platform_promises_and_is_not_there_is_69(address: str) -> None:
    nowhere = {"GCE_METADATA_HOST": f"{address}:{free_port(address=address)}", "NO_GCE_CHECK": ""}
    for platform in ("K_SERVICE", "CLOUD_RUN_JOB"):
        text = fails(69, **nowhere, **{platform: "x"})
        assert platform in text
        assert "WORKLOAD_NAMESPACE and TRUST_DOMAIN" in text
    fails(69, **nowhere, K_SERVICE="x", WORKLOAD_NAMESPACE="demo")
    identity = {"WORKLOAD_NAMESPACE": "demo", "TRUST_DOMAIN": "td"}
    assert discover(**nowhere, **identity, K_SERVICE="x").returncode == 0
    assert discover(**{**nowhere, "NO_GCE_CHECK": "true"}, K_SERVICE="x").returncode == 0
    done = discover(**nowhere)
    assert done.returncode == 0
    assert "of no use" in done.stderr
    done = discover("--explain", **nowhere, K_SERVICE="x")
    assert done.returncode == 69
    assert "WORKLOAD_NAMESPACE=default" in done.stdout


def test_a_metadata_server_that_hangs_ends_in_time(address: str) -> None:
    with socket.create_server((address, 0), backlog=16) as listener:
        where = {"GCE_METADATA_HOST": f"{address}:{listener.getsockname()[1]}", "NO_GCE_CHECK": ""}
        begun = time.monotonic()
        assert "krun-discover" in fails(75, "--timeout", "0.5", **where)
        done = discover(**where, GCE_METADATA_TIMEOUT="0.5")
        assert time.monotonic() - begun < 10
    assert done.returncode == 0
    assert json.loads(done.stdout)["TRUST_DOMAIN"] == "cluster.local"


def test_a_server_of_another_flavor_is_not_believed(server: MetadataServer) -> None:
    server.facts = replace(server.facts, flavor="")
    done = discover(**at(server))
    assert json.loads(done.stdout)["TRUST_DOMAIN"] == "cluster.local"
    assert len(server.requests) == 1
    assert "not believed" in discover("--explain", **at(server)).stdout


def test_explain_is_for_eighty_columns_and_tells_every_variable(server: MetadataServer) -> None:
    done = discover("--explain", **at(server), MESH="static:gw", K_SERVICE="web")
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for name in contract.SETS - {"PORT_*", "CAROOT_*"} | {"PORT_http"}:
        assert re.search(rf"\b{name}\b", done.stdout), name
    block = done.stdout.partition("PROJECT_NUMBER has no value\n")[2].partition("\n\n")[0]
    assert " ".join(block.split()) == (
        "- environment: not set - metadata: project/numeric-project-id: not asked: nothing needs it "
        "- cluster: not asked: nothing needs it - mesh-env: not asked: nothing needs it"
    )


def test_a_stdout_that_cannot_be_written_is_an_error_and_no_traceback() -> None:
    for redirection in (">/dev/full", ">&-"):
        done = processes.run(["sh", "-c", f"krun-discover {redirection}"])
        assert done.returncode == 69
        assert "stdout cannot be written" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_stdout_that_nobody_reads_ends_it_as_sigpipe_would() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [components.command("krun-discover")],
            env=processes.environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_and_version() -> None:
    text = discover("--help").stdout
    assert "Examples:" in text
    assert "env var: MESH" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    for name in contract.READS - {"KRUN_INIT_FD"}:
        assert name in text
    assert re.fullmatch(r"krun-discover \d+\.\d+\.\d+\n", discover("--version").stdout)


def test_with_everything_set_nothing_is_imported_that_only_the_network_needs() -> None:
    argv = [sys.executable, "-X", "importtime", components.command("krun-discover")]
    done = processes.run(argv, env=processes.environment(**{**ALL, "NO_GCE_CHECK": ""}))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "krun_discover.cli" in imported
    network = {
        "http.client",
        "ssl",
        "socket",
        "asyncio",
        "urllib.request",
        "urllib.parse",
        "yaml",
        "email",
        "threading",
    }
    slow = {
        "click",
        "logging",
        "dataclasses",
        "typing",
        "inspect",
        "pathlib",
        "tempfile",
        "signal",
        "datetime",
        "subprocess",
    }
    assert imported & (network | slow) == set()
