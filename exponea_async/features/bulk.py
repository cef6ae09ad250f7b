"""
Many events at once.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from exponea_async.devices.context import Street, SubjectContext
from exponea_async.devices.ids import read_ids
from exponea_async.errors import InvalidEventError
from exponea_async.models import Draft, Event, EventType, Identity, Receipt

#: After how many encoded events others get the event loop.
BREATH = 100

Addressed = Event | tuple[Mapping[str, str], Event]


class BulkVerbs:
    """The verbs of those who bring much."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _context(self) -> SubjectContext: ...

    async def track_many(self, events: Iterable[Addressed]) -> list[Receipt]:
        """
        Track many events in one commit: all of them are kept, or none.

        Args:
            events: Each an `Event` of the current subject, or a pair of a customer's ids and an `Event`.

        Returns:
            The receipts, in the events' order.

        Raises:
            InvalidEventError: One of them can't be sent as it is; its place and path are named.
            QueueFullError: The queue has no room, and ``when_full="raise"``.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        drafts: list[tuple[Identity | None, Draft] | None] = []
        for place, given in enumerate(events):
            try:
                drafts.append(_drafted(context.recorder, given))
            except InvalidEventError as error:
                raise error.within(f"events[{place}]") from None
            if place % BREATH == BREATH - 1:
                await asyncio.sleep(0)
        wanted = [draft for draft in drafts if draft is not None]
        kept = iter(await context.keep_all(wanted) if wanted else ())
        return [context.recorder.dropped() if draft is None else next(kept) for draft in drafts]


def _drafted(recorder: Street, given: Addressed) -> tuple[Identity | None, Draft] | None:
    who, event = None, given
    if isinstance(given, tuple) and len(given) == 2:
        who, event = recorder.identity(read_ids(given[0], "ids"), None), given[1]
    if not isinstance(event, Event):
        raise InvalidEventError("event", f"{given!r:.60} is neither an Event nor a pair", "Give (ids, Event).")
    draft = recorder.draft_event(EventType.TRACK_EVENT, event)
    return None if draft is None else (who, draft)
