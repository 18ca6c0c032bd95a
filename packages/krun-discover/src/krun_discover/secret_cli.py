"""The command line of krun-secret."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NoReturn

import click

from krun_discover import errors, flags, kube_find, lines, secret_files, token_file
from krun_discover.web import Web

EPILOG = """\b
Variables:
  KUBECONFIG, or ~/.kube/config; in a pod KUBERNETES_SERVICE_HOST and the
  pod's own token; where there is neither, those by which krun-discover
  finds the cluster: MESH PROJECT_ID CLUSTER_NAME CLUSTER_LOCATION, or what
  the metadata server says. HTTPS_PROXY NO_PROXY

\b
Examples:
  krun-secret db-password --to /run/secrets/db
  krun-secret tls --namespace demo --to /run/secrets/tls --owner 1000
  KUBECONFIG=cluster.yaml krun-secret db --context staging --to ./db
"""


@click.command(epilog=EPILOG, context_settings={"max_content_width": 80, "help_option_names": ["-h", "--help"]})
@click.argument("name", metavar="NAME")
@click.option(
    "--to",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the files go; made when it is not there, and used for this secret only.",
)
@click.option("--owner", metavar="UID[:GID]", help="Of DIR and the files: who reads them, where we are root.")
@click.option(
    "--namespace",
    metavar="NS",
    envvar="WORKLOAD_NAMESPACE",
    show_envvar=True,
    help="The secret's; if not given, the context's, the pod's, or the one that krun-discover finds.",
)
@click.option("--context", "cluster_context", metavar="C", help="Of the kubeconfig; if not given, its current one.")
@flags.timeout("all of it")
@flags.of_log
@click.version_option(package_name="krun-discover", message="%(prog)s %(version)s")
def command(
    *,
    name: str,
    folder: Path,
    owner: str | None,
    namespace: str | None,
    cluster_context: str | None,
    timeout: float,
    log_level: str,
    log_format: str,
) -> None:
    """Write a Kubernetes secret's values to files, DIR/KEY, as a volume of it would show them.

    All files change at once, and keys that are gone from the secret vanish. When it fails, the files stay as they
    were. DIR has mode 0700, the files 0600. It takes the right to get this secret. Nothing is printed.
    """
    try:
        reader = token_file.owner(owner) if owner else (-1, -1)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--owner") from error
    web = Web(deadline=time.monotonic() + timeout, environ=os.environ)
    lines.configure(tool="krun-secret", level=log_level, style=log_format)
    home = kube_find.home(os.environ, web=web, context=cluster_context or "", namespace=namespace or "")
    target, namespace = home.cluster.target, home.namespace
    files = home.cluster.get_secret(namespace=namespace, name=name)
    if files is None:
        raise errors.Misconfigured(
            f"there is no secret {name} in namespace {namespace} ({target.source})",
            hint=f"kubectl create secret generic {name} --namespace={namespace} --from-literal=KEY=VALUE",
        )
    what = f"secret {namespace}/{name}"
    secret_files.check(files, what=what)
    is_new = secret_files.write(folder, files, deadline=web.deadline, owner=reader)
    lines.info("secret written" if is_new else "secret has not changed", source=what, count=len(files))


def main() -> NoReturn:
    """Run as the process."""
    errors.run(command, tool="krun-secret")
