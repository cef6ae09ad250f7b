"""
What becomes of records at each answer of the platform.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from math import ceil, log2
from typing import Any

import pytest
from aiohttp import web
from helpers.clients import PROJECT, Connect, Heard, numbered
from helpers.scripted_server import Script, Scripted, Seen
from helpers.waiting import until

from exponea_async import Event, Exponea, FlushResult, Hooks, QueueSettings, RejectedError
from exponea_async.sandbox import Fault, Project, Sandbox

Platform = Callable[[Script], Any]


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    async with Scripted(Seen.accept) as platform:
        yield platform


async def reasons(client: Exponea) -> dict[Any, str]:
    """Tell why records died, by their numbers."""
    letters = await client._storage.dead(100_000)
    return {json.loads(b"{" + each.body)["data"]["properties"].get("number"): each.reason for each in letters}


def fail_with(status: int, numbers: set[int]) -> Script:
    """Refuse every request with one of some events in it."""
    return lambda seen: web.Response(status=status) if numbers & set(seen.names) else seen.accept()


class TestSuccess:
    async def test_delivered(self, connect: Connect, sandbox: Sandbox) -> None:
        """Accepted records leave, and their receipts say so."""
        client = await connect()
        receipts = await client.track_many(numbered(120))
        await asyncio.gather(*(receipt.delivered(10) for receipt in receipts))

        assert {receipt.status for receipt in receipts} == {"delivered"}
        assert (await client._storage.pending()).waiting == 0
        assert sandbox.request_count == 3

    async def test_each_result_counts_by_itself(self, connect: Connect, scripted: Scripted) -> None:
        """A refused command is a dead letter with the platform's words; its neighbours are delivered."""
        scripted.script = lambda seen: seen.answer(["no such thing" if name == 1 else None for name in seen.names])
        client = await connect(base_url=scripted.url)
        good, bad, fine = await client.track_many(numbered(3))
        with pytest.raises(RejectedError) as raised:
            await bad.delivered(10)

        assert raised.value.reason == "no such thing"
        assert await reasons(client) == {1: "no such thing"}
        assert (good.status, bad.status, fine.status) == ("delivered", "rejected", "delivered")

    async def test_results_in_another_order(self, connect: Connect, scripted: Scripted) -> None:
        """A result is told by its command's id, wherever it stands."""

        def shuffled(seen: Seen) -> web.Response:
            results = [
                {"success": name != 1, "errors": ["e"], "command_id": command["command_id"]}
                for name, command in zip(seen.names, seen.commands, strict=True)
            ]
            return web.json_response({"success": True, "results": results[::-1]})

        scripted.script = shuffled
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered(3))

        assert await client.flush_data(10) == FlushResult(2, 1, 0)
        assert set(await reasons(client)) == {1}

    async def test_what_is_not_answered_is_sent_again(self, connect: Connect, scripted: Scripted) -> None:
        """A record without a result is tried again, by itself, and given up in the end; the others are delivered."""

        def forgetful(seen: Seen) -> web.Response:
            results = [
                {"success": True, "command_id": command["command_id"]}
                for name, command in zip(seen.names, seen.commands, strict=True)
                if name != 1
            ]
            return web.json_response({"success": True, "results": results})

        scripted.script = forgetful
        client = await connect(base_url=scripted.url, flush_max_retries=4)
        await client.track_many(numbered(3))

        assert await client.flush_data(10) == FlushResult(2, 1, 0)
        assert [seen.names for seen in scripted.seen] == [[0, 1, 2], [1], [1], [1]]
        assert "has no result" in (await reasons(client))[1]


