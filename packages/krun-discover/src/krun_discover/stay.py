"""Waiting to be a krun-token: whoever started us may want one soon, and most of its start is done here meanwhile.

By the socket comes one command line of krun-token with its environment, as JSON, and the descriptor that is to be its
stdout and stderr; then this process is that krun-token. At the end of the socket without one, it ends.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import socket
import sys

from krun_discover.errors import Malformed, Misconfigured

PIECE = 65536  # bytes


def stay(descriptor: int, *, is_wanted: bool) -> None:
    """Wait, and be krun-token when that is asked for, as is likely or not. Raises Malformed, Misconfigured."""
    if is_wanted:
        _load()  # while nobody waits for us

    data, stream = _received(descriptor)
    if not data:
        return
    argv, env = _command(data)
    for number in (1, 2):
        os.dup2(stream, number)
    if stream > 2:
        os.close(stream)
    if logging := sys.modules.get("logging"):
        logging.getLogger().handlers.clear()  # they are of krun-discover
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = argv
    from krun_discover import token_cli  # late: not every mesh wants one

    token_cli.main()


def _load() -> None:
    """What a token of Kubernetes takes."""
    import threading  # noqa: F401

    from krun_discover import (  # noqa: F401
        certificate,
        kube_access,
        kube_find,
        kube_time,
        kubeconfig,
        token_cache,
        token_file,
        token_run,
        web_tls,
    )

    for name in ("idna", "utf-8-sig"):  # of the names of hosts, and of files
        codecs.lookup(name)
    with contextlib.suppress(Misconfigured):  # said when a token is wanted
        if kubeconfig.files(os.environ)[0]:
            from krun_discover import kubeconfig_yaml  # noqa: F401


def _received(descriptor: int) -> tuple[bytes, int]:
    """All that comes, and the stream that comes with it."""
    try:
        with socket.socket(fileno=descriptor) as channel:
            data, passed, _, _ = socket.recv_fds(channel, PIECE, 1)
            while piece := channel.recv(PIECE):
                data += piece
    except OSError as error:
        raise Misconfigured(
            f"--stay {descriptor}: {error.strerror}", hint="it is the number of a connected Unix socket"
        ) from None
    return data, passed[0] if passed else 2


def _command(data: bytes) -> tuple[list[str], dict[str, str]]:
    try:
        found = json.loads(data)
        return [str(word) for word in found["argv"]], {str(name): str(value) for name, value in found["env"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Malformed(
            f"what came to be done after it: no command line and environment as JSON: {error}",
            hint="--stay is for krun-launch of the same version",
        ) from None
