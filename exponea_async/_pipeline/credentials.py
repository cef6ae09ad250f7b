"""
Credentials: the ``Authorization`` header of each route.
"""

import json
from collections.abc import Iterable

from exponea_async._pipeline.commands import route_of
from exponea_async._pipeline.transport import authorization_header
from exponea_async.config import BasicAuth, ExponeaProject
from exponea_async.models import EventType
from exponea_async.storage.base import Storage, replace_state

#: The kinds of records whose routes differ; None stands for all kinds that a batch accepts.
_ROUTED_KINDS = (None, EventType.CAMPAIGN_CLICK)


class CredentialStore:
    """
    The ``Authorization`` headers of the configured projects, and of those that devices were switched to.

    The latter are stored, so that what such a device has tracked can be sent after a restart, too.

    Args:
        projects: The configured projects. For these only the configuration counts.
        storage: Where the credentials of other projects are stored.
    """

    def __init__(self, projects: Iterable[ExponeaProject], storage: Storage) -> None:
        self._storage = storage
        self._headers = _headers(projects)
        self._configured = frozenset(self._headers)
        self._changed: set[str] = set()

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes whose credentials are in memory."""
        return tuple(self._headers)

    async def find(self, route: str) -> str | None:
        """
        Return the ``Authorization`` header for a route, or None if its project has no credentials.

        Raises:
            StorageError: The storage failed.
        """
        if route not in self._headers and (stored := await self._storage.load_state(_state_key(route))) is not None:
            self._headers[route] = authorization_header(_decode(stored.value))
        return self._headers.get(route)

    async def store_credentials(self, projects: Iterable[ExponeaProject]) -> None:
        """
        Store the credentials of those projects that are not configured.

        Raises:
            StorageError: The storage failed.
        """
        for project in projects:
            for route, header in _headers([project]).items():
                if route not in self._configured and self._headers.get(route) != header:
                    await replace_state(self._storage, _state_key(route), _encode(project.authorization_token))
                    self._headers[route] = header
                    self._changed.add(route)

    def pop_changed(self) -> set[str]:
        """Return the routes whose credentials have changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def clear(self) -> None:
        """Keep only the configured credentials in memory; what is stored is up to the caller."""
        self._headers = {route: header for route, header in self._headers.items() if route in self._configured}


def _headers(projects: Iterable[ExponeaProject]) -> dict[str, str]:
    return {
        route_of(project, kind): authorization_header(project.authorization_token)
        for project in projects
        for kind in _ROUTED_KINDS
    }


def _state_key(route: str) -> str:
    return f"key:{route}"


def _encode(authorization: str | BasicAuth) -> bytes:
    value = [authorization.key_id, authorization.secret] if isinstance(authorization, BasicAuth) else authorization
    return json.dumps(value).encode()


def _decode(stored: bytes) -> str | BasicAuth:
    value = json.loads(stored)
    return value if isinstance(value, str) else BasicAuth(*value)
