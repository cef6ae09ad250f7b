"""
When the queue is uploaded: flush modes, periods, and flushes on request.
"""

import asyncio
import time
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from helpers.clients import Connect, numbered_events, opened_queue
from helpers.environment import SetConstants
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from helpers.waiting import until

from exponea_async import Event, FlushMode, FlushResult
from exponea_async._pipeline import acknowledger, uploader
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import idle

NOT_IMMEDIATE = [FlushMode.PERIOD, FlushMode.APP_CLOSE, FlushMode.MANUAL]


def periods() -> list[str]:
    """Return the names of the tasks that wait for the flush period."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "exponea_async: period"]


class TestModes:
    async def test_immediate_mode_uploads_by_itself(self, connect: Connect, sandbox: Sandbox) -> None:
        """Each event is sent soon after its call."""
        client = await connect(flush_mode="IMMEDIATE")
        for event in numbered_events(3):
            await (await client.track_event(event)).delivered(60)

        assert sandbox.request_count == 3

    async def test_a_burst_is_one_request(self, connect: Connect, sandbox: Sandbox) -> None:
        """Immediate mode waits for more events before sending."""
        client = await connect(upload={"linger": 60.0})
        # The first look at the queue is made without any wait.
        await idle(client)
        await asyncio.gather(*(client.track_event(event) for event in numbered_events(40)))
        assert sandbox.request_count == 0

        # A flush does not wait.
        assert await client.flush_data(30) == FlushResult(40, 0, 0)
        assert sandbox.request_count == 1

    @pytest.mark.parametrize("mode", NOT_IMMEDIATE)
    async def test_the_other_modes_do_not_upload_by_themselves(
        self, connect: Connect, sandbox: Sandbox, mode: FlushMode
    ) -> None:
        """No request is made until a flush is requested."""
        client = await connect(flush_mode=mode)
        await client.track_many(numbered_events(60))
        await asyncio.sleep(0.1)
        assert sandbox.request_count == 0

        assert await client.flush_data(60) == FlushResult(60, 0, 0)

    @pytest.mark.parametrize(("mode", "sent"), [("PERIOD", 1), ("APP_CLOSE", 1), ("IMMEDIATE", 1), ("MANUAL", 0)])
    async def test_closing_uploads_except_in_manual_mode(
        self, connect: Connect, sandbox: Sandbox, mode: str, sent: int
    ) -> None:
        """In manual mode uploading is up to the caller, in all others closing the client uploads the queue."""
        client = await connect(flush_mode=mode)
        await client.track_event(Event("x"))
        await client.aclose()

        assert len(sandbox.engine.events()) == sent

    async def test_a_flush_does_not_change_the_mode(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event that is tracked after a flush waits for the next one."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("a"))
        await client.flush_data(60)
        await client.track_event(Event("b"))
        await asyncio.sleep(0.1)

        assert [event.event_type for event in sandbox.engine.events()] == ["a"]

    async def test_switching_to_immediate_uploads(self, connect: Connect, sandbox: Sandbox) -> None:
        """Events that are queued are sent when the mode changes."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("x"))
        await client.set_flush_mode("IMMEDIATE")
        await receipt.delivered(60)

        assert client.flush_mode is FlushMode.IMMEDIATE

    async def test_switching_to_manual_stops_the_upload(self, connect: Connect, sandbox: Sandbox) -> None:
        """From then on no more records are leased."""
        sandbox.faults.add(Fault("latency", seconds=0.05))
        client = await connect(upload={"batch_size": 1, "concurrency": 1})
        await client.track_many(numbered_events(100))
        await until(lambda: sandbox.request_count >= 2)
        await client.set_flush_mode("MANUAL")
        await idle(client)
        count = sandbox.request_count
        await asyncio.sleep(0.15)

        assert count == sandbox.request_count < 100


