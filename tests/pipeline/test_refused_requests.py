"""
Responses that are about the way to the platform, and not about the records: the records are kept.
"""

import asyncio
import gzip
import json
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from helpers.clients import Connect, DeliveryLog, numbered_events, opened_queue
from helpers.internals import before_storage_call, occupy_storage
from helpers.local_server import LocalServer
from helpers.scripted_server import ReceivedRequest, Script, ScriptedServer
from helpers.waiting import until

from exponea_async import Event, Exponea, FlushMode, FlushResult, Hooks, RejectedError
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import dead_letters, idle, pending_records

pytestmark = pytest.mark.both_storages


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(ReceivedRequest.accept) as platform:
        yield platform


async def dead_numbers(client: Exponea) -> set[Any]:
    return {letter.properties.get("number") for letter in await dead_letters(client)}


def refuse(numbers: set[int], status: int = 400) -> Script:
    """Refuse every request that contains one of some events."""
    return lambda request: (
        web.Response(status=status, text="Bad Request") if numbers & set(request.numbers) else request.accept()
    )


def refuse_everything(status: int, text: str = "<html><h1>Blocked</h1>by the\nfirewall</html>") -> Script:
    return lambda _: web.Response(status=status, text=text, content_type="text/html")


class TestEverythingIsRefused:
    @pytest.mark.parametrize("status", [400, 409, 413, 422])
    async def test_the_project_is_paused(
        self,
        connect: Connect,
        scripted: ScriptedServer,
        deliveries: DeliveryLog,
        caplog: pytest.LogCaptureFixture,
        status: int,
    ) -> None:
        """If nothing is accepted, all records are kept after a few requests, and one error says why."""
        scripted.script = refuse_everything(status)
        client = await connect(base_url=scripted.url, hooks=Hooks(listeners=[deliveries]))
        await client.track_many(numbered_events(60))

        assert (await asyncio.wait_for(client.flush_data(), 60)).remaining == 60
        assert await dead_letters(client) == []
        assert len(scripted.requests) <= 60
        (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        (reason,) = client.stats().paused.values()
        assert line == reason
        assert "Blocked by the firewall" in reason
        assert "proxy or a firewall" in reason
        assert deliveries.kinds().count("paused") == 1

    async def test_the_statistics_tell_what_was_revived(
        self, connect: Connect, scripted: ScriptedServer, deliveries: DeliveryLog
    ) -> None:
        """Records that became dead letters before the third refusal are queued again, which is counted."""
        scripted.script = refuse_everything(400)
        client = await connect(base_url=scripted.url, hooks=Hooks(listeners=[deliveries]))
        for number in range(5):
            await client.track_event(Event("ping", {"number": number}))
            await client.flush_data(60)

        stats, pending = client.stats(), await pending_records(client)
        assert (stats.rejected, stats.revived, len(pending)) == (2, 2, 5)
        kinds = Counter(deliveries.kinds())
        assert (kinds["rejected"], kinds["revived"], kinds["paused"]) == (2, 1, 1)
        (revived,) = [event.ids for event in deliveries if event.kind == "revived"]
        assert set(revived) == {key for event in deliveries if event.kind == "rejected" for key in event.ids}

    async def test_dead_letters_that_are_gone_are_not_revived(self, connect: Connect, scripted: ScriptedServer) -> None:
        """The statistics count only what is in the queue again."""
        scripted.script = refuse_everything(400)
        client = await connect(base_url=scripted.url)
        for number in range(3):
            if number == 2:
                async with opened_queue(client) as storage:
                    await storage.purge()
            await client.track_event(Event("ping", {"number": number}))
            await client.flush_data(60)

        assert (client.stats().rejected, client.stats().revived, len(await pending_records(client))) == (2, 0, 1)

    async def test_by_one_process_after_the_other(self, connect: Connect, scripted: ScriptedServer) -> None:
        """The refusals of clients that each send one event are counted together, and all events are kept."""
        scripted.script = refuse_everything(400)
        for number in range(5):
            client = await connect(base_url=scripted.url)
            await client.track_event(Event("ping", {"number": number}))
            await client.flush_data(60)
            await client.aclose()

        client = await connect(base_url=scripted.url, flush_mode=FlushMode.MANUAL)
        assert (len(await pending_records(client)), await dead_letters(client)) == (5, [])
        scripted.script = ReceivedRequest.accept
        assert (await client.flush_data(60)).delivered == 5

    async def test_a_success_in_between(self, connect: Connect, scripted: ScriptedServer) -> None:
        """Refusals of clients between which something was accepted are the fault of the events."""
        scripted.script = refuse({0, 1, 3})
        for number in range(4):
            client = await connect(base_url=scripted.url)
            await client.track_event(Event("ping", {"number": number}))
            await client.flush_data(60)
            await client.aclose()

        client = await connect(base_url=scripted.url, flush_mode=FlushMode.MANUAL)
        assert (await pending_records(client), await dead_numbers(client)) == ([], {0, 1, 3})

    async def test_everything_is_delivered_afterwards(self, connect: Connect, scripted: ScriptedServer) -> None:
        """Once requests are accepted again, a flush delivers every record."""
        scripted.script = refuse_everything(413)
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered_events(120))
        await client.flush_data(60)
        scripted.script = ReceivedRequest.accept

        assert await client.flush_data(60) == FlushResult(120, 0, 0)
        assert client.stats().paused == {}

    async def test_campaign_clicks(self, connect: Connect, sandbox: Sandbox) -> None:
        """Clicks, each of which is a request of its own, are kept as well."""
        sandbox.faults.add(Fault("status", status=400, path="/campaigns/clicks"))
        client = await connect(device=True)
        for number in range(6):
            assert await client.handle_campaign_click(f"https://shop.example/?xnpe_cmp={number}")
            await client.flush_data(60)

        assert await dead_letters(client) == []
        assert len([each for each in await pending_records(client) if each.kind == "click"]) == 6

    @pytest.mark.file_only
    async def test_a_cancellation_while_events_are_put_back(self, connect: Connect, scripted: ScriptedServer) -> None:
        """Events that are put back stay in the queue, and are counted once, if the task that does it is cancelled."""
        scripted.script = refuse_everything(400)
        client = await connect(base_url=scripted.url)
        occupied: list[asyncio.Future[bool]] = []
        is_over = threading.Event()

        async def cancel_meanwhile() -> None:
            if not occupied:
                occupied.append(occupy_storage(client, is_over))
                (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "exponea_async: verdicts"]
                loop = asyncio.get_running_loop()
                loop.call_later(0.02, task.cancel)
                loop.call_later(0.1, is_over.set)

        # So the last refusals and the pause are stored together.
        before_storage_call(client, "settle", lambda: until(lambda: bool(client.stats().paused)))
        before_storage_call(client, "revive", cancel_meanwhile)
        await client.track_many(numbered_events(5))
        await until(lambda: client.stats().restarts == 1 and client.stats().revived > 0)
        await idle(client)

        assert client.stats().rejected == client.stats().revived
        assert await dead_letters(client) == []
        assert len(await pending_records(client)) == 5


