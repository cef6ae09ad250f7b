"""
What happens to records after each response of the platform.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from math import ceil, log2
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers.clients import PROJECT, Connect, DeliveryLog, numbered_events, opened_queue
from helpers.environment import SetConstants
from helpers.queue_file import locked
from helpers.scripted_server import ReceivedRequest, Script, ScriptedServer
from helpers.waiting import until

from exponea_async import (
    Customer,
    Event,
    Exponea,
    ExponeaProject,
    FlushResult,
    Hooks,
    QueueSettings,
    RejectedError,
    UnavailableError,
)
from exponea_async._pipeline import age, uploader
from exponea_async.sandbox import Fault, Project, Sandbox
from exponea_async.testing import dead_letters, idle, pending_records

Platform = Callable[[Script], Any]
DAY = 86_400.0


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(ReceivedRequest.accept) as platform:
        yield platform


async def reasons(client: Exponea) -> dict[Any, str]:
    """Return the reasons of dead letters, by the numbers of their events."""
    return {letter.properties.get("number"): letter.reason for letter in await dead_letters(client)}


def fail_with(status: int, numbers: set[int]) -> Script:
    """Respond with a status to every request that contains one of some events."""
    return lambda request: web.Response(status=status) if numbers & set(request.numbers) else request.accept()


async def keep_going(client: Exponea, condition: Callable[[], bool]) -> None:
    """Track more events, whose delivery shows that the platform works, until a condition holds."""
    for number in range(1000, 5000):
        if condition():
            return
        await client.track_event(Event("ping", {"number": number}))
        await asyncio.sleep(0.01)
    pytest.fail("It never held true.")


class TestSuccess:
    async def test_delivered(self, connect: Connect, sandbox: Sandbox) -> None:
        """Accepted records leave the queue, and their receipts are delivered."""
        client = await connect()
        receipts = await client.track_many(numbered_events(120))
        await asyncio.gather(*(receipt.delivered(60) for receipt in receipts))

        assert {receipt.status for receipt in receipts} == {"delivered"}
        assert await pending_records(client) == []
        assert sandbox.request_count == 3

    async def test_each_record_has_its_own_result(self, connect: Connect, scripted: ScriptedServer) -> None:
        """A rejected record becomes a dead letter with the platform's reason; the others of its batch are delivered."""
        scripted.script = lambda request: request.respond(
            ["no such thing" if name == 1 else None for name in request.numbers]
        )
        client = await connect(base_url=scripted.url)
        good, bad, fine = await client.track_many(numbered_events(3))
        with pytest.raises(RejectedError) as raised:
            await bad.delivered(60)

        assert raised.value.reason == "no such thing"
        assert await reasons(client) == {1: "no such thing"}
        assert (good.status, bad.status, fine.status) == ("delivered", "rejected", "delivered")

    async def test_results_in_another_order(self, connect: Connect, scripted: ScriptedServer) -> None:
        """A result is identified by its command id, not by its position."""

        def reversed_results(request: ReceivedRequest) -> web.Response:
            results = [
                {"success": name != 1, "errors": ["e"], "command_id": command["command_id"]}
                for name, command in zip(request.numbers, request.commands, strict=True)
            ]
            return web.json_response({"success": True, "results": results[::-1]})

        scripted.script = reversed_results
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered_events(3))

        assert await client.flush_data(60) == FlushResult(2, 1, 0)
        assert set(await reasons(client)) == {1}

    async def test_records_without_a_result_are_sent_again(self, connect: Connect, scripted: ScriptedServer) -> None:
        """
        Such a record is sent alone, and is a dead letter after too many failures while others are delivered.
        """

        def incomplete(request: ReceivedRequest) -> web.Response:
            results = [
                {"success": True, "command_id": command["command_id"]}
                for name, command in zip(request.numbers, request.commands, strict=True)
                if name != 1
            ]
            return web.json_response({"success": True, "results": results})

        scripted.script = incomplete
        client = await connect(base_url=scripted.url, flush_max_retries=4)
        await client.track_many(numbered_events(3))

        await keep_going(client, lambda: client.stats().rejected == 1)
        assert sum(request.numbers == [1] for request in scripted.requests) >= 3
        assert all(1 not in request.numbers[1:] for request in scripted.requests[1:])
        assert "4 failures" in (await reasons(client))[1]


