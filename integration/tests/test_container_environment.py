"""What krun-discover prints goes through ``docker run --env-file`` and comes out in the container as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from krun_testbed import components, images, processes
from krun_testbed.certificates import Authority
from krun_testbed.docker_engine import docker

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def test_values_of_every_kind_survive_an_env_file(engine: None, authority: Authority, tmp_path: Path) -> None:
    values = {
        "WORKLOAD_NAMESPACE": "demo",
        "WORKLOAD_NAME": 'it\'s "quoted" $HOME `x` \\t',
        "TRUST_DOMAIN": "tïd.example €",
        "KRUN_MESH_NAMESPACES": " a, b ",
        "CLUSTER_NAME": "# no comment = here",
        "CAROOT_ISTIOD": authority.root.decode(),
        "MESH": "static:gw.example",
    }
    env = processes.environment(**values)
    file = tmp_path / "mesh.env"
    file.write_text(processes.run([components.command("krun-discover"), "--format", "dotenv"], env=env).stdout)
    said = processes.run([components.command("krun-discover")], env=env).stdout
    printed: dict[str, str] = json.loads(said)
    assert {name: printed[name] for name in values} == values
    golden = images.tag("golden")
    done = docker("run", "--rm", "--env-file", str(file), "--entrypoint", "python3", golden, "-I", "-c", SHOW)
    inside = json.loads(done.stdout)
    for name, value in printed.items():
        # Docker refuses line breaks: they arrive as two characters, and readers of PEM take both.
        assert inside[name] == value.replace("\n", "\\n")
    # And read back by krun-discover itself, in there.
    again = docker(
        "run", "--rm", "--env-file", str(file), "--env", "NO_GCE_CHECK=true", "--entrypoint", "krun-discover", golden
    )
    assert json.loads(again.stdout) == {name: value.replace("\n", "\\n") for name, value in printed.items()}