class TestPoison:
    @pytest.mark.parametrize("at_fault", [{0}, {0, 1, 2}, {7, 8, 9, 10, 11}, {47, 48, 49}, set(range(0, 50, 7))])
    async def test_records_among_good_ones_are_found(
        self, connect: Connect, scripted: ScriptedServer, at_fault: set[int]
    ) -> None:
        """Records that are refused among others that are accepted are dead letters; nothing is paused."""
        scripted.script = refuse(at_fault)
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered_events(50))

        assert await client.flush_data(60) == FlushResult(50 - len(at_fault), len(at_fault), 0)
        assert await dead_numbers(client) == at_fault
        assert client.stats().paused == {}

    async def test_good_records_behind_a_row_of_bad_ones(self, connect: Connect, scripted: ScriptedServer) -> None:
        """A queue of bad records is kept and paused; a good record behind them shows that they are at fault."""
        bad = set(range(4))
        scripted.script = refuse(bad)
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered_events(4))
        assert (await asyncio.wait_for(client.flush_data(), 60)).remaining == 4
        assert client.stats().paused
        await client.track_many(numbered_events(5, 100))
        # Each call lets one probe through, with records that were refused or with others.
        async with asyncio.timeout(60):
            while await pending_records(client):
                await client.flush_data()

        assert await dead_numbers(client) == bad
        assert await pending_records(client) == []
        assert client.stats().paused == {}

    async def test_a_good_record_far_behind(self, connect: Connect, scripted: ScriptedServer) -> None:
        """A paused project is probed with records that it has not seen, too, so that a good one is found."""
        bad = set(range(60))
        scripted.script = refuse(bad)
        client = await connect(base_url=scripted.url, flush_mode="MANUAL", upload={"batch_size": 1})
        await client.track_many(numbered_events(60))
        await client.flush_data(60)
        good = await client.track_event(Event("ping", {"number": 100}))
        for _ in range(130):
            if good.status == "queued":
                await client.flush_data(60)

        assert good.status == "delivered"

    async def test_a_single_bad_record_dies_at_once(self, connect: Connect, scripted: ScriptedServer) -> None:
        """One refused record, with nothing else to send, is a dead letter after one request."""
        scripted.script = refuse({1})
        client = await connect(base_url=scripted.url)
        receipt = await client.track_event(Event("ping", {"number": 1}))

        with pytest.raises(RejectedError, match="HTTP 400: Bad Request"):
            await receipt.delivered(60)
        assert len(scripted.requests) == 1


