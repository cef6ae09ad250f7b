"""
Access control: local requests only, with a credential of the project or of the customer, and a rate limit. Pure.
"""

import math
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping

from exponea_async.sandbox.errors import AccessError
from exponea_async.sandbox.jwt import JwtError, verify_token
from exponea_async.sandbox.models import Project

LOCAL_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.IGNORECASE)

Credential = str | tuple[str, str]


def is_local_host(host: str) -> bool:
    """Return whether a ``Host`` header names this machine; another name may be DNS rebinding by a web page."""
    return LOCAL_HOST.fullmatch(host) is not None


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """
    Return whether a request is not sent by a web page, or by one of the sandbox itself.

    A page of another origin, also of another port of this machine, could read and change everything otherwise.
    """
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site", "none")
    if origin is not None and origin.lower() != f"http://{headers.get('Host', '').lower()}":
        return False
    # Browsers send no Origin with a GET for an image or a script. Links from other pages are allowed.
    return site in ("none", "same-origin") or headers.get("Sec-Fetch-Mode") == "navigate"


def parse_credential(header: str) -> Credential | None:
    """Return the API key or the pair of key id and secret in an ``Authorization`` header; None for anything else."""
    scheme, _, rest = header.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "token":
        return rest or None
    if scheme.lower() != "basic":
        return None
    try:
        key_id, _, secret = b64decode(rest, validate=True).decode().partition(":")
    except ValueError:
        # It is not Base64, not ASCII, or what it encodes is not UTF-8.
        return None
    return (key_id, secret) if key_id and secret else None


class AccessControl:
    """
    The projects and their credentials.

    Args:
        projects: The projects that exist; if there are none, every project exists and accepts every credential.
    """

    def __init__(self, projects: Iterable[Project]) -> None:
        self._projects = {project.token: project for project in projects}
        self._credentials: dict[str, frozenset[Credential]] = {
            token: frozenset([*project.tokens, *project.basic]) for token, project in self._projects.items()
        }

    def check(self, project: str, header: str) -> None:
        """
        Check that a request has a credential of its project.

        Args:
            project: The token of the project.
            header: The ``Authorization`` header; empty where it is missing.

        Raises:
            AccessError: 401 without a known credential, 404 for an unknown project, 403 for another project's key.
        """
        credential = parse_credential(header)
        if credential is None:
            raise AccessError(401, "Authorization is missing or malformed.")
        if not self._credentials:
            return
        if project not in self._credentials:
            raise AccessError(404, "The project does not exist.")
        if credential in self._credentials[project]:
            return
        if any(credential in others for others in self._credentials.values()):
            raise AccessError(403, "The API key belongs to another project.")
        raise AccessError(401, "The API key is invalid.")

    def check_customer(self, project: str, header: str, now: float) -> Mapping[str, str] | None:
        """
        Check that a request has a customer token, or a credential of its project where that is sufficient.

        Without any project there is no secret either, and every customer token is accepted.

        Args:
            project: The token of the project.
            header: The ``Authorization`` header; empty where it is missing.
            now: The current time, UNIX seconds.

        Returns:
            The customer ids in a verified token; None if the ids of the request need no verification.

        Raises:
            AccessError: As `check`, and 401 for an invalid token or for a key where a token is required.
        """
        known, (scheme, _, token) = self._projects.get(project), header.strip().partition(" ")
        if scheme.lower() != "bearer":
            self.check(project, header)
            if known is not None and known.require_jwt:
                raise AccessError(401, "The project requires a customer token.")
            return None
        if not self._projects and token.strip():
            return None
        if self._projects and known is None:
            raise AccessError(404, "The project does not exist.")
        if known is None or not known.jwt_secret:
            raise AccessError(401, "The project does not accept customer tokens.")
        try:
            return verify_token(known.jwt_secret, token.strip(), now)
        except JwtError as error:
            raise AccessError(401, str(error)) from None


class RateLimiter:
    """
    A token bucket that holds the requests of one second and refills steadily.

    Args:
        per_second: The number of requests per second; no limit where None.
        clock: Returns the time in seconds, monotonic.

    Raises:
        TypeError: ``per_second`` is not a number.
        ValueError: ``per_second`` is less than 1.
    """

    def __init__(self, per_second: int | None, clock: Callable[[], float]) -> None:
        if not isinstance(per_second, int | float | None) or isinstance(per_second, bool):
            raise TypeError(f"rate_limit: expected a number of requests per second, got {per_second!r}")
        if per_second is not None and per_second < 1:
            raise ValueError(f"rate_limit: must be at least 1, got {per_second}")
        self._per_second = per_second
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Fill the bucket."""
        self._tokens = float(self._per_second or 0)
        self._refilled_at = self._clock()

    def take(self) -> int:
        """Take one request out of the bucket; return 0, or the whole seconds to wait where the bucket is empty."""
        if self._per_second is None:
            return 0
        now = self._clock()
        self._tokens = min(self._per_second, self._tokens + (now - self._refilled_at) * self._per_second)
        self._refilled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return math.ceil((1 - self._tokens) / self._per_second)
