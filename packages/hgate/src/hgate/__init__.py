"""SNI gateway from the mesh to Cloud Run."""

from __future__ import annotations
