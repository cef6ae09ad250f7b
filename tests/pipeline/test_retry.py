"""
How long to wait and when to stop.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exponea_async._pipeline.retry import Backoff, RateLimiter, pause_seconds, storage_attempts
from exponea_async.config import UploadSettings
from exponea_async.errors import ClosedError, QueueFullError, StorageError

#: A slow machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
BACKOFF = Backoff(UploadSettings(backoff_initial=0.5, backoff_max=60.0))


class TestBackoff:
    @UNHURRIED
    @given(st.integers(1, 10_000))
    def test_waits_are_between_none_and_the_doubled(self, attempt: int) -> None:
        """The ceiling doubles with each failure up to the longest wait, and any wait below it may come."""
        ceiling = min(0.5 * 2 ** min(attempt - 1, 20), 60.0)

        assert 0.0 <= BACKOFF.seconds(attempt) <= ceiling

    def test_waits_are_spread_over_the_whole_range(self) -> None:
        """Clients that failed together do not come back together."""
        waits = [BACKOFF.seconds(20) for _ in range(300)]

        assert min(waits) < 20.0
        assert max(waits) > 40.0

    @UNHURRIED
    @given(st.integers(1, 30), st.floats(60.0, 1800.0))
    def test_what_the_platform_asks_for_wins_where_it_is_longer(self, attempt: int, asked: float) -> None:
        """``Retry-After`` is never cut short by our own wait."""
        assert BACKOFF.seconds(attempt, asked) == asked

    def test_a_short_wish_does_not_shorten_our_own_wait(self) -> None:
        """The longer of both counts."""
        assert any(BACKOFF.seconds(20, 0.001) > 0.001 for _ in range(20))

    def test_nobody_is_waited_for_longer_than_half_an_hour(self) -> None:
        """An absurd wish is cut."""
        assert BACKOFF.seconds(1, 1e9) == 1800.0

    def test_no_wish_is_longer_than_our_own_longest_wait(self) -> None:
        """A longest wait of hours is cut too."""
        patient = Backoff(UploadSettings(backoff_initial=1e6, backoff_max=1e6))

        assert all(patient.seconds(attempt) <= 1800.0 for attempt in range(1, 50))


def test_a_paused_project_is_asked_ever_more_seldom() -> None:
    """A minute at first, doubled each time, an hour at the most."""
    assert [pause_seconds(attempt) for attempt in (1, 2, 3, 6, 7, 8, 5_000)] == [60, 120, 240, 1920, 3600, 3600, 3600]


class TestStorageAttempts:
    async def test_the_storage_is_asked_until_it_can(self) -> None:
        """A verdict that is known is written down, be it at the third attempt."""
        attempts = []
        async for attempt in storage_attempts():
            with attempt:
                attempts.append(attempt)
                if len(attempts) < 3:
                    raise QueueFullError("no room")

        assert len(attempts) == 3

    async def test_what_is_no_trouble_of_the_storage_is_raised(self) -> None:
        """Other errors are not repeated, and come as they are."""

        async def close() -> None:
            raise ClosedError("closed")

        with pytest.raises(ClosedError):
            await storage_attempts()(close)

    def test_each_use_has_a_policy_of_its_own(self) -> None:
        """Two loops at once do not count each other's attempts."""
        assert storage_attempts() is not storage_attempts()
        assert issubclass(QueueFullError, StorageError)


class TestPace:
    async def test_turns_are_evenly_spaced(self) -> None:
        """Callers that come together are let through one interval apart, in their order."""
        pace, loop = RateLimiter(100.0), asyncio.get_running_loop()
        begun: list[tuple[int, float]] = []

        async def caller(number: int) -> None:
            await pace.acquire()
            begun.append((number, loop.time()))

        started = loop.time()
        await asyncio.gather(*(caller(number) for number in range(6)))

        assert [number for number, _ in begun] == list(range(6))
        # A loop wakes sleepers up to its clock's resolution early, and as late as it likes.
        assert all(moment >= started + 0.01 * number - 0.002 for number, moment in begun)

    async def test_idle_time_is_not_saved_up(self) -> None:
        """After a pause the first goes at once, and the next waits as always."""
        pace, loop = RateLimiter(50.0), asyncio.get_running_loop()
        await pace.acquire()
        await asyncio.sleep(0.1)

        started = loop.time()
        await asyncio.gather(pace.acquire(), pace.acquire(), pace.acquire())

        assert loop.time() - started >= 0.04 - 0.002

    async def test_who_gives_up_does_not_stop_the_others(self) -> None:
        """A cancelled caller's turn passes by unused."""
        pace = RateLimiter(100.0)
        tasks = [asyncio.create_task(pace.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()

        done = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(each) for each in done] == [type(None), asyncio.CancelledError, type(None), type(None)]
