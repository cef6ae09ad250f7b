"""
What was tracked: the events that a sandbox has received, and those that wait in the queues of clients.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import frozen

from exponea_async._lifecycle.lifecycle import Lifecycle
from exponea_async.client import Exponea
from exponea_async.errors import StorageError
from exponea_async.portal import Portal
from exponea_async.sandbox import CustomerView, Sandbox, StoredEvent
from exponea_async.testing.records import StoredRecord, life_of, lives_on, read_queue

#: Where events are looked for.
Source = Sandbox | Exponea | Portal

#: The name under which the properties of customers are looked for.
CUSTOMER = "customer"
#: The type that a campaign click has in Engagement.
CLICK = "campaign_click"


@frozen
class TrackedEvent:
    """
    An event that was tracked, or the properties of a customer.

    Attributes:
        name: The event type; ``"customer"`` for the properties of a customer.
        properties: The properties, as they are sent.
        customer_ids: The ids of the customer that the event was sent with. For the properties of a customer in the
            sandbox: the ids of that customer, of several cookies the latest.
        timestamp: The time of the event, UNIX seconds; None for the properties of a customer in the sandbox.
        project: The token of the project.
        status: ``"arrived"`` in the sandbox, ``"waiting"`` in a queue, or ``"rejected"``.
        reason: Why it was rejected; else an empty string.
    """

    name: str
    properties: Mapping[str, Any]
    customer_ids: Mapping[str, str]
    timestamp: float | None
    project: str
    status: Literal["arrived", "waiting", "rejected"]
    reason: str = ""


def find_events(source: Source) -> list[TrackedEvent]:
    """
    Return what has arrived and what waits, each event once, and then what was rejected.

    A sandbox is asked for what has arrived, and for what waits in the queues of all open clients of this process that
    send to it; a client, or that of a portal, for what waits in its queue.

    Raises:
        TypeError: It is not one of these.
        StorageError: A storage refused.
    """
    if isinstance(source, Exponea | Portal):
        waiting, rejected = _queued(life_of(source.exponea if isinstance(source, Portal) else source))
        return [*waiting, *rejected]
    if not isinstance(source, Sandbox):
        kind = type(source).__name__
        raise TypeError(f"source: expected a Sandbox, an Exponea or a Portal, got {kind}. Pass one of these first.")
    # The queues come first: what is uploaded meanwhile is then found twice, and never missed.
    queues = [_queued(life, may_close=True) for life in lives_on(source.url)]
    arrived = list(_arrived(source))
    known = {_identity(event) for event in arrived}
    waiting = [event for queue in queues for event in queue[0] if _identity(event) not in known]
    return [*arrived, *waiting, *(event for queue in queues for event in queue[1])]


def _arrived(sandbox: Sandbox) -> Iterator[TrackedEvent]:
    yield from map(_of_event, sandbox.engine.events())
    yield from map(_of_customer, sandbox.engine.customers())


def _of_event(event: StoredEvent) -> TrackedEvent:
    return TrackedEvent(
        event.event_type, event.properties, event.customer_ids, event.timestamp, event.project, "arrived"
    )


def _of_customer(customer: CustomerView) -> TrackedEvent:
    ids = {kind: values[-1] for kind, values in customer.ids.items()}
    return TrackedEvent(CUSTOMER, customer.properties, ids, None, customer.project, "arrived")


def _queued(life: Lifecycle, *, may_close: bool = False) -> tuple[list[TrackedEvent], list[TrackedEvent]]:
    """Return what waits in a queue, and what was rejected; nothing if the client may close meanwhile, and does."""
    try:
        records, letters = read_queue(life)
    except StorageError:
        if may_close and life not in Lifecycle.running:
            return [], []
        raise
    return [_of_record(each, "waiting") for each in records], [_of_record(each, "rejected") for each in letters]


def _of_record(record: StoredRecord, status: Literal["waiting", "rejected"]) -> TrackedEvent:
    name, properties = record.name, record.properties
    if record.kind == "click":
        # As Engagement stores it.
        name, properties = CLICK, {**properties, "url": record.data["url"]}
    return TrackedEvent(
        name,
        properties,
        record.customer_ids,
        record.timestamp,
        record.project,
        status,
        record.reason,
    )


def _identity(event: TrackedEvent) -> tuple[object, ...]:
    """Return by what the platform, too, recognizes an event that it has already."""
    ids = tuple(sorted(event.customer_ids.items()))
    return event.name, event.project, ids, event.timestamp, json.dumps(dict(event.properties), sort_keys=True)
