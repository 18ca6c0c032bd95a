"""kube-apiserver, built here from its Go modules, once: there is no package of it to install.

``python -m krun_testbed.kubernetes_build`` builds it unless it is there, and prints its path. It takes some seven
minutes on two cores, and stands in the cache folder, outside of any checkout. A build that was cut off goes on where
it was, by Go's own cache.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from krun_testbed import docker_engine, go_build
from krun_testbed.components import Missing

VERSION = "1.37.2"
MODULE = "k8s.io/kubernetes"
WHAT = "kube-apiserver"
# The same lines as those of cmd/kube-apiserver, which is a command and cannot be imported.
MAIN = """\
package main

import (
	"os"
	_ "time/tzdata"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
"""


def binary() -> Path:
    """Where kube-apiserver stands once it is built."""
    return docker_engine.cache() / f"kube-apiserver-{VERSION}"


def make() -> Path:
    """Build kube-apiserver unless it is there. Missing when this machine has no Go, or the build fails."""
    return go_build.once(binary(), what=WHAT, module=_write, options=stamp())


def stamp() -> tuple[str, ...]:
    """The linker's flags. The version is what /version says, and what decides which features are on."""
    return "-ldflags", f"-s -w -X k8s.io/component-base/version.gitVersion=v{VERSION}"


def _write(folder: Path) -> None:
    (folder / "main.go").write_text(MAIN, encoding="utf-8")
    (folder / "go.mod").write_text("module krun-testbed/kube-apiserver\n", encoding="utf-8")
    found = json.loads(go_build.run("mod", "download", "-json", f"{MODULE}@v{VERSION}", folder=folder, what=WHAT))
    published = Path(found["GoMod"]).read_text(encoding="utf-8")
    (folder / "go.mod").write_text(_module(published), encoding="utf-8")


def _module(published: str) -> str:
    """The go.mod of a program that imports Kubernetes.

    Kubernetes publishes its staging modules as v0.0.0, replaced by folders of its own tree: each has a true version
    beside it, v0.37.2 for 1.37.2.
    """
    staging = re.findall(r"^\s+(k8s\.io/\S+) v0\.0\.0$", published, re.MULTILINE)
    language = re.search(r"^go \S+$", published, re.MULTILINE)
    lines = ["module krun-testbed/kube-apiserver", "", language[0] if language else "", ""]
    lines += [f"require {MODULE} v{VERSION}", ""]
    lines += [f"replace {name} => {name} v0{VERSION[1:]}" for name in staging]
    return "\n".join(lines) + "\n"


@click.command()
def main() -> None:
    """Build kube-apiserver, unless it is there, and print its path."""
    try:
        click.echo(make())
    except Missing as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
