"""
Assertions about what was tracked, with differences that can be read.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from exponea_async._internal.printable import printable
from exponea_async.sandbox import RejectedCommand, Sandbox
from exponea_async.testing.comparison import (
    Expectation,
    check_comparable,
    check_ids,
    check_time,
    differences,
    expected_time,
    shown,
    shown_time,
)
from exponea_async.testing.events import CUSTOMER, Source, TrackedEvent, find_events
from exponea_async.testing.records import lives_on

#: Maximum number of events, and of differences of each, that a message lists.
MAX_EVENTS, MAX_DIFFERENCES = 5, 10

# pytest leaves functions with this variable out of tracebacks, so that these end in the line of the test.
_HIDDEN = True


def assert_tracked(
    source: Source,
    name: str,
    properties: Mapping[str, Any] | None = None,
    *,
    customer: Mapping[str, Any] | None = None,
    count: int | None = None,
    exact: bool = False,
    timestamp: Any = None,
    project: str | None = None,
) -> list[TrackedEvent]:
    """
    Check that an event was tracked: that it has arrived in the sandbox, or waits in the queue of a client.

    So it makes no difference whether the queue was uploaded before. Nothing is awaited and nothing is sent.

    Args:
        source: The sandbox, for what has arrived there and what waits in the clients of this process that send to it;
            or a client or a portal, for what waits in its queue.
        name: The event type, such as ``"purchase"``; ``"customer"`` for the properties of customers.
        properties: The properties that the event must have. It may have others, too. The values are compared as they
            are sent, and may be objects that are equal to what they match, such as ``pytest.approx(1)``.
        customer: Ids that the event must have been sent with, such as ``{"registered": "jane@example.com"}``.
        count: How many such events there must be; at least one where None.
        exact: Whether the event must have no other properties, except those that the SDK adds by itself.
        timestamp: The time of the event, within a millisecond: an aware datetime, UNIX seconds, or an object that is
            equal to the seconds it matches.
        project: The token of the project.

    Returns:
        The events that match, those that have arrived first.

    Raises:
        AssertionError: There is no such event, or another number of them. The message lists the events of that name
            with their differences, the closest first.
        TypeError: An argument is of a wrong type, or a value can't be tracked, such as a naive datetime.
        StorageError: The storage of a client refused.
    """
    __tracebackhide__ = _HIDDEN
    events = find_events(source)
    expected = _expectation(name, properties, customer, timestamp, project, exact=exact)
    matching = _matching(expected, events)
    if (len(matching) == count) if count is not None else matching:
        return matching
    raise AssertionError("\n".join(_missing(expected, count, len(matching), events, source)))


def assert_not_tracked(
    source: Source,
    name: str,
    properties: Mapping[str, Any] | None = None,
    *,
    customer: Mapping[str, Any] | None = None,
    exact: bool = False,
    timestamp: Any = None,
    project: str | None = None,
) -> None:
    """
    Check that no such event was tracked: that none has arrived in the sandbox, and none waits in a queue.

    Args:
        source: As for `assert_tracked`.
        name: The event type; ``"customer"`` for the properties of customers.
        properties: The properties of the event that must not be there; without any, no event of that name.
        customer: The ids of the event that must not be there.
        exact: Whether only an event that has no other properties is meant.
        timestamp: The time of the event that must not be there.
        project: The token of its project.

    Raises:
        AssertionError: There is one. The message lists all of them.
        TypeError: An argument is of a wrong type, or a value can't be tracked, such as a naive datetime.
        StorageError: The storage of a client refused.
    """
    __tracebackhide__ = _HIDDEN
    expected = _expectation(name, properties, customer, timestamp, project, exact=exact)
    matching = _matching(expected, find_events(source))
    if matching:
        raise AssertionError("\n".join(_unexpected(expected, matching)))


def _expectation(
    name: str,
    properties: Mapping[str, Any] | None,
    customer: Mapping[str, Any] | None,
    timestamp: Any,
    project: str | None,
    *,
    exact: bool,
) -> Expectation:
    __tracebackhide__ = _HIDDEN
    if not isinstance(name, str) or not name:
        raise TypeError(f"name: expected the type of an event, got {shown(name)}. Pass a str such as 'purchase'.")
    for field, value in (("properties", properties), ("customer", customer)):
        if not isinstance(value, Mapping | None):
            example = "{'registered': 'jane@example.com'}" if field == "customer" else "{'total_price': 7.99}"
            raise TypeError(f"{field}: expected a mapping, got {shown(value)}. Pass a dict such as {example}.")
    if not isinstance(project, str | None):
        raise TypeError(f"project: expected the token of a project, got {shown(project)}. Pass a str.")
    check_comparable(properties or {}, "properties")
    check_ids(customer or {})
    check_time(timestamp)
    return Expectation(name, properties or {}, customer or {}, timestamp, project, exact)


def _matching(expected: Expectation, events: Iterable[TrackedEvent]) -> list[TrackedEvent]:
    return [
        event
        for event in events
        if event.name == expected.name and event.status != "rejected" and not differences(expected, event)
    ]


# Messages


def _missing(
    expected: Expectation, count: int | None, found: int, events: Sequence[TrackedEvent], source: Source
) -> Iterator[str]:
    named = [event for event in events if event.name == expected.name]
    if not named:
        yield f"No event {shown(expected.name)} was tracked."
        yield from _names(expected.name, events)
    else:
        yield _headline(expected, count, found)
        yield from _expected(expected)
        yield "Tracked under this name, the closest first:"
        yield from _candidates(expected, named)
    if isinstance(source, Sandbox):
        yield from _troubles(expected.name, source, named)
        if not events and not source.requests and not lives_on(source.url):
            yield "No client that sends to the sandbox is open. What waits in memory is gone when its client is closed."


def _headline(expected: Expectation, count: int | None, found: int) -> str:
    if count is None:
        return f"No matching event {shown(expected.name)} was tracked."
    return f"Expected {count} matching {'event' if count == 1 else 'events'} {shown(expected.name)}, got {found}."


def _expected(expected: Expectation) -> Iterator[str]:
    yield "Expected:"
    where = [f"customer {_pairs(expected.customer)}"] if expected.customer else []
    where += [f"project {shown(expected.project)}"] if expected.project else []
    where += [expected_time(expected.timestamp)] if expected.timestamp is not None else []
    if where:
        yield f"     {', '.join(where)}"
    if expected.properties or expected.exact:
        yield f"     {'only ' if expected.exact else ''}{_pairs(expected.properties)}"
    elif not where:
        yield "     any"


def _candidates(expected: Expectation, named: Iterable[TrackedEvent]) -> Iterator[str]:
    compared = [(differences(expected, event), event) for event in named]
    # Sorting is stable: of two that are equally close, the earlier one comes first.
    compared.sort(key=lambda pair: (len(pair[0]), pair[1].status == "rejected"))
    for number, (lines, event) in enumerate(compared[:MAX_EVENTS], start=1):
        yield f"  {number}. {_described(event)}"
        yield from (f"     {line}" for line in lines[:MAX_DIFFERENCES] or ["matches"])
        if len(lines) > MAX_DIFFERENCES:
            yield f"     and {len(lines) - MAX_DIFFERENCES} more differences"
    if len(compared) > MAX_EVENTS:
        yield f"  and {len(compared) - MAX_EVENTS} more"


def _unexpected(expected: Expectation, matching: Sequence[TrackedEvent]) -> Iterator[str]:
    yield f"Expected no such event {shown(expected.name)}, got {len(matching)}:"
    for number, event in enumerate(matching[:MAX_EVENTS], start=1):
        yield f"  {number}. {_described(event)}"
        yield f"     {_pairs(event.properties)}"
    if len(matching) > MAX_EVENTS:
        yield f"  and {len(matching) - MAX_EVENTS} more"


def _names(name: str, events: Sequence[TrackedEvent]) -> Iterator[str]:
    counts = Counter(event.name for event in events if event.name != CUSTOMER or event.properties)
    if not counts:
        yield "Nothing was tracked at all."
        return
    close = get_close_matches(name, counts, n=1, cutoff=0.6)
    if close:
        yield f"Did you mean {shown(close[0])}?"
    yield "Tracked: " + ", ".join(f"{shown(each)} ({count})" for each, count in counts.most_common()) + "."


def _troubles(name: str, sandbox: Sandbox, named: Iterable[TrackedEvent]) -> Iterator[str]:
    """Return what else may explain that an event is not there: refused commands and failed requests."""
    if not any(event.status == "rejected" for event in named):
        yield from (_refusal(command) for command in sandbox.engine.rejected if json.dumps(name) in command.data)
    failed = Counter(request.status or "dropped" for request in list(sandbox.requests) if not 0 < request.status < 400)
    if failed:
        yield "Requests that failed: " + ", ".join(f"{status} ({count})" for status, count in failed.items()) + "."


def _refusal(command: RejectedCommand) -> str:
    return f"The sandbox rejected {printable(command.data)}: {printable('; '.join(command.errors))}"


def _described(event: TrackedEvent) -> str:
    status = f"rejected ({printable(event.reason)})" if event.status == "rejected" else event.status
    at = "" if event.timestamp is None else f", {shown_time(event.timestamp)}"
    return f"{status}, customer {_pairs(event.customer_ids)}{at}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{printable(str(key))}={shown(value)}" for key, value in values.items()) or "(none)"
