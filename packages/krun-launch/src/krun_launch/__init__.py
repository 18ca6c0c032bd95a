"""Runs Envoy and an application in the right order, as PID 1, outside Kubernetes."""

from __future__ import annotations
