"""Credential plugins: what they are told, what they may answer, and what is said of those that fail."""

from __future__ import annotations

import datetime
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import exec_plugin, kube_exec_credential
from krun_discover.errors import DeadlinePassed, Denied, Failure, Malformed, Misconfigured, Unreachable
from krun_discover.exec_plugin import Exec, Plugin
from krun_discover.kube_redacted import redacted, secrets_of
from krun_testbed import processes
from krun_testbed.certificates import Authority

CANARY = "canary-6a1f-0123456789"
V1 = "client.authentication.k8s.io/v1"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
HEAD = f"#!{sys.executable}\nimport json, os, sys, time\n"


def script(folder: Path, body: str) -> Path:
    """A plugin in Python."""
    path = folder / "plugin"
    path.write_text(HEAD + body, encoding="utf-8")
    path.chmod(0o755)
    return path


def credential(**status: str) -> str:
    return json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})


def plugin(command: Path | str, **more: Any) -> Plugin:
    return Plugin(command=str(command), api_version=V1, title="config: users[name=a].user.exec", **more)


def proof(made: Plugin, *, seconds: float = 20.0, **environ: str) -> dict[str, str]:
    """The headers that it leads to."""
    found = Exec(plugin=made, environ={"PATH": os.environ["PATH"], **environ})
    assert CANARY not in repr(found)
    return dict(found.proof(deadline=time.monotonic() + seconds).headers)


def failure(made: Plugin, kind: type[Failure], *, seconds: float = 20.0) -> str:
    """The message and the hint; the canary is in neither."""
    with pytest.raises(kind) as caught:
        proof(made, seconds=seconds)
    said = f"{caught.value.message} | {caught.value.hint}"
    assert CANARY not in said
    assert said.startswith("config: users[name=a].user.exec: ")
    return said.removeprefix("config: users[name=a].user.exec: ")


@pytest.mark.loopback
def test_a_plugins_token_goes_along(tmp_path: Path) -> None:
    made = plugin(script(tmp_path, f"print('''{credential(token=CANARY)}''')"))
    assert proof(made) == {"Authorization": f"Bearer {CANARY}"}
    assert CANARY not in repr(exec_plugin.run(made, environ={}, deadline=time.monotonic() + 20))


@pytest.mark.loopback
def test_it_gets_its_arguments_its_variables_and_what_it_is_told_of_the_cluster(tmp_path: Path) -> None:
    body = (
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "token = '|'.join([*sys.argv[1:], os.environ['X'], os.environ['Y'], json.dumps(info).replace(' ', '')])\n"
        "print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': {'token': token}}))"
    )
    made = plugin(script(tmp_path, body), arguments=("one", "two"), env={"X": "own"}, cluster={"server": "https://x"})
    token = proof(made, X="outer", Y="outer")["Authorization"].removeprefix("Bearer ")
    *words, info = token.split("|")
    assert words == ["one", "two", "own", "outer"]
    assert json.loads(info) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": "https://x"}},
    }


@pytest.mark.loopback
def test_it_is_run_once_until_its_credential_is_near_its_end_or_refused(tmp_path: Path) -> None:
    body = (
        f"with open('{tmp_path}/count', 'a') as file: file.write('x')\n"
        f"with open('{tmp_path}/count') as file: count = len(file.read())\n"
        "print(json.dumps({'apiVersion': '%s', 'kind': 'ExecCredential', 'status': {'token': f't{count}', "
        "'expirationTimestamp': os.environ['END']}}))" % V1
    )
    path = script(tmp_path, body)

    def end(seconds: float) -> dict[str, str]:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return {"PATH": "/usr/bin:/bin", "END": moment.isoformat().replace("+00:00", "Z")}

    def token(found: Exec) -> str:
        return found.proof(deadline=time.monotonic() + 20).headers["Authorization"]

    lasting = Exec(plugin=plugin(path), environ=end(3600))
    assert [token(lasting), token(lasting)] == ["Bearer t1"] * 2
    assert lasting.renew()
    assert not lasting.renew()
    assert token(lasting) == "Bearer t2"
    ending = Exec(plugin=plugin(path), environ=end(5))
    assert [token(ending), token(ending)] == ["Bearer t3", "Bearer t4"]


