"""
Timestamps of events are unique and close to the clock.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exponea_async._pipeline.clock import CORRECTION, SLOTS, STEP, UNIT, UniqueClock


def timestamps(readings: Iterable[float]) -> list[float]:
    """Return the timestamps that a clock with these readings gives."""
    readings = list(readings)
    source = UniqueClock(iter(readings).__next__)
    return [source.next() for _ in readings]


class FrozenClock:
    """A clock that stands still."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


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


def test_a_clock_of_the_application_is_not_rounded() -> None:
    """Tests find the time of their own clock in the events."""
    source = UniqueClock(FrozenClock(1_700_000_000.1))

    assert source.next() == 1_700_000_000.1


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 1, 1, 2, 700])), max_size=60), st.floats(0, 2e9))
def test_clients_with_one_clock(calls: list[tuple[int, int]], now: float) -> None:
    """However several clients take timestamps from one clock that stands still, none is given twice."""
    clock = FrozenClock(now)
    sources = [UniqueClock(clock) for _ in range(3)]
    found: list[float] = []
    for index, count in calls:
        first = sources[index].reserve(count)
        found += [first + number * STEP for number in range(count)]

    assert len(set(found)) == len(found)
    assert all(now <= each <= now + (len(found) + 1) * STEP for each in found)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-3, 3)), max_size=60))
def test_clients_with_a_clock_that_jumps(calls: list[tuple[int, float]]) -> None:
    """Wherever one clock goes, also back, two clients never give the same timestamp."""
    clock = FrozenClock(1e9)
    sources = [UniqueClock(clock), UniqueClock(clock)]
    found: list[float] = []
    for index, change in calls:
        clock.now += change
        found.append(sources[index].next())

    assert len(set(found)) == len(found)


def test_threads() -> None:
    """Clients in several threads never give the same timestamp."""
    clock = FrozenClock(1e9)

    def take(_: int) -> list[float]:
        source = UniqueClock(clock)
        return [source.next() for _ in range(2_000)]

    with ThreadPoolExecutor(4) as pool:
        found = [each for part in pool.map(take, range(4)) for each in part]

    assert len(set(found)) == len(found) == 8_000


def test_processes_that_share_a_file() -> None:
    """The timestamps of the system's clock differ by their slots, whatever the time is, and are close to it."""
    for slot in range(SLOTS):
        source = UniqueClock(time.time)
        source.use_slot(slot)
        for _ in range(100):
            before = time.time()
            found = source.next() / UNIT
            after = time.time()

            assert found % SLOTS == slot
            assert before <= found * UNIT < after + 0.05