class TestRefusedAsAWhole:
    @pytest.mark.parametrize("status", [400, 409, 413, 422])
    @pytest.mark.parametrize("guilty", [{0}, {31}, {7, 8}, {0, 49}])
    async def test_the_guilty_are_found(
        self, connect: Connect, scripted: Scripted, status: int, guilty: set[int]
    ) -> None:
        """A refused batch is halved until the guilty stand alone, in a number of requests like the logarithm."""
        scripted.script = fail_with(status, guilty)
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered(50))

        assert await client.flush_data(10) == FlushResult(50 - len(guilty), len(guilty), 0)
        assert set(await reasons(client)) == guilty
        assert len(scripted.seen) <= 1 + 2 * len(guilty) * ceil(log2(50))
        assert f"HTTP {status}" in (await reasons(client))[min(guilty)]

    async def test_all_are_guilty(self, connect: Connect, scripted: Scripted) -> None:
        """Where nothing is accepted each ends as a dead letter, in twice as many requests at the most."""
        scripted.script = lambda _: web.json_response({"success": False, "errors": ["never"]}, status=400)
        client = await connect(base_url=scripted.url)
        await client.track_many(numbered(50))

        assert await client.flush_data(10) == FlushResult(0, 50, 0)
        assert len(scripted.seen) == 99
        assert set((await reasons(client)).values()) == {"HTTP 400: never"}

    async def test_a_success_that_says_no(self, connect: Connect, sandbox: Sandbox) -> None:
        """A 200 with ``success: false`` and no results is a refusal, not a delivery."""
        sandbox.faults.add(Fault("status", status=200, body='{"success": false, "errors": ["e"]}'))
        client = await connect()
        receipt = await client.track_event(Event("x"))

        with pytest.raises(RejectedError, match="e"):
            await receipt.delivered(10)
        assert sandbox.request_count == 1

    async def test_the_dead_can_be_revived(self, connect: Connect, sandbox: Sandbox) -> None:
        """What was refused by mistake is sent again on request."""
        sandbox.faults.add(Fault("reject", times=3))
        client = await connect()
        await client.track_many(numbered(3))
        assert (await client.flush_data(10)).rejected == 3
        await client._storage.revive()

        assert await client.flush_data(10) == FlushResult(3, 0, 0)
        assert len(sandbox.engine.events()) == 3