@pytest.mark.loopback
def test_its_certificate_is_used_from_memory_and_looked_at(tmp_path: Path) -> None:
    authority = Authority()
    pair = authority.workload(spiffe_id="spiffe://x")
    old = authority.workload(spiffe_id="spiffe://x", life=-datetime.timedelta(hours=1))
    for given_pair in (pair, old):
        status = {"clientCertificateData": given_pair.chain.decode(), "clientKeyData": given_pair.key.decode()}
        (tmp_path / "said").write_text(credential(**status), encoding="utf-8")
        made = plugin(script(tmp_path, f"print(open('{tmp_path}/said').read())"))
        if given_pair is old:
            assert "plugin: its client certificate has expired on" in failure_of_certificate(made)
            continue
        found = Exec(plugin=made, environ={}).proof(deadline=time.monotonic() + 20)
        assert Path(found.certificate).read_bytes() == pair.chain
        assert Path(found.key).read_bytes() == pair.key


def failure_of_certificate(made: Plugin) -> str:
    with pytest.raises(Denied) as caught:
        proof(made)
    return caught.value.message


@pytest.mark.loopback
def test_one_that_fails_is_told_with_its_name_its_status_and_its_stderr(tmp_path: Path) -> None:
    body = f"print('{CANARY}')\nprint('\\x1b[31mplease sign in\\n  again', file=sys.stderr)\nsys.exit(3)"
    said = failure(plugin(script(tmp_path, body)), Denied)
    assert said.startswith("plugin ended with status 3: [31mplease sign in again | run plugin by hand")


@pytest.mark.loopback
def test_one_that_was_killed_is_told_by_the_signal(tmp_path: Path) -> None:
    said = failure(plugin(script(tmp_path, "os.kill(os.getpid(), 9)")), Denied)
    assert said.startswith("plugin was ended by signal 9 | ")


@pytest.mark.loopback
def test_secrets_in_its_stderr_are_not_repeated(tmp_path: Path) -> None:
    body = (
        "print('bad token', os.environ['MY_TOKEN'], *sys.argv, file=sys.stderr)\n"
        f"print('{JWT} refused, Authorization: Bearer abc-{CANARY}; password={CANARY}', file=sys.stderr)\nsys.exit(1)"
    )
    made = plugin(
        script(tmp_path, body), env={"MY_TOKEN": CANARY}, arguments=("--client-secret", CANARY, f"--token={CANARY}")
    )
    said = failure(made, Denied)
    assert "eyJ" not in said
    assert "bad token ***" in said
    assert "*** refused" in said


@pytest.mark.loopback
def test_a_long_complaint_is_cut_and_its_end_kept(tmp_path: Path) -> None:
    said = failure(plugin(script(tmp_path, "print('x' * 100_000 + ' at last', file=sys.stderr)\nsys.exit(1)")), Denied)
    assert len(said) < 1300
    assert "at last |" in said


@pytest.mark.loopback
def test_one_that_is_missing_is_told_with_its_own_hint(tmp_path: Path) -> None:
    made = plugin(tmp_path / "missing", install_hint="To install it,\n  run: apt install missing")
    assert failure(made, Misconfigured) == (
        "missing cannot be run: No such file or directory | To install it, run: apt install missing"
    )
    assert "install missing-plugin-of-a-test, or use" in failure(plugin("missing-plugin-of-a-test"), Misconfigured)


@pytest.mark.loopback
def test_one_that_may_not_be_run_is_told(tmp_path: Path) -> None:
    path = script(tmp_path, "")
    path.chmod(0o644)
    assert "plugin cannot be run: Permission denied" in failure(plugin(path), Misconfigured)


@pytest.mark.loopback
def test_one_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "child").write_text("", encoding="utf-8")
    body = (
        "if os.fork() == 0: time.sleep(600)\n"
        "print('waiting for the browser', file=sys.stderr, flush=True)\n"
        f"with open('{tmp_path}/group', 'w') as file: file.write(str(os.getpgrp()))\n"
        "time.sleep(600)"
    )
    begun = time.monotonic()
    said = failure(plugin(script(tmp_path, body)), DeadlinePassed, seconds=3.0)
    assert time.monotonic() - begun < 10
    assert said.startswith("plugin did not end within ")
    assert "s: waiting for the browser | run plugin by hand" in said
    group = int((tmp_path / "group").read_text(encoding="utf-8"))
    assert group != os.getpgrp()
    processes.wait_until(lambda: not is_running(group), what="the plugin's child is gone")


