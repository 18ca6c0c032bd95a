"""gcloud's own folder: where its settings are, and the file of application default credentials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CREDENTIALS = "application_default_credentials.json"


def folder(environ: Mapping[str, str]) -> Path | None:
    """Where gcloud keeps its settings; None without a home."""
    if environ.get("CLOUDSDK_CONFIG"):
        return Path(environ["CLOUDSDK_CONFIG"])
    home = environ.get("HOME")
    return Path(home) / ".config" / "gcloud" if home else None
