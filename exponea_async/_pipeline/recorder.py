"""
From a call to durable records: an event is checked, timestamped and encoded here, once.
"""

import asyncio
import logging
import time
from asyncio import get_running_loop
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from exponea_async._internal.arguments import read_mapping, read_timestamp
from exponea_async._internal.closing import check_loop
from exponea_async._internal.encoding import MAX_MESSAGE, encode_object, encode_string, plain_object
from exponea_async._internal.log_fields import log_fields
from exponea_async._internal.throttle import Throttle
from exponea_async._internal.user_code import FunctionError, calling
from exponea_async._internal.validation import short_repr
from exponea_async._pipeline.clock import UniqueClock
from exponea_async._pipeline.commands import draft_command, route_of
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async.config import Configuration
from exponea_async.errors import (
    DroppedError,
    ExponeaError,
    InvalidEventError,
    LifecycleError,
    StateConflictError,
    StorageError,
)
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Draft, Event, EventType, Identity, Receipt, Timestamp
from exponea_async.observability import Counters
from exponea_async.projects import ExponeaProject
from exponea_async.storage.base import Record, StateChange, StateCheck, Storage, Written

LOG = logging.getLogger("exponea_async")

APPLICATION_ID = "application_id"
DEVICE_ID = "device_id"

# Looking a member up on the enum class costs more than all other work on an event's automatic properties.
_PUSH_TOKEN = EventType.PUSH_TOKEN
#: The events that the SDK makes itself. What an application's hook does to them must not fail the work that made them,
#: such as a sign-out, or showing a message.
_SESSION = (EventType.SESSION_START, EventType.SESSION_END)
_AUTOMATIC = frozenset({EventType.INSTALL, *_SESSION, EventType.BANNER, _PUSH_TOKEN})
#: Maximum size of such an event's properties after the hook, in bytes of JSON, which leaves room for the ids.
_MAX_AUTOMATIC = MAX_MESSAGE - 100_000


@lru_cache(maxsize=1024)
def _encoded_name(name: str) -> bytes:
    # With a single argument, the cache is twice as fast.
    return encode_string(name, "name")


#: Drafts that are turned into records without letting other tasks run.
SLICE = 500
#: Drafts that are recorded in one commit, each with its own identity, or None for that of the call.
Drafts = Sequence[tuple[Identity | None, Draft]]