class TestPeriod:
    async def test_each_period_uploads(self, connect: Connect, sandbox: Sandbox) -> None:
        """At the end of each period the events since the last one are sent."""
        client = await connect(flush_mode="PERIOD", flush_period=0.05)
        for event in numbered_events(3):
            await (await client.track_event(event)).delivered(60)

        assert sandbox.request_count == 3

    async def test_a_new_period_begins_at_once(self, connect: Connect) -> None:
        """A shorter period, here a timedelta, does not wait for the end of the old one."""
        client = await connect(flush_mode="PERIOD", flush_period=3600)
        receipt = await client.track_event(Event("x"))
        await client.set_flush_period(timedelta(milliseconds=20))
        await receipt.delivered(60)

        assert client.flush_period == 0.02

    async def test_there_is_at_most_one_period_task(self, connect: Connect) -> None:
        """Even if modes and periods change often and concurrently, at most one task waits for the period."""
        client = await connect(flush_mode="PERIOD")
        for _ in range(5):
            await client.set_flush_mode("MANUAL")
            await client.set_flush_mode("PERIOD")
        changes: list[Any] = [client.set_flush_period(10 + number) for number in range(5)]
        await asyncio.gather(*changes, client.set_flush_mode("PERIOD"))
        assert len(periods()) == 1

        await client.set_flush_mode("IMMEDIATE")
        assert periods() == []