class TestWholeBatches:
    async def test_a_refusal_without_results_pauses(self, connect: Connect, scripted: ScriptedServer) -> None:
        """A 200 with ``success: false`` and without results is a refusal of the project, and kills no record."""
        scripted.script = lambda _: web.json_response({"success": False, "error": "No permission"})
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered_events(60))

        assert (await asyncio.wait_for(client.flush_data(), 60)).remaining == 60
        assert await dead_letters(client) == []
        assert len(scripted.requests) <= 4
        (reason,) = client.stats().paused.values()
        assert "No permission" in reason

    @pytest.mark.parametrize("results", [[], [{"status": "retry"}] * 10, [None] * 10])
    async def test_results_without_a_verdict_keep_the_records(
        self, connect: Connect, scripted: ScriptedServer, results: list[Any]
    ) -> None:
        """While no record gets a verdict, none becomes a dead letter, and the project is probed."""
        scripted.script = lambda _: web.json_response({"success": True, "results": results})
        client = await connect(base_url=scripted.url, flush_max_retries=1)
        await client.track_many(numbered_events(10))
        await until(lambda: len(scripted.requests) >= 25)

        assert await dead_letters(client) == []
        scripted.script = ReceivedRequest.accept
        assert await client.flush_data(60) == FlushResult(10, 0, 0)


class CompressionServer(LocalServer):
    """
    A server that refuses compressed bodies; an async context manager.

    Attributes:
        status: The status of its refusals.
        accepted: The numbers of the accepted events.
        compressed: Number of compressed requests.
    """

    def __init__(self) -> None:
        self.status = 400
        self.accepted: list[int] = []
        self.compressed = 0
        super().__init__()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.content.read()
        if body[:2] == b"\x1f\x8b" or request.headers.get("Content-Encoding") == "gzip":
            self.compressed += 1
            if self.status != 200:
                return web.Response(status=self.status, text="Bad Request")
            body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        if not body:
            return web.json_response({"success": True, "time": 1.0})
        commands = json.loads(body)["commands"]
        self.accepted += [command["data"]["properties"]["number"] for command in commands]
        results = [{"success": True, "command_id": command["command_id"]} for command in commands]
        return web.json_response({"success": True, "results": results})


