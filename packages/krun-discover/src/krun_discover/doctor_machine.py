"""Checks of the machine that we run on: platform, metadata server, interception. Nothing is changed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from krun_discover import metadata
from krun_discover.check import Check, absent, failed, passed
from krun_discover.errors import Denied, Unreachable

PLATFORMS = {
    "K_SERVICE": "Cloud Run service",
    "CLOUD_RUN_JOB": "Cloud Run job",
    "CLOUD_RUN_WORKER_POOL": "Cloud Run worker pool",
    "KUBERNETES_SERVICE_HOST": "Kubernetes pod",
}
NET_ADMIN = 12  # bit of CapEff (linux/capability.h)
STATUS = Path("/proc/self/status")
LISTS = ("iptables", "iptables-legacy", "iptables-nft")
LIMIT = 10.0  # seconds


def platform(environ: Mapping[str, str], *, client: metadata.Client) -> Check:
    """Where we are."""
    found = next(((name, title) for name, title in PLATFORMS.items() if environ.get(name)), None)
    if found:
        return passed("platform", f"{found[1]} ({found[0]}={environ[found[0]]})")
    if client.settings.sign:
        return passed("platform", f"a machine at Google ({client.settings.sign})")
    return passed("platform", "a machine elsewhere: no variable of a platform is set")


def metadata_server(client: metadata.Client) -> Check:
    """Whether it answers, where one may be expected."""
    name = "metadata server"
    if client.settings.off:
        return absent(name, "not asked: NO_GCE_CHECK=true")
    answer = client.ask("project/project-id")
    if not client.trouble:
        return passed(name, f"{client.settings.server} answers: project {answer.value or 'unknown'}")
    if client.settings.sign:
        return failed(
            name,
            Unreachable(
                f"{client.settings.server}: {client.trouble}, though {client.settings.sign} promises one",
                hint="set GCE_METADATA_HOST to where it is, or NO_GCE_CHECK=true",
            ),
        )
    return absent(name, f"none here: {client.trouble}")


def interception(environ: Mapping[str, str]) -> Check:
    """Whether krun-iptables could do its work: its tools are there, and the kernel lets us look at the table."""
    name = "interception"
    if environ.get("ISTIO_META_INTERCEPTION_MODE") == "NONE":
        return absent(name, "switched off by ISTIO_META_INTERCEPTION_MODE=NONE")
    obstacle = _obstacle()
    if not obstacle:
        return passed(name, "NET_ADMIN is there, and the nat table can be read")
    if environ.get("KRUN_MODE") == "captured" or environ.get("KRUN_FALLBACK") == "deny":
        return failed(name, Denied(obstacle, hint="docker run --cap-add=NET_ADMIN, as root"))
    return absent(name, f"{obstacle}: whitebox mode, by HTTP_PROXY", fix="docker run --cap-add=NET_ADMIN, as root")


def _obstacle() -> str:
    if not _may_administer():
        return "no NET_ADMIN"
    programs = [path for path in map(shutil.which, LISTS) if path]
    if not programs:
        return "no iptables in PATH"
    said = ""
    for program in programs:
        argv = [program, "-t", "nat", "-S", "OUTPUT"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
            continue
        if done.returncode == 0:
            return ""
        said = " ".join(done.stderr.split())
    return f"the nat table cannot be read: {said[:200]}"


def _may_administer() -> bool:
    try:
        text = STATUS.read_text(encoding="utf-8")
    except OSError:
        return False
    line = next((line for line in text.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> NET_ADMIN & 1)
