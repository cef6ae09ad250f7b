"""
The clock that tests set, and libraries that set the clock of the system.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from freezegun import freeze_time

from exponea_async import Event, Exponea, InvalidEventError
from exponea_async.sandbox import Sandbox
from exponea_async.testing import Clock, assert_tracked, idle, sandbox_configuration

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
JANE = {"registered": "jane@example.com"}
#: Libraries that stop the system's time; freezegun stops that of the event loop, too, unless it is told not to.
FREEZERS: dict[str, Callable[[datetime], AbstractContextManager[Any]]] = {
    "freezegun": freeze_time,
    "freezegun, without the event loop": lambda at: freeze_time(at, real_asyncio=True),
    "time-machine": lambda at: time_machine.travel(at, tick=False),
}


class TestClock:
    def test_it_shows_the_time_of_the_system(self) -> None:
        """A new clock shows the system's time, moved by what it was advanced."""
        clock = Clock()
        before = time.time()
        assert before <= clock() <= time.time()
        clock.advance(100)
        assert before + 100 <= clock() <= time.time() + 100
        clock.reset()
        assert before <= clock() <= time.time()

    def test_it_stands_still_once_it_is_set(self) -> None:
        """A clock that is set moves only when it is moved, by seconds or a timedelta, in both directions."""
        clock = Clock(NOON)
        assert clock() == clock() == NOON.timestamp()
        clock.advance(timedelta(minutes=1))
        clock.advance(-0.5)
        assert clock() == NOON.timestamp() + 59.5
        clock.set(5)
        assert (clock(), repr(clock)) == (5.0, "<Clock 5.000000, set>")

    @pytest.mark.parametrize("at", [datetime(2026, 1, 1), float("nan"), 1_767_225_600_000])  # noqa: DTZ001 - naive
    def test_a_time_that_is_none(self, at: Any) -> None:
        """A naive datetime, a number that is not finite, and milliseconds are refused."""
        with pytest.raises(InvalidEventError, match=r"^clock: "):
            Clock(at)

    @pytest.mark.parametrize("freeze", FREEZERS.values(), ids=FREEZERS)
    def test_it_follows_a_system_that_is_frozen(self, freeze: Callable[[datetime], Any]) -> None:
        """Where the system's time is frozen, a clock that is not set shows the frozen time."""
        clock = Clock()
        with freeze(NOON):
            assert clock() == NOON.timestamp()
            clock.advance(5)
            assert clock() == NOON.timestamp() + 5


@pytest.mark.parametrize("freeze", FREEZERS.values(), ids=FREEZERS)
@pytest.mark.parametrize("queue", ["memory:", "queue.sqlite"])
class TestFrozen:
    async def test_the_whole_life(
        self, freeze: Callable[[datetime], Any], queue: str, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """Events have the frozen time, and nothing waits for a time that does not come: start, upload, close."""
        storage = queue if queue == "memory:" else tmp_path / queue
        with freeze(NOON):
            async with Exponea(sandbox_configuration(sandbox, storage=storage, flush_mode="IMMEDIATE")) as client:
                receipt = await client.track_event(Event("visit"))
                await idle(client)
                assert receipt.status == "delivered"
                assert_tracked(sandbox, "visit", timestamp=NOON, count=1)

    @pytest.mark.parametrize("year", [2012, 2040])
    async def test_a_part_of_the_life(
        self, freeze: Callable[[datetime], Any], queue: str, year: int, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """Events of a time long ago or far ahead are delivered in the real time, and the other way round."""
        storage = queue if queue == "memory:" else tmp_path / queue
        then = NOON.replace(year=year)
        async with Exponea(sandbox_configuration(sandbox, storage=storage)) as client:
            with freeze(then):
                await client.for_customer(JANE).track_event(Event("visit"))
            assert (await client.flush_data()).delivered == 1
            assert_tracked(sandbox, "visit", timestamp=then)

            await client.for_customer(JANE).track_event(Event("purchase"))
            with freeze(then):
                assert (await client.flush_data()).delivered == 1


@pytest.mark.parametrize("freeze", FREEZERS.values(), ids=FREEZERS)
async def test_events_of_one_moment_differ(freeze: Callable[[datetime], Any], sandbox: Sandbox) -> None:
    """Equal events of a frozen moment are not taken for duplicates."""
    with freeze(NOON):
        async with Exponea(sandbox_configuration(sandbox)) as client:
            for _ in range(3):
                await client.for_customer(JANE).track_event(Event("visit"))
            await client.flush_data()
            assert_tracked(sandbox, "visit", timestamp=NOON, count=3)
