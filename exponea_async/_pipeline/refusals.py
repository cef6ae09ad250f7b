"""
The records that were refused alone, one after the other, also by earlier processes.

A process may end after its first refusal, as one that a scheduler starts for each event. Without what the ones before
it met, it could not know that a proxy or a firewall refuses everything.
"""

import json
from collections.abc import Sequence
from contextlib import suppress

from exponea_async.errors import StorageError
from exponea_async.storage.base import Storage, replace_state

#: The prefix of the states, before the route.
PREFIX = "refused:"


class RefusalHistory:
    """
    Stores which records of a route were refused while nothing was accepted.

    If the storage fails, the history is less complete; that must not hold up an upload.

    Args:
        storage: Where it is stored.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # What is stored, by route, once it was loaded.
        self._stored: dict[str, tuple[str, ...]] = {}

    async def load(self, route: str) -> tuple[str, ...]:
        """Return the ids of records that earlier processes have stored; none if it was loaded before."""
        if route in self._stored:
            return ()
        with suppress(StorageError):
            state = await self._storage.load_state(PREFIX + route)
            # Another batch of the route may have loaded it meanwhile.
            if route not in self._stored:
                self._stored[route] = found = _decode(state.value) if state else ()
                return found
        return ()

    async def store(self, route: str, ids: Sequence[str]) -> None:
        """Store the ids of the records that were refused since the last success; delete what is stored for none."""
        await self.load(route)
        now = tuple(ids)
        if self._stored.get(route) == now:
            return
        with suppress(StorageError):
            await replace_state(self._storage, PREFIX + route, json.dumps(now).encode() if now else None)
            self._stored[route] = now


def _decode(value: bytes) -> tuple[str, ...]:
    with suppress(ValueError):
        found = json.loads(value)
        if isinstance(found, list):
            return tuple(each for each in found if isinstance(each, str))
    return ()
