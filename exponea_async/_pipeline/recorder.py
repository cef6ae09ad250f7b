"""
From a call to durable records: what is said of an event is checked, stamped and encoded here, once.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from exponea_async._pipeline.commands import Project, click_command, customer_command, event_command, route_of
from exponea_async._pipeline.credentials import CredentialStore
from exponea_async._pipeline.encoding import encode_object, encode_text, unix_seconds
from exponea_async._pipeline.receipts import Receipts
from exponea_async.config import Configuration, ExponeaProject
from exponea_async.errors import DroppedError, InvalidEventError, LifecycleError, StorageError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Draft, Event, EventType, Identity, Receipt, Timestamp
from exponea_async.observability import Counters
from exponea_async.storage.base import Record, StateChange, StateCheck, Storage, Written

LOG = logging.getLogger("exponea_async")

APPLICATION_ID = "application_id"
DEVICE_ID = "device_id"
#: Two stamps differ by this at least, in seconds.
STEP = 1e-6
#: A clock that goes back by more than this, in seconds, is followed: it was wrong before.
CORRECTION = 1.0

# Asking the class for a member costs more than all of an event's stamps.
_PUSH_TOKEN = EventType.PUSH_TOKEN
_CLICK = EventType.CAMPAIGN_CLICK
_encoded_name = lru_cache(maxsize=1024)(encode_text)


class UniqueClock:
    """
    Moments for events that have none, no two of them equal.

    The platform removes events that are the same to the letter, time included. So a retried upload does no harm, and
    two equal events that really happened must not have the same time.

    Args:
        clock: Tells UNIX seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = float("-inf")

    def next(self) -> float:
        """Tell the moment, pushed on a little where the clock stands still."""
        now = float(self._clock())
        if now <= self._last and self._last - now < CORRECTION:
            now = self._last + STEP
        self._last = now
        return now

    def reserve(self, count: int) -> float:
        """Tell the first of some moments that follow each other by `STEP`; nobody else gets them."""
        first = self.next()
        self._last = first + (count - 1) * STEP
        return first


