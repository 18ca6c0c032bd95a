"""kubectl, as admins and users have it: Debian's, which is an old one, and that of the API server's own version.

``python -m krun_testbed.kubectl`` builds the latter from its Go module unless it is there, and prints its path: some
three minutes on two cores, in the cache folder, outside of any checkout.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from krun_testbed import debian_packages, docker_engine, go_build, kubernetes_build, processes
from krun_testbed.components import Missing

MODULE, VERSION = "k8s.io/kubectl", f"0{kubernetes_build.VERSION[1:]}"
# The same lines as those of cmd/kubectl of k8s.io/kubernetes, which is a command and cannot be imported.
MAIN = """\
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
"""
# By name, how each is to be had. Where time is short the packaged one must do.
PACKAGED, BUILT = "packaged", "built"


def chosen() -> tuple[str, ...]:
    """Those that tests take."""
    return (PACKAGED, BUILT) if os.environ.get("KRUN_SOAK") else (PACKAGED,)


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """One of them, as whom a kubeconfig says. ``home`` is a folder for what it keeps."""

    program: str
    kubeconfig: Path
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What it says, and its status."""
        env = {
            **processes.environment(),
            **self.environment,
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
        }
        return subprocess.run(
            [self.program, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )

    def said(self, *arguments: str, stdin: str = "") -> str:
        """What it prints when all goes well."""
        done = self(*arguments, stdin=stdin)
        if done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout


def kubectl(name: str, *, kubeconfig: Path, home: Path) -> Kubectl:
    """The one of this name. Missing when this machine cannot have it."""
    if name == BUILT:
        return Kubectl(program=str(make()), kubeconfig=kubeconfig, home=home)
    found = debian_packages.program("kubectl", packages=["kubernetes-client"])
    return Kubectl(program=found.path, kubeconfig=kubeconfig, home=home, environment=found.environment)


def binary() -> Path:
    """Where it stands once it is built."""
    return docker_engine.cache() / f"kubectl-{kubernetes_build.VERSION}"


def make() -> Path:
    """Build it unless it is there. Missing when this machine has no Go, or the build fails."""
    return go_build.once(binary(), what="kubectl", module=_write, options=kubernetes_build.stamp())


def _write(folder: Path) -> None:
    (folder / "main.go").write_text(MAIN, encoding="utf-8")
    (folder / "go.mod").write_text(f"module krun-testbed/kubectl\n\nrequire {MODULE} v{VERSION}\n", encoding="utf-8")


@click.command()
def main() -> None:
    """Build kubectl, unless it is there, and print its path."""
    try:
        click.echo(make())
    except Missing as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
