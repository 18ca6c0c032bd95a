"""The commands ``hgate register`` and ``hgate unregister``: flags, what is printed, failures as exit statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hgate import errors

if TYPE_CHECKING:
    from hgate.kube import Kube
    from hgate.register import Asked, Mesh

_NAME = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?))?")
EXAMPLES = """
\b
Examples:
  hgate register web.demo https://web-123456789.us-central1.run.app
  hgate register --dry-run --gate-address 10.1.2.3 web.demo \\
    https://web-123456789.us-central1.run.app=25 \\
    https://web-123456789.europe-west1.run.app=75
"""

_kubeconfig = click.option("--kubeconfig", metavar="FILE", default="", help="Instead of kubectl's own.")
_namespace = click.option("--namespace", "-n", metavar="NAME", default="", help="Default: the kubeconfig's own.")


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", metavar="NAME[.NAMESPACE]")
@click.argument("urls", metavar="URL[=WEIGHT]...", nargs=-1, required=True)
@_namespace
@_kubeconfig
@click.option("--dry-run", is_flag=True, help="Print the objects as YAML; write nothing.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Of a Service that is made."
)
@click.option("--workload", metavar="NAME", default="", help="As krun calls it. Default: the Cloud Run service's name.")
@click.option(
    "--service-account", metavar="NAME", default="", help="Whose identity callers insist on. Default: default."
)
@click.option("--timeout", type=click.IntRange(1, 3600), help="Request timeout of the Cloud Run service, in seconds.")
@click.option("--audience", metavar="TEXT", default="", help="Of its ID tokens, if admins allow another than the URL.")
@click.option("--gate-address", metavar="ADDRESS", default="", help="Of the gate. Default: as mesh-env says.")
@click.option("--trust-domain", metavar="NAME", default="", help="Of the mesh. Default: as mesh-env says.")
def register(name: str, urls: tuple[str, ...], **given: Any) -> int:
    """Register a Cloud Run service, or several with weights, as the mesh's service NAME.

    The Service NAME is annotated, or made if there is none, and what follows from it is written as the caller.
    """
    from hgate.register import Asked, Mesh, following, service, text
    from hgate.register import register as write

    service_name, namespace = _named(name, given)
    asked = Asked(
        service=service_name,
        namespace=namespace,
        urls=urls,
        port=given["port"],
        audience=given["audience"],
        timeout=given["timeout"] or 0,
        workload=given["workload"],
        account=given["service_account"],
    )
    mesh = None
    if given["gate_address"]:
        mesh = Mesh(gate=_address(given["gate_address"]), trust_domain=given["trust_domain"] or "cluster.local")
    if given["dry_run"]:
        mesh = mesh or _mesh(given, needed=True)
        item = service(asked)
        assert mesh is not None  # noqa: S101 - needed
        click.echo(text([item, *following(item, mesh)]), nl=False)
        return errors.Exit.OK
    kube = _kube(given)
    with _failures(asked):
        for line in write(kube, asked, mesh or _mesh(given, kube=kube)):
            click.echo(f"hgate: {line}", err=True)
    return errors.Exit.OK


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", metavar="NAME[.NAMESPACE]")
@_namespace
@_kubeconfig
def unregister(name: str, **given: Any) -> int:
    """Take back what register, or an annotation, has made of the Service NAME.

    A Service that register made goes, too; one that was there before loses its annotations only.
    """
    from hgate.register import Asked
    from hgate.register import unregister as remove

    service_name, namespace = _named(name, given)
    asked = Asked(service=service_name, namespace=namespace)
    kube = _kube(given)
    with _failures(asked):
        for line in remove(kube, asked):
            click.echo(f"hgate: {line}", err=True)
    return errors.Exit.OK


def _named(name: str, given: dict[str, Any]) -> tuple[str, str]:
    """Service and namespace."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise click.BadParameter(f"{name!r} is not SERVICE or SERVICE.NAMESPACE", param_hint="'NAME'")
    if found[4] and given["namespace"] not in ("", found[4]):
        raise click.BadParameter(f"{name!r} is of another namespace", param_hint="'--namespace'")
    return found[1], found[4] or given["namespace"] or _own_namespace(given["kubeconfig"])


def _own_namespace(kubeconfig: str) -> str:
    """That of the kubeconfig's context."""
    hint = "write NAME.NAMESPACE, or --namespace"
    try:
        from kubernetes import config  # late: 0.35 s
    except ImportError as error:
        raise errors.Misconfigured(f"no namespace is given, and no kubeconfig is read: {error}", hint=hint) from error
    try:
        _, active = config.list_kube_config_contexts(kubeconfig or None)
    except (config.ConfigException, OSError, TypeError) as error:
        raise errors.Misconfigured("no namespace is given", hint=hint) from error
    return str((active or {}).get("context", {}).get("namespace") or "default")


def _kube(given: dict[str, Any]) -> Kube:
    from hgate.kube import open_kube

    return open_kube(kubeconfig=given["kubeconfig"])


def _mesh(given: dict[str, Any], *, kube: Kube | None = None, needed: bool = False) -> Mesh | None:
    """What mesh-env says. It is the gate's to write: where it cannot be read, the gate does the rest, too."""
    from dataclasses import replace

    from hgate.kube_answer import Answer
    from hgate.register import find_mesh

    hint = "give --gate-address: kubectl -n istio-system get service internal-hgate shows it"
    try:
        found = find_mesh(kube or _kube(given))
    except (Answer, errors.Failure) as error:
        if needed:
            raise errors.Misconfigured(f"the gate's address is not known: {error}", hint=hint) from error
        found = None
    if found is None:
        if needed:
            raise errors.Misconfigured("the gate's address is not known: mesh-env has none", hint=hint)
        click.echo("hgate: the gate's address is not known: the gate itself writes what follows", err=True)
        return None
    return replace(found, trust_domain=given["trust_domain"] or found.trust_domain)


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no IP address", param_hint="'--gate-address'") from error


@contextmanager
def _failures(asked: Asked) -> Iterator[None]:
    """Answers of the API server as failures of a tool."""
    from hgate.kube_answer import Answer

    try:
        yield
    except Answer as answer:
        if answer.is_denied or answer.status == 401:
            hint = f"ask for the role admin in namespace {asked.namespace}, as manifests/ give it to hgate's users"
            raise errors.Denied(str(answer), hint=hint) from answer
        if answer.is_passing:
            raise errors.Unreachable(str(answer), hint="try again: each step may be repeated") from answer
        raise errors.Misconfigured(str(answer), hint="see the message; nothing was written after it") from answer
