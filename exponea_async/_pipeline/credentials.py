"""
Which key opens which project.
"""

import json
from collections.abc import Iterable

from exponea_async._pipeline.commands import route_of
from exponea_async._pipeline.transport import authorization_header
from exponea_async.config import BasicAuth, ExponeaProject
from exponea_async.models import EventType
from exponea_async.storage.base import Storage, replace_state

#: Where a project's records go.
_ROUTES = (None, EventType.CAMPAIGN_CLICK)


class CredentialStore:
    """
    The ``Authorization`` headers of the configured projects, and of those that devices were switched to.

    The latter are kept in the storage: what such a device has tracked is to be sent after a restart too.

    Args:
        projects: The configured ones; for these the configuration counts.
        storage: Where the others are.
    """

    def __init__(self, projects: Iterable[ExponeaProject], storage: Storage) -> None:
        self._storage = storage
        self._headers = _headers(projects)
        self._configured = frozenset(self._headers)
        self._changed: set[str] = set()

    @property
    def routes(self) -> tuple[str, ...]:
        """All routes that are known."""
        return tuple(self._headers)

    async def find(self, route: str) -> str | None:
        """
        Tell the header for a route, or None where there is no key.

        Raises:
            StorageError: The storage refused.
        """
        if route not in self._headers and (stored := await self._storage.load_state(_name(route))) is not None:
            self._headers[route] = authorization_header(_decoded(stored.value))
        return self._headers.get(route)

    def take_changed(self) -> set[str]:
        """Tell the routes that have got another key since this was asked last."""
        changed, self._changed = self._changed, set()
        return changed

    def forget(self) -> None:
        """Keep the configured ones only."""
        self._headers = {route: header for route, header in self._headers.items() if route in self._configured}

    async def remember(self, projects: Iterable[ExponeaProject]) -> None:
        """
        Keep the keys of projects that are not configured.

        Raises:
            StorageError: The storage refused.
        """
        for project in projects:
            for route, header in _headers([project]).items():
                if route not in self._configured and self._headers.get(route) != header:
                    await replace_state(self._storage, _name(route), _encoded(project.authorization_token))
                    self._headers[route] = header
                    self._changed.add(route)


def _headers(projects: Iterable[ExponeaProject]) -> dict[str, str]:
    return {
        route_of(project, kind): authorization_header(project.authorization_token)
        for project in projects
        for kind in _ROUTES
    }


def _name(route: str) -> str:
    return f"key:{route}"


def _encoded(authorization: str | BasicAuth) -> bytes:
    kept = [authorization.key_id, authorization.secret] if isinstance(authorization, BasicAuth) else authorization
    return json.dumps(kept).encode()


def _decoded(value: bytes) -> str | BasicAuth:
    kept = json.loads(value)
    return kept if isinstance(kept, str) else BasicAuth(*kept)
