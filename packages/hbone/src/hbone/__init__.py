"""Tunnels TCP over HTTP/2: an ssh ProxyCommand on a laptop, its server in the container."""

from __future__ import annotations
