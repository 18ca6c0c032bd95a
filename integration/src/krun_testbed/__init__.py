"""The testbed: real parts and stand-ins that speak the real protocol, each startable by itself."""

from __future__ import annotations
