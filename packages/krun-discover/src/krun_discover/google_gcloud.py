"""Tokens of whoever is logged in with gcloud: the command is run, as its store of logins is its own business."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from krun_discover.errors import DeadlinePassed, Denied, Misconfigured
from krun_discover.google_config import folder
from krun_discover.google_source import IMPERSONATION, SCOPES, Absent, issued, no_identity
from krun_discover.issued import Token
from krun_discover.record import Record
from krun_discover.token_claims import shown

LIMIT = 30.0  # seconds: gcloud takes one or two, and longer when it renews a login
LOGIN = "gcloud auth login"


class Gcloud(Record):
    """The active account of gcloud; ``seconds`` is the limit of one run."""

    environ: Mapping[str, str]
    seconds: float = LIMIT
    label: str = "gcloud's login"
    member: str = "user:YOU"

    @property
    def principal(self) -> str:
        """See Source: made of the files that change when somebody logs in, or activates another account."""
        place = folder(self.environ)
        if place is None:
            return ""
        names = ("CLOUDSDK_ACTIVE_CONFIG_NAME", "CLOUDSDK_CORE_ACCOUNT")
        parts = [str(place), *(self.environ.get(name, "") for name in names)]
        parts += [_content(path) for path in (place / "active_config", *sorted(place.glob("configurations/config_*")))]
        with contextlib.suppress(OSError):
            parts.append(str((place / "credentials.db").stat().st_mtime_ns))
        return "gcloud " + hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def access(self, scopes: Sequence[str] = SCOPES) -> Token:
        """See Source."""
        more = [] if tuple(scopes) == SCOPES else [f"--scopes={','.join(scopes)}"]
        return issued(self._run("print-access-token", *more), source=self.label)

    def identity(self, audience: str) -> Token:
        """See Source. A user has tokens for gcloud itself only; Cloud Run takes them, for developers, nobody else."""
        try:
            text = self._run("print-identity-token", f"--audiences={audience}")
            return issued(text, source=self.label, audience=audience)
        except _WrongAccount as error:
            if not (urlsplit(audience).hostname or "").endswith(".run.app"):
                raise no_identity(self.label) from error
        return issued(self._run("print-identity-token"), source=f"{self.label}, for gcloud itself")

    def _run(self, *arguments: str) -> str:
        program = shutil.which("gcloud", path=self.environ.get("PATH"))
        if program is None:
            raise Absent("there is no command gcloud")
        argv = [program, "auth", *arguments]
        shown_argv = " ".join(["gcloud", *argv[1:]])
        # Impersonation is ours, with errors that say which role is missing; and nobody is there to be asked.
        environ = {name: value for name, value in self.environ.items() if name != IMPERSONATION}
        status, out, said = _output(
            argv, environ=environ | {"CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}, seconds=self.seconds
        )
        if status is None:
            raise DeadlinePassed(f"{shown_argv}: not done within {self.seconds:.3g} s", hint="run it by hand")
        if status == 0:
            return out.strip()
        if "Invalid account type for `--audiences`" in said:
            raise _WrongAccount(shown_argv)
        if "do not currently have an active account" in said or "no credentialed accounts" in said.lower():
            raise Absent("nobody is logged in")
        raise Denied(f"{shown_argv}: status {status}: {shown(said)}", hint=f"run it by hand; {LOGIN}")


class _WrongAccount(Exception):
    """gcloud gives an ID token of a chosen audience to service accounts only."""


def _output(argv: Sequence[str], *, environ: Mapping[str, str], seconds: float) -> tuple[int | None, str, str]:
    """Status, stdout and stderr of a command; no status when it is not done in time.

    In a session of its own, which ends with it: gcloud is a shell script, and what it starts would hold the pipes.
    """
    try:
        process = subprocess.Popen(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Misconfigured(f"{argv[0]} cannot be run: {error.strerror}", hint="is gcloud installed well?") from error
    with process:
        try:
            out, said = process.communicate(timeout=seconds)
        except BaseException as error:
            # It is not reaped yet, so that the group is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return None, "", ""
    return process.returncode, out.decode(errors="replace"), said.decode(errors="replace")


def _content(path: Path) -> str:
    try:
        return f"{path.name}\0{path.read_text(encoding='utf-8', errors='replace')}"
    except OSError:
        return path.name
