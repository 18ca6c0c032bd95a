"""Decides, applies, proves and removes the interception rules of a mesh workload."""

from __future__ import annotations