class TestRefusedBatches:
    @pytest.mark.parametrize("status", [400, 409, 413, 422])
    @pytest.mark.parametrize("at_fault", [{0}, {31}, {7, 8}, {0, 49}])
    async def test_the_records_at_fault_are_found(
        self, connect: Connect, scripted: ScriptedServer, status: int, at_fault: set[int]
    ) -> None:
        """A refused batch is split until the records at fault are alone, in a logarithmic number of requests."""
        scripted.script = fail_with(status, at_fault)
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered_events(50))

        assert await client.flush_data(60) == FlushResult(50 - len(at_fault), len(at_fault), 0)
        assert set(await reasons(client)) == at_fault
        assert len(scripted.requests) <= 1 + 2 * len(at_fault) * ceil(log2(50))
        assert f"HTTP {status}" in (await reasons(client))[min(at_fault)]

    async def test_dead_letters_can_be_revived(self, connect: Connect, sandbox: Sandbox) -> None:
        """Records that were rejected by mistake are sent again on request."""
        sandbox.faults.add(Fault("reject", times=3))
        client = await connect()
        await client.track_many(numbered_events(3))
        assert (await client.flush_data(60)).rejected == 3
        async with opened_queue(client) as storage:
            await storage.revive()

        assert await client.flush_data(60) == FlushResult(3, 0, 0)
        assert len(sandbox.engine.events()) == 3


