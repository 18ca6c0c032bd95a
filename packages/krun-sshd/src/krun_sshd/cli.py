"""The command line of krun-sshd: settings from flags and environment, then the server."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from krun_sshd import access, contract, errors, log

if TYPE_CHECKING:
    import asyncssh

EXAMPLES = """\b
Examples:
  SSH_AUTH="$(cat ~/.ssh/id_ed25519.pub)" krun-sshd
  krun-sshd --authorized-keys /etc/krun/keys --host-key /etc/krun/host_key
  ssh -o ProxyCommand='hbone https://SERVICE.run.app/_hbone/22' debug
"""


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else str(ipaddress.ip_address(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an IP address", ctx=context, param=parameter) from None


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--auth", "keys", metavar="KEYS", envvar="SSH_AUTH", show_envvar=True, help="Public keys, a line each.")
@click.option("--authorized-keys", type=click.Path(path_type=Path), help="A file of public keys, instead of KEYS.")
@click.option("--host-key", type=click.Path(path_type=Path), help="Private host key; default: a new one at each start.")
@click.option(
    "--loopback",
    metavar="ADDRESS",
    envvar="KRUN_LOOPBACK",
    show_envvar=True,
    default="127.0.0.1",
    show_default=True,
    help="The loopback address to listen on, and what localhost means to forwards.",
)
@click.option("--bind", metavar="ADDRESS", callback=_address, help="Listen there instead, open to the network.")
@click.option("--port", type=click.IntRange(1, 65535), default=contract.PORTS["SSH"], show_default=True)
@click.option(
    "--log-level",
    type=click.Choice(log.LEVELS),
    default="info",
    envvar="KRUN_LOG_LEVEL",
    show_envvar=True,
    show_default=True,
)
@click.option(
    "--log-format",
    type=click.Choice(log.FORMATS),
    default="auto",
    envvar="KRUN_LOG_FORMAT",
    show_envvar=True,
    show_default=True,
)
@click.version_option(package_name="krun-sshd", message="%(prog)s %(version)s")
def command(
    keys: str | None,
    authorized_keys: Path | None,
    host_key: Path | None,
    loopback: str,
    bind: str | None,
    port: int,
    log_level: str,
    log_format: str,
) -> int:
    """Debug ssh server for a container: shell, commands and forwards to loopback, for who has a key.

    Listens on loopback, where the tunnel (hboned) reaches it. Whoever comes in runs as the user of this process,
    under any user name.
    """
    log.configure(tool="krun-sshd", level=log_level, style=log_format)
    _check_loopback(loopback)
    _check_one_source(authorized_keys)
    entries = _entries(keys=keys, path=authorized_keys)

    # asyncio and asyncssh cost 0.25 s to import: after all that can be wrong without them.
    import asyncio

    import asyncssh

    from krun_sshd import server

    # Its own lines carry commands and variables of the client: only warnings.
    asyncssh.set_log_level("WARNING")
    settings = server.Settings(
        address=bind or loopback,
        port=port,
        loopback=loopback,
        entries=entries,
        host_key=_host_key(host_key),
        environment=dict(os.environ),
    )
    return asyncio.run(server.serve(settings))


def _check_loopback(address: str) -> None:
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise errors.Misconfigured(
            f"KRUN_LOOPBACK is {address!r}, which is not a loopback address",
            hint="give one of 127.0.0.0/8 or ::1; to listen elsewhere use --bind",
        )


def _check_one_source(path: Path | None) -> None:
    """A file given as a flag wins over SSH_AUTH of the environment; two flags contradict each other."""
    source = click.get_current_context().get_parameter_source("keys")
    if path is not None and source == click.core.ParameterSource.COMMANDLINE:
        raise errors.Misconfigured("--auth and --authorized-keys: both are given", hint="give one of them")


def _entries(*, keys: str | None, path: Path | None) -> tuple[access.Entry, ...]:
    if path is not None:
        return access.entries(
            _read(path, what="authorized keys").decode(errors="replace").splitlines(), source=str(path)
        )
    if keys is None:
        raise errors.Misconfigured(
            "no key: neither SSH_AUTH nor --authorized-keys is given, so nobody could come in",
            hint='SSH_AUTH="$(cat ~/.ssh/id_ed25519.pub)" krun-sshd',
        )
    return access.entries(access.split_lines(keys), source="SSH_AUTH")


def _host_key(path: Path | None) -> asyncssh.SSHKey:
    import asyncssh

    if path is None:
        return asyncssh.generate_private_key("ssh-ed25519")
    try:
        return asyncssh.import_private_key(_read(path, what="host key"))
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise errors.Misconfigured(
            f"cannot use the host key {path}: {error}", hint="make one: ssh-keygen -t ed25519 -N '' -f FILE"
        ) from error


def _read(path: Path, *, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.Misconfigured(f"cannot read the {what} {path}: {error.strerror}") from error


def main() -> NoReturn:
    """The process ``krun-sshd``."""
    errors.run(command, tool="krun-sshd")