class TestPaused:
    @pytest.mark.parametrize("status", [301, 302, 307, 401, 402, 403, 404, 405, 410, 415, 418])
    async def test_the_project_is_paused(
        self, connect: Connect, sandbox: Sandbox, heard: Heard, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        """Nothing is lost, one notice and one line tell of it, and the platform is left alone."""
        sandbox.faults.add(Fault("status", status=status))
        client = await connect(hooks=Hooks(listeners=[heard]), upload={"batch_size": 5, "concurrency": 2})
        receipts = await client.track_many(numbered(100))
        await until(lambda: "paused" in heard.kinds())
        result = await asyncio.wait_for(client.flush_data(), 10)
        requests = sandbox.request_count
        await client.track_event(Event("x"))
        await asyncio.sleep(0.1)

        assert result == FlushResult(0, 0, 100)
        assert heard.kinds().count("paused") == 1
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        (reason,) = client.stats().paused.values()
        assert str(status) in reason
        assert requests == sandbox.request_count <= 4
        assert {receipt.status for receipt in receipts} == {"queued"}

    async def test_a_redirect_is_not_followed(self, connect: Connect, scripted: Scripted) -> None:
        """The key goes nowhere but where it is meant for."""
        scripted.script = lambda _: web.Response(status=302, headers={"Location": f"{scripted.url}/elsewhere"})
        client = await connect(base_url=scripted.url)
        await client.track_event(Event("x"))

        assert (await client.flush_data(10)).remaining == 1
        assert not [seen for seen in scripted.seen if seen.path == "/elsewhere"]
        assert "/elsewhere" in next(iter(client.stats().paused.values()))

    async def test_each_flush_asks_once(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush tries a paused project again, once; when it works again everything goes out."""
        sandbox.faults.add(Fault("status", status=401))
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered(200))
        counts = []
        for _ in range(3):
            await client.flush_data(10)
            counts.append(sandbox.request_count)
        sandbox.faults.clear()
        result = await client.flush_data(10)

        assert counts[0] <= 4
        assert counts == [counts[0], counts[0] + 1, counts[0] + 2]
        assert result == FlushResult(200, 0, 0)
        assert client.stats().paused == {}

    async def test_a_new_configuration_resumes(self, connect: Connect) -> None:
        """The right key at the next start delivers what the wrong one could not."""
        async with Sandbox(projects=[Project(PROJECT, ["right"])]) as strict:
            client = await connect(authorization_token="wrong", base_url=strict.url)
            await client.track_many(numbered(60))
            assert (await client.flush_data(10)).remaining == 60
            await client.aclose()

            again = await connect(authorization_token="right", base_url=strict.url)
            assert await again.flush_data(10) == FlushResult(60, 0, 0)
            await again.aclose()

    async def test_a_project_that_is_no_longer_configured(
        self, connect: Connect, sandbox: Sandbox, heard: Heard
    ) -> None:
        """Its records wait without a request, told once; those of others go on."""
        client = await connect(project_token="old", flush_mode="MANUAL")
        await client.track_many(numbered(3))
        await client.aclose()
        again = await connect(project_token="new", hooks=Hooks(listeners=[heard]))
        await again.track_many(numbered(5))

        assert await again.flush_data(10) == FlushResult(5, 0, 3)
        assert await again.flush_data(10) == FlushResult(0, 0, 3)
        assert sandbox.engine.events("old") == []
        assert heard.kinds().count("paused") == 1
        (reason,) = again.stats().paused.values()
        assert "no credentials" in reason
        assert again.stats().requests == sandbox.request_count == 1

    async def test_one_paused_project_does_not_stop_the_others(self, connect: Connect, sandbox: Sandbox) -> None:
        """Two clients' projects on one file, one of them wrong: the other is delivered."""
        sandbox.faults.add(Fault("status", status=404, project="bad"))
        bad, good = await connect(project_token="bad"), await connect(project_token="good")
        await bad.track_many(numbered(10))
        await good.track_many(numbered(10))
        await asyncio.wait_for(good.flush_data(), 10)

        assert len(sandbox.engine.events("good")) == 10


class TestUnavailable:
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
    async def test_it_is_tried_again(self, connect: Connect, sandbox: Sandbox, heard: Heard, fault: Fault) -> None:
        """Trouble costs time and nothing else, and is told once at its beginning and once at its end."""
        sandbox.faults.add(fault)
        client = await connect(hooks=Hooks(listeners=[heard]), flush_max_retries=1, upload={"request_timeout": 0.1})
        receipts = await client.track_many(numbered(5))
        await asyncio.gather(*(receipt.delivered(10) for receipt in receipts))

        kinds = [kind for kind in heard.kinds() if kind in ("unavailable", "resumed")]
        assert kinds == ["unavailable", "resumed"]
        assert (len(sandbox.engine.events()), await reasons(client)) == (5, {})
        assert client.stats().failed_requests == fault.times
        assert client.stats().retried == 5 * (fault.times or 0)

    async def test_a_retry_is_in_time(
        self, connect: Connect, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was put off is sent when it is due, and not only when an idle client looks again by itself."""
        monkeypatch.setattr("exponea_async._pipeline.uploader.IDLE_INTERVAL", 60)
        answers = iter([web.Response(status=503), web.Response(status=503), web.json_response({"results": []})])
        scripted.script = lambda seen: next(answers, None) or seen.accept()
        client = await connect(base_url=scripted.url)
        await client.track_event(Event("x"))

        assert await client.flush_data(10) == FlushResult(1, 0, 0)
        assert len(scripted.seen) == 4

    async def test_a_platform_that_is_away(self, connect: Connect, sandbox: Sandbox) -> None:
        """Refused connections, however many, kill no record."""
        await sandbox.aclose()
        client = await connect(flush_max_retries=1, upload={"backoff_max": 0.01})
        receipt = await client.track_event(Event("x"))
        await until(lambda: client.stats().failed_requests > 20)
        await sandbox.start()
        await receipt.delivered(10)

        assert receipt.status == "delivered"

    async def test_an_answer_without_end(self, connect: Connect, scripted: Scripted) -> None:
        """An answer of many megabytes is not read to its end, and its records are kept."""
        answers = iter([web.Response(body=b"x" * 5_000_000)])
        scripted.script = lambda seen: next(answers, None) or seen.accept()
        client = await connect(base_url=scripted.url)
        await client.track_event(Event("x"))

        assert await client.flush_data(10) == FlushResult(1, 0, 0)
        assert len(scripted.seen) == 2

    async def test_the_platforms_wish_is_respected(self, connect: Connect, sandbox: Sandbox) -> None:
        """Whoever asks for patience with ``Retry-After`` gets it, by all batches, and for no longer than that."""
        sandbox.faults.add(Fault("status", status=429, retry_after=0.4, times=1))
        client = await connect(upload={"concurrency": 1})
        await client.track_many(numbered(300))
        await client.flush_data(10)

        first, second, *_ = [request.at for request in sandbox.requests]
        assert 0.4 <= second - first < 2
        assert len(sandbox.engine.events()) == 300

    async def test_one_request_at_a_time_asks(self, connect: Connect, scripted: Scripted) -> None:
        """In an outage a single request at a time asks whether it is over, however many records wait."""

        async def slow(_: Seen) -> web.Response:
            await asyncio.sleep(0.01)
            return web.Response(status=503)

        scripted.script = slow
        client = await connect(base_url=scripted.url, upload={"batch_size": 10, "concurrency": 4})
        await client.track_many(numbered(1000))
        await until(lambda: client.stats().failed_requests >= 4)
        scripted.most, before = 0, len(scripted.seen)
        await until(lambda: len(scripted.seen) >= before + 10)
        most = scripted.most
        scripted.script = Seen.accept

        assert (await client.flush_data(20)).remaining == 0
        assert most == 1

    async def test_an_outage_is_quiet(self, connect: Connect, sandbox: Sandbox) -> None:
        """Neither the platform nor the disk is kept busy while nothing can be sent, also as more is tracked."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(upload={"backoff_initial": 0.2, "backoff_max": 0.2})
        await client.track_many(numbered(1000))
        await until(lambda: client.stats().failed_requests >= 4)
        before, started = client.stats(), asyncio.get_running_loop().time()
        for number in range(50):
            await client.track_event(Event("x", {"number": number}))
            await asyncio.sleep(0.02)
        seconds, after = asyncio.get_running_loop().time() - started, client.stats()

        # A wait is 0.1 seconds on average; each request costs a claim and a settlement, each event a commit.
        assert after.requests - before.requests <= 30 * seconds
        assert after.commits - before.commits <= 50 + 4 * (after.requests - before.requests) + 10 * seconds

    async def test_waits_grow(self, connect: Connect, sandbox: Sandbox) -> None:
        """The longer an outage, the more seldom it is asked about."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(upload={"backoff_initial": 0.02, "backoff_max": 60})
        await client.track_event(Event("x"))
        await asyncio.sleep(1.2)

        # The waits are at random up to 0.02, 0.04, 0.08 and so on; a steady 0.02 would make 60 requests.
        assert sandbox.request_count <= 25

    async def test_an_idle_client_is_quiet(self, connect: Connect, sandbox: Sandbox) -> None:
        """Nothing to do means no request and no commit."""
        client = await connect()
        await (await client.track_event(Event("x"))).delivered(10)
        await asyncio.sleep(0.05)
        before = client.stats()
        await asyncio.sleep(1.5)

        assert client.stats() == before


class TestPoisonedRecords:
    async def test_the_poisoned_one_is_found(self, connect: Connect, scripted: Scripted) -> None:
        """A record that makes the platform stumble is a dead letter in the end; all others are delivered."""
        scripted.script = fail_with(500, {13})
        client = await connect(base_url=scripted.url, flush_max_retries=3, upload={"batch_size": 20})
        await client.track_many(numbered(100))

        await self.keep_going(client, lambda: client.stats().rejected == 1)
        assert "3 failures" in (await reasons(client))[13]
        assert "HTTP 500" in (await reasons(client))[13]
        assert sum(seen.names == [13] for seen in scripted.seen) == 3
        assert len([seen for seen in scripted.seen if 13 in seen.names]) <= 2 + ceil(log2(20)) + 3
        assert (await client.flush_data(20)).remaining == 0
        assert client.stats().delivered == client.stats().tracked - 1

    async def test_several_poisoned_ones(self, connect: Connect, scripted: Scripted) -> None:
        """So are several, in several batches."""
        poisoned = {0, 1, 49, 50, 99}
        scripted.script = fail_with(503, poisoned)
        client = await connect(base_url=scripted.url, flush_max_retries=2, upload={"batch_size": 10})
        await client.track_many(numbered(200))

        await self.keep_going(client, lambda: client.stats().rejected == 5)
        assert set(await reasons(client)) == poisoned
        assert (await client.flush_data(20)).remaining == 0

    async def keep_going(self, client: Exponea, condition: Callable[[], bool]) -> None:
        """Track more, whose passing shows that the platform works, until something holds true."""
        for number in range(1000, 5000):
            if condition():
                return
            await client.track_event(Event("ping", {"number": number}))
            await asyncio.sleep(0.01)
        pytest.fail("It never held true.")

    @pytest.mark.parametrize("size", [1, 5, 50])
    async def test_its_neighbours_are_not_held_up(self, connect: Connect, scripted: Scripted, size: int) -> None:
        """Those that share a batch with it are delivered, also where nothing else is left to show who is to blame."""
        scripted.script = fail_with(500, {3})
        client = await connect(base_url=scripted.url, upload={"batch_size": size})
        receipts = await client.track_many(numbered(10))
        good = [receipt for number, receipt in enumerate(receipts) if number != 3]

        await asyncio.gather(*(receipt.delivered(20) for receipt in good))

    async def test_the_last_one_may_be_an_outage(self, connect: Connect, scripted: Scripted) -> None:
        """A record that fails when nobody else is there to pass is kept, and asked for as in any outage."""
        scripted.script = fail_with(500, {3})
        client = await connect(base_url=scripted.url, flush_max_retries=2)
        receipt = await client.track_event(Event("ping", {"number": 3}))
        await until(lambda: len(scripted.seen) > 10)
        assert receipt.status == "queued"

        await self.keep_going(client, lambda: receipt.status == "rejected")
        assert "2 failures" in (await reasons(client))[3]

    async def test_an_outage_with_a_gleam_in_it(self, connect: Connect, scripted: Scripted) -> None:
        """One success in the middle of a long outage does not make those to blame that fail before and after it."""
        answers = iter(["fail"] * 3 + ["pass"])
        scripted.script = lambda seen: seen.accept() if next(answers, "") == "pass" else web.Response(status=503)
        client = await connect(base_url=scripted.url, flush_max_retries=3, upload={"batch_size": 5})
        await client.track_many(numbered(50))
        await until(lambda: len(scripted.seen) >= 80)

        assert await reasons(client) == {}
        scripted.script = Seen.accept
        assert (await client.flush_data(20)).remaining == 0
        assert client.stats().delivered == 50

    async def test_an_outage_is_nobodys_fault(self, connect: Connect, scripted: Scripted) -> None:
        """Where nobody passes, no record is blamed, however long it lasts."""
        scripted.script = lambda _: web.Response(status=500)
        client = await connect(base_url=scripted.url, flush_max_retries=1, upload={"batch_size": 5})
        await client.track_many(numbered(50))
        await until(lambda: len(scripted.seen) >= 25)

        assert await reasons(client) == {}
        scripted.script = Seen.accept
        assert await client.flush_data(20) == FlushResult(50, 0, 0)


class TestAge:
    async def test_the_old_are_given_up(self, connect: Connect, sandbox: Sandbox) -> None:
        """A record beyond ``max_age`` is a dead letter that says so, and is not sent."""
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_age=0.2))
        old = await client.track_event(Event("x", {"number": 1}))
        await asyncio.sleep(0.25)
        fresh = await client.track_event(Event("x", {"number": 2}))
        result = await client.flush_data(10)

        assert (result, old.status, fresh.status) == (FlushResult(1, 1, 0), "rejected", "delivered")
        assert "max_age" in (await reasons(client))[1]
        assert [event.properties["number"] for event in sandbox.engine.events()] == [2]

    async def test_age_counts_in_an_outage_too(self, connect: Connect, sandbox: Sandbox) -> None:
        """It is the only thing that ends a record while the platform is away."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(queue=QueueSettings(max_age=0.5))
        receipts = await client.track_many(numbered(100))

        assert (await asyncio.wait_for(client.flush_data(), 20)).remaining == 0
        assert {receipt.status for receipt in receipts} == {"rejected"}
