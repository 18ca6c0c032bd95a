"""Debug ssh server for a container, reached through the tunnel."""

from __future__ import annotations
