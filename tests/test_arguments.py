"""
The rules of what users pass to the public coroutines.
"""

import math
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from helpers.clients import Configure, pending_data

from exponea_async import Event, Exponea
from exponea_async._internal.arguments import read_number, read_text, read_timeout, read_timestamp
from exponea_async.errors import InvalidEventError

#: More digits than Python is willing to print.
HUGE = 10**5000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Float(float):
    pass


class NoOffset(tzinfo):
    def utcoffset(self, _timestamp: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


class NotATime(datetime):
    """As NaT in pandas: a datetime whose methods raise."""

    def utcoffset(self) -> None:
        raise ValueError("NaTType does not support utcoffset")

    timestamp = __repr__ = utcoffset  # type: ignore[assignment]


class TestTimestamps:
    @pytest.mark.parametrize(
        ("timestamp", "seconds"),
        [
            (NOON, 1767268800.0),
            (5, 5.0),
            (5.5, 5.5),
            (-1, -1.0),
            (Float(2.0), 2.0),
            (Decimal("1.5"), 1.5),
            (1e11, 1e11),
        ],
    )
    def test_timestamps_become_unix_seconds(self, timestamp: Any, seconds: float) -> None:
        """Aware datetimes and numbers become float seconds."""
        found = read_timestamp(timestamp, "timestamp")

        assert (type(found), found) == (float, seconds)

    @pytest.mark.parametrize(
        ("timestamp", "trouble"),
        [
            (datetime(2026, 1, 1), "must have a time zone"),  # noqa: DTZ001
            (datetime(2026, 1, 1, tzinfo=NoOffset()), "must have a time zone"),
            (math.nan, "expected a datetime or a finite number, got "),
            (math.inf, "expected a datetime or a finite number, got "),
            (-math.inf, "expected a datetime or a finite number, got "),
            (True, "expected a datetime or a finite number, got "),
            ("now", "expected a datetime or a finite number, got "),
            (None, "expected a datetime or a finite number, got "),
            (Decimal("NaN"), "expected a datetime or a finite number, got "),
            (Decimal("sNaN"), "expected a datetime or a finite number, got "),
            (Decimal("1e400"), "expected a datetime or a finite number, got "),
            (NotATime(2026, 1, 1), "expected an aware datetime, got a NotATime that raised ValueError"),
            (1_767_268_800_000, "looks like milliseconds"),
            (10**400, "looks like milliseconds"),
            pytest.param(HUGE, "looks like milliseconds", id="huge"),
        ],
    )
    def test_other_values_are_invalid_timestamps(self, timestamp: Any, trouble: str) -> None:
        """Naive, infinite and suspiciously large timestamps raise an error with the path."""
        with pytest.raises(InvalidEventError, match=trouble) as caught:
            read_timestamp(timestamp, "timestamp")

        assert caught.value.path == "timestamp"


class Unprintable:
    """A value of an application's class that cannot be shown, as a proxy outside of a request."""

    def __repr__(self) -> str:
        raise RuntimeError("working outside of a request")


class TestTexts:
    @pytest.mark.parametrize("read", [read_text, read_number, lambda value, path, _hint: read_timestamp(value, path)])
    def test_a_value_that_cannot_be_shown(self, read: Any) -> None:
        """The error names the field, and the type of the value."""
        with pytest.raises(InvalidEventError, match=r"^field: .*Unprintable"):
            read(Unprintable(), "field", "Pass it.")

    def test_the_value_of_a_secret_is_not_shown(self) -> None:
        """An error about a token has its type, not its value."""
        for value in ("\ud800-secret", b"secret"):
            with pytest.raises(InvalidEventError) as caught:
                read_text(value, "token", "Pass it.", is_secret=True)
            assert "secret" not in str(caught.value)


class TestNumbers:
    @pytest.mark.parametrize(
        ("number", "expected"), [(7, 7), (7.5, 7.5), (Decimal("7.5"), 7.5), (np.int64(7), 7.0), (Fraction(1, 2), 0.5)]
    )
    def test_any_finite_number_is_valid(self, number: Any, expected: float) -> None:
        """An int stays an int, and any other number becomes a float."""
        found = read_number(number, "value", "Use a number.")

        assert (type(found), found) == (type(expected), expected)

    @pytest.mark.parametrize("number", [True, "7", None, math.nan, Decimal("Infinity"), 1j])
    def test_other_values_are_invalid(self, number: Any) -> None:
        """The error names the field."""
        with pytest.raises(InvalidEventError, match=r"^value: expected a finite number, got "):
            read_number(number, "value", "Use a number.")


class TestTimeouts:
    @pytest.mark.parametrize(
        ("timeout", "seconds"),
        [
            (None, None),
            (math.inf, None),
            (0, 0.0),
            (1, 1.0),
            (0.5, 0.5),
            (Decimal("1.5"), 1.5),
            (timedelta(minutes=1), 60.0),
        ],
    )
    def test_durations(self, timeout: Any, seconds: float | None) -> None:
        """A timeout is a number of seconds, a timedelta, or none."""
        assert read_timeout(timeout) == seconds

    @pytest.mark.parametrize("timeout", ["x", "1", -1, math.nan, True, [], timedelta(seconds=-1), -math.inf])
    def test_others(self, timeout: Any) -> None:
        """Anything else is an error that names the field."""
        with pytest.raises(InvalidEventError, match=r"^timeout: expected seconds of 0 or more"):
            read_timeout(timeout)


@pytest.mark.parametrize("call", ["flush_data", "stop_integration", "aclose", "delivered", "decided"])
async def test_where_timeouts_are_read(configure: Configure, call: str) -> None:
    """Every call with a timeout checks it before it does anything."""
    async with Exponea(configure(flush_mode="MANUAL")) as client:
        receipt = await client.for_customer({"registered": "jane"}).track_event(Event("ping"))
        target: Any = receipt if call in ("delivered", "decided") else client
        with pytest.raises(InvalidEventError, match="timeout"):
            await getattr(target, call)(timeout="x")
        assert len(await pending_data(client)) == 1


async def test_events_that_are_none(configure: Configure) -> None:
    """What is not iterable is named."""
    async with Exponea(configure(flush_mode="MANUAL")) as client:
        events: Any = None
        with pytest.raises(InvalidEventError, match="events: expected events, got None"):
            await client.track_many(events)
