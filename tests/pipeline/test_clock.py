"""
Timestamps of events are unique and close to the clock.
"""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exponea_async._pipeline.clock import CORRECTION, UniqueClock


def timestamps(readings: Iterable[float]) -> list[float]:
    """Return the timestamps that a clock with these readings gives."""
    readings = list(readings)
    source = UniqueClock(iter(readings).__next__)
    return [source.next() for _ in readings]


def test_a_clock_that_stands_still() -> None:
    """Timestamps go on rising in the smallest steps."""
    found = timestamps([100.0] * 1000)

    assert found == sorted(set(found))
    assert found[-1] < 100.01


def test_a_clock_that_goes_back_a_little() -> None:
    """A step back of less than a second is ignored."""
    found = timestamps([100.0, 99.9, 99.5, 100.2])

    assert found == sorted(set(found))
    assert found[-1] == 100.2


def test_a_clock_that_was_set_back() -> None:
    """A larger step back is followed: the clock was wrong before."""
    assert timestamps([100.0, 50.0, 51.0]) == [100.0, 50.0, 51.0]


@given(st.lists(st.floats(1.7e9, 1.7e9 + 5), max_size=50))
def test_consecutive_timestamps_differ(readings: list[float]) -> None:
    """Whatever the clock does, consecutive timestamps differ, and none is far from the clock."""
    found = timestamps(readings)

    assert all(one != two for one, two in pairwise(found))
    assert all(
        abs(timestamp - reading) <= CORRECTION + 1e-3 for timestamp, reading in zip(found, readings, strict=True)
    )
