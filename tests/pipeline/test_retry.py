"""
Waits between attempts, and when to stop.
"""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async._pipeline.retry import Backoff, RateLimiter, pause_seconds, storage_attempts
from exponea_async.config import UploadSettings
from exponea_async.errors import ClosedError, QueueFullError, StorageError

#: A slow machine does not fail a test.
BACKOFF = Backoff(UploadSettings(backoff_initial=0.5, backoff_max=60.0))


class TestBackoff:
    @given(st.integers(1, 10_000))
    def test_waits_are_below_a_ceiling_that_doubles(self, attempt: int) -> None:
        """The ceiling doubles with each failure, up to the longest wait."""
        ceiling = min(0.5 * 2 ** min(attempt - 1, 20), 60.0)

        assert 0.0 <= BACKOFF.seconds(attempt) <= ceiling

    def test_waits_are_random(self) -> None:
        """Clients that failed at the same time do not try again at the same time."""
        waits = [BACKOFF.seconds(20) for _ in range(300)]

        assert min(waits) < 20.0
        assert max(waits) > 40.0

    def test_the_ceiling_doubles_with_each_failure(self) -> None:
        """The random number is between 0 and a ceiling that doubles up to the longest wait."""
        backoff = Backoff(UploadSettings(backoff_initial=0.5, backoff_max=60.0), uniform=lambda low, high: low + high)

        waits = [backoff.seconds(attempt) for attempt in (1, 2, 3, 7, 8, 10_000)]

        assert waits == [0.5, 1.0, 2.0, 32.0, 60.0, 60.0]

    @given(st.integers(1, 30), st.floats(60.0, 86_400.0))
    def test_a_longer_retry_after_is_respected(self, attempt: int, asked: float) -> None:
        """The wait is never shorter than ``Retry-After``."""
        assert BACKOFF.seconds(attempt, asked) == asked

    def test_a_shorter_retry_after_has_no_effect(self) -> None:
        """The longer of both waits counts."""
        assert any(BACKOFF.seconds(20, 0.001) > 0.001 for _ in range(20))

    def test_no_wait_is_longer_than_half_an_hour(self) -> None:
        """A longer ``backoff_max`` has no effect, unless the platform asks for it."""
        backoff = Backoff(UploadSettings(backoff_initial=1e6, backoff_max=1e6))

        assert all(backoff.seconds(attempt) <= 1800.0 for attempt in range(1, 50))


def test_pauses_grow() -> None:
    """The first pause is a minute; it doubles each time, up to an hour."""
    assert [pause_seconds(attempt) for attempt in (1, 2, 3, 6, 7, 8, 5_000)] == [60, 120, 240, 1920, 3600, 3600, 3600]


class TestStorageAttempts:
    async def test_storage_errors_are_retried_without_end(self) -> None:
        """The loop ends with the first attempt that does not fail."""
        attempts = []
        async for attempt in storage_attempts():
            with attempt:
                attempts.append(attempt)
                if len(attempts) < 3:
                    raise QueueFullError("The queue is full.")

        assert len(attempts) == 3

    async def test_other_errors_are_raised(self) -> None:
        """Errors that are not from the storage end the loop."""

        async def close() -> None:
            raise ClosedError("The client is closed.")

        with pytest.raises(ClosedError):
            await storage_attempts()(close)

    def test_each_call_returns_a_loop_of_its_own(self) -> None:
        """Concurrent loops do not share their state."""
        assert storage_attempts() is not storage_attempts()
        assert issubclass(QueueFullError, StorageError)


class TestRateLimiter:
    async def test_requests_are_evenly_slimiterd(self) -> None:
        """Concurrent callers get their turns one interval apart, in their order."""
        limiter, loop = RateLimiter(100.0), asyncio.get_running_loop()
        begun: list[tuple[int, float]] = []

        async def caller(number: int) -> None:
            await limiter.acquire()
            begun.append((number, loop.time()))

        started = loop.time()
        await asyncio.gather(*(caller(number) for number in range(6)))

        assert [number for number, _ in begun] == list(range(6))
        # A timer of the event loop may be early by the resolution of its clock, and late by any time.
        assert all(time >= started + 0.01 * number - 0.002 for number, time in begun)

    async def test_idle_time_is_not_saved_up(self) -> None:
        """After an idle time the first caller need not wait, but the next ones do."""
        limiter, loop = RateLimiter(50.0), asyncio.get_running_loop()
        await limiter.acquire()
        await asyncio.sleep(0.1)

        started = loop.time()
        await asyncio.gather(limiter.acquire(), limiter.acquire(), limiter.acquire())

        assert loop.time() - started >= 0.04 - 0.002

    async def test_a_cancelled_caller_does_not_block_the_others(self) -> None:
        """Its turn passes unused."""
        limiter = RateLimiter(100.0)
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()

        done = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(each) for each in done] == [type(None), asyncio.CancelledError, type(None), type(None)]
