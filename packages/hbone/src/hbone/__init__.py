"""Tunnels TCP over HTTP/2: an ssh ProxyCommand on a laptop, its server in the container.

For other programs: ``client`` (``Client.carry`` leads a socket into a tunnel, ``ended`` says what became of it),
``server``, ``stop.run`` and ``poller`` (the loop that both are quick on), ``tunnel`` and ``events`` (the core, without
input or output), ``urls``, ``sockets``, ``tokens``, ``options``. Nothing is imported here: a ProxyCommand starts faster
without what it does not need.
"""

from __future__ import annotations
