"""Credential plugins of a kubeconfig: programs that are run for a token or a certificate (KEP-541).

What a plugin prints on stdout is a secret and is shown nowhere; of its stderr the end is shown when it fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from krun_discover import kube_credentials, kube_exec_credential
from krun_discover.errors import DeadlinePassed, Denied, Misconfigured, Unreachable
from krun_discover.kube_credentials import Proof
from krun_discover.kube_exec_credential import Credential
from krun_discover.kube_redacted import redacted, secrets_of
from krun_discover.record import NONE, Record

GROUP = "client.authentication.k8s.io"
VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1beta1")
MODES = ("Never", "IfAvailable", "Always")
LIMIT = 30.0  # seconds for a plugin that asks nobody; with a person at a terminal, the tool's own time
OUTPUT_LIMIT = 1024 * 1024  # bytes
COMPLAINT_LIMIT = 8192  # bytes, of the end of stderr
EARLY = 10.0  # seconds before its end at which a credential is no longer used


class Plugin(Record, hidden=("arguments", "env", "cluster")):
    """How to run one. ``cluster`` is what it is told of the cluster, None for nothing."""

    command: str  # a path, or a name to look for in PATH
    api_version: str
    title: str  # which user of which file names it
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = NONE
    interactive_mode: str = "IfAvailable"
    install_hint: str = ""
    cluster: Mapping[str, Any] | None = None
    limit: float = LIMIT  # seconds

    @property
    def name(self) -> str:
        """The command's name, without its folder."""
        return Path(self.command).name


class Exec:
    """Credentials of a plugin, which is run when they are needed, and again when they are near their end."""

    def __init__(self, *, plugin: Plugin, environ: Mapping[str, str]) -> None:
        self._plugin = plugin
        self._environ = environ
        self._last: Credential | None = None

    @property
    def title(self) -> str:
        """See Credentials."""
        return f"{self._plugin.title}, credential plugin {self._plugin.name}"

    @property
    def remedy(self) -> str:
        """See Credentials."""
        return _remedy(self._plugin)

    def proof(self, *, deadline: float) -> Proof:
        """See Credentials. Raises what ``run`` does."""
        if self._last is None or time.time() > self._last.expires - EARLY:
            self._last = run(self._plugin, environ=self._environ, deadline=deadline)
        proof = Proof()
        if self._last.token:
            proof = kube_credentials.bearer(self._last.token, title=self.title)
        if not self._last.certificate:
            return proof
        from krun_discover.certificate import held  # late: few plugins give certificates
        from krun_discover.kube_credentials_rare import Certificate

        pair = Certificate(
            certificate=held(self._last.certificate),
            key=held(self._last.key),
            title=f"{self.title}: its client certificate",
        ).proof(deadline=deadline)
        return Proof(headers=proof.headers, certificate=pair.certificate, key=pair.key)

    def renew(self) -> bool:
        """The plugin may know of another one, as that of its last run may have been withdrawn."""
        was_used, self._last = self._last is not None, None
        return was_used


def _remedy(plugin: Plugin) -> str:
    return f"run {plugin.name} by hand, and sign in again if it says so"


def run(plugin: Plugin, *, environ: Mapping[str, str], deadline: float) -> Credential:
    """Run a plugin once.

    Raises:
        Misconfigured: it is not there or cannot be run, or wants a person and there is none.
        Denied: it fails.
        Malformed: it prints something else.
        Unreachable, DeadlinePassed: it does not come to an end in its time, or in that of the whole run.
    """
    is_interactive = plugin.interactive_mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
    if plugin.interactive_mode == "Always" and not is_interactive:
        raise Misconfigured(
            f"{plugin.title}: {plugin.name} asks a person, and stdin is no terminal",
            hint="use a user with a token or a certificate",
        )
    left = max(deadline - time.monotonic(), 0.0)
    seconds = left if is_interactive else min(plugin.limit, left)
    env = {**environ, **plugin.env, "KUBERNETES_EXEC_INFO": _info(plugin, is_interactive=is_interactive)}
    # In memory, as they are secrets; not pipes, as a grandchild that holds on to one would keep us waiting.
    with _memory("stdout") as stdout, _memory("stderr") as stderr:
        process = _start(plugin, env=env, is_interactive=is_interactive, stdout=stdout, stderr=stderr)
        status = _wait(process, seconds=seconds, in_own_group=not is_interactive)
        if status == 0:
            what = f"{plugin.title}: what {plugin.name} printed"
            stdout.seek(0)
            return kube_exec_credential.parse(stdout.read(OUTPUT_LIMIT + 1), what=what, api_version=plugin.api_version)
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - COMPLAINT_LIMIT))
        said = stderr.read(COMPLAINT_LIMIT).decode("utf-8", errors="replace")
    complaint = redacted(said, known=secrets_of(plugin.arguments, plugin.env))
    if status is None:
        kind = Unreachable if seconds < left else DeadlinePassed
        raise kind(
            f"{plugin.title}: {plugin.name} did not end within {seconds:.3g} s"
            + (f": {complaint}" if complaint else ""),
            hint=f"run {plugin.name} by hand: does it wait for somebody, or for the network?",
        )
    ending = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    raise Denied(
        f"{plugin.title}: {plugin.name} {ending}" + (f": {complaint}" if complaint else ""), hint=_remedy(plugin)
    )


def _info(plugin: Plugin, *, is_interactive: bool) -> str:
    spec: dict[str, Any] = {"interactive": is_interactive}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    return json.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec})


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def _start(
    plugin: Plugin, *, env: Mapping[str, str], is_interactive: bool, stdout: IO[bytes], stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [plugin.command, *plugin.arguments],
            env=env,
            stdin=None if is_interactive else subprocess.DEVNULL,
            stdout=stdout,
            stderr=None if is_interactive else stderr,  # its questions are for whoever sits there
            start_new_session=not is_interactive,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its arguments cannot be passed on"
        hint = redacted(plugin.install_hint)
        raise Misconfigured(
            f"{plugin.title}: {plugin.name} cannot be run: {reason}",
            hint=hint or f"install {plugin.name}, or use a user with a token or a certificate",
        ) from error


def _wait(process: subprocess.Popen[bytes], *, seconds: float, in_own_group: bool) -> int | None:
    """Its status, None when it had to be ended."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                if in_own_group:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
            process.wait()