class TestFlushing:
    async def test_an_empty_queue(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush of an empty queue makes no request."""
        client = await connect(flush_mode="MANUAL")

        assert await client.flush_data() == FlushResult(0, 0, 0)
        assert sandbox.request_count == 0

    async def test_concurrent_flushes(self, connect: Connect, sandbox: Sandbox) -> None:
        """Each record is sent once, and all flushes end after the last of them."""
        sandbox.faults.add(Fault("latency", seconds=0.05))
        client = await connect(flush_mode="MANUAL", upload={"batch_size": 10})
        receipts = await client.track_many(numbered_events(100))

        async def flush() -> int:
            await client.flush_data(60)
            return sum(receipt.status == "delivered" for receipt in receipts)

        assert list(await asyncio.gather(flush(), flush(), flush())) == [100, 100, 100]
        assert (len(sandbox.engine.events()), sandbox.engine.duplicates, sandbox.request_count) == (100, 0, 10)

    async def test_a_record_written_during_another_flush(self, connect: Connect, sandbox: Sandbox) -> None:
        """A record that is written during a flush is delivered at the end of a later one."""
        sandbox.faults.add(Fault("latency", seconds=0.1))
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(10))
        first = asyncio.create_task(client.flush_data(60))
        await until(lambda: sandbox.request_count >= 1)
        late = await client.track_event(Event("late"))
        await client.flush_data(60)

        assert late.status == "delivered"
        await first

    async def test_a_flush_ends_while_records_are_written(self, connect: Connect) -> None:
        """A flush is about the records that were written before it, so it ends even while more are written."""
        client = await connect(flush_mode="MANUAL")
        first = await client.track_many(numbered_events(100))

        async def write() -> None:
            for number in count(100):
                await client.track_event(Event("ping", {"number": number}))

        writing = asyncio.create_task(write())
        result = await asyncio.wait_for(client.flush_data(), 60)
        writing.cancel()

        assert {receipt.status for receipt in first} == {"delivered"}
        assert result.remaining == 0
        assert result.delivered >= 100

    async def test_a_flush_ends_at_its_timeout(self, connect: Connect, sandbox: Sandbox) -> None:
        """The result has the number of records that remain, which are not lost."""
        sandbox.faults.add(Fault("timeout", seconds=600))
        client = await connect(flush_mode="MANUAL", upload={"request_timeout": 600})
        await client.track_many(numbered_events(7))

        assert await asyncio.wait_for(client.flush_data(timeout=0.1), 60) == FlushResult(0, 0, 7)
        assert await client.flush_data(timeout=0) == FlushResult(0, 0, 7)

    async def test_a_flush_waits_out_an_outage(self, connect: Connect, sandbox: Sandbox) -> None:
        """Without a timeout it ends when all records are delivered, however often the platform fails before."""
        sandbox.faults.add(Fault("status", status=503, times=10))
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(100))

        assert await client.flush_data() == FlushResult(100, 0, 0)
        # Ten requests fail, a small probe succeeds, and a few more follow; a slow machine splits them more.
        assert sandbox.request_count <= 20

    async def test_cancelling_a_flush(self, connect: Connect, sandbox: Sandbox) -> None:
        """In a mode without automatic uploads, cancelling the flush stops the upload."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("x"))
        flush = asyncio.create_task(client.flush_data())
        await until(lambda: sandbox.request_count >= 3)
        flush.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flush
        await idle(client)
        before = sandbox.request_count
        await asyncio.sleep(0.2)

        assert sandbox.request_count <= before + 1

    async def test_another_process_may_send_the_records(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush also ends when another process has sent its records."""
        sandbox.faults.add(Fault("latency", seconds=0.2, times=1))
        one, two = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")
        receipt = await one.track_event(Event("x"))
        first = asyncio.create_task(two.flush_data(60))
        await until(lambda: sandbox.request_count >= 1)

        assert (await one.flush_data(60)).remaining == 0
        assert (await first).delivered == 1
        await receipt.delivered(60)
        assert len(sandbox.engine.events()) == 1


class TestUploading:
    async def test_batches_are_full(self, connect: Connect, sandbox: Sandbox) -> None:
        """Many queued records are sent in the fewest requests."""
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(1003))
        await client.flush_data(60)

        assert sorted(request.commands for request in sandbox.requests) == [3] + [50] * 20

    async def test_concurrency_is_limited(self, connect: Connect) -> None:
        """There are never more concurrent requests than ``concurrency``."""

        async def slow(request: ReceivedRequest) -> Any:
            await asyncio.sleep(0.02)
            return request.accept()

        async with ScriptedServer(slow) as platform:
            client = await connect(base_url=platform.url, upload={"concurrency": 3, "batch_size": 5})
            await client.track_many(numbered_events(150))
            await client.flush_data(60)
            await client.aclose()

            assert platform.max_concurrent == 3
            assert len(platform.requests) == 30

    async def test_large_events(self, connect: Connect) -> None:
        """No body is larger than ``max_batch_bytes``, and no event is too large for a batch of its own."""
        big = {f"p{number}": "x" * 16_000 for number in range(40)}
        async with ScriptedServer(ReceivedRequest.accept) as platform:
            client = await connect(base_url=platform.url, upload={"max_batch_bytes": 900_000})
            await client.track_many([Event("big", big), *numbered_events(3), Event("big", big)])
            assert (await client.flush_data(60)).remaining == 0
            await client.aclose()

            assert all(int(request.headers["Content-Length"]) <= 900_000 for request in platform.requests)
            assert sum(len(request.commands) for request in platform.requests) == 5

    async def test_the_rate_is_limited(self, connect: Connect, sandbox: Sandbox) -> None:
        """There are at most ``requests_per_second`` requests per second."""
        client = await connect(flush_mode="MANUAL", upload={"requests_per_second": 50, "batch_size": 1})
        await client.track_many(numbered_events(25))
        started = asyncio.get_running_loop().time()
        await client.flush_data(60)

        assert asyncio.get_running_loop().time() - started >= 24 / 50 * 0.9
        assert sandbox.request_count == 25

    async def test_the_oldest_records_are_sent_first(self, connect: Connect, sandbox: Sandbox) -> None:
        """Records are sent in the order in which they were written."""
        client = await connect(flush_mode="MANUAL", upload={"concurrency": 1, "batch_size": 10})
        await client.track_many(numbered_events(100))
        await client.flush_data(60)

        arrived = [event.properties["number"] for event in sandbox.engine.events()]
        assert [sorted(arrived[start : start + 10]) for start in range(0, 100, 10)] == [
            list(range(start, start + 10)) for start in range(0, 100, 10)
        ]

    async def test_leases_of_slow_requests_are_renewed(
        self, connect: Connect, sandbox: Sandbox, set_constants: SetConstants
    ) -> None:
        """Another process does not lease the records of a request that takes longer than a lease."""
        for module in (acknowledger, uploader):
            set_constants(module, LEASE=3.0)
        sandbox.faults.add(Fault("timeout", seconds=600))
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(10))
        flush = asyncio.create_task(client.flush_data())
        await until(lambda: sandbox.request_count >= 1)
        sent, commits = time.time(), client.stats().commits
        # The first of these renewals may have begun before.
        await until(lambda: client.stats().commits >= commits + 2)
        async with opened_queue(client) as storage:
            # The first lease has ended by then, and the renewed one has not, however slow the machine is.
            assert await storage.lease(10, 1.0, sent + 3.0 - 0.0001) == []
        flush.cancel()

    async def test_leases_that_ran_out(self, connect: Connect, sandbox: Sandbox, set_constants: SetConstants) -> None:
        """A client does not send what it is sending already, however long its leases could not be renewed."""
        set_constants(uploader, LEASE=0.05, IDLE_INTERVAL=0.02)
        sandbox.faults.add(Fault("latency", seconds=1.0))
        client = await connect()
        receipts = await client.track_many(numbered_events(10))
        await asyncio.gather(*(receipt.delivered(60) for receipt in receipts))

        assert sandbox.request_count == 1
        assert client.stats().delivered == 10
