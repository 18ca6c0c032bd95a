"""A user's entry in a kubeconfig: the credentials that it holds or names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from krun_discover import kube_credentials
from krun_discover.issued import Token
from krun_discover.kube_credentials import Anonymous, Credentials
from krun_discover.kubeconfig_entry import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# It prints an access token of Google's, which we get without running it, unless its arguments ask for more than that.
GOOGLE_PLUGINS = frozenset({"gke-gcloud-auth-plugin", "gke-gcloud-auth-plugin.exe"})
GOOGLE_ARGUMENTS = frozenset({"--use_application_default_credentials"})
UNSUPPORTED = ("as-groups", "as-uid", "as-user-extra")


def credentials(
    entry: Entry, *, google: Callable[[], Token], environ: Mapping[str, str], told: Mapping[str, Any]
) -> Credentials:
    """Read the ``user`` of an entry; ``told`` is what a plugin may be told of the cluster.

    Of several the order is client-go's: a certificate goes along with any other; then a token, a name and password,
    a plugin. Raises Malformed, Misconfigured.
    """
    parts: list[Credentials] = []
    if as_user := entry.line("as"):
        from krun_discover.kube_credentials_rare import Acting

        parts.append(Acting(user=_header(entry, "as", as_user), title=entry.at("as")))
    for name in UNSUPPORTED:
        if entry.values.get(name):
            raise entry.refused(name, "is not supported", hint="use a user that needs no impersonation, or only 'as'")
    if pair := _certificate(entry):
        parts.append(pair)
    if main := _main(entry, google=google, environ=environ, told=told):
        parts.append(main)
    if not parts:
        return Anonymous()
    if len(parts) == 1:
        return parts[0]
    from krun_discover.kube_credentials_rare import Together

    return Together(parts=tuple(parts))


def _main(
    entry: Entry, *, google: Callable[[], Token], environ: Mapping[str, str], told: Mapping[str, Any]
) -> Credentials | None:
    if path := entry.path("tokenFile"):  # newer than the token beside it, as for kubectl
        return kube_credentials.File(path=path, title=entry.at("tokenFile"))
    if token := entry.text("token").strip():
        kube_credentials.bearer(token, title=entry.at("token"))  # to be told at once when it is none
        return kube_credentials.Text(token=token, title=entry.at("token"))
    if username := entry.text("username"):
        from krun_discover.kube_credentials_rare import Login

        return Login(username=username, password=entry.text("password"), title=f"{entry.at('username')} and password")
    provider = entry.entry("auth-provider")
    if provider.values:
        if provider.text("name") != "gcp":
            raise provider.refused(
                "name", "only gcp is supported, as clients of Kubernetes 1.26 support none", hint="use an exec plugin"
            )
        return kube_credentials.Google(google=google)
    return _exec(entry.entry("exec"), google=google, environ=environ, told=told)


def _header(entry: Entry, name: str, text: str) -> str:
    if not text.isascii():
        raise entry.wrong(name, "is not ASCII")
    return text


def _certificate(entry: Entry) -> Credentials | None:
    """The data win over files, as for kubectl."""
    data, key_data = entry.data("client-certificate-data"), entry.data("client-key-data")
    path, key_path = entry.path("client-certificate"), entry.path("client-key")
    if not (data or path) and not (key_data or key_path):
        return None
    if not (data or path):
        raise entry.wrong("client-key", "has no client-certificate beside it")
    if not (key_data or key_path):
        raise entry.wrong("client-certificate", "has no client-key beside it")
    from krun_discover.certificate import held  # late: most have a token
    from krun_discover.kube_credentials_rare import Certificate

    return Certificate(
        certificate=held(data) if data else path,
        key=held(key_data) if key_data else key_path,
        title=entry.at("client-certificate-data" if data else "client-certificate"),
    )


def _exec(
    entry: Entry, *, google: Callable[[], Token], environ: Mapping[str, str], told: Mapping[str, Any]
) -> Credentials | None:
    if not entry.values:
        return None
    command = entry.line("command")
    if not command:
        raise entry.wrong("command", "is missing")
    arguments = entry.texts("args")
    if command.rpartition("/")[2] in GOOGLE_PLUGINS and GOOGLE_ARGUMENTS.issuperset(arguments):
        return kube_credentials.Google(google=google)
    from krun_discover import exec_plugin  # late: with subprocess

    version = entry.line("apiVersion")
    if version not in exec_plugin.VERSIONS:
        raise entry.refused(
            "apiVersion", f"{version!r} is not supported", hint=f"newer plugins speak {exec_plugin.VERSIONS[0]}"
        )
    mode = entry.line("interactiveMode") or "IfAvailable"
    if mode not in exec_plugin.MODES:
        raise entry.wrong("interactiveMode", f"is none of {', '.join(exec_plugin.MODES)}")
    plugin = exec_plugin.Plugin(
        # With a folder it is relative to the file's own; without one it is looked for in PATH.
        command=entry.path("command") if "/" in command else command,
        api_version=version,
        title=entry.title,
        arguments=arguments,
        env=_env(entry),
        interactive_mode=mode,
        install_hint=entry.text("installHint"),
        cluster=told if entry.flag("provideClusterInfo") else None,
    )
    return exec_plugin.Exec(plugin=plugin, environ=environ)


def _env(entry: Entry) -> dict[str, str]:
    found = {}
    for one in entry.entries("env"):
        name = one.line("name")
        if not name or "=" in name:
            raise one.wrong("name", "is no name of a variable")
        found[name] = one.text("value")
    return found
