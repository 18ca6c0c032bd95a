"""Tunnels TCP over HTTP/2: an ssh ProxyCommand on a laptop, its server in the container.

For other programs: ``tunnel`` and ``events`` (the core, without input or output), ``urls``, ``client`` (opens tunnels),
``relay``, ``forward``, ``acceptor``, ``sockets``, ``stop``, ``tokens``, ``options``. Nothing is imported here: a
ProxyCommand starts faster without what it does not need.
"""

from __future__ import annotations
