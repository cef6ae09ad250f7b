"""
The upload goes on after errors of the storage and after unexpected errors.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import evolve
from helpers.clients import Configure
from helpers.environment import SetConstants
from helpers.waiting import until

from exponea_async import Configuration, FlushMode, FlushResult, Hooks, Receipt, StorageError
from exponea_async._pipeline import uploader
from exponea_async._pipeline.commands import event_command, route_of
from exponea_async._pipeline.flush import Flusher
from exponea_async._pipeline.linger import Linger
from exponea_async._pipeline.network import Network
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.retry import RateLimiter
from exponea_async._pipeline.runtime import UploadRuntime
from exponea_async.observability import Counters
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.storage.base import Leased, Record, Settlement, State, Watermark
from exponea_async.storage.memory import MemoryStorage


def locked() -> StorageError:
    return StorageError("The file is locked.")


class UnreliableStorage(MemoryStorage):
    """
    A storage that raises errors at first.

    Attributes:
        errors: The errors by the name of the method, in order.
        leases: How many leases have begun.
        may_end: Set while a lease may end.
        may_settle: Set while verdicts may be stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, list[Exception]] = {}
        self.leases = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.may_settle = asyncio.Event()
        self.may_settle.set()

    async def lease(self, limit: int, seconds: float, now: float, **options: Any) -> list[Leased]:
        self._fail("lease")
        leased = await super().lease(limit, seconds, now, **options)
        self.leases += 1
        await self.may_end.wait()
        return leased

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        self._fail("settle")
        await self.may_settle.wait()
        return await super().settle(settlements)

    async def watermark(self) -> Watermark:
        self._fail("watermark")
        return await super().watermark()

    async def load_state(self, key: str) -> State | None:
        self._fail("load_state")
        return await super().load_state(key)

    def _fail(self, name: str) -> None:
        if self.errors.get(name):
            raise self.errors[name].pop(0)


@pytest.fixture
async def storage() -> AsyncIterator[UnreliableStorage]:
    storage = UnreliableStorage()
    await storage.open()
    yield storage
    await storage.aclose()


@asynccontextmanager
async def uploading(
    configuration: Configuration, storage: UnreliableStorage, receipts: Receipts | None = None
) -> AsyncIterator[Flusher]:
    """
    Run the upload without a client within a block.

    The credentials of its project are only in the storage, as for a project that a device was switched to.
    """
    projects = ProjectStore(evolve(configuration, project_token="other"), storage)
    await projects.store([("project", configuration.main)], None)
    runtime = UploadRuntime(
        configuration=configuration,
        storage=storage,
        receipts=receipts or Receipts(storage, Counters(), Hooks()),
        counters=Counters(),
        hooks=Hooks(),
        mode=configuration.flush_mode,
        period=configuration.flush_period,
        linger=Linger(configuration.upload),
        projects=projects,
        network=Network(configuration.upload),
        rate_limiter=RateLimiter(100_000.0),
        report=lambda _name, _error: None,
    )
    await runtime.flusher.start()
    try:
        yield runtime.flusher
    finally:
        await runtime.aclose()


async def write(storage: UnreliableStorage, configuration: Configuration, receipts: Receipts, count: int) -> Receipt:
    """Write events to the queue, and return their receipt."""
    commands = [event_command(b'{"registered":"jane"}', b'"ping"', float(number), b"") for number in range(count)]
    route = route_of(configuration.project_token)
    return receipts.issue(await storage.write([Record(route, command, time.time()) for command in commands]))


async def flush(storage: UnreliableStorage, configuration: Configuration, count: int) -> FlushResult:
    """Write events to the queue, and upload them."""
    await write(storage, configuration, Receipts(storage, Counters(), Hooks()), count)
    async with uploading(configuration, storage) as flusher:
        return await flusher.flush(20)


