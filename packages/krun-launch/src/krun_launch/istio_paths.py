"""Where the token for the control plane and its root certificates are: below the agent's folder, or mounted."""

from __future__ import annotations

TOKEN = "var/run/secrets/tokens/istio-token"
ROOT = "var/run/secrets/istio/root-cert.pem"
# The same, where a platform has mounted them, as in a Pod.
MOUNTED_TOKEN = f"/{TOKEN}"
MOUNTED_ROOT = f"/{ROOT}"
