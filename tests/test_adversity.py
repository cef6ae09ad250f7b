"""
Adversity: processes that are killed, and networks, disks and clocks that fail.
"""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field, frozen
from helpers.clients import PROJECT, SOMEONE, Configure, Connect, DeliveryLog, numbered_events
from helpers.environment import SetConstants
from helpers.internals import run_statements
from helpers.queue_file import locked
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from helpers.waiting import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exponea_async import (
    Configuration,
    Customer,
    Event,
    Exponea,
    Hooks,
    QueueSettings,
    Receipt,
    StorageError,
    UploadSettings,
)
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import dead_letters, pending_records

#: The length of leases in processes that are killed, in seconds.
LEASE = 0.5

TRACK_AND_DIE = """
import asyncio, os, signal, sys
from exponea_async import Configuration, Event, Exponea, QueueSettings

async def main(path, url, durability, start, count):
    queue = QueueSettings(durability=durability, lock_timeout=60.0)
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                   flush_mode="MANUAL", queue=queue))
    await client.start()
    events = [Event("ping", {"number": number}) for number in range(int(start), int(start) + int(count))]
    await asyncio.gather(*map(client.track_event, events))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""

TRACK_AT_ONE_TIME = """
import asyncio, sys, time
time.time = lambda: 1_700_000_000.1
from exponea_async import Configuration, Event, Exponea, QueueSettings

async def main(path, url):
    configuration = Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                  flush_mode="MANUAL", queue=QueueSettings(lock_timeout=60.0))
    async with Exponea(configuration) as client:
        with client.bind(client.for_customer({"registered": "jane"})):
            await client.track_many([Event("ping")] * 30)
            for _ in range(20):
                await client.track_event(Event("ping"))

asyncio.run(main(*sys.argv[1:]))
"""

TRACK_AND_PRINT = """
import asyncio, os, sys
from exponea_async import Configuration, Event, Exponea, QueueSettings, UploadSettings
from exponea_async._pipeline import uploader
from exponea_async._pipeline import acknowledger

acknowledger.LEASE = uploader.LEASE = float(sys.argv.pop())

async def main(path, url):
    upload = UploadSettings(batch_size=5, concurrency=4, linger=0.001, linger_max=0.0, backoff_initial=0.01,
                            backoff_max=0.05)
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                   upload=upload, queue=QueueSettings(lock_timeout=60.0)))
    await client.start()
    for number in range(100_000):
        await client.track_event(Event("ping", {"number": number}))
        os.write(1, b"%d\\n" % number)