async def test_an_unexpected_error_does_not_end_the_senders(
    configure: Configure, storage: UnreliableStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """After any error while a batch is sent, its records are kept and sent again."""
    configuration = configure(flush_mode="MANUAL")
    await write(storage, configuration, Receipts(storage, Counters(), Hooks()), 1)
    async with uploading(configuration, storage) as flusher:
        storage.errors["load_state"] = [ZeroDivisionError()]
        result = await flusher.flush(20)

    assert result == FlushResult(1, 0, 0)
    assert "ZeroDivisionError" in caplog.text


async def test_a_response_that_is_larger_than_any_batch_needs(
    configure: Configure, storage: UnreliableStorage, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not read to its end, since decoding it would block the event loop, and the records are sent again."""
    body = '{"success": true, "results": [' + "{}, " * 100_000 + "{}]}"
    sandbox.faults.add(Fault("status", status=200, body=body, times=1))

    assert await flush(storage, configure(flush_mode="MANUAL"), 50) == FlushResult(50, 0, 0)
    assert "response body too large" in caplog.text


async def test_a_large_response_is_read(configure: Configure, storage: UnreliableStorage, sandbox: Sandbox) -> None:
    """A response with a long reason for each record is still read, on a thread."""
    body = '{"success": true, "results": [' + ", ".join(['{"success": true, "note": "' + "x" * 900 + '"}'] * 50) + "]}"
    sandbox.faults.add(Fault("status", status=200, body=body))

    assert await flush(storage, configure(flush_mode="MANUAL"), 50) == FlushResult(50, 0, 0)


async def test_an_unexpected_error_does_not_end_leasing(
    configure: Configure, storage: UnreliableStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """After any error while records are leased, more records are leased."""
    storage.errors["lease"] = [ZeroDivisionError(), locked()]

    assert await flush(storage, configure(flush_mode="MANUAL"), 1) == FlushResult(1, 0, 0)
    assert ("Unexpected error" in caplog.text, "can't be read" in caplog.text) == (True, True)


async def test_leasing_is_cancelled_twice(
    configure: Configure, storage: UnreliableStorage, set_constants: SetConstants
) -> None:
    """What is leased after the task was cancelled twice is given back, so that it is sent without waiting."""
    set_constants(uploader, LEASE=600.0)
    configuration = configure(flush_mode="MANUAL")
    await write(storage, configuration, Receipts(storage, Counters(), Hooks()), 1)
    async with uploading(configuration, storage) as flusher:
        storage.may_end.clear()
        count = storage.leases
        flush = asyncio.create_task(flusher.flush(60))
        await until(lambda: storage.leases > count)
        (leasing,) = [task for task in asyncio.all_tasks() if task.get_name() == "exponea_async: leasing"]
        for _ in range(2):
            leasing.cancel()
            await asyncio.sleep(0.01)
        storage.may_end.set()
        await asyncio.wait([leasing])

        assert await flush == FlushResult(1, 0, 0)


async def test_verdicts_are_stored_once_the_storage_works(
    configure: Configure, storage: UnreliableStorage, sandbox: Sandbox
) -> None:
    """While verdicts can't be stored they are kept in memory, and no record is sent twice."""
    storage.errors["settle"] = [locked() for _ in range(4)]

    assert await flush(storage, configure(flush_mode="MANUAL"), 120) == FlushResult(120, 0, 0)
    assert Counter(request.commands for request in sandbox.requests) == {50: 2, 20: 1}


async def test_a_retry_that_is_stored_late(
    configure: Configure, storage: UnreliableStorage, sandbox: Sandbox, set_constants: SetConstants
) -> None:
    """A record whose retry is stored after it was due is sent at once, and not when an idle upload looks again."""
    set_constants(uploader, IDLE_INTERVAL=600.0)
    sandbox.faults.add(Fault("status", status=503, times=2))
    configuration = configure(flush_mode="MANUAL", upload={"backoff_max": 0.01})
    await write(storage, configuration, Receipts(storage, Counters(), Hooks()), 1)
    async with uploading(configuration, storage) as flusher:
        storage.may_settle.clear()
        flush = asyncio.create_task(flusher.flush(20))
        await until(lambda: len(sandbox.requests) == 2)
        # The record has been due for a while.
        await asyncio.sleep(0.3)
        storage.may_settle.set()

        assert await flush == FlushResult(1, 0, 0)


async def test_a_storage_error_does_not_end_the_periods(
    configure: Configure, storage: UnreliableStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """If the queue can't be read at the end of a period, that is logged, and the next period begins."""
    storage.errors["watermark"] = [locked(), locked()]
    receipts, configuration = (
        Receipts(storage, Counters(), Hooks()),
        configure(flush_mode=FlushMode.PERIOD, flush_period=0.02),
    )
    receipt = await write(storage, configuration, receipts, 1)
    async with uploading(configuration, storage, receipts):
        await receipt.delivered(60)
    await receipts.aclose()

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
