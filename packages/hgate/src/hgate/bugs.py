"""A bug that must not end the gate, as a field of a log line: its kind and its place, and nothing of what it held."""

from __future__ import annotations

import traceback
from pathlib import PurePath

FRAMES = 6


def place_of(error: BaseException) -> str:
    """``KeyError at registration.py:120 < cluster.py:80``, innermost first. What it says may be a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames)]
    return f"{type(error).__name__} at {' < '.join(places[:FRAMES])}"
