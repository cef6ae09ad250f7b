"""
Compares what a test expects with what was tracked. Pure.

Expected values are compared as they are sent: a datetime as UNIX seconds, a ``Decimal`` as a number, None as a property
that is left out. Objects with an ``__eq__`` of their own, such as ``pytest.approx(1)`` and ``unittest.mock.ANY``,
decide by themselves.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from attrs import field, frozen

from exponea_async._internal.arguments import read_timestamp
from exponea_async._internal.encoding import plain_object
from exponea_async._internal.printable import printable
from exponea_async.errors import InvalidEventError
from exponea_async.testing.events import TrackedEvent

#: Timestamps that differ by less than this are equal, in seconds: events of one moment get slightly different ones.
TIMESTAMP_TOLERANCE = 0.001
#: The properties that the SDK adds by itself, which need not be expected.
ADDED = frozenset(
    {"app_version", "application_id", "device_id", "device_type", "os_name", "os_version", "sdk", "sdk_version"}
)
#: The longest value that is shown in full, and how much of longer ones is shown before their first difference.
MAX_VALUE, CONTEXT = 200, 40
#: Where the types come from whose values are compared as they are sent, and do not decide by themselves.
PLAIN_MODULES = ("builtins", "datetime", "decimal", "uuid")


@frozen
class Expectation:
    """
    What a test expects of an event.

    Attributes:
        name: The event type, or ``"customer"``.
        properties: The properties.
        customer: The ids of the customer.
        timestamp: The time of the event; None for any.
        project: The token of the project; None for any.
        exact: Whether the event must have no other properties, except those that the SDK adds by itself.
    """

    name: str
    properties: Mapping[str, Any] = field(factory=dict)
    customer: Mapping[str, Any] = field(factory=dict)
    timestamp: Any = None
    project: str | None = None
    exact: bool = False


class _Missing:
    """The type of the marker for values that there are not."""


_MISSING = _Missing()


def differences(expected: Expectation, event: TrackedEvent) -> list[str]:
    """Return how an event of the expected name differs from what is expected, one line each; empty if it matches."""
    return [
        *_project_difference(expected.project, event.project),
        *_mapping_differences(expected.customer, event.customer_ids, "customer ", exact=False),
        *_timestamp_difference(expected.timestamp, event.timestamp),
        *_mapping_differences(expected.properties, event.properties, "", exact=expected.exact),
    ]


def shown(value: Any) -> str:
    """Return a value as it is shown, in one line, shortened."""
    return _shortened(printable(repr(value)))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"


def shown_time(timestamp: float) -> str:
    """Return UNIX seconds as they are shown: as a date and time in UTC."""
    try:
        return datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return repr(timestamp)


def expected_time(expected: Any) -> str:
    """Return an expected time as it is shown."""
    seconds = _seconds(expected)
    return shown(expected) if seconds is None else shown_time(seconds)


def _project_difference(expected: str | None, got: str) -> Iterator[str]:
    if expected not in (None, got):
        yield f"project: expected {shown(expected)}, got {shown(got)}"


def _timestamp_difference(expected: Any, got: float | None) -> Iterator[str]:
    if expected is None or _is_equal(expected, got):
        return
    seconds = _seconds(expected)
    if seconds is not None and got is not None and abs(seconds - got) < TIMESTAMP_TOLERANCE:
        return
    yield f"timestamp: expected {expected_time(expected)}, " + (
        "is missing" if got is None else f"got {shown_time(got)}"
    )


def _seconds(expected: Any) -> float | None:
    """Return an expected time as UNIX seconds; None for an object that decides by itself."""
    try:
        return read_timestamp(expected, "timestamp")
    except InvalidEventError:
        return None


def _mapping_differences(
    expected: Mapping[str, Any], got: Mapping[str, Any], prefix: str, *, exact: bool
) -> Iterator[str]:
    for key, value in expected.items():
        path = f"{prefix}{printable(str(key))}"
        if key not in got and value is not None:
            yield f"{path}: expected {shown(value)}, is missing{_similar(key, got.keys() - expected.keys())}"
        else:
            yield from _value_differences(value, got.get(key, _MISSING), path, exact=exact)
    if exact:
        for key in [key for key in got if key not in expected and key not in ADDED]:
            yield f"{prefix}{printable(key)}: not expected, got {shown(got[key])}"


def _value_differences(expected: Any, got: Any, path: str, *, exact: bool) -> Iterator[str]:
    if isinstance(got, _Missing):
        return
    if expected is None:
        yield f"{path}: not expected, got {shown(got)}"
    elif isinstance(expected, Mapping) and isinstance(got, Mapping):
        yield from _mapping_differences(expected, got, f"{path}.", exact=exact)
    elif isinstance(expected, list | tuple) and isinstance(got, list) and len(expected) == len(got):
        for index, (one, other) in enumerate(zip(expected, got, strict=True)):
            yield from _value_differences(one, other, f"{path}[{index}]", exact=exact)
    elif not _is_equal(expected, got):
        yield f"{path}: expected {_shown_both(expected, got)}"


def _similar(name: Any, names: Iterable[str]) -> str:
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"; did you mean {shown(close[0])}?" if close else ""


def _shown_both(expected: Any, got: Any) -> str:
    """Return two different values as they are shown, long ones around the first difference."""
    if isinstance(expected, datetime) and isinstance(got, int | float):
        return f"{expected_time(expected)} ({_as_sent(expected)}), got {shown_time(got)} ({got})"
    texts = [printable(repr(value)) for value in (expected, got)]
    same = next((index for index, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), 0)
    start = same - CONTEXT if same >= MAX_VALUE - CONTEXT and max(map(len, texts)) > MAX_VALUE else 0
    return ", got ".join(("…" if start else "") + _shortened(text[start:]) for text in texts)


def _is_equal(expected: Any, got: Any) -> bool:
    return _are_equal(expected, got) or _are_equal(_as_sent(expected), got)


def _as_sent(value: Any) -> Any:
    try:
        return plain_object({"value": value}, "properties").get("value", _MISSING)
    except InvalidEventError:
        return _MISSING


def check_comparable(value: Any, path: str) -> None:
    """
    Refuse an expected value that no tracked one can equal: the check that there is no such event would always pass.

    Objects of other types than those of Python itself decide by themselves.

    Raises:
        TypeError: The value can't be tracked.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            check_comparable(each, f"{path}.{printable(str(key))}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            check_comparable(each, f"{path}[{index}]")
    elif type(value).__module__ in PLAIN_MODULES:
        try:
            plain_object({"value": value}, "value")
        except InvalidEventError as error:
            raise TypeError(f"{path}: {error.trouble}. {error.hint}") from None


def check_ids(expected: Mapping[str, Any]) -> None:
    """
    Refuse an expected id that no customer can have, as `check_comparable` does.

    Raises:
        TypeError: An id is neither a text nor an object that decides by itself.
    """
    for key, value in expected.items():
        if type(value).__module__ in PLAIN_MODULES and not isinstance(value, str | None):
            name = printable(str(key))
            raise TypeError(f"customer.{name}: expected a str, got {shown(value)}. Pass the id as it is sent.")


def check_time(expected: Any) -> None:
    """
    Refuse an expected time that no event can have, as `check_comparable` does.

    Raises:
        TypeError: It is a text, a naive datetime, or another value that is not a time.
    """
    if expected is not None and type(expected).__module__ in PLAIN_MODULES:
        try:
            read_timestamp(expected, "timestamp")
        except InvalidEventError as error:
            raise TypeError(str(error)) from None


def _are_equal(expected: Any, got: Any) -> bool:
    # In Python True equals 1, in JSON it does not.
    if isinstance(expected, bool | int | float) and isinstance(expected, bool) is not isinstance(got, bool):
        return False
    equal = expected == got
    # The comparison of an array is an array.
    return isinstance(equal, bool) and equal