class EventRecorder:
    """
    Turns events into records and writes them to the queue.

    Args:
        configuration: Names the projects, the default properties and the application.
        hooks: ``before_track``, and the listeners that learn of dropped events.
        storage: The queue.
        receipts: Issues a receipt for each draft.
        counters: Count tracked and dropped events.
        clock: Returns UNIX seconds, for the timestamps of events.
        note_written: Called with the number of records after they were written.
        projects: Stores the projects that devices are switched to.
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
        note_written: Callable[[int], None],
        projects: ProjectStore,
    ) -> None:
        self._encoder = configuration.encoder
        self.set_default_properties(configuration.default_properties)
        self._customer_defaults = configuration.allow_default_customer_properties
        self._application_id = configuration.application_id
        self._before_track = hooks.before_track
        self._hooks = hooks
        self._storage = storage
        self._receipts = receipts
        self._counters = counters
        self._clock = UniqueClock(clock)
        self._note_written = note_written
        self._projects = projects
        self._routes = {
            kind: tuple(route_of(each.project_token, kind) for each in configuration.projects_for(kind))
            for kind in EventType
        }
        self._raises_invalid = configuration.on_invalid == "raise"
        self._throttle, self._invalid_throttle = Throttle(), Throttle()
        self._refusal: LifecycleError | None = None
        self._stopped = False
        #: Returns whether any of these ids is that of a customer who has withdrawn the consent to be tracked.
        self.is_withdrawn: Callable[[Mapping[str, str]], bool] = lambda _ids: False
        # The event loop whose calls are accepted; None while no calls are.
        self._loop: asyncio.AbstractEventLoop | None = None

    # Life cycle

    def accept(self) -> None:
        """Accept events from now on, in this event loop; the storage is open."""
        self._clock.use_slot(self._storage.number)
        self._refusal, self._stopped, self._loop = None, False, asyncio.get_running_loop()

    def refuse(self, refusal: LifecycleError) -> None:
        """Raise this error for each event from now on."""
        self._refusal, self._loop = refusal, None

    def stop(self) -> None:
        """Drop each event from now on."""
        self._refusal, self._stopped, self._loop = None, True, None

    def check_running(self) -> bool:
        """
        Return whether events are accepted; they are not after the integration was stopped.

        Raises:
            LifecycleError: The client is not running, or it is running in another event loop.
        """
        if self._refusal is not None:
            raise type(self._refusal)(*self._refusal.args)
        if self._loop is not None:
            check_loop(self._loop)
        return not self._stopped

    def set_default_properties(self, properties: Mapping[str, Any]) -> None:
        """Merge these properties into every event from now on; those of the event take precedence."""
        # Converted here, and not for each event that they are merged into.
        self._defaults = plain_object(properties, "default_properties", self._encoder)

    @property
    def for_others(self) -> "EventRecorder":
        """The recorder of events that are about others than the subject."""
        return self

    # Timestamps and identities

    def timestamp(self) -> float:
        """Return the timestamp of a call, UNIX seconds, which no other call gets."""
        return self._clock.next()

    def reserve_timestamps(self, count: int) -> float:
        """Return the first of `count` consecutive timestamps, for the events of one call."""
        return self._clock.reserve(count)

    def read_timestamp(self, timestamp: Timestamp) -> float | None:
        """
        Return a caller's timestamp as UNIX seconds, or None where the caller gave none.

        Raises:
            InvalidEventError: It is not a timestamp.
        """
        return None if timestamp is None else read_timestamp(timestamp, "timestamp")

    def identity(
        self,
        ids: Mapping[str, str],
        device_id: str | None,
        routes: Mapping[EventType, tuple[str, ...]] | None = None,
    ) -> Identity:
        """Encode an identity for the wire."""
        stamps = {APPLICATION_ID: self._application_id}
        if device_id is not None:
            stamps[DEVICE_ID] = device_id
        # These are copies, since the bytes objects of orjson keep a buffer of about a thousand bytes alive.
        encoded_ids, encoded_stamps = b"{%b}" % encode_object(ids, "ids")[1:-1], encode_object(stamps, "")[1:-1]
        return Identity(encoded_ids, encoded_stamps, device_id is not None, routes)

    def routes(
        self, project: str | None, mapping: Mapping[str, Sequence[str]] | None
    ) -> Mapping[EventType, tuple[str, ...]]:
        """Return the routes of each event type for a device that was switched to other projects, given by tokens."""
        return {kind: tuple(dict.fromkeys(self._targets(kind, project, mapping))) for kind in EventType}

    def _targets(
        self, kind: EventType, project: str | None, mapping: Mapping[str, Sequence[str]] | None
    ) -> Iterator[str]:
        yield route_of(project, kind) if project else self._routes[kind][0]
        if mapping is None:
            yield from self._routes[kind][1:]
        else:
            yield from (route_of(each, kind) for each in mapping.get(kind.name, ()))

    # From a call to a draft: without an await, so that later changes of the caller's objects have no effect

    def draft_event(self, kind: EventType, event: Event, *, carries_event: bool = False) -> Draft | None:
        """
        Check and encode an event as it is now.

        Args:
            kind: Its type.
            event: The event.
            carries_event: Whether the draft carries the event with its default properties, for subscribers.

        Returns:
            The draft, or None where ``before_track`` or a stopped integration drops the event.

        Raises:
            InvalidEventError: The event can't be sent as it is.
            LifecycleError: The client is not running.
        """
        if get_running_loop() is not self._loop and not self.check_running():
            return None
        if type(event) is not Event and not isinstance(event, Event):
            raise InvalidEventError(
                "event", f"expected an Event, got {short_repr(event)}", "Use Event(name, properties)."
            )
        if self._before_track is not None:
            changed = self._changed(self._before_track, kind, event)
            if changed is None:
                return None
            event = changed
        name, properties, timestamp = event.name, event.properties, event.timestamp
        name_json = _encoded_name(name) if type(name) is str else encode_string(name, "name")
        if type(properties) is not dict:
            properties = read_mapping(properties)
        # The default properties must not get into a push token's properties, which are a protocol of their own.
        if self._defaults and kind is not _PUSH_TOKEN:
            properties = {**self._defaults, **properties}
        own_device = b""
        if APPLICATION_ID in properties or DEVICE_ID in properties:
            properties, own_device = _without_stamps(properties)
        encoded = encode_object(properties, "properties", self._encoder)[1:-1]
        at = None if timestamp is None else read_timestamp(timestamp, "timestamp")
        return Draft(kind, name_json, encoded, at, own_device, Event(name, properties, at) if carries_event else None)

    def _changed(self, before_track: Callable[[Event], Event | None], kind: EventType, event: Event) -> Event | None:
        """Return what the hook makes of an event; None where the event is dropped."""
        try:
            with calling("before_track", before_track):
                returned = before_track(event)
            changed = _check_changed(returned)
            if changed is None:
                self._counters.dropped["before_track"] += 1
            elif kind in _AUTOMATIC and changed is not event:
                self._check_automatic(changed)
        except Exception as error:
            if kind not in _AUTOMATIC and self._raises_invalid:
                if isinstance(error, FunctionError):
                    raise InvalidEventError("before_track", str(error), "Correct the hook.") from error
                raise
            self._check_automatic(event)
            self._report_failed_hook(event, error)
            return None
        return changed

    def _check_automatic(self, event: Event) -> None:
        """Raise an `InvalidEventError` now if an event of the SDK could not be recorded later."""
        encode_string(event.name, "name")
        encoded = encode_object({**self._defaults, **read_mapping(event.properties)}, "properties", self._encoder)
        if len(encoded) > _MAX_AUTOMATIC:
            trouble = f"must take at most {_MAX_AUTOMATIC} bytes of JSON, got {len(encoded)}"
            raise InvalidEventError("properties", trouble, "Send fewer or shorter properties.")
        self.read_timestamp(event.timestamp)

    def _report_failed_hook(self, event: Event, error: Exception) -> None:
        self._counters.dropped["before_track_failed"] += 1
        if (more := self._throttle.admit()) is not None:
            message = "before_track failed, so the event %r was dropped.%s"
            LOG.error(message, event.name, more, exc_info=error, extra=log_fields("hook_failed", name=event.name))
        reason = f"before_track failed on an event {event.name!r}: {type(error).__name__}"
        self._hooks.notify(DeliveryEvent("dropped", reason=reason))

    def draft_customer(self, properties: Mapping[str, Any], *, defaults: bool = True) -> Draft | None:
        """Check and encode a customer's properties as they are now; raises as `draft_event` does."""
        if not self.check_running():
            return None
        merged = read_mapping(properties)
        if defaults and self._customer_defaults:
            merged = {**self._defaults, **merged}
        encoded = encode_object(merged, "properties", self._encoder)[1:-1]
        return Draft(EventType.TRACK_CUSTOMER, b"", encoded, None)

    def draft_click(self, url: str, properties: Mapping[str, Any]) -> Draft | None:
        """Check and encode a click of a campaign; raises as `draft_event` does."""
        if not self.check_running():
            return None
        encoded = encode_object(properties, "properties")[1:-1]
        return Draft(EventType.CAMPAIGN_CLICK, encode_string(url, "url"), encoded, None)

    # From drafts to records

    async def record(
        self,
        identity: Identity,
        draft: Draft,
        states: Sequence[StateChange | StateCheck] = (),
        now: float | None = None,
    ) -> Receipt:
        """
        Write one draft, as `record_many` does, at less cost for the usual case of one project.

        Args:
            identity: The identity the event is about.
            draft: The draft.
            states: States to change or to check in the same commit.
            now: The timestamp for a draft that has none; by default the current one.
        """
        kind, _, _, at, _, _ = draft
        routes = (identity.routes or self._routes)[kind]
        if at is None:
            at = self._clock.next() if now is None else now
        if self._refusal is not None or self._stopped or len(routes) > 1:
            return (await self.record_many(identity, ((None, draft._replace(timestamp=at)),), states))[0]
        record = Record(routes[0], draft_command(identity, draft, at), time.time())
        try:
            written = await self._storage.write((record,), states, self._account)
        except StorageError as error:
            self._note_failure(error)
            return self.dropped()
        return self._receipts.issue(written, routes)

    async def record_many(
        self, identity: Identity, drafts: Drafts, states: Sequence[StateChange | StateCheck] = ()
    ) -> list[Receipt]:
        """
        Write drafts in one commit, each to all projects that get its type.

        Args:
            identity: The identity of each draft that has none of its own.
            drafts: The drafts.
            states: States to change or to check in the same commit.

        Returns:
            The receipts, in the order of the drafts.

        Raises:
            StateConflictError: A state is not what it was assumed to be; nothing was written.
            StorageError: The storage refused; nothing was written.
        """
        # A call that had to wait before it got here may find the client closed or stopped.
        if (self._refusal is not None or self._stopped) and not self.check_running():
            return [self.dropped()] * len(drafts)
        written_at = time.time()
        records: list[Record] = []
        ends: list[int] = []
        routes: list[tuple[str, ...]] = []
        for own, draft in drafts:
            if len(routes) % SLICE == SLICE - 1:
                # Other tasks must run meanwhile, which may close or stop the client.
                await asyncio.sleep(0)
                if not self.check_running():
                    return [self.dropped()] * len(drafts)
            owner = own or identity
            body = draft_command(owner, draft, self._clock.next() if draft.timestamp is None else draft.timestamp)
            routes.append((owner.routes or self._routes)[draft.kind])
            for route in routes[-1]:
                records.append(Record(route, body, written_at))  # noqa: PERF401 - slower for one
            ends.append(len(records))
        try:
            written = await self._storage.write(records, states, self._account)
        except StorageError as error:
            self._note_failure(error)
            return [self.dropped()] * len(drafts)
        return await self._receipts.issue_many(written, ends, routes)

    def _note_failure(self, error: StorageError) -> None:
        """Note an error and raise it again, unless the storage is closed because the client is closed or stopped."""
        if self.check_running():
            if not isinstance(error, StateConflictError):
                self._counters.note_error(str(error))
            raise error

    async def store_projects(self, uses: Sequence[tuple[str, ExponeaProject]], present: str | None) -> None:
        """Store the projects that a device is to be switched to, as `ProjectStore.store` does."""
        await self._projects.store(uses, present)

    def invalid(self, error: InvalidEventError) -> Receipt:
        """
        Return the receipt of something invalid that is dropped, and log and count it.

        Raises:
            InvalidEventError: The error itself, unless the configuration says that it is logged.
        """
        if self._raises_invalid:
            raise error
        if (more := self._invalid_throttle.admit()) is not None:
            fields = log_fields("invalid", path=error.path, reason=str(error))
            LOG.error("Something invalid was dropped. %s%s", error, more, exc_info=error, extra=fields)
        # The receipt must not keep the frames of its caller.
        error = error.with_traceback(None)
        self._hooks.notify(DeliveryEvent("dropped", reason=str(error), error=error))
        return self.dropped(str(error), count="invalid", cause=error)

    def count_not_shown(self, reason: Literal["late", "not_loaded"], number: int = 1) -> None:
        """Count events or calls for which no message was shown."""
        self._counters.not_shown[reason] += number

    def dropped(
        self,
        reason: str = "before_track returned None or failed",
        *,
        count: str = "",
        cause: ExponeaError | None = None,
    ) -> Receipt:
        """Return the receipt of an event that is not recorded, and count it under the name `count`, if given."""
        if self._stopped:
            reason, count = "the integration is stopped", "stopped"
        if count:
            self._counters.dropped[count] += 1
        receipt = self._receipts.issue(Written(()))
        error = DroppedError(reason)
        error.__cause__ = cause
        receipt.resolve(error)
        return receipt

    def _account(self, written: Written) -> None:
        """Count what was committed, also if its caller was cancelled meanwhile, and wake the uploader."""
        self._counters.tracked += len(written.ids)
        if written.dropped:
            self._report_dropped(written.dropped)
        self._note_written(len(written.ids))

    def report_damage(self, error: StorageError) -> None:
        """Notify listeners that something in the storage was damaged and has been replaced."""
        self._hooks.notify(DeliveryEvent("damaged", reason=str(error), error=error))

    def _report_dropped(self, ids: tuple[str, ...]) -> None:
        self.report_erased(ids, "the queue was full, and newer events replaced it", count="queue_full")

    def report_erased(self, ids: tuple[str, ...], reason: str, *, count: str) -> None:
        """Resolve the receipts of records that were deleted unsent, count them, and notify listeners."""
        if not ids:
            return
        self._counters.dropped[count] += len(ids)
        self._receipts.resolve(ids, DroppedError(reason))
        self._hooks.notify(DeliveryEvent("dropped", ids, reason=reason))


