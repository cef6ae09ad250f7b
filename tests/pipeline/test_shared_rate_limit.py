"""
A rate limit that several clients share: how requests are reserved and spaced, and what happens if the storage fails.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from helpers.clients import Connect, numbered_events
from helpers.environment import SetConstants
from helpers.scripted_server import ReceivedRequest, ScriptedServer

from exponea_async import Exponea
from exponea_async._pipeline import shared_rate_limit
from exponea_async._pipeline.shared_rate_limit import BLOCK_TIME, SharedRateLimiter
from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.rates import MAX_SAVED_TIME


class ObservedStorage(MemoryStorage):
    """A storage that notes how many requests are reserved, and that may hang."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved: list[int] = []
        self.hangs = False

    async def reserve(self, name: str, count: int, rate: float) -> float:
        if self.hangs:
            await asyncio.Event().wait()
        self.reserved.append(count)
        return await super().reserve(name, count, rate)


@pytest.fixture(autouse=True)
def patience(set_constants: SetConstants) -> None:
    """A busy machine must not make a client give up on the storage."""
    set_constants(shared_rate_limit, RESERVE_TIMEOUT=60.0)


@pytest.fixture
async def storage() -> AsyncIterator[ObservedStorage]:
    storage = ObservedStorage()
    await storage.open()
    yield storage
    await storage.aclose()


async def send(limiter: SharedRateLimiter, count: int, turns: list[float]) -> None:
    """Make a number of requests, one after the other, and note their times since the event loop's clock began."""
    for _ in range(count):
        await limiter.acquire()
        turns.append(asyncio.get_running_loop().time())


def assert_limited(turns: list[float], started: float, rate: float, *, clients: int = 1) -> None:
    """Assert that each request was made no earlier than the rate allows; a busy machine may delay any of them."""
    allowance = clients + rate * (MAX_SAVED_TIME + BLOCK_TIME)
    early = [n for n, turn in enumerate(sorted(turns)) if turn - started < (n - allowance) / rate - 0.002]
    assert early == []


class TestSpacing:
    async def test_one_client(self, storage: ObservedStorage) -> None:
        """A client alone sends at its rate, and reserves no more requests at once than those of a short time."""
        turns: list[float] = []
        started = asyncio.get_running_loop().time()
        limiter = SharedRateLimiter(200.0, storage, "address")
        await asyncio.gather(*(send(limiter, 25, turns) for _ in range(4)))

        assert_limited(turns, started, 200.0)
        assert max(storage.reserved) <= 200.0 * BLOCK_TIME

    async def test_several_clients(self, storage: ObservedStorage) -> None:
        """Clients with one name on one storage send at the rate together."""
        turns: list[float] = []
        started = asyncio.get_running_loop().time()
        limiters = [SharedRateLimiter(100.0, storage, "address") for _ in range(3)]
        await asyncio.gather(*(send(limiter, 15, turns) for limiter in limiters for _ in range(2)))

        assert_limited(turns, started, 100.0, clients=3)

    async def test_other_names(self, storage: ObservedStorage) -> None:
        """Clients with other names are not delayed."""
        await storage.reserve("address", 1_000, 1.0)

        async with asyncio.timeout(60):
            await SharedRateLimiter(1.0, storage, "another").acquire()

    async def test_a_busy_client_reserves_blocks(self, storage: ObservedStorage) -> None:
        """Callers that wait for each other need few reservations, of the requests of a short time each at most."""
        limiter, turns = SharedRateLimiter(1_000.0, storage, "address"), list[float]()
        await asyncio.gather(*(send(limiter, 1, turns) for _ in range(400)))

        assert len(storage.reserved) < 40
        assert max(storage.reserved) == 1_000.0 * BLOCK_TIME

    async def test_a_client_with_little_to_do(self, storage: ObservedStorage) -> None:
        """A client that sends now and then reserves one request at a time, so that others need not wait for it."""
        limiter = SharedRateLimiter(100.0, storage, "address")
        for _ in range(5):
            await limiter.acquire()
            await asyncio.sleep(0.02)

        assert storage.reserved == [1] * 5

    async def test_requests_that_were_not_sent_in_time(self, storage: ObservedStorage) -> None:
        """What was reserved and not used is void after a while: others have used the time."""
        for attempt in range(100):
            limiter, turns = SharedRateLimiter(100.0, storage, f"address {attempt}"), list[float]()
            storage.reserved.clear()
            # 1, 2 and 4 requests are reserved, and the last two of them are not used. A machine that stops for longer
            # than the time between two requests reserves fewer at once, so that this needs another attempt.
            await asyncio.gather(*(send(limiter, 1, turns) for _ in range(5)))
            if storage.reserved == [1, 2, 4]:
                break
        await asyncio.sleep(2 * BLOCK_TIME)
        await limiter.acquire()

        assert storage.reserved == [1, 2, 4, 1]

    async def test_a_cancelled_caller(self, storage: ObservedStorage) -> None:
        """A caller that is cancelled blocks no other."""
        limiter, turns = SharedRateLimiter(100.0, storage, "address"), list[float]()
        callers = [asyncio.create_task(send(limiter, 1, turns)) for _ in range(6)]
        await asyncio.sleep(0)
        callers[1].cancel()
        callers[3].cancel()
        await asyncio.wait(callers)

        assert len(turns) == 4


class TestFailures:
    async def test_a_storage_that_fails(
        self, storage: ObservedStorage, set_constants: SetConstants, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client goes on at its own rate, says so, and shares the limit again once the storage works."""
        set_constants(shared_rate_limit, FAILURE_PAUSE=0.05)
        limiter, turns = SharedRateLimiter(50.0, storage, "address"), list[float]()
        await storage.aclose()
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(send(limiter, 1, turns) for _ in range(15)))

        assert_limited(turns, started, 50.0)
        assert "The shared rate limit 'address' can't be used" in caplog.text
        assert "The storage is closed." in caplog.text
        await storage.open()
        storage.reserved.clear()
        await asyncio.sleep(0.06)
        await send(limiter, 10, turns)
        assert storage.reserved

    async def test_a_storage_that_hangs(
        self, storage: ObservedStorage, set_constants: SetConstants, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client waits a moment, and goes on at its own rate."""
        set_constants(shared_rate_limit, RESERVE_TIMEOUT=0.05)
        storage.hangs = True
        turns: list[float] = []
        async with asyncio.timeout(60):
            await send(SharedRateLimiter(50.0, storage, "address"), 5, turns)

        assert "no answer within 0.05 s" in caplog.text


class TestClients:
    @pytest.mark.parametrize("count", [1, 2])
    async def test_uploads_of_clients_on_one_file(self, connect: Connect, count: int) -> None:
        """Clients with one name on one file send at the rate together, and all of them send."""
        async with ScriptedServer(ReceivedRequest.accept) as platform:
            upload = {"shared_rate_limit": "address", "requests_per_second": 40, "batch_size": 1}
            clients: list[Exponea] = [
                await connect(base_url=platform.url, flush_mode="MANUAL", upload=upload) for _ in range(count)
            ]
            await clients[0].track_many(numbered_events(120))
            started = asyncio.get_running_loop().time()
            results = await asyncio.gather(*(client.flush_data(60) for client in clients))

            assert [result.remaining for result in results] == [0] * count
            assert sum(result.delivered for result in results) == 120
            assert all(result.delivered for result in results)
            assert_limited([request.at for request in platform.requests], started, 40.0, clients=count)
