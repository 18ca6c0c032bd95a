"""When a token is renewed: at 80 % of its life, a little earlier or later so that many do not come at once.

The kubelet's rule (https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/). Times are of
time.time(): while an instance is frozen, time.monotonic() may stand still, and the token's life does not.
"""

from __future__ import annotations

SHARE = 0.8
JITTER = 0.1  # of it, to both sides
GOOD = 30.0  # seconds before its end: until then an old token is better than none


def renewal(*, issued: float, expires: float, draw: float) -> float:
    """When to renew; ``draw`` is a random number from 0 to 1."""
    share = SHARE * (1 + JITTER * (2 * draw - 1))
    return issued + share * max(0.0, expires - issued)


def is_good(*, expires: float, now: float) -> bool:
    """Tell whether the token will still be good when it arrives."""
    return now < expires - GOOD
