"""
Leases and delays while the system's clock is set.
"""

import time
from collections.abc import Callable

import pytest
from helpers.storages import MakeStorage, OpenFile, bodies, later, records

from exponea_async.storage import clock
from exponea_async.storage.base import Storage

SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Set the system's clock forward or back by a number of seconds, for this process."""
    real = time.time

    def change(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)

    return change


async def lease(storage: Storage, after: float = 0.0) -> list[str]:
    """Lease records for 750 seconds, by the present time of the clock and some seconds later."""
    return bodies(await storage.lease(9, 750.0, time.time() + after))


@pytest.mark.parametrize("jump", [-30 * 60.0, -3 * 3600.0, -40 * 86_400.0, 30 * 60.0, 40 * 86_400.0])
async def test_a_clock_that_is_set(make_storage: MakeStorage, set_clock: SetClock, jump: float) -> None:
    """Neither a lease nor a delay becomes longer or shorter, whether the clock is set forward or back."""
    storage = await make_storage()
    await storage.write(records("leased"))
    assert await lease(storage) == ["leased"]
    await storage.write(records("delayed"))
    (delayed,) = await storage.lease(9, 750.0, time.time())
    await storage.settle(later(delayed.id, due=time.time() + 2000.0))
    set_clock(jump)

    assert await lease(storage) == []
    assert await lease(storage, 700.0) == []
    assert await lease(storage, 800.0) == ["leased"]
    assert await lease(storage, 1950.0) == ["leased"]
    assert await lease(storage, 2050.0) == ["delayed"]


async def test_a_clock_that_is_right_again(make_storage: MakeStorage, set_clock: SetClock) -> None:
    """A lease that was taken while the clock was ahead ends in time after it was corrected."""
    storage = await make_storage()
    set_clock(40 * 86_400.0)
    await storage.write(records("a"))
    assert await lease(storage) == ["a"]
    set_clock(0.0)

    assert await lease(storage, 700.0) == []
    assert await lease(storage, 800.0) == ["a"]


@pytest.mark.parametrize("jump", [-3 * 3600.0, 40 * 86_400.0])
async def test_rate_limits_of_a_clock_that_is_set(make_storage: MakeStorage, set_clock: SetClock, jump: float) -> None:
    """The wait for a shared rate limit becomes neither longer nor shorter."""
    storage = await make_storage()
    await storage.reserve("address", 3, 0.01)
    set_clock(jump)

    assert 200.0 < await storage.reserve("address", 1, 0.01) <= 300.0


async def test_a_machine_that_is_started_again(open_file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was leased before the start is due at once, since the processes that had it are gone."""
    storage = await open_file()
    await storage.write(records("a"))
    assert await lease(storage) == ["a"]
    await storage.aclose()

    again = await open_file()
    assert await lease(again) == []
    await again.aclose()
    number = clock.boot_number() + 1
    monkeypatch.setattr("exponea_async.storage.sqlite.connection.boot_number", lambda: number)
    assert await lease(await open_file()) == ["a"]


async def test_rate_limits_of_a_machine_that_is_started_again(
    open_file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was reserved before the start delays nobody: it was stored by a clock that began anew."""
    storage = await open_file()
    await storage.reserve("address", 3, 0.01)
    await storage.aclose()
    number = clock.boot_number() + 1
    monkeypatch.setattr("exponea_async.storage.sqlite.connection.boot_number", lambda: number)

    assert await (await open_file()).reserve("address", 1, 0.01) == 0.0


async def test_rate_limits_of_another_clock(make_storage: MakeStorage) -> None:
    """A time so far ahead that it comes from another clock delays nobody."""
    storage = await make_storage()
    await storage.reserve("address", 100, 0.01)

    assert await storage.reserve("address", 1, 0.01) == 0.0