class DroppingRecorder(EventRecorder):
    """
    Drops each event, as a recorder does after the integration was stopped, for a subject of whom nothing is tracked.

    Args:
        recorder: The recorder of the client.
        reason: Why events are dropped.
        count: The name under which they are counted.
    """

    def __init__(self, recorder: EventRecorder, reason: str, count: str) -> None:
        # It has the parts of the other one: what is not recorded is read in the same way.
        self.__dict__.update(recorder.__dict__)
        self._stopped, self._loop = True, None
        self._recorder, self._reason, self._count = recorder, reason, count

    @property
    def for_others(self) -> EventRecorder:
        """The recorder of the client."""
        return self._recorder

    def check_running(self) -> bool:
        """Return False; raise as the other recorder does where the client is not running."""
        self._recorder.check_running()
        return False

    def dropped(self, reason: str = "", *, count: str = "", cause: ExponeaError | None = None) -> Receipt:  # noqa: ARG002 - there is one reason for all
        """Return the receipt of an event that is not recorded, and count it."""
        return self._recorder.dropped(self._reason, count=self._count)


def _check_changed(changed: Event | None) -> Event | None:
    if changed is None or isinstance(changed, Event):
        return changed
    trouble = f"must return an Event or None, returned {short_repr(changed)}"
    raise InvalidEventError("before_track", trouble, "Correct the hook.")


def _without_stamps(properties: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
    """Remove the properties that the SDK adds itself; a caller's device id is for subjects without a device."""
    rest = dict(properties)
    rest.pop(APPLICATION_ID, None)
    device = {DEVICE_ID: rest.pop(DEVICE_ID, None)}
    return rest, encode_object(device, "properties")[1:-1]
