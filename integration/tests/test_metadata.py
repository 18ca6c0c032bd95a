"""The stand-in for the metadata server, as a program and as a part of tests."""

from __future__ import annotations

import http.client
import json
import sys
from dataclasses import replace

import pytest

from krun_testbed import components, processes
from krun_testbed.metadata import Facts, MetadataServer

pytestmark = pytest.mark.loopback

FLAVOR = {"Metadata-Flavor": "Google"}
ACCOUNT = "instance/service-accounts/default"


def get(where: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, http.client.HTTPMessage]:
    """Ask, by default as a client of Google's does."""
    connection = http.client.HTTPConnection(where, timeout=10)
    try:
        target = path if path.startswith("/") else f"/computeMetadata/v1/{path}"
        connection.request("GET", target, headers=FLAVOR if headers is None else headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


def test_it_answers_the_paths_of_the_real_one(address: str) -> None:
    facts = Facts(number="7", project_attributes={"mesh-namespace": "demo"}, instance_attributes={"cluster-name": "c"})
    wanted = {
        "project/project-id": "demo-project",
        "project/numeric-project-id": "7",
        "project/attributes/mesh-namespace": "demo",
        "instance/attributes/cluster-name": "c",
        "instance/region": "projects/7/regions/us-central1",
        "instance/zone": "projects/7/zones/us-central1-1",
        f"{ACCOUNT}/email": facts.email,
        f"instance/service-accounts/{facts.email}/email": facts.email,
        f"{ACCOUNT}/scopes": "https://www.googleapis.com/auth/cloud-platform\n",
    }
    with MetadataServer(address=address, facts=facts) as server:
        for path, text in wanted.items():
            status, body, headers = get(server.address, path)
            assert (status, body) == (200, text)
            assert headers["Metadata-Flavor"] == "Google"
            assert headers["Server"] == "Metadata Server for Serverless"
        status, body, _ = get(server.address, f"{ACCOUNT}/?recursive=true")
        assert json.loads(body)["email"] == facts.email
        assert len(server.requests) == len(wanted) + 1


def test_it_refuses_who_does_not_show_the_header_and_what_it_does_not_know(address: str) -> None:
    with MetadataServer(address=address) as server:
        assert get(server.address, "project/project-id", {})[0] == 403
        assert get(server.address, "project/project-id", {**FLAVOR, "X-Forwarded-For": "1.2.3.4"})[0] == 403
        assert get(server.address, "/", {})[0] == 200
        for path in ("project/attributes/none", "instance/none", f"{ACCOUNT}/token", f"{ACCOUNT}/identity?audience=a"):
            assert get(server.address, path)[0] == 404, path
        server.facts = replace(server.facts, project="")
        assert get(server.address, "project/project-id")[0] == 404


def test_tokens_are_made_by_who_was_given(address: str) -> None:
    with MetadataServer(address=address, identity=lambda a: f"id for {a}", token=lambda s: f"for {s}") as server:
        assert get(server.address, f"{ACCOUNT}/identity?audience=https%3A%2F%2Fx&format=full")[1] == "id for https://x"
        assert get(server.address, f"{ACCOUNT}/identity")[0] == 400
        token = json.loads(get(server.address, f"{ACCOUNT}/token?scopes=a,b")[1])
        assert token == {"access_token": "for a,b", "expires_in": 3599, "token_type": "Bearer"}


def test_it_runs_alone_and_serves_the_real_command(address: str) -> None:
    argv = [sys.executable, "-m", "krun_testbed.metadata", "--listen", f"{address}:0", "--project", "a-b-c"]
    argv += ["--identity-command", "echo 'token for' {audience}", "--token-command", "false"]
    argv += ["--project-attribute", "mesh-namespace=demo"]
    with processes.start(argv) as running:
        where = running.wait_for(r"ready address=(\S+)$")[1]
        env = processes.environment(NO_GCE_CHECK="", GCE_METADATA_HOST=where, XDS_ADDR="istiod.example:15010")
        values = json.loads(processes.run([components.command("krun-discover")], env=env).stdout)
        assert (values["PROJECT_ID"], values["WORKLOAD_NAMESPACE"]) == ("a-b-c", "demo")
        assert get(where, f"{ACCOUNT}/identity?audience=x%20y")[1] == "token for x y"
        assert get(where, f"{ACCOUNT}/token")[0] == 500
        assert running.terminate() == 0


def test_a_bad_flag_is_a_usage_error() -> None:
    for flag in (["--listen", "nowhere"], ["--project-attribute", "x"]):
        done = processes.run([sys.executable, "-m", "krun_testbed.metadata", *flag])
        assert done.returncode == 2
        assert "Error: " in done.stderr