def is_running(group: int) -> bool:
    """Tell whether a process of the group is left that is not only waiting to be reaped."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


@pytest.mark.loopback
def test_a_grandchild_that_stays_does_not_keep_us_waiting(tmp_path: Path) -> None:
    body = f"if os.fork() == 0: time.sleep(20); os._exit(0)\nprint('''{credential(token='t')}''')"
    begun = time.monotonic()
    assert proof(plugin(script(tmp_path, body))) == {"Authorization": "Bearer t"}
    assert time.monotonic() - begun < 10


@pytest.mark.loopback
def test_a_limit_of_its_own_holds_where_the_run_has_more_time(tmp_path: Path) -> None:
    assert failure(plugin(script(tmp_path, "time.sleep(600)"), limit=0.5), Unreachable).startswith(
        "plugin did not end within 0.5"
    )


@pytest.mark.loopback
def test_one_that_must_ask_a_person_is_not_run_where_nobody_sits(tmp_path: Path) -> None:
    path = script(tmp_path, f"open('{tmp_path}/ran', 'w')")
    assert "asks a person, and stdin is no terminal" in failure(plugin(path, interactive_mode="Always"), Misconfigured)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (CANARY, "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no ExecCredential"),
        ('{"kind": "Status"}', "is no ExecCredential"),
        ('{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1beta1"}', f"is not of {V1}"),
        (credential(), "has neither a token nor a certificate"),
        (credential(clientKeyData=CANARY), "has a certificate without a key, or a key without one"),
        (credential(token=f"{CANARY}ö"), "has a status.token that is no text"),
        (credential(token=CANARY, expirationTimestamp="soon"), "has a status.expirationTimestamp that is no time"),
    ],
)
def test_what_is_no_credential_is_told_without_being_shown(said: str, reason: str) -> None:
    with pytest.raises(Malformed, match=f"what it printed {reason}") as caught:
        kube_exec_credential.parse(said.encode(), what="what it printed", api_version=V1)
    assert CANARY not in f"{caught.value.message} {caught.value.hint}"
    assert V1 in caught.value.hint


@given(data=st.binary() | st.from_type(dict).map(lambda found: json.dumps(found, default=str).encode()))
def test_any_output_is_a_credential_or_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        kube_exec_credential.parse(data, what="x", api_version=V1)


@given(
    status=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            kube_exec_credential.NAMES,
            st.text(max_size=9) | st.none() | st.integers() | st.just("2026-01-01T00:00:00Z"),
        ),
    )
)
def test_any_status_is_a_credential_or_malformed(status: dict[str, Any]) -> None:
    data = json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status}).encode()
    try:
        found = kube_exec_credential.parse(data, what="x", api_version=V1)
    except Malformed:
        return
    assert found.token == (status.get("token") or "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing secret here", "nothing secret here"),
        (f"token {JWT} is bad", "token *** is bad"),
        ("ya29.a0Abc-def is bad", "*** is bad"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- x", "*** x"),
        ("-----BEGIN PRIVATE KEY-----\nabc\ndef", "***"),
        ('{"access_token": "0123456789abcdef", "x": 1}', '{"access_token": *** "x": 1}'),
        ("token: expired", "token: expired"),
        ("Authorization: Basic QWxhZGRpbg==", "Authorization: Basic ***"),
        ("a\r\n\tb\x1b[0m\u202ec", "a b [0m c"),
    ],
)
def test_what_looks_like_a_secret_is_blacked_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_secrets_of_arguments_and_variables_are_known_by_their_names() -> None:
    arguments = ["--token", "one", "--client-secret=two", "get-token", "--profile", "prod", "--password"]
    assert secrets_of(arguments, {"API_KEY": "three", "REGION": "x"}) == ["three", "one", "two"]


@given(text=st.text(), known=st.lists(st.text()))
def test_what_is_shown_is_one_printable_line_of_a_bounded_length(text: str, known: list[str]) -> None:
    shown = redacted(text, known=known)
    assert shown.isprintable()
    assert len(shown) <= 1001


@pytest.mark.loopback
def test_a_person_at_a_terminal_is_asked_by_the_plugin_itself(tmp_path: Path) -> None:
    body = (
        "print('your code?', file=sys.stderr, flush=True)\n"
        "code = sys.stdin.readline().strip()\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['spec']\n"
        f"print(json.dumps({{'apiVersion': '{V1}', 'kind': 'ExecCredential', "
        "'status': {'token': f'{code}-{info[\"interactive\"]}'}}))"
    )
    code = (
        "import sys, time\nfrom krun_discover.exec_plugin import Plugin, run\n"
        f"plugin = Plugin(command=sys.argv[1], api_version='{V1}', title='x', interactive_mode='Always')\n"
        "print(run(plugin, environ={}, deadline=time.monotonic() + 20).token)"
    )
    ours, theirs = pty.openpty()
    try:
        argv = [sys.executable, "-c", code, str(script(tmp_path, body))]
        with subprocess.Popen(argv, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "your code?\n"
            os.write(ours, b"1234\n")
            stdout, stderr = process.communicate(timeout=20)
        assert (process.returncode, stdout, stderr) == (0, "1234-True\n", "")
    finally:
        os.close(ours)
        os.close(theirs)
