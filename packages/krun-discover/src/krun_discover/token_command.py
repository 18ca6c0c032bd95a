"""The krun-token commands with all their flags, their help and their completion."""

from __future__ import annotations

from typing import Any

import click

from krun_discover import flags as common
from krun_discover import token_flags
from krun_discover.token_options import LIFE, Asked

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


@click.group(epilog=EPILOG, context_settings=CONTEXT, invoke_without_command=True, no_args_is_help=True)
@common.stay("load all that a token takes, and take the command line from this socket.")
@click.version_option(package_name="krun-discover", message="%(prog)s %(version)s")
@click.pass_context
def command(context: click.Context, *, stay: int | None) -> None:
    """Mint one token, of Kubernetes or of Google, and print it, or keep a file's token good.

    On stdout is the token and nothing else; it is never logged.
    """
    if stay is not None and context.invoked_subcommand:
        raise click.UsageError("--stay is told by its socket which token: it goes without a command", ctx=context)
    if stay is not None:
        from krun_discover import stay as staying  # late: only krun-launch asks for it

        staying.stay(stay, is_wanted=True)
    elif context.invoked_subcommand is None:
        raise click.UsageError("Missing command.", ctx=context)


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
    default=LIFE,
    show_default=True,
    metavar="SECONDS",
    help="The cluster may give it another life.",
)
@token_flags.add
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
    options = token_flags.read(flags)
    token_flags.check(audience, flag="--audience")
    _run(
        Asked(
            kind="kubernetes",
            options=options,
            audiences=audience,
            namespace=namespace or "",
            account=service_account,
            context=cluster_context or "",
            life=expiration,
        )
    )


_federation = click.option(
    "--federation",
    metavar="AUDIENCE",
    default="",
    help="As the workload's Kubernetes account: identitynamespace:TRUST_DOMAIN:ISSUER of a GKE cluster, or "
    "//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/P/providers/Q. "
    "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT is whom it acts for.",
)


@command.command("id")
@click.option("--audience", required=True, metavar="URL", help="Whom it is for, as the receiver is configured.")
@_federation
@token_flags.add
def identity(*, audience: str, federation: str, **flags: Any) -> None:
    """An ID token of Google's, for Cloud Run, IAP, and whoever else asks for one.

    \b
    Example:
      curl -H "Authorization: Bearer $(krun-token id --audience $URL)" $URL
    """
    options = token_flags.read(flags)
    token_flags.check((audience,), flag="--audience")
    _run(Asked(kind="id", options=options, audiences=(audience,), federation=federation))


@command.command()
@click.option("--scope", multiple=True, metavar="SCOPE", help="More than once; if not given, cloud-platform.")
@_federation
@token_flags.add
def access(*, scope: tuple[str, ...], federation: str, **flags: Any) -> None:
    """An access token for Google's own APIs.

    \b
    Example:
      krun-token access --scope https://www.googleapis.com/auth/cloud-platform
    """
    options = token_flags.read(flags)
    token_flags.check(scope, flag="--scope")
    _run(Asked(kind="access", options=options, scopes=scope, federation=federation))


def _run(asked: Asked) -> None:
    from krun_discover import token_run  # late: help needs none of it

    token_run.run(asked)
