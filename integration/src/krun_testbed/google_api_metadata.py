"""The metadata server of each platform, with tokens that the APIs of the same test know."""

from __future__ import annotations

from dataclasses import replace

from krun_testbed.google_api_tokens import Accounts
from krun_testbed.metadata import Facts, MetadataServer

# By the Server header clients tell the platforms apart.
PRODUCTS = {
    "cloud-run": "Metadata Server for Serverless",
    "gke": "GKE Metadata Server",
    "vm": "Metadata Server for VM",
}


def metadata_server(
    accounts: Accounts, *, address: str, platform: str = "cloud-run", facts: Facts | None = None
) -> MetadataServer:
    """One that ``with`` starts. On a VM and on GKE the scopes of a token are the machine's, whatever is asked."""
    known = replace(facts or Facts(), product=PRODUCTS[platform])
    if platform == "vm" and not facts:
        known = replace(known, region="", zone="us-central1-a")

    def token(scopes: str) -> str:
        given = scopes if platform == "cloud-run" else " ".join(known.scopes)
        return accounts.access_token(known.email, scopes=given, way="metadata")

    def identity(audience: str) -> str:
        return accounts.id_token(known.email, audience)

    return MetadataServer(address=address, facts=known, token=token, identity=identity)
