"""The command line of krun-token."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

import click

from krun_discover import errors, token_options

if TYPE_CHECKING:
    from krun_discover.token_mint import Mint

EPILOG = """\b
Variables:
  Who we are for Google, in this order: GOOGLE_APPLICATION_CREDENTIALS; the
  file of 'gcloud auth application-default login' (CLOUDSDK_CONFIG); the
  metadata server (GCE_METADATA_HOST GCE_METADATA_TIMEOUT NO_GCE_CHECK); and
  gcloud's login. CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT: act as that one.
  KRUN_TOKEN_CACHE: folder of tokens that are kept, or 'off'.

\b
Examples:
  krun-token id --audience https://web-xyz.a.run.app
  krun-token access --explain
  krun-token kubernetes --audience istio-ca --to ./istio-token --watch
"""

CONTEXT = {"max_content_width": 80, "help_option_names": ["-h", "--help"]}


@click.group(epilog=EPILOG, context_settings=CONTEXT)
@click.version_option(package_name="krun-discover", message="%(prog)s %(version)s")
def command() -> None:
    """Mint one token, of Kubernetes or of Google, and print it, or keep a file's token good.

    On stdout is the token and nothing else; it is never logged.
    """


@command.command()
@click.option("--audience", required=True, multiple=True, metavar="AUDIENCE", help="Whom it is for; more than once.")
@click.option("--namespace", metavar="NS", envvar="WORKLOAD_NAMESPACE", show_envvar=True, help="Of the account.")
@click.option(
    "--service-account",
    metavar="NAME",
    envvar="WORKLOAD_SERVICE_ACCOUNT",
    show_envvar=True,
    default="default",
    help="The account that the token is of.",
)
@click.option("--context", "cluster_context", metavar="NAME", help="Of the kubeconfig; if not given, the current one.")
@click.option(
    "--expiration",
    type=click.IntRange(600, 2**32),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="The cluster may give it another life.",
)
@token_options.add
def kubernetes(
    *,
    audience: tuple[str, ...],
    namespace: str | None,
    service_account: str,
    cluster_context: str | None,
    expiration: int,
    **flags: Any,
) -> None:
    """A token of a Kubernetes service account, by its cluster's TokenRequest.

    The cluster is that of KUBECONFIG or ~/.kube/config, or the one that we run in, or the one that krun-discover finds.
    It takes the right to create serviceaccounts/token.

    \b
    Example:
      krun-token kubernetes --namespace demo --audience istio-ca
    """
    options = token_options.read(flags)
    token_options.check(audience, flag="--audience")
    from krun_discover import token_mint  # late: what only one command needs

    run = token_mint.Kubernetes(
        environ=os.environ,
        context=cluster_context or "",
        namespace=namespace or "",
        account_name=service_account,
        audiences=audience,
        seconds=expiration,
    )
    _deliver(run, options)


@command.command("id")
@click.option("--audience", required=True, metavar="URL", help="Whom it is for, as the receiver is configured.")
@token_options.add
def identity(*, audience: str, **flags: Any) -> None:
    """An ID token of Google's, for Cloud Run, IAP, and whoever else asks for one.

    \b
    Example:
      curl -H "Authorization: Bearer $(krun-token id --audience $URL)" $URL
    """
    options = token_options.read(flags)
    token_options.check((audience,), flag="--audience")
    from krun_discover import token_mint

    _deliver(token_mint.Google(environ=os.environ, audience=audience), options)


@command.command()
@click.option("--scope", multiple=True, metavar="SCOPE", help="More than once; if not given, cloud-platform.")
@token_options.add
def access(*, scope: tuple[str, ...], **flags: Any) -> None:
    """An access token for Google's own APIs.

    \b
    Example:
      krun-token access --scope https://www.googleapis.com/auth/cloud-platform
    """
    options = token_options.read(flags)
    token_options.check(scope, flag="--scope")
    from krun_discover import token_mint

    _deliver(token_mint.Google(environ=os.environ, scopes=scope), options)


def _deliver(mint: Mint, options: token_options.Options) -> None:
    from krun_discover import token_delivery

    token_delivery.deliver(mint, options)


def main() -> NoReturn:
    """Run as the process."""
    errors.run(command, tool="krun-token")