class TestPaused:
    @pytest.mark.parametrize("status", [301, 302, 307, 401, 402, 403, 404, 405, 410, 415, 418])
    async def test_a_project_error_pauses_the_project(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        """No record is lost, one event and one log line report it, and no more requests are made."""
        sandbox.faults.add(Fault("status", status=status))
        client = await connect(hooks=Hooks(listeners=[deliveries]), upload={"batch_size": 5, "concurrency": 2})
        receipts = await client.track_many(numbered_events(100))
        await until(lambda: "paused" in deliveries.kinds())
        result = await asyncio.wait_for(client.flush_data(), 60)
        requests = sandbox.request_count
        await client.track_event(Event("x"))
        await asyncio.sleep(0.1)

        assert result == FlushResult(0, 0, 100)
        assert deliveries.kinds().count("paused") == 1
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        (reason,) = client.stats().paused.values()
        assert str(status) in reason
        assert requests == sandbox.request_count <= 4
        assert {receipt.status for receipt in receipts} == {"queued"}

    async def test_a_redirect_is_not_followed(self, connect: Connect, scripted: ScriptedServer) -> None:
        """The key is sent to the configured host only."""
        scripted.script = lambda _: web.Response(status=302, headers={"Location": f"{scripted.url}/elsewhere"})
        client = await connect(base_url=scripted.url)
        await client.track_event(Event("x"))

        assert (await client.flush_data(60)).remaining == 1
        assert not [request for request in scripted.requests if request.path == "/elsewhere"]
        assert "/elsewhere" in next(iter(client.stats().paused.values()))

    async def test_each_flush_makes_one_request(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush tries a paused project once; when it works again, everything is sent."""
        sandbox.faults.add(Fault("status", status=401))
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(200))
        counts = []
        for _ in range(3):
            await client.flush_data(60)
            counts.append(sandbox.request_count)
        sandbox.faults.clear()
        result = await client.flush_data(60)

        assert counts[0] <= 4
        assert counts == [counts[0], counts[0] + 1, counts[0] + 2]
        assert result == FlushResult(200, 0, 0)
        assert client.stats().paused == {}

    async def test_a_new_configuration_resumes(self, connect: Connect) -> None:
        """With the right key, the next start delivers what the wrong key could not."""
        async with Sandbox(projects=[Project(PROJECT, ["right"])]) as strict:
            client = await connect(authorization_token="wrong", base_url=strict.url)
            await client.track_many(numbered_events(60))
            assert (await client.flush_data(60)).remaining == 60
            await client.aclose()

            again = await connect(authorization_token="right", base_url=strict.url)
            assert await again.flush_data(60) == FlushResult(60, 0, 0)
            await again.aclose()

    @pytest.mark.file_only
    async def test_a_project_that_is_no_longer_configured(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog
    ) -> None:
        """Its records are kept without a request, which is reported once; those of other projects are sent."""
        client = await connect(project_token="old", flush_mode="MANUAL")
        await client.track_many(numbered_events(3))
        await client.aclose()
        again = await connect(project_token="new", hooks=Hooks(listeners=[deliveries]))
        await again.track_many(numbered_events(5))

        assert await again.flush_data(60) == FlushResult(5, 0, 3)
        assert await again.flush_data(60) == FlushResult(0, 0, 3)
        assert sandbox.engine.events("old") == []
        assert deliveries.kinds().count("paused") == 1
        (reason,) = again.stats().paused.values()
        assert "neither in the configuration" in reason
        assert again.stats().requests == sandbox.request_count == 1

    async def test_one_paused_project_does_not_stop_the_others(self, connect: Connect, sandbox: Sandbox) -> None:
        """Two projects share a queue file: if one of them is paused, the other is still delivered."""
        sandbox.faults.add(Fault("status", status=404, project="bad"))
        bad, good = await connect(project_token="bad"), await connect(project_token="good")
        await bad.track_many(numbered_events(10))
        await good.track_many(numbered_events(10))
        await asyncio.wait_for(good.flush_data(), 60)

        assert len(sandbox.engine.events("good")) == 10


class TestUnavailable:
    @pytest.mark.file_only
    @pytest.mark.parametrize("lock_timeout", [5.0, 0.05])
    async def test_the_clock_is_set_back_before_it_is_stored(
        self,
        connect: Connect,
        scripted: ScriptedServer,
        tmp_path: Path,
        set_constants: SetConstants,
        lock_timeout: float,
    ) -> None:
        """A record that is to be sent later is not put off by as much as the system's clock is set back."""
        real, ahead = time.time, [1800.0]
        set_constants(time, time=lambda: real() + ahead[0])
        with ExitStack() as lock:

            def lock_and_fail(_: ReceivedRequest) -> web.Response:
                # Its record is leased by then, and the outcome can't be stored.
                lock.enter_context(locked(tmp_path / "queue.sqlite"))
                scripted.script = ReceivedRequest.accept
                return web.Response(status=503)

            scripted.script = lock_and_fail
            client = await connect(base_url=scripted.url, queue=QueueSettings(lock_timeout=lock_timeout))
            await client.track_event(Event("ping"))
            await until(lambda: client.stats().failed_requests == 1)
            await asyncio.sleep(2 * min(lock_timeout, 0.1))
            ahead[0] = 0.0
        assert (await client.flush_data(60)).remaining == 0

    @pytest.mark.parametrize(
        "fault",
        [
            *(Fault("status", status=status, times=4) for status in (408, 425, 429, 500, 502, 503, 504)),
            Fault("drop", times=4),
            Fault("drop_after", times=4),
            Fault("timeout", seconds=5, times=2),
            Fault("status", status=200, body="<html>", times=4),
            Fault("status", status=200, body="", times=4),
            Fault("status", status=200, body="[]", times=4),
            Fault("status", status=200, body='{"success": true}', times=4),
            Fault("status", status=204, body="", times=4),
        ],
        ids=lambda fault: f"{fault.kind} {fault.status} {fault.body}",
    )
    async def test_temporary_errors_are_retried(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog, fault: Fault
    ) -> None:
        """No record is lost, and the outage is reported once at its beginning and once at its end."""
        sandbox.faults.add(fault)
        # A short time limit may make further requests fail on a slow machine.
        is_limited = fault.kind == "timeout"
        upload = {"request_timeout": 0.3} if is_limited else {}
        client = await connect(hooks=Hooks(listeners=[deliveries]), flush_max_retries=1, upload=upload)
        receipts = await client.track_many(numbered_events(5))
        await asyncio.gather(*(receipt.delivered(60) for receipt in receipts))

        kinds = [kind for kind in deliveries.kinds() if kind in ("unavailable", "resumed")]
        assert kinds == ["unavailable", "resumed"]
        assert (len(sandbox.engine.events()), await reasons(client)) == (5, {})
        failed, times = client.stats().failed_requests, fault.times or 0
        assert failed >= times if is_limited else failed == times
        assert client.stats().retried == 5 * failed

    async def test_a_retry_is_not_delayed(
        self, connect: Connect, scripted: ScriptedServer, set_constants: SetConstants
    ) -> None:
        """A record is sent again as soon as it is due, and not only when an idle client looks at the queue again."""
        set_constants(uploader, IDLE_INTERVAL=60)
        responses = iter([web.Response(status=503), web.Response(status=503), web.json_response({"results": []})])
        scripted.script = lambda request: (
            next(responses, None) or request.accept() if request.body else web.Response(status=503)
        )
        client = await connect(base_url=scripted.url)
        await client.track_event(Event("x"))

        assert await client.flush_data(60) == FlushResult(1, 0, 0)
        assert len([request for request in scripted.requests if request.body]) == 4

    async def test_a_platform_that_is_unreachable(self, connect: Connect, sandbox: Sandbox) -> None:
        """Records are never dead letters because of refused connections, however many."""
        await sandbox.aclose()
        client = await connect(flush_max_retries=1, upload={"backoff_max": 0.01})
        receipt = await client.track_event(Event("x"))
        await until(lambda: client.stats().failed_requests > 20)
        await sandbox.start()
        await receipt.delivered(60)

        assert receipt.status == "delivered"

    async def test_an_endless_response(self, connect: Connect, scripted: ScriptedServer) -> None:
        """A response of many megabytes is not read completely, and its records are kept."""
        responses = iter([web.Response(body=b"x" * 5_000_000)])
        scripted.script = lambda request: next(responses, None) or request.accept()
        client = await connect(base_url=scripted.url)
        await client.track_event(Event("x"))

        assert await client.flush_data(60) == FlushResult(1, 0, 0)
        assert len(scripted.requests) == 2

    async def test_retry_after_is_respected(self, connect: Connect, sandbox: Sandbox) -> None:
        """All batches wait as long as ``Retry-After`` asks for, and no longer."""
        sandbox.faults.add(Fault("status", status=429, retry_after=0.4, times=1))
        client = await connect(upload={"concurrency": 1})
        await client.track_many(numbered_events(300))
        await client.flush_data(60)

        first, second, *_ = [request.at for request in sandbox.requests]
        assert 0.4 <= second - first < 2
        assert len(sandbox.engine.events()) == 300

    async def test_retry_after_holds_for_the_address(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog
    ) -> None:
        """While one project is asked to wait, no project sends to that address; other addresses are not affected."""
        sandbox.faults.add(Fault("status", status=429, retry_after=7200, project="shop"))
        async with Sandbox() as elsewhere:
            mapping = {
                "TRACK_EVENT": [ExponeaProject("same", "key")],
                "TRACK_CUSTOMER": [ExponeaProject("other", "key", elsewhere.url)],
            }
            client = await connect(flush_mode="MANUAL", project_mapping=mapping, hooks=Hooks(listeners=[deliveries]))
            await client.identify_customer(Customer({"registered": "someone"}, {"a": 1}))
            await client.flush_data(0.3)
            await client.track_many(numbered_events(10))
            result = await client.flush_data(0.3)

            assert [request.status for request in sandbox.requests] == [429]
            assert elsewhere.request_count == 1
        assert (result.delivered, result.remaining) == (0, 21)
        unavailable = {event.project: event.error for event in deliveries if event.kind == "unavailable"}
        assert unavailable.keys() == {"shop", "same"}
        waits = [error.retry_after for error in unavailable.values() if isinstance(error, UnavailableError)]
        assert all(7100 < (wait or 0) <= 7200 for wait in waits)
        assert client.stats().requests == 2

    async def test_an_outage_is_probed_by_one_request_at_a_time(
        self, connect: Connect, scripted: ScriptedServer
    ) -> None:
        """In an outage there is only one request at a time, however many records are queued."""

        async def slow(_: ReceivedRequest) -> web.Response:
            await asyncio.sleep(0.01)
            return web.Response(status=503)

        scripted.script = slow
        client = await connect(base_url=scripted.url, upload={"batch_size": 10, "concurrency": 4})
        await client.track_many(numbered_events(1000))
        await until(lambda: client.stats().failed_requests >= 4)
        scripted.max_concurrent, before = 0, len(scripted.requests)
        await until(lambda: len(scripted.requests) >= before + 10)
        max_concurrent = scripted.max_concurrent
        scripted.script = ReceivedRequest.accept

        assert (await client.flush_data(60)).remaining == 0
        assert max_concurrent == 1

    async def test_an_outage_costs_little(self, connect: Connect, sandbox: Sandbox) -> None:
        """There are few requests and commits while nothing can be sent, even if more events are tracked."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(upload={"backoff_initial": 0.2, "backoff_max": 0.2})
        await client.track_many(numbered_events(1000))
        await until(lambda: client.stats().failed_requests >= 4)
        before, started = client.stats(), asyncio.get_running_loop().time()
        for number in range(50):
            await client.track_event(Event("x", {"number": number}))
            await asyncio.sleep(0.02)
        seconds, after = asyncio.get_running_loop().time() - started, client.stats()

        # A wait is 0.1 seconds on average; each request costs a lease and a settlement, each event a commit.
        assert after.requests - before.requests <= 30 * seconds
        assert after.commits - before.commits <= 50 + 4 * (after.requests - before.requests) + 10 * seconds

    async def test_waits_grow(self, connect: Connect, sandbox: Sandbox) -> None:
        """The longer an outage, the fewer requests are made."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(upload={"backoff_initial": 0.02, "backoff_max": 60})
        await client.track_event(Event("x"))
        await asyncio.sleep(1.2)

        # The waits are random up to 0.02, 0.04, 0.08 and so on; constant waits of 0.02 would make 60 requests.
        assert len([request for request in sandbox.requests if request.path.endswith("/batch")]) <= 25

    async def test_an_idle_client_costs_nothing(self, connect: Connect, sandbox: Sandbox) -> None:
        """Without records there are no requests and no commits."""
        client = await connect()
        await (await client.track_event(Event("x"))).delivered(60)
        await idle(client)
        before = client.stats()
        await asyncio.sleep(1.5)

        after = client.stats()
        assert (after.requests, after.commits) == (before.requests, before.commits)


class TestRecordsAtFault:
    async def test_a_record_on_which_the_platform_fails_is_found(
        self, connect: Connect, scripted: ScriptedServer
    ) -> None:
        """A record that causes a server error becomes a dead letter; all others are delivered."""
        scripted.script = fail_with(500, {13})
        client = await connect(base_url=scripted.url, flush_max_retries=3, upload={"batch_size": 20})
        await client.track_many(numbered_events(100))

        await keep_going(client, lambda: client.stats().rejected == 1)
        assert "3 failures" in (await reasons(client))[13]
        assert "HTTP 500" in (await reasons(client))[13]
        assert sum(request.numbers == [13] for request in scripted.requests) == 3
        assert len([request for request in scripted.requests if 13 in request.numbers]) <= 2 + ceil(log2(20)) + 3
        assert (await client.flush_data(60)).remaining == 0
        assert client.stats().delivered == client.stats().tracked - 1

    async def test_several_records_at_fault(self, connect: Connect, scripted: ScriptedServer) -> None:
        """They are found in several batches at the same time."""
        at_fault = {0, 1, 49, 50, 99}
        scripted.script = fail_with(503, at_fault)
        client = await connect(base_url=scripted.url, flush_max_retries=2, upload={"batch_size": 10})
        await client.track_many(numbered_events(200))

        await keep_going(client, lambda: client.stats().rejected == 5)
        assert set(await reasons(client)) == at_fault
        assert (await client.flush_data(60)).remaining == 0

    @pytest.mark.file_only
    @pytest.mark.parametrize("size", [1, 5, 50])
    async def test_other_records_of_the_batch_are_not_blocked(
        self, connect: Connect, scripted: ScriptedServer, size: int
    ) -> None:
        """They are delivered even if no other records are left that could show which one is at fault."""
        scripted.script = fail_with(500, {3})
        client = await connect(base_url=scripted.url, upload={"batch_size": size})
        receipts = await client.track_many(numbered_events(10))
        good = [receipt for number, receipt in enumerate(receipts) if number != 3]

        await asyncio.gather(*(receipt.delivered(60) for receipt in good))

    async def test_a_single_record_may_be_in_an_outage(self, connect: Connect, scripted: ScriptedServer) -> None:
        """A record that fails while there are no others is kept, as in any outage."""
        fail = fail_with(500, {3})
        scripted.script = lambda request: fail(request) if request.body else web.Response(status=401)
        client = await connect(base_url=scripted.url, flush_max_retries=2)
        receipt = await client.track_event(Event("ping", {"number": 3}))
        await until(lambda: len(scripted.requests) > 10)
        assert receipt.status == "queued"

        await keep_going(client, lambda: receipt.status == "rejected")
        assert "2 failures" in (await reasons(client))[3]

    async def test_an_outage_with_one_success(self, connect: Connect, scripted: ScriptedServer) -> None:
        """One success in a long outage does not put records at fault that fail before and after it."""
        outcomes = iter(["fail"] * 3 + ["pass"])
        scripted.script = lambda request: request.accept() if next(outcomes, "") == "pass" else web.Response(status=503)
        client = await connect(base_url=scripted.url, flush_max_retries=3, upload={"batch_size": 5})
        await client.track_many(numbered_events(50))
        await until(lambda: len(scripted.requests) >= 80)

        assert await reasons(client) == {}
        scripted.script = ReceivedRequest.accept
        assert (await client.flush_data(60)).remaining == 0
        assert client.stats().delivered == 50

    async def test_no_record_is_at_fault_in_an_outage(self, connect: Connect, scripted: ScriptedServer) -> None:
        """While no request has success, no record becomes a dead letter, however long the outage is."""
        scripted.script = lambda _: web.Response(status=500)
        client = await connect(base_url=scripted.url, flush_max_retries=1, upload={"batch_size": 5})
        await client.track_many(numbered_events(50))
        await until(lambda: len(scripted.requests) >= 25)

        assert await reasons(client) == {}
        scripted.script = ReceivedRequest.accept
        assert await client.flush_data(60) == FlushResult(50, 0, 0)


class TestAge:
    async def test_old_records_become_dead_letters(
        self, connect: Connect, sandbox: Sandbox, set_constants: SetConstants
    ) -> None:
        """A record older than ``max_age`` is not sent, and its dead letter says why."""
        real, ahead = time.time, [0.0]
        set_constants(time, time=lambda: real() + ahead[0])
        set_constants(age, MAX_DRIFT=DAY)
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_age=1_000.0))
        old = await client.track_event(Event("x", {"number": 1}))
        ahead[0] = 1_001.0
        fresh = await client.track_event(Event("x", {"number": 2}))
        result = await client.flush_data(60)

        assert (result, old.status, fresh.status) == (FlushResult(1, 1, 0), "rejected", "delivered")
        assert "max_age" in (await reasons(client))[1]
        assert [event.properties["number"] for event in sandbox.engine.events()] == [2]

    async def test_old_records_become_dead_letters_in_an_outage(self, connect: Connect, sandbox: Sandbox) -> None:
        """Only its age makes a record a dead letter while the platform is unavailable."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(queue=QueueSettings(max_age=0.5))
        receipts = await client.track_many(numbered_events(100))

        assert (await asyncio.wait_for(client.flush_data(), 60)).remaining == 0
        assert {receipt.status for receipt in receipts} == {"rejected"}
