"""The steps of docs/hgate.md as admins and users take them: by kubectl itself, and envsubst."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import debian_packages, hgate_roles, hgate_rounds, kubectl, processes, tables
from krun_testbed.hgate_control import SYSTEM, Installed
from krun_testbed.kubectl import Kubectl
from krun_testbed.kubernetes import Kubernetes

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

FOLDER = tables.ROOT / "manifests"
HASH = "icq63pqnqq"
GATE = "10.1.2.3"


@pytest.fixture(scope="module", params=kubectl.chosen())
def admin(request: pytest.FixtureRequest, kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Who may do everything, and has taken the one step; Istio's kinds were there before, as with Istio."""
    hgate_rounds.definitions(kubernetes)
    made = kubectl.kubectl(request.param, kubeconfig=kubernetes.kubeconfig, home=tmp_path_factory.mktemp("admin"))
    assert "deployment.apps/hgate" in made.said("apply", "-k", str(FOLDER))
    hgate_roles.aggregate(kubernetes)
    return made


@pytest.fixture
def installed(admin: Kubectl, kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Installed]:
    """What controllers do after it; and at the end nothing is left of what was declared."""
    made = Installed(kubernetes=kubernetes, folder=tmp_path)
    made.sweep()
    made.balanced(internal=GATE)
    yield made
    made.sweep()


@pytest.fixture
def user(admin: Kubectl, kubernetes: Kubernetes, namespace: str, tmp_path: Path) -> Kubectl:
    """Somebody who has the role admin in a namespace, and nothing else."""
    name = f"user-{namespace}@example.com"
    hgate_roles.namespace_admin(kubernetes, name, namespace=namespace)
    token = kubernetes.outsider(name)
    path = kubernetes.config_for(tmp_path / "user.kubeconfig", token=token, namespace=namespace)
    return Kubectl(program=admin.program, kubeconfig=path, home=tmp_path, environment=admin.environment)


def filled(namespace: str, **names: str) -> str:
    """The template, as its first lines say that it is filled in."""
    found = debian_packages.program("envsubst", packages=["gettext-base"])
    values = {"K_SERVICE": f"web-{HASH}-uc", "WORKLOAD_NAME": "web", "WORKLOAD_SERVICE_ACCOUNT": "default"}
    values |= {"WORKLOAD_NAMESPACE": namespace, "SNI_GATE_IP": GATE, **names}
    text = (FOLDER / "sni-service-template.yaml").read_text(encoding="utf-8")
    env = {**processes.environment(), **found.environment, **values}
    argv = [found.path, " ".join(f"${name}" for name in values)]
    return subprocess.run(argv, input=text, env=env, capture_output=True, text=True, check=True).stdout


def test_the_manifests_are_applied_twice_and_the_policy_of_the_admin_stays(
    installed: Installed, admin: Kubectl, tmp_path: Path
) -> None:
    mine = tmp_path / "policy.yaml"
    text = (FOLDER / "policy.yaml").read_text(encoding="utf-8")
    mine.write_text(text.replace("projects: [own]", f"hashes: [{HASH}]"), encoding="utf-8")
    admin.said("apply", "-f", str(mine))
    again = admin.said("apply", "-k", str(FOLDER))
    # kubectl sends a budget's selector each time, whatever it is.
    others = {line for line in again.splitlines() if not line.endswith(" unchanged")}
    assert others <= {"poddisruptionbudget.policy/hgate configured"}
    kept = admin.said("get", "configmap", "hgate-policy", "-n", SYSTEM, "-o", "yaml")
    assert f"hashes: [{HASH}]" in kept


def test_the_seeds_flow_by_a_user_of_one_namespace_leads_there_after_one_word_of_the_admin(
    installed: Installed, admin: Kubectl, user: Kubectl, namespace: str
) -> None:
    with installed.replica() as gate:
        done = user("apply", "-f", "-", stdin=filled("default"))
        assert "forbidden" in done.stderr.lower()  # any namespace but the user's own
        user.said("apply", "-f", "-", stdin=filled(namespace))
        name = f"web-{HASH}-uc"
        shown = f"describe workloadentry {name}".split()
        # Nobody can tell whose project the hash is of: it is refused, and says which word is missing.
        processes.wait_until(lambda: "hashes" in user.said(*shown), what="an event says why", timeout=60, poll=0.2)
        assert gate.metric("hgate_routes") == {"": 0.0}
        said = (tables.ROOT / "docs" / "hgate.md").read_text(encoding="utf-8")
        (line,) = re.findall(r"^kubectl (.* create configmap hgate-policy .*)$", said, re.M)
        admin.said(*shlex.split(line.replace("HASH", HASH)))
        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": 1.0}, what="there is a route", timeout=60)
        assert installed.written(namespace) == set()
        user.said("delete", "-f", "-", stdin=filled(namespace))
        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": 0.0}, what="it is gone", timeout=60)


def test_an_annotation_is_enough_and_what_is_refused_says_so_where_it_stands(
    installed: Installed, user: Kubectl, namespace: str
) -> None:
    with installed.replica():
        user.said("create", "service", "clusterip", "web", "--tcp=8080:8080")
        user.said("annotate", "service", "web", "hgate.krun/url=https://web-123456789.us-central1.run.app")
        wanted = "destinationrules,workloadentries,sidecars,peerauthentications"
        processes.wait_until(
            lambda: len(user.said("get", wanted, "-o", "name").split()) == 4,
            what="all of it is written",
            timeout=60,
            poll=0.2,
        )
        user.said("annotate", "--overwrite", "service", "web", "hgate.krun/url=https://elsewhere.example")
        processes.wait_until(
            lambda: "none of Cloud Run's" in user.said("describe", "service", "web"),
            what="an event says why",
            timeout=60,
            poll=0.2,
        )
        processes.wait_until(
            lambda: not user.said("get", wanted, "-o", "name"), what="all is gone", timeout=60, poll=0.2
        )


def test_the_admins_one_step_is_taken_back_by_one(installed: Installed, admin: Kubectl, kubernetes: Kubernetes) -> None:
    said = admin.said("delete", "-k", str(FOLDER), "--wait=false")
    assert 'deployment.apps "hgate" deleted' in said
    assert not kubernetes.may("system:serviceaccount:istio-system:hgate", verb="list", resource="services")
    assert "deployment.apps/hgate created" in admin.said("apply", "-k", str(FOLDER))
