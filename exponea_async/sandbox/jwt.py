"""
Customer tokens: JSON Web Tokens that are signed with the secret of the project. HS256 only. Pure.
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
    """A token is malformed, has an invalid signature, or has expired."""


def issue_token(
    secret: str,
    ids: Mapping[str, str],
    expires_in: float = 3600.0,
    *,
    now: float | None = None,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """
    Return a signed customer token, as the backend of an application issues it.

    Args:
        secret: The secret of the project.
        ids: The ids of the customer, such as ``{"registered": "jane@x.com"}``.
        expires_in: The lifetime in seconds; 0 or less makes a token that has already expired.
        now: The time of issue, UNIX seconds; the current time where None.
        claims: Additional claims; these override ``ids``, ``iat`` and ``exp``.
    """
    issued_at = time.time() if now is None else now
    payload = {"ids": dict(ids), "iat": int(issued_at), "exp": issued_at + expires_in, **(claims or {})}
    signed = f"{_encode(dumps({'alg': ALGORITHM, 'typ': 'JWT'}))}.{_encode(dumps(payload))}"
    return f"{signed}.{_encode(_signature(secret, signed))}"


def verify_token(secret: str, token: str, now: float) -> dict[str, str]:
    """
    Verify a customer token.

    Args:
        secret: The secret of the project.
        token: The token, as it follows ``Bearer`` in the header.
        now: The current time, UNIX seconds.

    Returns:
        The ids of the customer; at least one.

    Raises:
        JwtError: The token is malformed, uses another algorithm, was not signed with the secret, or has expired.
    """
    if not token.isascii():
        raise JwtError("The token is malformed.")
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    # The signature is verified before the payload is parsed.
    if _decode_object(header).get("alg") != ALGORITHM:
        raise JwtError(f"The token should be signed with {ALGORITHM}.")
    if not hmac.compare_digest(_decode(signature), _signature(secret, signed)):
        raise JwtError("The token's signature is invalid.")
    claims = _decode_object(payload)
    expires_at = claims.get("exp")
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise JwtError("The token should have a numeric exp claim.")
    if expires_at <= now:
        raise JwtError("The token has expired.")
    return _checked_ids(claims.get("ids"))


def _checked_ids(ids: object) -> dict[str, str]:
    if not isinstance(ids, dict) or not ids:
        raise JwtError("The token should contain at least one id.")
    if not all(value and isinstance(value, str) for value in ids.values()):
        raise JwtError("The token's ids should be non-empty strings.")
    return ids


def _decode_object(part: str) -> dict[str, Any]:
    try:
        value = loads(_decode(part))
    except ValueError:
        raise JwtError("The token is malformed.") from None
    if not isinstance(value, dict):
        raise JwtError("The token is malformed.")
    return value


def _signature(secret: str, signed: str) -> bytes:
    return hmac.new(secret.encode(), signed.encode(), sha256).digest()


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part.encode() + b"=" * (-len(part) % 4))
    except binascii.Error:
        raise JwtError("The token is malformed.") from None