class EventRecorder:
    """
    The beginning of the street.

    Args:
        configuration: Tells projects, defaults and the application.
        hooks: Have a say in each event.
        storage: Where records are kept.
        receipts: Issues one for each draft.
        counters: Count what is tracked and dropped.
        clock: Tells UNIX seconds, for events.
        wake: Called after records were written.
        keys: Keep the keys of projects that devices are switched to.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        hooks: Hooks,
        storage: Storage,
        receipts: Receipts,
        counters: Counters,
        clock: Callable[[], float],
        wake: Callable[[], None],
        keys: CredentialStore,
    ) -> None:
        self.set_defaults(configuration.default_properties)
        self._customer_defaults = configuration.allow_default_customer_properties
        self._application_id = configuration.application_id
        self._before_track = hooks.before_track
        self._hooks = hooks
        self._storage = storage
        self._receipts = receipts
        self._counters = counters
        self._stamps = UniqueClock(clock)
        self._wake = wake
        self._keys = keys
        self._routes = {
            kind: tuple(route_of(each, kind) for each in configuration.projects_for(kind)) for kind in EventType
        }
        self._refusal: LifecycleError | None = None
        self._stopped = False
        #: Whether drafts carry their events along, for somebody who listens.
        self.has_subscribers = False

    # Life

    def admit(self) -> None:
        """From now on take everything."""
        self._refusal, self._stopped = None, False

    def refuse(self, refusal: LifecycleError) -> None:
        """From now on raise this at each verb."""
        self._refusal = refusal

    def stop(self) -> None:
        """From now on drop everything."""
        self._refusal, self._stopped = None, True

    def check_running(self) -> bool:
        """Tell whether verbs do anything now."""
        if self._refusal is not None:
            raise type(self._refusal)(*self._refusal.args)
        return not self._stopped

    def set_defaults(self, properties: Mapping[str, Any]) -> None:
        """From now on put these properties under those of every event."""
        # A plain dict: merging reads it for each event, and a proxy would be four times as slow.
        self._defaults = dict(properties)

    # From a call to a draft: at once, so that nothing that changes later can get in

    def stamp(self) -> float:
        """Tell the moment of a call, which no other one has."""
        return self._stamps.next()

    def reserve(self, count: int) -> float:
        """Tell the first of some moments that follow each other closely, for what one call tracks."""
        return self._stamps.reserve(count)

    def moment(self, timestamp: Timestamp) -> float | None:
        """Tell a moment that a caller gave as UNIX seconds; None is left to be stamped."""
        return None if timestamp is None else unix_seconds(timestamp, "timestamp")

    def identity(
        self,
        ids: Mapping[str, str],
        device_id: str | None,
        routes: Mapping[EventType, tuple[str, ...]] | None = None,
    ) -> Identity:
        """Make an identity ready for the wire."""
        stamps = {APPLICATION_ID: self._application_id}
        if device_id is not None:
            stamps[DEVICE_ID] = device_id
        # Copies, for orjson's own bytes hold on to a buffer of some thousand.
        encoded_ids, encoded_stamps = b"{%b}" % encode_object(ids, "ids")[1:-1], encode_object(stamps, "")[1:-1]
        return Identity(encoded_ids, encoded_stamps, device_id is not None, routes)

    def routes(
        self, project: Project | None, mapping: Mapping[str, Sequence[Project]] | None
    ) -> Mapping[EventType, tuple[str, ...]]:
        """Tell where each kind goes, for who has another project, or other ones beside it, than the configured."""
        return {kind: tuple(dict.fromkeys(self._targets(kind, project, mapping))) for kind in EventType}

    def _targets(
        self, kind: EventType, project: Project | None, mapping: Mapping[str, Sequence[Project]] | None
    ) -> Iterator[str]:
        yield route_of(project, kind) if project else self._routes[kind][0]
        if mapping is None:
            yield from self._routes[kind][1:]
        else:
            yield from (route_of(beside, kind) for beside in mapping.get(kind.name, ()))

    def draft_event(self, kind: EventType, event: Event, *, heard: bool = False) -> Draft | None:
        """Check and encode an event as it is now."""
        if (self._refusal is not None or self._stopped) and not self.check_running():
            return None
        if not isinstance(event, Event):
            raise InvalidEventError("event", f"{event!r:.60} is no Event", "Give Event(name, properties).")
        if self._before_track is not None:
            changed = self._changed(self._before_track(event))
            if changed is None:
                return None
            event = changed
        name, properties, timestamp = event.name, event.properties, event.timestamp
        name_json = _encoded_name(name, "name") if type(name) is str else encode_text(name, "name")
        if type(properties) is not dict:
            properties = _mapping(properties)
        # The user's defaults must not leak into a push token's properties, which are a protocol of their own.
        if self._defaults and kind is not _PUSH_TOKEN:
            properties = {**self._defaults, **properties}
        own_device = b""
        if APPLICATION_ID in properties or DEVICE_ID in properties:
            properties, own_device = _without_stamps(properties)
        encoded = encode_object(properties, "properties")[1:-1]
        moment = None if timestamp is None else unix_seconds(timestamp, "timestamp")
        carried = Event(name, properties, moment) if heard or self.has_subscribers else None
        return Draft(kind, name_json, encoded, moment, own_device, carried)

    def _changed(self, changed: Event | None) -> Event | None:
        if changed is None:
            self._counters.dropped["before_track"] += 1
        elif not isinstance(changed, Event):
            raise InvalidEventError("event", f"before_track made {changed!r:.60} of it", "Return an Event or None.")
        return changed

    def draft_customer(self, properties: Mapping[str, Any], *, defaults: bool = True) -> Draft | None:
        """Check and encode a customer's properties as they are now."""
        if not self.check_running():
            return None
        merged = _mapping(properties)
        if defaults and self._customer_defaults:
            merged = {**self._defaults, **merged}
        encoded = encode_object(merged, "properties")[1:-1]
        return Draft(EventType.TRACK_CUSTOMER, b"", encoded, None)

    def draft_click(self, url: str, properties: Mapping[str, Any]) -> Draft | None:
        """Check and encode a click of a campaign."""
        if not self.check_running():
            return None
        encoded = encode_object(properties, "properties")[1:-1]
        return Draft(EventType.CAMPAIGN_CLICK, encode_text(url, "url"), encoded, None)

    # From drafts to records

    async def keep(
        self,
        who: Identity,
        draft: Draft,
        states: Sequence[StateChange | StateCheck] = (),
        now: float | None = None,
    ) -> Receipt:
        """Keep one draft: what `keep_all` does, at less cost for the usual case of one project."""
        routes = (who.routes or self._routes)[draft.kind]
        moment = draft.timestamp
        if moment is None:
            moment = self._stamps.next() if now is None else now
        if self._refusal is not None or self._stopped or len(routes) > 1:
            return (await self.keep_all(who, ((None, draft._replace(timestamp=moment)),), states))[0]
        record = Record(routes[0], _command(who, draft, moment), time.time())
        try:
            written = await self._storage.write((record,), states)
        except StorageError:
            # It may be closed because the client is.
            if self.check_running():
                raise
            return self.dropped()
        self._account(written)
        return self._receipts.issue(written)

    async def keep_all(
        self,
        who: Identity,
        drafts: Sequence[tuple[Identity | None, Draft]],
        states: Sequence[StateChange | StateCheck] = (),
    ) -> list[Receipt]:
        """Keep drafts in one commit, each for all projects that get its kind."""
        # Who had to wait on the way here may find the client closed or stopped.
        if (self._refusal is not None or self._stopped) and not self.check_running():
            return [self.dropped() for _ in drafts]
        at = time.time()
        records: list[Record] = []
        ends: list[int] = []
        for other, draft in drafts:
            about = other or who
            body = _command(about, draft, self._stamps.next() if draft.timestamp is None else draft.timestamp)
            for route in (about.routes or self._routes)[draft.kind]:
                records.append(Record(route, body, at))  # noqa: PERF401 - slower for one
            ends.append(len(records))
        try:
            written = await self._storage.write(records, states)
        except StorageError:
            if self.check_running():
                raise
            return [self.dropped() for _ in drafts]
        self._account(written)
        spans = zip([0, *ends], ends, strict=False)
        return [self._receipts.issue(Written(written.ids[start:end])) for start, end in spans]

    async def remember(self, projects: Sequence[ExponeaProject]) -> None:
        """Keep the keys of projects that somebody is to be switched to."""
        await self._keys.remember(projects)

    def _account(self, written: Written) -> None:
        self._counters.tracked += len(written.ids)
        if written.dropped:
            self._tell_dropped(written.dropped)
        self._wake()

    def dropped(self, reason: str = "before_track returned None", *, count: str = "") -> Receipt:
        """Make the receipt for what is not kept."""
        if self._stopped:
            reason, count = "the integration is stopped", "stopped"
        if count:
            self._counters.dropped[count] += 1
        receipt = self._receipts.issue(Written(()))
        receipt.resolve(DroppedError(reason))
        return receipt

    def _tell_dropped(self, ids: tuple[str, ...]) -> None:
        reason = "the queue was full, and newer events made it leave"
        self._counters.dropped["queue_full"] += len(ids)
        self._receipts.resolve(ids, DroppedError(reason))
        self._hooks.tell(DeliveryEvent("dropped", ids, reason=reason))


def _mapping(properties: Any) -> Mapping[str, Any]:
    if not isinstance(properties, Mapping):
        raise InvalidEventError("properties", f"{properties!r:.60} is no mapping", "Give a dict.")
    return properties


def _without_stamps(properties: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
    """Take out what the SDK stamps itself; a device id of the caller's own is for subjects without a device."""
    rest = dict(properties)
    rest.pop(APPLICATION_ID, None)
    device = {DEVICE_ID: rest.pop(DEVICE_ID, None)}
    return rest, encode_object(device, "properties")[1:-1]


def _command(who: Identity, draft: Draft, timestamp: float) -> bytes:
    if not draft.name:
        return customer_command(who.encoded_ids, timestamp, b"{%b}" % draft.properties)
    if draft.kind is _CLICK:
        return click_command(who.encoded_ids, draft.name, timestamp, b"{%b}" % draft.properties)
    stamps = who.encoded_stamps
    if draft.own_device and not who.is_device:
        stamps = b"%b,%b" % (stamps, draft.own_device)
    properties = b"{%b,%b}" % (draft.properties, stamps) if draft.properties else b"{%b}" % stamps
    return event_command(who.encoded_ids, draft.name, timestamp, properties)