class TestCompression:
    @pytest.mark.parametrize("status", [400, 415, 422])
    async def test_a_server_that_refuses_compression(
        self, connect: Connect, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        """The events are sent uncompressed, none is a dead letter, and one warning says so."""
        async with CompressionServer() as server:
            server.status = status
            client = await connect(base_url=server.url, upload={"gzip": True, "concurrency": 1})
            await client.track_many(numbered_events(1000))

            assert await client.flush_data(60) == FlushResult(1000, 0, 0)
            assert sorted(server.accepted) == list(range(1000))
            assert server.compressed <= 7
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert "refuses compressed requests" in line

    async def test_a_server_that_fails_on_compression(self, connect: Connect) -> None:
        """A record that gets a 500 while the platform works is tried uncompressed before it is at fault."""
        async with CompressionServer() as server:
            server.status = 500
            client = await connect(base_url=server.url, upload={"gzip": True}, flush_max_retries=1)
            await client.track_many(numbered_events(1))

            assert await client.flush_data(60) == FlushResult(1, 0, 0)

    async def test_a_server_that_accepts_compression(self, connect: Connect) -> None:
        """All requests stay compressed."""
        async with CompressionServer() as server:
            server.status = 200
            client = await connect(base_url=server.url, upload={"gzip": True})
            await client.track_many(numbered_events(200))

            assert await client.flush_data(60) == FlushResult(200, 0, 0)
            assert server.compressed == client.stats().requests


class TestServerTime:
    @staticmethod
    def fail(numbers: set[int], *, time: int = 200) -> Script:
        """Fail on some events, and respond to the question for the time with a status."""

        def respond(request: ReceivedRequest) -> web.StreamResponse:
            if request.path.endswith("/system/time"):
                return web.json_response({"success": time == 200, "time": 1.0}, status=time)
            return web.Response(status=500) if numbers & set(request.numbers) else request.accept()

        return respond

    async def test_a_record_on_which_the_platform_fails_alone(
        self, connect: Connect, scripted: ScriptedServer, deliveries: DeliveryLog
    ) -> None:
        """If the platform answers other requests, a record that fails is a dead letter after ``flush_max_retries``."""
        scripted.script = self.fail({3})
        client = await connect(base_url=scripted.url, flush_max_retries=3, hooks=Hooks(listeners=[deliveries]))
        await client.track_event(Event("ping", {"number": 3}))

        assert await client.flush_data(60) == FlushResult(0, 1, 0)
        assert [request.numbers for request in scripted.requests if request.body] == [[3]] * 3
        (letter,) = await dead_letters(client)
        assert "3 failures" in letter.reason
        assert "HTTP 500" in letter.reason
        assert deliveries.kinds() == ["retried", "retried", "rejected"]

    @pytest.mark.parametrize("time", [401, 404, 500])
    async def test_an_outage(self, connect: Connect, scripted: ScriptedServer, time: int) -> None:
        """If the platform does not tell the time either, the record is kept, however often it fails."""
        scripted.script = self.fail({3}, time=time)
        client = await connect(base_url=scripted.url, flush_max_retries=1)
        await client.track_event(Event("ping", {"number": 3}))
        await until(lambda: len(scripted.requests) >= 15)

        assert await dead_letters(client) == []

    async def test_several_records_that_fail_are_an_outage(self, connect: Connect, scripted: ScriptedServer) -> None:
        """If other records fail as well, the platform may fail on all records while it tells the time."""
        scripted.script = self.fail({1, 2})
        client = await connect(base_url=scripted.url, flush_max_retries=1)
        await client.track_many(numbered_events(2, 1))
        await until(lambda: len(scripted.requests) >= 15)

        assert await dead_letters(client) == []
