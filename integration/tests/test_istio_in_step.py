"""What krun starts and writes is what Istio does in its injection template and on VMs, but for a list with reasons."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from krun_testbed import (
    istio_build,
    istio_step,
    istio_step_agent,
    istio_step_machine,
    istio_step_template,
    processes,
    tables,
)
from krun_testbed.istio_step import Istio, Krun, differences
from krun_testbed.istio_step_list import LIST, decisions, stale, undecided
from krun_testbed.istio_step_template import Unreadable

pytestmark = pytest.mark.mesh

VERSIONS = tuple(
    dict.fromkeys((*istio_build.VERSIONS, *(istio_build.version_of(word) for word in istio_build.chosen())))
)


@pytest.fixture(scope="module")
def istio() -> dict[str, Istio]:
    """All versions, by name."""
    return {version: istio_step.istio(version) for version in VERSIONS}


@pytest.fixture(scope="module")
def krun(istio: dict[str, Istio]) -> Krun:
    """This tree."""
    return istio_step.krun(tuple(istio.values()))


@pytest.fixture(scope="module")
def newest(istio: dict[str, Istio]) -> Istio:
    """The one that a test changes."""
    return istio[istio_build.NEWEST]


def news(changed: Istio, krun: Krun, *, since: Istio) -> set[str]:
    """What is to be decided of a version, and was not before."""
    return set(undecided(differences(changed, krun), decisions())) - set(
        undecided(differences(since, krun), decisions())
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_every_difference_is_on_the_list_with_its_reason(version: str, istio: dict[str, Istio], krun: Krun) -> None:
    assert undecided(differences(istio[version], krun), decisions()) == ()


def test_every_row_of_the_list_is_a_difference_still(istio: dict[str, Istio], krun: Krun) -> None:
    found = [one for version in istio.values() for one in differences(version, krun)]
    assert stale(found, decisions()) == ()


def test_the_list_names_the_versions_that_tests_know() -> None:
    text = LIST.read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(v0\.0\.0-[\w-]+)` \|", text, re.MULTILINE)) == istio_build.VERSIONS


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "    - name: ISTIO_META_NODE_NAME\n",
            "    - name: ISTIO_NEWLY\n      value: x\n    - name: ISTIO_META_NODE_NAME\n",
            "Variables: ISTIO_NEWLY: Istio: Pods; krun: never: not on the list",
        ),
        (
            "    {{- if .Values.global.network }}\n",
            "    {{- if .Values.global.newly }}\n    - name: NEWLY\n      value: x\n    {{- end }}\n"
            "    {{- if .Values.global.network }}\n",
            "Variables: NEWLY: Istio: Pods at times; krun: never: not on the list",
        ),
        ("    - sidecar\n", "    - sidecar\n    - --newly=x\n", "Arguments: --newly: Istio: always; krun: never"),
        (
            "$(POD_NAMESPACE).svc.{{ .Values.global.proxy.clusterDomain }}",
            "svc.{{ .Values.global.proxy.clusterDomain }}",
            "Arguments: --domain: Istio: svc.…; krun: demo.svc.cluster.local: not on the list",
        ),
        (
            "  labels:\n",
            "  labels:\n    istio.io/newly: yes\n",
            "Labels and annotations: istio.io/newly: Istio: always; krun: never",
        ),
        (
            '`security.istio.io/tlsMode` | default "istio"',
            '`security.istio.io/tlsMode` | default "strict"',
            "Labels and annotations: security.istio.io/tlsMode: Istio: strict; krun: istio",
        ),
        (
            "    - mountPath: /var/run/secrets/tokens\n",
            "    - mountPath: /var/run/newly\n      name: newly\n    - mountPath: /var/run/secrets/tokens\n",
            "Files: /var/run/newly: Istio: always; krun: never",
        ),
        (
            '    - "15090,15021"\n  {{- end }}\n',
            '    - "15090,15021"\n  {{- end }}\n    - "--newly"\n',
            "Rules: --newly: Istio: always; krun: not taken",
        ),
        (
            '{{ .MeshConfig.ProxyListenPort | default "15001" | quote }}',
            '{{ .MeshConfig.ProxyListenPort | default "15101" | quote }}',
            "Rules: -p: Istio: 15101; krun: without 15101",
        ),
        (
            "    {{ if $nativeSidecar }}restartPolicy: Always{{end}}\n",
            "    terminationGracePeriodSeconds: 5\n",
            "Container: terminationGracePeriodSeconds: Istio: 5: not on the list",
        ),
        (
            'runAsUser: {{ .ProxyUID | default "1337" }}\n      runAsGroup',
            'runAsUser: {{ .ProxyUID | default "1447" }}\n      runAsGroup',
            "Container: securityContext.runAsUser: Istio: 0 1447; krun: 1337",
        ),
        (
            "        port: 15021\n      initialDelaySeconds: {{",
            "        port: 15121\n      initialDelaySeconds: {{",
            "Container: readinessProbe: Istio: httpGet.path=/healthz/ready httpGet.port=15121",
        ),
    ],
)
def test_what_is_new_in_the_template_fails_until_it_is_decided(
    old: str, new: str, said: str, newest: Istio, krun: Krun
) -> None:
    text = (istio_build.source() / istio_step_template.PATH).read_text(encoding="utf-8")
    assert old in text, "the template is not what it was: change this test's examples"
    changed = replace(newest, template=istio_step_template.parse(text.replace(old, new)))
    (told,) = news(changed, _asked(changed, krun), since=newest)
    assert told.startswith(said)
    assert "docs/istio.md" in told


def test_a_template_that_says_the_same_in_another_way_has_the_same_differences(newest: Istio, krun: Krun) -> None:
    text = (istio_build.source() / istio_step_template.PATH).read_text(encoding="utf-8")
    # As another commit of Istio has it.
    old = "- --proxyLogLevel={{ annotation .ObjectMeta `sidecar.istio.io/logLevel` .Values.global.proxy.logLevel }}"
    assert old in text, "the template is not what it was: change this test's example"
    new = '- {{ printf "--proxyLogLevel=%s" (annotation .ObjectMeta `sidecar.istio.io/logLevel` .Values.x) | quote }}'
    changed = replace(newest, template=istio_step_template.parse(text.replace(old, new)))
    assert differences(changed, krun) == differences(newest, krun)


def _asked(istio: Istio, krun: Krun) -> Krun:
    """As if krun-iptables had been asked about new flags: it was about the old ones."""
    return replace(krun, rules={**dict.fromkeys(istio.template.rules, False), **krun.rules})


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("script", "NS=${ISTIO_NAMESPACE:-default}", "NS=${ISTIO_NEWLY:-default}", "Settings of a VM: ISTIO_NEWLY"),
        ("script", "export CA_ADDR\n", "export CA_ADDR\nexport ISTIO_NEWLY\n", "Variables: ISTIO_NEWLY: Istio: VMs"),
        ("script", "ISTIO_LOG_DIR:-./var/log/istio", "ISTIO_LOG_DIR:-./var/log/newly", "Files: /var/log/newly"),
        ("settings", "# ISTIO_SVC_IP=\n", "# ISTIO_SVC_IP=\n# ISTIO_NEWLY=\n", "Settings of a VM: ISTIO_NEWLY"),
        ("unit", "TimeoutStopSec=30s", "TimeoutStopSec=60s", "Unit of a VM: TimeoutStopSec: Istio: 60s: docs/istio.md"),
        (
            "cluster",
            'overrides["CA_ADDR"]',
            'overrides["ISTIO_NEWLY"]',
            "Settings of a VM: ISTIO_NEWLY: Istio: read; krun: never: not on the list",
        ),
    ],
)
def test_what_is_new_on_vms_fails_until_it_is_decided(
    file: str, old: str, new: str, said: str, newest: Istio, krun: Krun
) -> None:
    names = {
        "script": istio_step_machine.SCRIPT,
        "settings": istio_step_machine.SETTINGS,
        "unit": istio_step_machine.UNIT,
        "cluster": istio_step_machine.CLUSTER,
    }
    source = istio_build.source()
    texts = {name: (source / path).read_text(encoding="utf-8") for name, path in names.items()}
    assert old in texts[file], f"{names[file]} is not what it was: change this test's examples"
    texts[file] = texts[file].replace(old, new)
    changed = replace(newest, machine=istio_step_machine.parse(**texts))
    (told,) = news(changed, krun, since=newest)
    assert told.startswith(said)


def test_a_new_variable_that_the_agent_reads_fails_until_it_is_decided(
    newest: Istio, krun: Krun, tmp_path: Path
) -> None:
    source = istio_build.source()
    for folder in (*istio_step_agent.FOLDERS, istio_step_agent.FEATURES):
        shutil.copytree(source / folder, tmp_path / folder, copy_function=shutil.copyfile)
        for path in (tmp_path / folder, *(tmp_path / folder).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    code = 'package options\n\nvar newly = env.Register("ISTIO_NEWLY", false, "new").Get()\n'
    (tmp_path / "pilot/cmd/pilot-agent/options/newly.go").write_text(code, encoding="utf-8")
    changed = replace(newest, variables=istio_step_agent.variables(tmp_path))
    (told,) = news(changed, krun, since=newest)
    assert told.startswith("Variables: ISTIO_NEWLY: Istio: read; krun: never: not on the list")


def test_what_the_agent_says_that_it_reads_is_what_its_source_says() -> None:
    built = {version: istio_build.binary(version=version) for version in VERSIONS}
    programs = {version: program for version, program in built.items() if program.exists()}
    assert programs
    for version, program in programs.items():
        assert istio_step_agent.strays(istio_build.source(version=version), program) == frozenset(), version


def test_a_flag_that_the_agent_would_drop_without_a_word_is_a_difference(istio: dict[str, Istio], krun: Krun) -> None:
    built = next(one for one in istio.values() if one.flags)
    ours = replace(krun.ours, arguments={**krun.ours.arguments, "--newly": "x"})
    found = differences(built, replace(krun, ours=ours))
    assert [str(one) for one in found if one.name == "--newly"] == [
        "Arguments: --newly: Istio: not known; krun: always"
    ]


@pytest.mark.parametrize("gone", ["app", "service.istio.io/canonical-name"])
def test_a_label_that_krun_leaves_out_is_seen(gone: str, newest: Istio, krun: Krun) -> None:
    labels = {name: value for name, value in krun.ours.labels.items() if name != gone}
    found = differences(newest, replace(krun, ours=replace(krun.ours, labels=labels)))
    told = (*undecided(found, decisions()), *stale(found, decisions()))
    assert [line for line in told if f"Labels and annotations: {gone}: " in line] != []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- name: istio-proxy\n", "- name: proxy\n"),
        ("    args:\n    - proxy\n", "    command:\n    - proxy\n"),
        ("{{ $tproxy := ", "{{ if true }}{{ $tproxy := "),
    ],
)
def test_a_template_that_is_written_otherwise_is_an_error_and_not_a_list_without_differences(
    old: str, new: str
) -> None:
    text = (istio_build.source() / istio_step_template.PATH).read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(Unreadable):
        istio_step_template.parse(text.replace(old, new))


def test_a_row_without_a_reason_decides_nothing(newest: Istio, krun: Krun) -> None:
    listed = [replace(row, why="") if row.name == "--stsPort" else row for row in decisions()]
    said = "Arguments: --stsPort: Istio: at times; krun: never: docs/istio.md, ## Arguments: its row has no reason"
    assert said in undecided(differences(newest, krun), listed)


def test_the_command_says_how_many_differences_a_version_has() -> None:
    version = istio_build.version_of(istio_build.chosen()[0])
    argv = [sys.executable, "-m", "krun_testbed.istio_step", "--version", version]
    # Go is where this machine has it.
    done = processes.run(argv, cwd=tables.ROOT, env=dict(os.environ), stdin=None, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    pattern = rf"Istio {version}: \d\d+ differences, all on the list of docs/istio\.md\n"
    assert re.fullmatch(pattern, done.stdout)
