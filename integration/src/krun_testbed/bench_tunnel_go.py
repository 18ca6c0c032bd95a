"""A tunnel in Go on x/net/http2, a peer of the benchmarks: built once from ``gotunnel/main.go``."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from krun_testbed import docker_engine, go_build

MODULE = "golang.org/x/net"
VERSION = "v0.57.0"
SOURCE = Path(__file__).parent / "gotunnel" / "main.go"


def make() -> Path:
    """Build it unless this version is there. Missing without Go, or when the build fails."""
    text = SOURCE.read_text(encoding="utf-8")
    digest = hashlib.sha256(f"{VERSION}{text}".encode()).hexdigest()[:12]
    binary = docker_engine.cache() / f"gotunnel-{digest}"
    if not binary.exists():
        with tempfile.TemporaryDirectory(dir=binary.parent, prefix="gotunnel-") as name:
            folder = Path(name)
            (folder / "main.go").write_text(text, encoding="utf-8")
            module = f"module krun-testbed/gotunnel\n\ngo 1.26\n\nrequire {MODULE} {VERSION}\n"
            (folder / "go.mod").write_text(module, encoding="utf-8")
            go_build.run("mod", "tidy", folder=folder, what="gotunnel")
            go_build.build(["-o", "gotunnel"], ".", folder=folder, what="gotunnel")
            (folder / "gotunnel").rename(binary)
    return binary
