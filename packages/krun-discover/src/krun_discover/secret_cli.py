"""The command line of krun-secret."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import NoReturn

import click

from krun_discover import errors, log, secret_files
from krun_discover.issued import Token
from krun_discover.kube import Cluster
from krun_discover.kube_find import find
from krun_discover.web import Web

EPILOG = """\b
Variables:
  KUBECONFIG, or ~/.kube/config; in a pod KUBERNETES_SERVICE_HOST and the
  pod's own token; HTTPS_PROXY NO_PROXY

\b
Examples:
  krun-secret db-password --to /run/secrets/db
  krun-secret tls --namespace demo --to /run/secrets/tls && app
  KUBECONFIG=cluster.yaml krun-secret db --context staging --to ./db
"""

logger = logging.getLogger(__name__)


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
@click.option(
    "--namespace",
    metavar="NS",
    envvar="WORKLOAD_NAMESPACE",
    show_envvar=True,
    help="The secret's; if not given, the context's or the pod's, or default.",
)
@click.option("--context", "cluster_context", metavar="C", help="Of the kubeconfig; if not given, its current one.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For all of it; status 75 when it passes.",
)
@click.option(
    "--log-level",
    type=click.Choice(log.LEVELS),
    default="info",
    envvar="KRUN_LOG_LEVEL",
    show_envvar=True,
    help="Of stderr.",
)
@click.option(
    "--log-format",
    type=click.Choice(log.FORMATS),
    default="auto",
    envvar="KRUN_LOG_FORMAT",
    show_envvar=True,
    help="Of stderr; auto is JSON in a container.",
)
@click.version_option(package_name="krun-discover", message="%(prog)s %(version)s")
def command(
    *,
    name: str,
    folder: Path,
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
    if not timeout > 0:  # nan passes click's range
        raise click.BadParameter(f"{timeout} is not a number of seconds", param_hint="--timeout")
    web = Web(deadline=time.monotonic() + timeout, environ=os.environ)
    log.configure(tool="krun-secret", level=log_level, style=log_format)
    target = find(os.environ, context=cluster_context or "", google=lambda: _google(web))
    namespace = namespace or target.namespace or "default"
    files = Cluster(web=web, target=target).get_secret(namespace=namespace, name=name)
    if files is None:
        raise errors.Misconfigured(
            f"there is no secret {name} in namespace {namespace} ({target.source})",
            hint=f"kubectl create secret generic {name} --namespace={namespace} --from-literal=KEY=VALUE",
        )
    what = f"secret {namespace}/{name}"
    secret_files.check(files, what=what)
    is_new = secret_files.write(folder, files, deadline=web.deadline)
    fields = {"source": what, "count": len(files)}
    logger.info("secret written" if is_new else "secret has not changed", extra={"fields": fields})


def _google(web: Web) -> Token:
    """Google's access token, for clusters of GKE."""
    from krun_discover import token_cache  # late: only for these
    from krun_discover.google_source import SCOPES
    from krun_discover.google_tokens import GoogleTokens

    cache = token_cache.TokenCache(folder=token_cache.folder(os.environ))
    return GoogleTokens(web=web, environ=os.environ, cache=cache).access(SCOPES)


def main() -> NoReturn:
    """Run as the process."""
    errors.run(command, tool="krun-secret")
