"""
Bad days: processes that are killed, networks that lie, disks and clocks that fail.
"""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field, frozen
from helpers.clients import PROJECT, SOMEONE, Configure, Connect, Heard, numbered
from helpers.scripted_server import Scripted, Seen
from helpers.waiting import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exponea_async import (
    Configuration,
    Customer,
    Event,
    Exponea,
    Hooks,
    Receipt,
    StorageError,
    UploadSettings,
)
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.storage.sqlite.storage import SQLiteStorage

#: How long leases last in processes that are to be killed, in seconds.
LEASE = 0.5

TRACK_AND_DIE = """
import asyncio, os, signal, sys
from exponea_async import Configuration, Event, Exponea, QueueSettings

async def main(path, url, durability, start, count):
    queue = QueueSettings(durability=durability)
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                   flush_mode="MANUAL", queue=queue))
    await client.start()
    events = [Event("ping", {"number": number}) for number in range(int(start), int(start) + int(count))]
    await asyncio.gather(*map(client.track_event, events))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""

TRACK_AND_TELL = """
import asyncio, os, sys
from exponea_async import Configuration, Event, Exponea, UploadSettings
from exponea_async._pipeline import uploader
from exponea_async._pipeline import acknowledger as settling

settling.LEASE = uploader.LEASE = float(sys.argv.pop())

async def main(path, url):
    upload = UploadSettings(batch_size=5, concurrency=4, linger=0.001, backoff_initial=0.01, backoff_max=0.05)
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                   upload=upload))
    await client.start()
    for number in range(100_000):
        await client.track_event(Event("ping", {"number": number}))
        os.write(1, b"%d\\n" % number)

asyncio.run(main(*sys.argv[1:]))
"""


def spawn(script: str, *arguments: object) -> "subprocess.Popen[bytes]":
    """Start a process of its own."""
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE)


def numbers(sandbox: Sandbox) -> list[int]:
    """Tell the numbers of the events in the books."""
    return [event.properties["number"] for event in sandbox.engine.events(PROJECT, "ping")]


async def dead_numbers(client: Exponea) -> dict[int, str]:
    """Tell the numbers of the dead letters' events, and why they died."""
    letters = await client._storage.dead(100_000)
    return {json.loads(b"{" + each.body)["data"]["properties"]["number"]: each.reason for each in letters}


class TestKilled:
    @pytest.mark.parametrize("durability", ["process", "power"])
    @pytest.mark.parametrize("processes", [1, 2])
    async def test_what_was_awaited_is_delivered(
        self, connect: Connect, sandbox: Sandbox, tmp_path: Path, durability: str, processes: int
    ) -> None:
        """Processes that are killed right after their awaits returned have lost nothing."""
        path, count = tmp_path / "queue.sqlite", 500
        children = [
            spawn(TRACK_AND_DIE, path, sandbox.url, durability, count * number, count) for number in range(processes)
        ]
        codes = [await asyncio.to_thread(child.communicate) and child.returncode for child in children]
        assert codes == [-signal.SIGKILL] * processes
        assert sandbox.request_count == 0

        client = await connect()
        await client.flush_data(30)
        assert sorted(numbers(sandbox)) == list(range(count * processes))
        assert sandbox.engine.duplicates == 0
        assert len(sandbox.engine.customers()) == 1

    @pytest.mark.parametrize("patience", [20, 150, 400])
    async def test_killed_in_the_middle_of_uploading(
        self, connect: Connect, sandbox: Sandbox, tmp_path: Path, patience: int
    ) -> None:
        """What was leased falls due again, and in the books each event stands once."""
        sandbox.faults.add(Fault("latency", seconds=0.02))
        child = spawn(TRACK_AND_TELL, tmp_path / "queue.sqlite", sandbox.url, LEASE)
        assert child.stdout is not None
        told = [await asyncio.to_thread(child.stdout.readline) for _ in range(patience)]
        await until(lambda: sandbox.request_count > 2)
        child.send_signal(signal.SIGKILL)
        rest, _ = await asyncio.to_thread(child.communicate)
        awaited = {int(line) for line in [*told, *rest.split()]}

        client = await connect()
        await asyncio.wait_for(client.flush_data(), 30)
        found = numbers(sandbox)
        assert awaited <= set(found)
        assert len(found) == len(set(found))
        # One more may have been committed when its caller died.
        assert len(found) <= len(awaited) + 1