asyncio.run(main(*sys.argv[1:]))
"""


def spawn(script: str, *arguments: object) -> "subprocess.Popen[bytes]":
    """Start a process that runs a script."""
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE)


def numbers(sandbox: Sandbox) -> list[int]:
    """Return the numbers of the events that the platform has."""
    return [event.properties["number"] for event in sandbox.engine.events(PROJECT, "ping")]


async def dead_numbers(client: Exponea) -> dict[int, str]:
    """Return the reasons of the dead letters, by the numbers of their events."""
    return {each.properties["number"]: each.reason for each in await dead_letters(client)}


class TestClocks:
    @pytest.mark.file_only
    async def test_processes_with_a_clock_that_stands_still(
        self, connect: Connect, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """Equal events that processes on one file track at the same time are all stored."""
        children = [spawn(TRACK_AT_ONE_TIME, tmp_path / "queue.sqlite", sandbox.url) for _ in range(4)]
        codes = [await asyncio.to_thread(child.communicate) and child.returncode for child in children]
        assert codes == [0] * 4
        client = await connect(queue=QueueSettings(max_age=10 * 365 * 86400))
        assert (await client.flush_data(60)).remaining == 0

        assert (len(sandbox.engine.events()), sandbox.engine.duplicates) == (200, 0)


class TestKilledProcesses:
    @pytest.mark.file_only
    @pytest.mark.parametrize("durability", ["process", "power"])
    @pytest.mark.parametrize("processes", [1, 2])
    async def test_acknowledged_events_are_delivered(
        self, connect: Connect, sandbox: Sandbox, tmp_path: Path, durability: str, processes: int
    ) -> None:
        """Processes that are killed right after their calls returned have lost nothing."""
        path, count = tmp_path / "queue.sqlite", 500
        children = [
            spawn(TRACK_AND_DIE, path, sandbox.url, durability, count * number, count) for number in range(processes)
        ]
        codes = [await asyncio.to_thread(child.communicate) and child.returncode for child in children]
        assert codes == [-signal.SIGKILL] * processes
        assert sandbox.request_count == 0

        client = await connect()
        await client.flush_data(60)
        assert sorted(numbers(sandbox)) == list(range(count * processes))
        assert sandbox.engine.duplicates == 0
        assert len(sandbox.engine.customers()) == 1

    @pytest.mark.file_only
    @pytest.mark.parametrize("lines", [20, 150, 400])
    async def test_killed_during_an_upload(
        self, connect: Connect, sandbox: Sandbox, tmp_path: Path, lines: int
    ) -> None:
        """Leased records fall due again, and the platform has each event once."""
        sandbox.faults.add(Fault("latency", seconds=0.02))
        child = spawn(TRACK_AND_PRINT, tmp_path / "queue.sqlite", sandbox.url, LEASE)
        assert child.stdout is not None
        printed = [await asyncio.to_thread(child.stdout.readline) for _ in range(lines)]
        await until(lambda: sandbox.request_count > 2)
        child.send_signal(signal.SIGKILL)
        rest, _ = await asyncio.to_thread(child.communicate)
        acknowledged = {int(line) for line in [*printed, *rest.split()]}

        client = await connect()
        await asyncio.wait_for(client.flush_data(), 300)
        found = numbers(sandbox)
        assert acknowledged <= set(found)
        assert len(found) == len(set(found))
        # One more may have been committed when the process was killed.
        assert len(found) <= len(acknowledged) + 1


class TestBadNetworks:
    async def test_every_event_is_delivered_or_rejected(self, connect: Connect, sandbox: Sandbox) -> None:
        """
        Each of 20,000 events is delivered once or a dead letter with its reason, whatever the network does.

        The upper bound of requests: full batches of the tracked and the retried records, one batch that is not full for
        each lease, which is a commit, and two halves for each failed request.
        """
        count, bad = 20_000, set(range(0, 20_000, 97))
        sandbox.faults.add(
            Fault("status", status=500, probability=0.04),
            Fault("status", status=429, retry_after=0.02, probability=0.03),
            Fault("drop", probability=0.03),
            Fault("drop_after", probability=0.03),
            Fault("timeout", seconds=5, probability=0.01),
        )
        client = await connect(upload={"request_timeout": 1.0})
        receipts: list[Receipt] = []
        for start in range(0, count, 1000):
            # The platform rejects timestamps before 1970.
            events = [
                Event("ping", {"number": number}, -1 if number in bad else None)
                for number in range(start, start + 1000)
            ]
            many, singles = events[:500], events[500:]
            receipts += await client.track_many(many)
            receipts += await asyncio.gather(*map(client.track_event, singles))
        await asyncio.wait_for(client.flush_data(), 300)

        found, dead, stats = numbers(sandbox), await dead_numbers(client), client.stats()
        assert len(found) == len(set(found))
        assert set(found) == set(range(count)) - bad
        assert dead.keys() == bad
        assert all("negative" in reason for reason in dead.values())
        assert {number for number, receipt in enumerate(receipts) if receipt.status == "rejected"} == bad
        assert {receipt.status for receipt in receipts} == {"delivered", "rejected"}
        assert (stats.delivered, stats.rejected, stats.in_flight) == (count - len(bad), len(bad), 0)
        bound = (stats.tracked + stats.retried) / 50 + stats.commits + 2 * stats.failed_requests
        # A request that times out while it connects may never arrive.
        assert sandbox.request_count <= stats.requests <= bound


@frozen
class Outcome:
    """
    How a scripted server responds to one request.

    Attributes:
        status: The HTTP status, or 0 if the connection is cut.
        processed: Whether the request is processed all the same.
        body: The body, instead of results.
    """

    status: int = 200
    processed: bool = True
    body: str | None = None


OUTCOMES = st.sampled_from(
    [
        Outcome(),
        Outcome(status=0),
        Outcome(status=0, processed=False),
        Outcome(status=200, body="<html>"),
        Outcome(status=200, body='{"success": true, "results": []}'),
        *(Outcome(status=status, processed=False) for status in (302, 400, 401, 404, 413, 429, 500, 503)),
    ]
)


@define
class FaultyServer:
    """A server that responds with given outcomes, then accepts requests, and always rejects some events."""

    outcomes: list[Outcome]
    refused: set[int]
    accepted: set[int] = field(factory=set)

    def answer(self, request: ReceivedRequest) -> web.StreamResponse:
        """Respond to a request."""
        outcome = self.outcomes.pop() if self.outcomes else Outcome()
        names = set(map(int, request.numbers))
        if outcome.processed:
            self.accepted |= names - self.refused
        if outcome.status == 0:
            assert request.abort
            request.abort()
            return web.Response()
        if outcome.body is not None or outcome.status != 200:
            return web.Response(status=outcome.status, text=outcome.body)
        return request.respond(["refused" if name in self.refused else None for name in request.numbers])


class TestAnyMixOfResponses:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        outcomes=st.lists(OUTCOMES, max_size=20),
        refused=st.sets(st.integers(0, 29), max_size=4),
        sizes=st.tuples(st.integers(1, 12), st.integers(1, 3)),
        retries=st.integers(1, 3),
    )
    def test_everything_agrees(
        self, outcomes: list[Outcome], refused: set[int], sizes: tuple[int, int], retries: int
    ) -> None:
        """In the end each record is delivered or dead, and receipts, statistics, storage and server agree."""
        server = FaultyServer(outcomes, refused)
        asyncio.run(asyncio.wait_for(self.go_through(server, sizes, retries), 300))

    async def go_through(self, server: FaultyServer, sizes: tuple[int, int], retries: int) -> None:
        deliveries, (size, concurrency) = DeliveryLog(), sizes
        upload = UploadSettings(
            batch_size=size,
            concurrency=concurrency,
            backoff_initial=0.001,
            backoff_max=0.002,
            linger=0.0001,
            linger_max=0.0,
        )
        async with ScriptedServer(server.answer) as platform:
            configuration = Configuration(
                project_token=PROJECT,
                authorization_token="key",
                base_url=platform.url,
                storage="memory:",
                flush_mode="MANUAL",
                flush_max_retries=retries,
                upload=upload,
            )
            async with Exponea(configuration, hooks=Hooks(listeners=[deliveries])) as client:
                with client.bind(client.for_customer(SOMEONE)):
                    receipts = await client.track_many(numbered_events(30))
                while (await client.flush_data()).remaining:
                    pass
                dead, pending, stats = await dead_numbers(client), await pending_records(client), client.stats()

        final: dict[str, str] = {}
        revived: set[str] = set()
        for event in deliveries:
            if event.kind == "revived":
                assert {final.pop(key) for key in event.ids} == {"rejected"}
                revived |= set(event.ids)
            elif event.kind in ("delivered", "rejected"):
                assert final.keys().isdisjoint(event.ids)
                final |= dict.fromkeys(event.ids, event.kind)
        outcomes = [final[key] for receipt in receipts for key in receipt.ids]
        delivered = {number for number, kind in enumerate(outcomes) if kind == "delivered"}
        assert {number for number, kind in enumerate(outcomes) if kind == "rejected"} == dead.keys()
        assert len(outcomes) == len(final) == 30
        assert delivered <= server.accepted
        assert server.refused <= dead.keys()
        assert (stats.tracked, stats.delivered, stats.rejected - stats.revived) == (30, len(delivered), len(dead))
        assert (pending, stats.in_flight) == ([], 0)
        # The receipts of revived records keep their first verdict.
        assert all(
            receipt.status == ("rejected" if revived.intersection(receipt.ids) else kind)
            for receipt, kind in zip(receipts, outcomes, strict=True)
        )


async def limit_pages(client: Exponea, pages: int) -> None:
    """Limit the size of a client's file, as a full disk does."""
    await run_statements(client, f"PRAGMA max_page_count = {pages}")


