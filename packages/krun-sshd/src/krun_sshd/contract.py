"""What krun-sshd shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "KUBERNETES_SERVICE_HOST",
        "K_SERVICE",
        "KRUN_INIT_FD",
        "KRUN_LOG_LEVEL",
        "KRUN_LOG_FORMAT",
        "KRUN_LOOPBACK",
        "SSH_AUTH",
    }
)
SETS: frozenset[str] = frozenset()
PORTS: dict[str, int] = {"SSH": 15022}
LOG_FIELDS = frozenset({"address", "count", "duration_ms", "fingerprint", "peer", "reason", "uid", "user"})
