"""
When the queue is uploaded: modes, periods, and flushes that somebody asks for.
"""

import asyncio
import logging
from collections import Counter
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from helpers.clients import Connect, numbered
from helpers.scripted_server import Scripted, Seen
from helpers.waiting import until

from exponea_async import Event, Exponea, FlushMode, FlushResult, StorageError
from exponea_async.sandbox import Fault, Sandbox

NOT_IMMEDIATE = [FlushMode.PERIOD, FlushMode.APP_CLOSE, FlushMode.MANUAL]


def periods() -> list[str]:
    """Tell the tasks that wait for the flush period."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "exponea_async: period"]


class TestModes:
    async def test_immediate_mode_needs_no_asking(self, connect: Connect, sandbox: Sandbox) -> None:
        """Each event goes out soon after its call."""
        client = await connect(flush_mode="IMMEDIATE")
        for event in numbered(3):
            await (await client.track_event(event)).delivered(10)

        assert sandbox.request_count == 3

    async def test_a_burst_is_one_request(self, connect: Connect, sandbox: Sandbox) -> None:
        """Immediate mode waits a moment for company."""
        client = await connect(upload={"linger": 0.2})
        receipts = await asyncio.gather(*(client.track_event(event) for event in numbered(40)))
        await asyncio.gather(*(receipt.delivered(10) for receipt in receipts))

        assert sandbox.request_count == 1

    @pytest.mark.parametrize("mode", NOT_IMMEDIATE)
    async def test_the_other_modes_wait(self, connect: Connect, sandbox: Sandbox, mode: FlushMode) -> None:
        """Nothing goes out before its time, but for a flush that is asked for."""
        client = await connect(flush_mode=mode)
        await client.track_many(numbered(60))
        await asyncio.sleep(0.1)
        assert sandbox.request_count == 0

        assert await client.flush_data(10) == FlushResult(60, 0, 0)

    @pytest.mark.parametrize(("mode", "sent"), [("PERIOD", 1), ("APP_CLOSE", 1), ("IMMEDIATE", 1), ("MANUAL", 0)])
    async def test_what_closing_sends(self, connect: Connect, sandbox: Sandbox, mode: str, sent: int) -> None:
        """At the end of the client all modes upload, except the one that leaves it to the caller."""
        client = await connect(flush_mode=mode)
        await client.track_event(Event("x"))
        await client.aclose()

        assert len(sandbox.engine.events()) == sent

    async def test_a_flush_leaves_the_mode_as_it_was(self, connect: Connect, sandbox: Sandbox) -> None:
        """What is tracked after a flush waits for the next one."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("a"))
        await client.flush_data(10)
        await client.track_event(Event("b"))
        await asyncio.sleep(0.1)

        assert [event.event_type for event in sandbox.engine.events()] == ["a"]

    async def test_switching_to_immediate_uploads(self, connect: Connect, sandbox: Sandbox) -> None:
        """What waits goes out when the mode says so."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("x"))
        await client.set_flush_mode("IMMEDIATE")
        await receipt.delivered(10)

        assert client.flush_mode is FlushMode.IMMEDIATE

    async def test_switching_to_manual_holds_back(self, connect: Connect, sandbox: Sandbox) -> None:
        """From then on nothing more is taken from the queue."""
        sandbox.faults.add(Fault("latency", seconds=0.05))
        client = await connect(upload={"batch_size": 1, "concurrency": 1})
        await client.track_many(numbered(100))
        await until(lambda: sandbox.request_count >= 2)
        await client.set_flush_mode("MANUAL")
        await until(lambda: client._upload._acknowledger.outstanding == 0)  # type: ignore[union-attr]
        count = sandbox.request_count
        await asyncio.sleep(0.15)

        assert count == sandbox.request_count < 100


class TestPeriod:
    async def test_it_ticks(self, connect: Connect, sandbox: Sandbox) -> None:
        """Each period uploads what has come in."""
        client = await connect(flush_mode="PERIOD", flush_period=0.05)
        for event in numbered(3):
            await (await client.track_event(event)).delivered(10)

        assert sandbox.request_count == 3

    async def test_a_new_period_counts_at_once(self, connect: Connect) -> None:
        """Whoever shortens the period does not wait for the old one, a timedelta too."""
        client = await connect(flush_mode="PERIOD", flush_period=3600)
        receipt = await client.track_event(Event("x"))
        await client.set_flush_period(timedelta(milliseconds=20))
        await receipt.delivered(10)

        assert client.flush_period == 0.02

    async def test_switching_leaves_one_task(self, connect: Connect) -> None:
        """However often and at once modes and periods change, one task waits, or none."""
        client = await connect(flush_mode="PERIOD")
        for _ in range(5):
            await client.set_flush_mode("MANUAL")
            await client.set_flush_mode("PERIOD")
        changes: list[Any] = [client.set_flush_period(10 + number) for number in range(5)]
        await asyncio.gather(*changes, client.set_flush_mode("PERIOD"))
        assert len(periods()) == 1

        await client.set_flush_mode("IMMEDIATE")
        assert periods() == []

    async def test_a_storage_error_does_not_end_it(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A period in which the queue can't be read is told, and followed by the next."""
        client = await connect(flush_mode="PERIOD", flush_period=0.02)
        watermark, calls = client._storage.watermark, count()

        async def fail_first() -> Any:
            if next(calls) < 2:
                raise StorageError("The file is locked.")
            return await watermark()

        monkeypatch.setattr(client._storage, "watermark", fail_first)
        receipt = await client.track_event(Event("x"))
        await receipt.delivered(10)

        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