async def damage(client: Exponea, path: Path) -> None:
    """Overwrite a client's file while it is in use, so that the next read meets the damage."""
    await run_statements(client, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA cache_size = 0")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"garbage!" * (path.stat().st_size // 8))  # noqa: ASYNC240 - a short block


class TestBadDisks:
    @pytest.mark.file_only
    async def test_a_full_disk(self, connect: Connect, sandbox: Sandbox) -> None:
        """Calls that fail for lack of space record nothing, the others are delivered, and free space ends it."""
        client = await connect(device=True, flush_mode="MANUAL")
        await client.identify_customer(Customer({"registered": "r"}))
        await limit_pages(client, 60)
        outcomes: list[Any] = []
        for start in range(0, 4000, 50):
            events = [Event("ping", {"number": number, "text": "x" * 200}) for number in range(start, start + 50)]
            outcomes += await asyncio.gather(*map(client.track_event, events), return_exceptions=True)
        await limit_pages(client, 1_000_000)
        outcomes.append(await client.track_event(Event("ping", {"number": 4000})))
        await client.flush_data(60)

        assert {type(outcome) for outcome in outcomes} == {Receipt, StorageError}
        assert all(error.retryable and error.hint for error in outcomes if isinstance(error, StorageError))
        recorded = {number for number, outcome in enumerate(outcomes) if isinstance(outcome, Receipt)}
        assert sorted(numbers(sandbox)) == sorted(recorded)

    @pytest.mark.file_only
    async def test_a_limited_file_size(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """A process whose files must not grow gets errors, and what it has acknowledged is delivered later."""
        limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        await sandbox.aclose()
        child = spawn(limit + TRACK_AND_PRINT, tmp_path / "queue.sqlite", sandbox.url, LEASE)
        printed, _ = await asyncio.to_thread(child.communicate)
        assert child.returncode == 1

        await sandbox.start()
        client = await connect()
        await asyncio.wait_for(client.flush_data(), 300)
        assert len(printed.split()) > 10
        assert set(map(int, printed.split())) == set(numbers(sandbox))

    @pytest.mark.file_only
    async def test_a_locked_file(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """While another process holds the file calls raise; afterwards all goes on, and no verdict is lost."""
        sandbox.faults.add(Fault("latency", seconds=0.1))
        client = await connect(queue=QueueSettings(lock_timeout=0.05))
        await client.track_many(numbered_events(10))
        await until(lambda: sandbox.request_count >= 1)
        with locked(tmp_path / "queue.sqlite"):
            with pytest.raises(StorageError, match="locked") as raised:
                await client.track_event(Event("ping", {"number": 10}))
            await asyncio.sleep(0.2)
        await client.track_event(Event("ping", {"number": 11}))
        result = await client.flush_data(60)

        assert raised.value.retryable
        assert result.remaining == 0
        assert sorted(numbers(sandbox)) == [*range(10), 11]
        assert sandbox.request_count == 2

    @pytest.mark.file_only
    async def test_a_damaged_file(
        self, connect: Connect, sandbox: Sandbox, tmp_path: Path, deliveries: DeliveryLog
    ) -> None:
        """A file that is damaged in use is moved aside; devices keep their identity, also after a restart."""
        client = await connect(device=True, flush_mode="MANUAL", hooks=Hooks(listeners=[deliveries]))
        await client.track_many(numbered_events(300))
        await client.identify_customer(Customer({"registered": "r"}))
        cookies = await client.device("tg:1").get_customer_cookie(), await client.get_customer_cookie()
        await client.flush_data(60)
        sandbox.engine.reset()
        await damage(client, tmp_path / "queue.sqlite")

        receipts = await asyncio.gather(
            client.track_event(Event("ping", {"number": 1})),
            client.identify_customer(Customer({"crm": "1"})),
            client.device("tg:1").track_event(Event("ping", {"number": 2})),
        )
        await client.flush_data(60)
        await client.aclose()
        again = await connect(device=True, flush_mode="MANUAL")
        await again.track_event(Event("ping", {"number": 3}))
        await again.flush_data(60)

        assert (await again.device("tg:1").get_customer_cookie(), await again.get_customer_cookie()) == cookies
        assert {receipt.status for receipt in receipts} == {"delivered"}
        ids = {event.properties["number"]: event.customer_ids for event in sandbox.engine.events(event_type="ping")}
        assert {event.event_type for event in sandbox.engine.events()} == {"ping"}
        assert (ids[1]["registered"], ids[2]) == ("r", {"cookie": cookies[0]})
        assert ids[3] == {"cookie": cookies[1], "registered": "r", "crm": "1"}
        (event,) = [event for event in deliveries if event.kind == "damaged"]
        assert ".damaged" in event.reason

    @pytest.mark.file_only
    async def test_a_file_that_is_deleted(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """After the file of a running client was deleted, tracking goes on in a new one that holds the same events."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("ping", {"number": 0}))
        for path in tmp_path.glob("queue.sqlite*"):  # noqa: ASYNC240
            path.unlink()
        await client.track_event(Event("ping", {"number": 1}))
        await client.flush_data(60)

        assert numbers(sandbox) == [0, 1]


class Clock:
    """The system's clock with an error, in seconds."""

    def __init__(self) -> None:
        self.error = 0.0
        self._time = time.time

    def __call__(self) -> float:
        """Return the wrong time."""
        return self._time() + self.error


class TestBadClocks:
    @pytest.fixture
    def clock(self, set_constants: SetConstants) -> Clock:
        clock = Clock()
        set_constants(time, time=clock)
        return clock

    @pytest.mark.parametrize("jump", [86_400.0, -86_400.0, 10.0, 5_000.0, -5_000.0])
    async def test_the_clock_jumps(self, connect: Connect, sandbox: Sandbox, clock: Clock, jump: float) -> None:
        """Records that are in flight, delayed or waiting are delivered soon, and the platform has each once."""
        sandbox.faults.add(Fault("latency", seconds=0.1, times=4), Fault("status", status=503, times=2))
        client = await connect(upload={"batch_size": 10})
        await client.track_many(numbered_events(100))
        await until(lambda: sandbox.request_count >= 4)
        clock.error = jump
        await client.track_many(numbered_events(100, 100))

        assert (await asyncio.wait_for(client.flush_data(), 300)).remaining == 0
        assert sorted(numbers(sandbox)) == list(range(200))

    async def test_events_after_a_jump(self, connect: Connect, sandbox: Sandbox, clock: Clock) -> None:
        """After the clock was set back, new events are not delayed until it catches up."""
        client = await connect()
        await (await client.track_event(Event("ping", {"number": 0}))).delivered(60)
        clock.error = -1000
        await (await client.track_event(Event("ping", {"number": 1}))).delivered(60)

        assert numbers(sandbox) == [0, 1]

    async def test_the_clock_of_events(self, configure: Configure, sandbox: Sandbox) -> None:
        """Timestamps follow a clock that is corrected, in both directions."""
        times = [1000.0, 1001.0, 500.0, 500.0, 2000.0]
        now = times[0]
        async with Exponea(configure(), clock=lambda: now) as client:
            for number, event in enumerate(numbered_events(5)):
                now = times[number]
                await client.for_customer(SOMEONE).track_event(event)

        timestamps = {event.properties["number"]: event.timestamp for event in sandbox.engine.events()}
        assert [round(timestamps[number], 3) for number in range(5)] == [1000, 1001, 500, 500, 2000]
        assert len(set(timestamps.values())) == 5


class TestSharedQueues:
    @pytest.mark.file_only
    async def test_many_processes_share_a_queue(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """Events of processes that die one after another under load are all delivered by the last one."""
        sandbox.faults.add(Fault("latency", seconds=0.01))
        children = [spawn(TRACK_AND_PRINT, tmp_path / "queue.sqlite", sandbox.url, LEASE) for _ in range(3)]
        acknowledged = 0
        for child in children:
            assert child.stdout is not None
            for _ in range(60):
                await asyncio.to_thread(child.stdout.readline)
            child.send_signal(signal.SIGKILL)
            rest, _ = await asyncio.to_thread(child.communicate)
            acknowledged += 60 + len(rest.split())
        client = await connect()
        await asyncio.wait_for(client.flush_data(), 300)

        # All three count from 0, so only the number of events can be compared.
        assert acknowledged <= len(numbers(sandbox)) <= acknowledged + 3
        assert len(sandbox.engine.customers()) == 1
