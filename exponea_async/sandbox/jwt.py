"""
The token that names a customer: a JWT, signed with the project's secret. HS256 only. Pure.
"""

import binascii
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from exponea_async.sandbox.encoding import dumps, loads

ALGORITHM = "HS256"


class JwtError(ValueError):
    """A token is broken, forged or expired."""


def issue_token(
    secret: str,
    ids: Mapping[str, str],
    expires_in: float = 3600.0,
    *,
    now: float | None = None,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """
    Makes a customer's token, as the host's own backend does.

    Args:
        secret: The secret of the project.
        ids: The customer's ids, such as ``{"registered": "jane@x.com"}``.
        expires_in: For how many seconds it is good; none or less make one that has expired.
        now: Since when, UNIX seconds; the present where None.
        claims: Further claims, which win over ``ids`` and ``exp``.
    """
    issued = time.time() if now is None else now
    told = {"ids": dict(ids), "iat": int(issued), "exp": issued + expires_in, **(claims or {})}
    signed = f"{_encoded(dumps({'alg': ALGORITHM, 'typ': 'JWT'}))}.{_encoded(dumps(told))}"
    return f"{signed}.{_encoded(_signature(secret, signed))}"


def read_token(secret: str, token: str, now: float) -> dict[str, str]:
    """
    Checks a token.

    Args:
        secret: The secret of the project.
        token: What stands behind ``Bearer``.
        now: UNIX seconds.

    Returns:
        The customer's ids that it vouches for; at least one.

    Raises:
        JwtError: It is broken, of another algorithm, not signed with the secret, or expired.
    """
    signed, _, signature = token.rpartition(".")
    head, _, body = signed.partition(".")
    # The signature stands before all else: nothing of a forged token is looked into, but how it is signed.
    if _object(head).get("alg") != ALGORITHM:
        raise JwtError(f"The token should be signed with {ALGORITHM}.")
    if not hmac.compare_digest(_decoded(signature), _signature(secret, signed)):
        raise JwtError("The token's signature is invalid.")
    claims = _object(body)
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise JwtError("The token should tell when it expires.")
    if expires <= now:
        raise JwtError("The token has expired.")
    return _ids(claims.get("ids"))


def _ids(ids: object) -> dict[str, str]:
    if not isinstance(ids, dict) or not ids:
        raise JwtError("The token should name at least one id.")
    if not all(value and isinstance(value, str) for value in ids.values()):
        raise JwtError("The token's ids should be non-empty strings.")
    return ids


def _object(part: str) -> dict[str, Any]:
    try:
        value = loads(_decoded(part))
    except ValueError:
        raise JwtError("The token is malformed.") from None
    if not isinstance(value, dict):
        raise JwtError("The token is malformed.")
    return value


def _signature(secret: str, signed: str) -> bytes:
    return hmac.new(secret.encode(), signed.encode(), sha256).digest()


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part.encode() + b"=" * (-len(part) % 4))
    except (binascii.Error, UnicodeEncodeError):
        raise JwtError("The token is malformed.") from None