class TestFlushing:
    async def test_nothing_to_do(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush of an empty queue makes no request."""
        client = await connect(flush_mode="MANUAL")

        assert await client.flush_data() == FlushResult(0, 0, 0)
        assert sandbox.request_count == 0

    async def test_two_at_once(self, connect: Connect, sandbox: Sandbox) -> None:
        """Each record is sent once, and both end after the last of them."""
        sandbox.faults.add(Fault("latency", seconds=0.05))
        client = await connect(flush_mode="MANUAL", upload={"batch_size": 10})
        receipts = await client.track_many(numbered(100))

        async def flush() -> int:
            await client.flush_data(10)
            return sum(receipt.status == "delivered" for receipt in receipts)

        assert list(await asyncio.gather(flush(), flush(), flush())) == [100, 100, 100]
        assert (len(sandbox.engine.events()), sandbox.engine.duplicates, sandbox.request_count) == (100, 0, 10)

    async def test_what_comes_during_another_flush(self, connect: Connect, sandbox: Sandbox) -> None:
        """A record that is written while one flush runs is delivered when a later one has ended."""
        sandbox.faults.add(Fault("latency", seconds=0.1))
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered(10))
        first = asyncio.create_task(client.flush_data(10))
        await until(lambda: sandbox.request_count == 1)
        late = await client.track_event(Event("late"))
        await client.flush_data(10)

        assert late.status == "delivered"
        await first

    async def test_it_ends_while_others_write(self, connect: Connect) -> None:
        """A flush is about what was there before; it does not run after those who go on tracking."""
        client = await connect(flush_mode="MANUAL")
        first = await client.track_many(numbered(100))

        async def write() -> None:
            for number in count(100):
                await client.track_event(Event("ping", {"number": number}))

        writing = asyncio.create_task(write())
        result = await asyncio.wait_for(client.flush_data(), 20)
        writing.cancel()

        assert {receipt.status for receipt in first} == {"delivered"}
        assert result.remaining == 0
        assert result.delivered >= 100

    async def test_the_time_that_is_given(self, connect: Connect, sandbox: Sandbox) -> None:
        """When the time is up it is told what remains, which is not lost."""
        sandbox.faults.add(Fault("timeout", seconds=30))
        client = await connect(flush_mode="MANUAL", upload={"request_timeout": 30})
        await client.track_many(numbered(7))

        assert await asyncio.wait_for(client.flush_data(timeout=0.1), 10) == FlushResult(0, 0, 7)
        assert await client.flush_data(timeout=0) == FlushResult(0, 0, 7)

    async def test_it_waits_through_an_outage(self, connect: Connect, sandbox: Sandbox) -> None:
        """Without a limit it ends when all is delivered, however often the platform fails first."""
        sandbox.faults.add(Fault("status", status=503, times=10))
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered(100))

        assert await client.flush_data() == FlushResult(100, 0, 0)
        # Ten that fail, a small one that finds out, and the rest in two or three.
        assert sandbox.request_count <= 14

    async def test_giving_up_on_it(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush that is cancelled stops the upload again in a mode without one."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("x"))
        flush = asyncio.create_task(client.flush_data())
        await until(lambda: sandbox.request_count >= 3)
        flush.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flush
        await until(lambda: client._upload._acknowledger.outstanding == 0)  # type: ignore[union-attr]
        before = sandbox.request_count
        await asyncio.sleep(0.2)

        assert sandbox.request_count <= before + 1

    async def test_another_process_may_do_the_work(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush also ends when somebody else has sent what it was about."""
        sandbox.faults.add(Fault("latency", seconds=0.2, times=1))
        one, two = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")
        receipt = await one.track_event(Event("x"))
        first = asyncio.create_task(two.flush_data(10))
        await until(lambda: sandbox.request_count == 1)

        assert (await one.flush_data(10)).remaining == 0
        assert (await first).delivered == 1
        await receipt.delivered(10)
        assert len(sandbox.engine.events()) == 1


class TestUploading:
    async def test_batches_are_full(self, connect: Connect, sandbox: Sandbox) -> None:
        """A backlog goes out in the fewest requests."""
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered(1003))
        await client.flush_data(20)

        assert sorted(request.commands for request in sandbox.requests) == [3] + [50] * 20

    async def test_no_more_at_once_than_agreed(self, connect: Connect) -> None:
        """There are never more requests under way than ``concurrency``."""

        async def slow(seen: Seen) -> Any:
            await asyncio.sleep(0.02)
            return seen.accept()

        async with Scripted(slow) as platform:
            client = await connect(base_url=platform.url, upload={"concurrency": 3, "batch_size": 5})
            await client.track_many(numbered(150))
            await client.flush_data(20)
            await client.aclose()

            assert platform.most == 3
            assert len(platform.seen) == 30

    async def test_large_events(self, connect: Connect) -> None:
        """Batches stay below the agreed number of bytes, and nothing is too large to go alone."""
        big = {f"p{number}": "x" * 16_000 for number in range(40)}
        async with Scripted(Seen.accept) as platform:
            client = await connect(base_url=platform.url, upload={"max_batch_bytes": 900_000})
            await client.track_many([Event("big", big), *numbered(3), Event("big", big)])
            assert (await client.flush_data(20)).remaining == 0
            await client.aclose()

            assert all(int(seen.headers["Content-Length"]) <= 900_000 for seen in platform.seen)
            assert sum(len(seen.commands) for seen in platform.seen) == 5

    async def test_a_pace_is_kept(self, connect: Connect, sandbox: Sandbox) -> None:
        """No more requests a second than agreed."""
        client = await connect(flush_mode="MANUAL", upload={"requests_per_second": 50, "batch_size": 1})
        await client.track_many(numbered(25))
        started = asyncio.get_running_loop().time()
        await client.flush_data(20)

        assert asyncio.get_running_loop().time() - started >= 24 / 50 * 0.9
        assert sandbox.request_count == 25

    async def test_the_oldest_first(self, connect: Connect, sandbox: Sandbox) -> None:
        """Records leave in the order in which they came."""
        client = await connect(flush_mode="MANUAL", upload={"concurrency": 1, "batch_size": 10})
        await client.track_many(numbered(100))
        await client.flush_data(20)

        arrived = [event.properties["number"] for event in sandbox.engine.events()]
        assert [sorted(arrived[start : start + 10]) for start in range(0, 100, 10)] == [
            list(range(start, start + 10)) for start in range(0, 100, 10)
        ]

    async def test_a_bug_does_not_end_the_upload(
        self, connect: Connect, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever breaks while a batch is sent, its records are kept and sent again."""
        client = await connect(flush_mode="MANUAL")
        upload = client._upload
        assert upload is not None
        post, calls = upload._transport.post, count()

        async def stumble(*args: Any) -> Any:
            if next(calls) == 0:
                raise ZeroDivisionError
            return await post(*args)

        monkeypatch.setattr(upload._transport, "post", stumble)
        await client.track_event(Event("x"))

        assert await client.flush_data(10) == FlushResult(1, 0, 0)
        assert "ZeroDivisionError" in caplog.text

    async def test_a_bug_does_not_end_the_claims(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever breaks while records are claimed, the next claim is made."""
        monkeypatch.setattr("exponea_async._pipeline.uploader.IDLE_INTERVAL", 0.01)
        client = await connect(flush_mode="MANUAL")
        lease, troubles = client._storage.lease, iter([ZeroDivisionError(), StorageError("locked")])

        async def stumble(*args: Any, **kwargs: Any) -> Any:
            if error := next(troubles, None):
                raise error
            return await lease(*args, **kwargs)

        monkeypatch.setattr(client._storage, "lease", stumble)
        await client.track_event(Event("x"))

        assert await client.flush_data(10) == FlushResult(1, 0, 0)
        assert ("Unexpected error" in caplog.text, "can't be read" in caplog.text) == (True, True)

    async def test_a_verdict_is_written_down_in_the_end(
        self, connect: Connect, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the file refuses to be written, what is known is kept in mind, and nothing is sent twice."""
        client = await connect(flush_mode="MANUAL")
        settle, calls = client._storage.settle, count()

        async def refuse(settlements: Any) -> int:
            if next(calls) < 4:
                raise StorageError("locked")
            return await settle(settlements)

        monkeypatch.setattr(client._storage, "settle", refuse)
        await client.track_many(numbered(120))

        assert await client.flush_data(20) == FlushResult(120, 0, 0)
        assert Counter(request.commands for request in sandbox.requests) == {50: 2, 20: 1}

    async def test_long_requests_keep_their_leases(
        self, connect: Connect, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What takes longer than a lease is not taken by another process meanwhile."""
        for module in ("acknowledger", "uploader"):
            monkeypatch.setattr(f"exponea_async._pipeline.{module}.LEASE", 0.3)
        sandbox.faults.add(Fault("latency", seconds=1.0, times=1))
        clients: list[Exponea] = [await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")]
        await clients[0].track_many(numbered(10))
        await asyncio.gather(*(client.flush_data(10) for client in clients))

        assert sandbox.request_count == 1