class TestBadNetworks:
    async def test_every_event_meets_its_fate(self, connect: Connect, sandbox: Sandbox) -> None:
        """
        Of 20,000 events each is delivered once or a dead letter with its reason, whatever the network does.

        The bound: full batches of what was tracked and what was put off; one batch that is not full for each claim,
        and each claim is a commit; two halves for each request that failed.
        """
        count, bad = 20_000, set(range(0, 20_000, 97))
        sandbox.faults.add(
            Fault("status", status=500, probability=0.04),
            Fault("status", status=429, retry_after=0.02, probability=0.03),
            Fault("drop", probability=0.03),
            Fault("drop_after", probability=0.03),
            Fault("timeout", seconds=5, probability=0.01),
        )
        client = await connect(upload={"request_timeout": 0.2})
        receipts: list[Receipt] = []
        for start in range(0, count, 1000):
            # The platform refuses moments before 1970.
            events = [
                Event("ping", {"number": number}, -1 if number in bad else None)
                for number in range(start, start + 1000)
            ]
            many, singles = events[:500], events[500:]
            receipts += await client.track_many(many)
            receipts += await asyncio.gather(*map(client.track_event, singles))
        await asyncio.wait_for(client.flush_data(), 60)

        found, dead, stats = numbers(sandbox), await dead_numbers(client), client.stats()
        assert len(found) == len(set(found))
        assert set(found) == set(range(count)) - bad
        assert dead.keys() == bad
        assert all("negative" in reason for reason in dead.values())
        assert {number for number, receipt in enumerate(receipts) if receipt.status == "rejected"} == bad
        assert {receipt.status for receipt in receipts} == {"delivered", "rejected"}
        assert (stats.delivered, stats.rejected, stats.in_flight) == (count - len(bad), len(bad), 0)
        bound = (stats.tracked + stats.retried) / 50 + stats.commits + 2 * stats.failed_requests
        # One that is given up while it connects may never arrive.
        assert sandbox.request_count <= stats.requests <= bound


@frozen
class Outcome:
    """
    How a scripted platform answers one request.

    Attributes:
        status: The HTTP status, or 0 where the connection is cut.
        processed: Whether it has been carried out all the same.
        body: The body instead of results.
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
class Books:
    """A platform that answers by drawn outcomes, then well, and refuses some events always."""

    outcomes: list[Outcome]
    refused: set[int]
    accepted: set[int] = field(factory=set)

    def answer(self, seen: Seen) -> web.StreamResponse:
        """Answer a request."""
        outcome = self.outcomes.pop() if self.outcomes else Outcome()
        names = set(map(int, seen.names))
        if outcome.processed:
            self.accepted |= names - self.refused
        if outcome.status == 0:
            assert seen.cut
            seen.cut()
            return web.Response()
        if outcome.body is not None or outcome.status != 200:
            return web.Response(status=outcome.status, text=outcome.body)
        return seen.answer(["refused" if name in self.refused else None for name in seen.names])


class TestAnyMixOfAnswers:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        outcomes=st.lists(OUTCOMES, max_size=20),
        refused=st.sets(st.integers(0, 29), max_size=4),
        sizes=st.tuples(st.integers(1, 12), st.integers(1, 3)),
        retries=st.integers(1, 3),
    )
    def test_everything_agrees(
        self, outcomes: list[Outcome], refused: set[int], sizes: tuple[int, int], retries: int
    ) -> None:
        """In the end each record is delivered or dead, and receipts, numbers, storage and books tell the same."""
        books = Books(outcomes, refused)
        asyncio.run(asyncio.wait_for(self.go_through(books, sizes, retries), 60))

    async def go_through(self, books: Books, sizes: tuple[int, int], retries: int) -> None:
        heard, (size, concurrency) = Heard(), sizes
        upload = UploadSettings(
            batch_size=size, concurrency=concurrency, backoff_initial=0.001, backoff_max=0.002, linger=0.0001
        )
        async with Scripted(books.answer) as platform:
            configuration = Configuration(
                project_token=PROJECT,
                authorization_token="key",
                base_url=platform.url,
                storage="memory:",
                flush_mode="MANUAL",
                flush_max_retries=retries,
                upload=upload,
            )
            async with Exponea(configuration, hooks=Hooks(listeners=[heard])) as client:
                with client.bind(client.for_customer(SOMEONE)):
                    receipts = await client.track_many(numbered(30))
                while (await client.flush_data()).remaining:
                    pass
                dead, pending, stats = await dead_numbers(client), await client._storage.pending(), client.stats()

        delivered = {number for number, receipt in enumerate(receipts) if receipt.status == "delivered"}
        assert {number for number, receipt in enumerate(receipts) if receipt.status == "rejected"} == dead.keys()
        assert delivered | dead.keys() == set(range(30))
        assert delivered <= books.accepted
        assert books.refused <= dead.keys()
        assert (stats.tracked, stats.delivered, stats.rejected) == (30, len(delivered), len(dead))
        assert (pending.waiting, pending.dead, stats.in_flight) == (0, len(dead), 0)
        told = [(notice.kind, key) for notice in heard for key in notice.ids if notice.kind != "retried"]
        assert sorted(told) == sorted((receipt.status, *receipt.ids) for receipt in receipts)


async def squeeze(client: Exponea, pages: int) -> None:
    """Let a client's file have this many pages at the most, as a disk that is full would."""
    assert isinstance(client._storage, SQLiteStorage)
    await client._storage.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())


