"""
The room that is left in the queue.

The size of the queue is the sum of counters, read now and then: a client may write an eighth of the room that it has
found, for at most a second, before it reads them again. So many clients at once may exceed the capacity by what they
write in that time; a client alone never exceeds it.
"""

import time
from math import inf
from typing import Literal

from attrs import frozen

from exponea_async.storage.postgres.connection import Connections
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.writes import PendingWrite

#: How long a share of the room is valid, in seconds.
SHARE_VALID = 1.0
#: The share of the room that a client may use up without reading the counters again: one of so many.
SHARES = 8

#: Not those of routes that were wiped: what was leased from them may still be settled.
TOTALS = """
    SELECT coalesce(sum(t.waiting), 0)::bigint, coalesce(sum(t.size), 0)::bigint
        FROM {s}.counter AS t JOIN {s}.route AS o ON o.id = t.route AND o.queue = $1 WHERE t.queue = $1
"""


@frozen
class Room:
    """
    What may be written.

    Attributes:
        records: The number of records.
        size: The size of the records in bytes.
    """

    records: float
    size: float


#: No limit has to be looked at.
AMPLE = Room(inf, inf)
NOTHING = Room(0, 0)


class Capacity:
    """
    The limits of the queue.

    Args:
        connections: The connections.
        registration: The client.
        max_records: The capacity in records.
        max_bytes: The capacity in bytes, or None.
        when_full: What happens to a write that exceeds it.

    Attributes:
        max_records: The capacity in records.
        max_bytes: The capacity in bytes, or None.
        when_full: What happens to a write that exceeds it.
    """

    def __init__(
        self,
        connections: Connections,
        registration: Registration,
        *,
        max_records: int,
        max_bytes: int | None,
        when_full: Literal["raise", "wait", "drop_oldest"],
    ) -> None:
        self._connections = connections
        self._registration = registration
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.when_full = when_full
        self._share = Room(0, 0)
        self._valid_until = 0.0

    async def room_for(self, records: int, size: int, since: float | None = None, *, uncounted: Room = NOTHING) -> Room:
        """
        Return the room for a commit: ample, or what is left, which may be less than it needs.

        Args:
            records: The number of records.
            size: Their size in bytes.
            since: When the call was made for which it is done, in monotonic time.
            uncounted: What was written before in the same transaction of an application, which the counters do not
                have yet.

        Raises:
            StorageError: The database refused.
        """
        if not records or self._take(records, size, uncounted):
            return AMPLE
        row = (await self._connections.fetch(TOTALS, self._registration.queue, since=since))[0]
        max_bytes = inf if self.max_bytes is None else self.max_bytes
        room = Room(self.max_records - row[0] - uncounted.records, max_bytes - row[1] - uncounted.size)
        self._share = Room(room.records // SHARES, room.size // SHARES)
        self._valid_until = time.monotonic() + SHARE_VALID
        if self._take(records, size, NOTHING):
            return AMPLE
        # The share is one of what the commit leaves, or else both together could exceed the room.
        self._share = Room(max(0, room.records - records) // SHARES, max(0, room.size - size) // SHARES)
        return room

    def _take(self, records: int, size: int, uncounted: Room) -> bool:
        """Use up a part of the share, and return whether it was large enough."""
        share = self._share
        if records + uncounted.records > share.records or size + uncounted.size > share.size:
            return False
        if time.monotonic() > self._valid_until:
            return False
        self._share = Room(share.records - records, share.size - size)
        return True

    def can_fit(self, write: PendingWrite) -> bool:
        """Return whether a write fits into an empty queue."""
        return len(write.records) <= self.max_records and (self.max_bytes is None or write.size <= self.max_bytes)
