"""
Tokens that stand for a message in a page: small, signed, and redeemed by any process that has the same secret.

A token has what events need: no HTML, and no ids of a customer. So it tells a reader nothing about a customer, and an
event is always about the subject that redeems it. What a browser returns can't be trusted: only what was signed is
read, so a forged token can neither change a consent nor make the application open an address of its own.
"""

import json
import re
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from hmac import new as new_hmac
from typing import Any, Literal

from exponea_async._internal.secrets import Secret
from exponea_async.config import Configuration
from exponea_async.errors import ConfigurationError, InvalidEventError

#: Maximum length of a token, in characters. Longer ones do not fit into addresses, and are not read.
MAX_LENGTH = 8_000
#: The length of a signature in bytes.
_SIGNATURE = 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")

Kind = Literal["content_block", "message"]


def make_token(configuration: Configuration, kind: Kind, content: Mapping[str, Any]) -> str:
    """
    Return a token.

    Args:
        configuration: The settings, with the secret.
        kind: What it stands for. A token of one kind is not accepted as another one.
        content: What events need, as JSON types.

    Raises:
        ConfigurationError: There is no secret.
        InvalidEventError: The content is too large.
    """
    secret = _secret_of(configuration)
    data = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    token = urlsafe_b64encode(_sign(secret, configuration, kind, data) + data).rstrip(b"=").decode()
    if len(token) > MAX_LENGTH:
        trouble = f"is too large for a token, which has at most {MAX_LENGTH:,} characters"
        raise InvalidEventError(kind, trouble, "Keep the object itself, which can be pickled.")
    return token


def read_token(configuration: Configuration, kind: Kind, token: str) -> Mapping[str, Any]:
    """
    Return the content of a token.

    Raises:
        InvalidEventError: It was not made with this secret, for this project, and of this kind; or there is no secret.
    """
    if configuration.message_token_secret is None:
        trouble = "expected the object itself, got a string, and tokens need message_token_secret"
        raise InvalidEventError(kind, trouble, "Pass the object, or configure the secret.")
    secret = _secret_of(configuration)
    if len(token) <= MAX_LENGTH and _TOKEN.fullmatch(token) and len(token) % 4 != 1:
        signed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        signature, data = signed[:_SIGNATURE], signed[_SIGNATURE:]
        if compare_digest(signature, _sign(secret, configuration, kind, data)):
            content: Mapping[str, Any] = json.loads(zlib.decompress(data))
            return content
    # The token is not shown: it comes from outside.
    trouble = "expected a token that was made with the same message_token_secret"
    raise InvalidEventError(kind, trouble, "Pass a token of this application, unmodified.")


def _secret_of(configuration: Configuration) -> Secret:
    secret = configuration.message_token_secret
    if secret is None:
        hint = "Set it to a random string, the same in all processes that make or redeem tokens."
        raise ConfigurationError("message_token_secret", "is missing, but tokens are used", hint)
    return Secret(secret)


def _sign(secret: str, configuration: Configuration, kind: Kind, data: bytes) -> bytes:
    signed = b"\0".join((b"1", kind.encode(), configuration.project_token.encode(), data))
    return new_hmac(secret.encode(), signed, sha256).digest()[:_SIGNATURE]
