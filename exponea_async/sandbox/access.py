"""
Who may come in: local requests only, with a credential of the project or the customer, and not too many a
second. Pure.
"""

import math
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Mapping

from exponea_async.sandbox.jwt import JwtError, read_token
from exponea_async.sandbox.models import Project

LOCAL_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.IGNORECASE)

Credential = str | tuple[str, str]


class AccessError(Exception):
    """
    A request may not come in.

    Attributes:
        status: 401, 403 or 404.
        reason: Why.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def is_local(host: str) -> bool:
    """Whether a ``Host`` header names this machine; a foreign name may be a web page's DNS rebinding."""
    return LOCAL_HOST.fullmatch(host) is not None


def credential(header: str) -> Credential | None:
    """Reads an ``Authorization`` header: an API key, a pair of key id and secret, or None for all else."""
    scheme, _, rest = header.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "token":
        return rest or None
    if scheme.lower() != "basic":
        return None
    try:
        key_id, _, secret = b64decode(rest, validate=True).decode().partition(":")
    except (Base64Error, UnicodeDecodeError):
        return None
    return (key_id, secret) if key_id and secret else None


class Access:
    """The projects and their credentials; without any project, each exists and any credential will do."""

    def __init__(self, projects: Iterable[Project]) -> None:
        self._projects = {project.token: project for project in projects}
        self._keys: dict[str, frozenset[Credential]] = {
            token: frozenset([*project.tokens, *project.basic]) for token, project in self._projects.items()
        }

    def check(self, project: str, header: str) -> None:
        """
        Lets a request for a project pass, or not.

        Raises:
            AccessError: 401 without a known credential, 404 for an unknown project, 403 for another's key.
        """
        key = credential(header)
        if key is None:
            raise AccessError(401, "Authorization is missing or malformed.")
        if not self._keys:
            return
        if project not in self._keys:
            raise AccessError(404, "The project does not exist.")
        if key in self._keys[project]:
            return
        if any(key in keys for keys in self._keys.values()):
            raise AccessError(403, "The API key belongs to another project.")
        raise AccessError(401, "The API key is invalid.")

    def check_customer(self, project: str, header: str, now: float) -> Mapping[str, str] | None:
        """
        Lets a request pass that may come with a customer's token instead of a project's key.

        Without any project there is no secret either, and each token will do.

        Returns:
            The ids that the token vouches for; None where nothing needs to be vouched for.

        Raises:
            AccessError: As `check`, and 401 for a token that is no good, or for a key where a token is required.
        """
        known, (scheme, _, token) = self._projects.get(project), header.strip().partition(" ")
        if scheme.lower() != "bearer":
            self.check(project, header)
            if known is not None and known.require_jwt:
                raise AccessError(401, "This needs a customer's token.")
            return None
        if not self._projects and token.strip():
            return None
        if self._projects and known is None:
            raise AccessError(404, "The project does not exist.")
        if known is None or not known.jwt_secret:
            raise AccessError(401, "The project knows no customer's tokens.")
        try:
            return read_token(known.jwt_secret, token.strip(), now)
        except JwtError as error:
            raise AccessError(401, str(error)) from None


class RateLimit:
    """
    A bucket that holds one second's requests and refills steadily.

    Args:
        per_second: How many requests a second; no limit where None.
        clock: Tells seconds that only ever grow.

    Raises:
        ValueError: ``per_second`` is less than 1.
    """

    def __init__(self, per_second: int | None, clock: Callable[[], float]) -> None:
        if per_second is not None and per_second < 1:
            raise ValueError("rate_limit should be at least 1.")
        self._per_second = per_second
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Fills the bucket."""
        self._tokens = float(self._per_second or 0)
        self._at = self._clock()

    def take(self) -> int:
        """Takes one request out: 0 where it may pass, else the whole seconds to wait."""
        if self._per_second is None:
            return 0
        now = self._clock()
        self._tokens = min(self._per_second, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return math.ceil((1 - self._tokens) / self._per_second)
