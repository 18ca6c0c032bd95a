"""What may be read of a token without its key: whether it is one at all, its claims, its end; and texts without tokens.

Nothing is verified here: who takes the token does that.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping

MAX_TIME = 1e11  # seconds since 1970; what is more is no time
TEXT_LIMIT = 300  # characters of somebody else's text in a message of ours
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750 §2.1, so that it can break no header
# Google's access tokens, refresh tokens and client secrets; JWTs (RFC 7519), whole or in part; then private keys.
# Not compiled here: few starts show any text.
_SECRET = (
    r"\bya29\.[\w.-]+|\b1//[\w-]{10,}|\bGOCSPX-[\w-]+|\beyJ[\w-]{5,}(?:\.[\w-]*)*|-----BEGIN[^-]*PRIVATE KEY-----\S*"
)


def is_token(text: str) -> bool:
    """Tell whether a text can be a token: one word that may stand in a header."""
    return _TOKEN.fullmatch(text) is not None


def claims(token: str) -> Mapping[str, object]:
    """The claims of a JWT (RFC 7519 §3), empty when it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}


def expires(token: str) -> float | None:
    """When a JWT ends, in seconds since 1970; None when it does not say so."""
    end = claims(token).get("exp")
    if isinstance(end, bool) or not isinstance(end, int | float):
        return None
    return float(end) if abs(end) < MAX_TIME else None  # no nan either


def audiences(token: str) -> tuple[str, ...]:
    """Whom a JWT is for."""
    found = claims(token).get("aud")
    if isinstance(found, list):
        return tuple(str(one) for one in found)
    return (found,) if isinstance(found, str) else ()


def shown(text: str) -> str:
    """Somebody else's text for a message of ours: one line, not long, and what looks like a secret is blacked out."""
    # Before it is cut: half of a token might not look like one any more.
    line = " ".join(re.sub(_SECRET, "[secret]", text).split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"
