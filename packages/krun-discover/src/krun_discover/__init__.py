"""Finds the mesh, the project and the identity of a container, and prints them as environment JSON."""

from __future__ import annotations
