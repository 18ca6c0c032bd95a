"""Where ID tokens come from: a file is read here, at once; a command is somebody's who can wait for it.

A ProxyCommand waits for this module: what takes long to import is imported where it is needed.
"""

from __future__ import annotations

from hbone import errors

SOURCES = "--token-command (KRUN_ID_TOKEN_COMMAND) or --token-file (KRUN_ID_TOKEN_FILE)"
COMMAND_TIMEOUT = 30.0  # seconds
# RFC 6750 §2.1, so that it can break no header.
_IN_TOKEN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/=-"


class Source:
    """A command, in which ``{audience}`` is replaced, or a file; or nowhere."""

    __slots__ = ("command", "file")

    def __init__(self, *, command: str | None = None, file: str | None = None) -> None:
        self.command = command
        self.file = file

    def __bool__(self) -> bool:
        return bool(self.command or self.file)


def check(source: Source) -> None:
    """Raises Misconfigured when it is not one."""
    if source.command and source.file:
        raise errors.Misconfigured("a token command and a token file are given", hint=f"give one of {SOURCES}")


def read(file: str) -> str:
    """The token in a file. Raises Misconfigured."""
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 - pathlib takes long to import
            text = opened.read()
    except OSError as error:
        raise errors.Misconfigured(
            f"cannot read the ID token file {file}: {error.strerror}", hint=f"see {SOURCES}"
        ) from error
    return checked(text, where=f"the ID token file {file}")


def checked(text: str, *, where: str) -> str:
    """The token in what was read. Raises Misconfigured."""
    token = text.strip()
    if not token or token.strip(_IN_TOKEN):
        what = "is empty" if not token else "holds something that is no token"
        raise errors.Misconfigured(f"{where} {what}", hint="one token, and nothing else, is expected there")
    return token


def words(command: str) -> list[str]:
    """The command, and what it is told. Raises Misconfigured."""
    import shlex

    try:
        found = shlex.split(command)
    except ValueError as error:
        raise errors.Misconfigured(f"the token command cannot be read: {error}", hint="check its quotes") from error
    if not found:
        raise errors.Misconfigured("the token command is empty", hint=f"see {SOURCES}")
    return found


def said(status: int, output: bytes, *, argv: list[str], audience: str) -> str:
    """The token that the command has printed. Raises Denied, Misconfigured."""
    if status:
        raise errors.Denied(
            f"no ID token: {argv[0]!r} ended with status {status}",
            hint=f"it was asked for audience {audience}; run it by hand",
        )
    return checked(output.decode(errors="replace"), where=f"the output of {argv[0]!r}")


def not_run(error: OSError, *, argv: list[str]) -> errors.Misconfigured:
    """The failure of a command that could not be started."""
    return errors.Misconfigured(f"cannot run the token command {argv[0]!r}: {error.strerror}")


def too_slow(argv: list[str], *, seconds: float) -> errors.DeadlinePassed:
    """The failure of a command that did not end in time."""
    return errors.DeadlinePassed(f"no ID token from {argv[0]!r} within {seconds:g} s", hint="run the command by hand")


def find(source: Source, *, audience: str) -> str | None:
    """A token for the audience, ``None`` without a source; waits for it.

    Raises:
        Misconfigured: there is no token in the file, or no such command.
        Denied: the command failed.
        DeadlinePassed: it did not end in time.
    """
    check(source)
    if source.file:
        return read(source.file)
    if not source.command:
        return None
    argv = [word.replace("{audience}", audience) for word in words(source.command)]
    import subprocess

    try:
        # Its stderr is ours: what it complains about is for the user.
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise too_slow(argv, seconds=COMMAND_TIMEOUT) from error
    except OSError as error:
        raise not_run(error, argv=argv) from error
    return said(done.returncode, done.stdout, argv=argv, audience=audience)