async def spoil(client: Exponea, path: Path) -> None:
    """Overwrite a client's file while it is in use, so that the next look at it meets the damage."""
    assert isinstance(client._storage, SQLiteStorage)
    for pragma in ("wal_checkpoint(TRUNCATE)", "cache_size = 0"):
        await client._storage.run(lambda connection, do=pragma: connection.execute(f"PRAGMA {do}").fetchall())  # type: ignore[misc]
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"garbage!" * (path.stat().st_size // 8))  # noqa: ASYNC240 - a moment


class TestBadDisks:
    async def test_a_full_disk(self, connect: Connect, sandbox: Sandbox) -> None:
        """Who is told that there is no room has nothing kept, everybody else is delivered, and space heals it."""
        client = await connect(device=True, flush_mode="MANUAL")
        await client.identify_customer(Customer({"registered": "r"}))
        await squeeze(client, 60)
        outcomes: list[Any] = []
        for start in range(0, 4000, 50):
            events = [Event("ping", {"number": number, "text": "x" * 200}) for number in range(start, start + 50)]
            outcomes += await asyncio.gather(*map(client.track_event, events), return_exceptions=True)
        await squeeze(client, 1_000_000)
        outcomes.append(await client.track_event(Event("ping", {"number": 4000})))
        await client.flush_data(20)

        assert {type(outcome) for outcome in outcomes} == {Receipt, StorageError}
        assert all(error.retryable and error.hint for error in outcomes if isinstance(error, StorageError))
        kept = {number for number, outcome in enumerate(outcomes) if isinstance(outcome, Receipt)}
        assert sorted(numbers(sandbox)) == sorted(kept)

    async def test_a_file_that_may_not_grow(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """A process whose files may not grow tells its callers, and what it had acknowledged is delivered later."""
        limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        await sandbox.aclose()
        child = spawn(limit + TRACK_AND_TELL, tmp_path / "queue.sqlite", sandbox.url, LEASE)
        told, _ = await asyncio.to_thread(child.communicate)
        assert child.returncode == 1

        await sandbox.start()
        client = await connect()
        await asyncio.wait_for(client.flush_data(), 30)
        assert len(told.split()) > 10
        assert set(map(int, told.split())) == set(numbers(sandbox))

    async def test_a_locked_file(
        self, connect: Connect, configure: Configure, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """While somebody holds the file, callers are told; afterwards all goes on, and verdicts are not lost."""
        client = Exponea(configure())
        client._storage._lock_timeout = 0.05  # type: ignore[attr-defined]
        sandbox.faults.add(Fault("latency", seconds=0.1))
        async with client:
            customer = client.for_customer(SOMEONE)
            with client.bind(customer):
                await client.track_many(numbered(10))
            await until(lambda: sandbox.request_count == 1)
            file = sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)
            file.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="locked") as raised:
                await customer.track_event(Event("ping", {"number": 10}))
            await asyncio.sleep(0.2)
            file.execute("ROLLBACK")
            file.close()
            await customer.track_event(Event("ping", {"number": 11}))
            result = await client.flush_data(20)

        assert raised.value.retryable
        assert result.remaining == 0
        assert sorted(numbers(sandbox)) == [*range(10), 11]
        assert sandbox.request_count == 2

    async def test_a_damaged_file(self, connect: Connect, sandbox: Sandbox, tmp_path: Path, heard: Heard) -> None:
        """A file that breaks while it is in use is moved aside; devices stay who they are, also after a restart."""
        client = await connect(device=True, flush_mode="MANUAL", hooks=Hooks(listeners=[heard]))
        await client.track_many(numbered(300))
        await client.identify_customer(Customer({"registered": "r"}))
        cookies = await client.device("tg:1").get_customer_cookie(), await client.get_customer_cookie()
        await client.flush_data(10)
        sandbox.engine.reset()
        await spoil(client, tmp_path / "queue.sqlite")

        receipts = await asyncio.gather(
            client.track_event(Event("ping", {"number": 1})),
            client.identify_customer(Customer({"crm": "1"})),
            client.device("tg:1").track_event(Event("ping", {"number": 2})),
        )
        await client.flush_data(10)
        await client.aclose()
        again = await connect(device=True, flush_mode="MANUAL")
        await again.track_event(Event("ping", {"number": 3}))
        await again.flush_data(10)

        assert (await again.device("tg:1").get_customer_cookie(), await again.get_customer_cookie()) == cookies
        assert {receipt.status for receipt in receipts} == {"delivered"}
        ids = {event.properties["number"]: event.customer_ids for event in sandbox.engine.events(event_type="ping")}
        assert {event.event_type for event in sandbox.engine.events()} == {"ping"}
        assert (ids[1]["registered"], ids[2]) == ("r", {"cookie": cookies[0]})
        assert ids[3] == {"cookie": cookies[1], "registered": "r", "crm": "1"}
        (notice,) = [notice for notice in heard if notice.kind == "damaged"]
        assert ".damaged" in notice.reason

    async def test_a_file_that_is_deleted(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """Where somebody deletes the file under a running client, tracking goes on in a fresh one."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("ping", {"number": 0}))
        for path in tmp_path.glob("queue.sqlite*"):  # noqa: ASYNC240
            path.unlink()
        await client.track_event(Event("ping", {"number": 1}))
        await client.flush_data(10)

        assert numbers(sandbox) == [1]


class Clock:
    """The system's clock, with an error."""

    def __init__(self) -> None:
        self.error = 0.0
        self._time = time.time

    def __call__(self) -> float:
        """Tell the wrong time."""
        return self._time() + self.error


class TestBadClocks:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(time, "time", clock)
        return clock

    @pytest.mark.parametrize("jump", [86_400.0, -86_400.0, 10.0, 5_000.0, -5_000.0])
    async def test_the_clock_jumps(self, connect: Connect, sandbox: Sandbox, clock: Clock, jump: float) -> None:
        """Records in flight, put off or waiting are delivered soon, and each stands in the books once."""
        sandbox.faults.add(Fault("latency", seconds=0.1, times=4), Fault("status", status=503, times=2))
        client = await connect(upload={"batch_size": 10})
        await client.track_many(numbered(100))
        await until(lambda: sandbox.request_count >= 4)
        clock.error = jump
        await client.track_many(numbered(100, 100))

        assert (await asyncio.wait_for(client.flush_data(), 20)).remaining == 0
        assert sorted(numbers(sandbox)) == list(range(200))

    async def test_what_comes_after_a_jump(self, connect: Connect, sandbox: Sandbox, clock: Clock) -> None:
        """New events do not wait for a clock that was set back to catch up."""
        client = await connect()
        await (await client.track_event(Event("ping", {"number": 0}))).delivered(10)
        clock.error = -1000
        await (await client.track_event(Event("ping", {"number": 1}))).delivered(10)

        assert numbers(sandbox) == [0, 1]

    async def test_the_clock_of_events(self, configure: Configure, sandbox: Sandbox) -> None:
        """Stamps follow a clock that is corrected, in both directions."""
        moments = [1000.0, 1001.0, 500.0, 500.0, 2000.0]
        now = moments[0]
        async with Exponea(configure(), clock=lambda: now) as client:
            for event, moment in zip(numbered(5), moments, strict=True):
                now = moment
                await client.for_customer(SOMEONE).track_event(event)

        stamps = {event.properties["number"]: event.timestamp for event in sandbox.engine.events()}
        assert [round(stamps[number], 3) for number in range(5)] == [1000, 1001, 500, 500, 2000]
        assert len(set(stamps.values())) == 5


class TestBadNeighbours:
    async def test_many_processes_share_a_queue(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """Processes that die one after another under load leave nothing behind that the last one can't deliver."""
        sandbox.faults.add(Fault("latency", seconds=0.01))
        children = [spawn(TRACK_AND_TELL, tmp_path / "queue.sqlite", sandbox.url, LEASE) for _ in range(3)]
        awaited = 0
        for child in children:
            assert child.stdout is not None
            for _ in range(60):
                await asyncio.to_thread(child.stdout.readline)
            child.send_signal(signal.SIGKILL)
            rest, _ = await asyncio.to_thread(child.communicate)
            awaited += 60 + len(rest.split())
        client = await connect()
        await asyncio.wait_for(client.flush_data(), 30)

        # The three count from 0 each, so that only the number of events tells.
        assert awaited <= len(numbers(sandbox)) <= awaited + 3
        assert len(sandbox.engine.customers()) == 1
