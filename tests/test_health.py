"""
The health of a client, and the size of its queue in its statistics.
"""

import asyncio
import json
import re
import threading
import time
from math import nan
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from helpers.clients import Configure, Connect
from helpers.environment import SetConstants
from helpers.internals import occupy_storage
from helpers.queue_file import locked, unreadable
from helpers.waiting import until

from exponea_async import (
    Configuration,
    Event,
    Exponea,
    InvalidEventError,
    QueueFullError,
    QueueSettings,
    StorageError,
)
from exponea_async._pipeline import monitor
from exponea_async.sandbox import Fault, Project, Sandbox


async def fill(client: Exponea, count: int) -> None:
    """Record some events about one customer."""
    await client.track_many([({"registered": "jane@example.com"}, Event("visit", {"n": n})) for n in range(count)])


class TestQueueSize:
    async def test_the_queue_is_measured_now_and_then(self, connect: Connect, set_constants: SetConstants) -> None:
        """The statistics follow the queue without any call."""
        set_constants(monitor, INTERVAL=0.02)
        client = await connect(flush_mode="MANUAL")
        assert (client.stats().waiting, client.stats().oldest_age) == (0, 0.0)

        await fill(client, 3)

        await until(lambda: client.stats().waiting == 3)
        assert client.stats().bytes_on_disk > 10_000
        assert 0 < client.stats().oldest_age < 60

        await client.flush_data()
        await until(lambda: client.stats().waiting == 0)
        assert client.stats().oldest_age == 0.0

    async def test_the_queue_is_measured_at_the_close(self, configure: Configure) -> None:
        """A closed client says how much stays."""
        async with Exponea(configure(flush_mode="MANUAL")) as client:
            await fill(client, 3)

        assert client.stats().waiting == 3

    @pytest.mark.parametrize("storage", ["memory:", None], ids=["memory", "sqlite"])
    async def test_what_other_records_are(self, configure: Configure, sandbox: Sandbox, storage: str | None) -> None:
        """Dead letters, and records that are to be sent again, are counted; so is a queue in memory."""
        settings = configure(**({"storage": storage} if storage else {}))
        sandbox.faults.add(Fault("reject", times=1))
        async with Exponea(settings) as client:
            (receipt,) = await client.track_many([({"registered": "jane"}, Event("visit"))])
            with pytest.raises(Exception, match="fault injection"):
                await receipt.delivered(60)
            assert (await client.health()).stats.dead == 1

            sandbox.faults.add(Fault("status", status=503))
            await fill(client, 2)
            await until(lambda: client.stats().retried >= 2)
            stats = (await client.health()).stats
            assert stats.waiting == stats.leased == 2
            assert stats.bytes_on_disk > 100
            await client.aclose(0)


class TestReadiness:
    async def test_a_client_that_works(self, connect: Connect) -> None:
        """A started client is ready and delivers; its health is JSON."""
        client = await connect()

        health = await client.health()

        assert (health.is_ready, health.is_delivering, health.problems) == (True, True, ())
        assert json.loads(json.dumps(health.as_dict()))["stats"]["waiting"] == 0

    async def test_before_and_after(self, configure: Configure) -> None:
        """A client that is not open is not ready, and nothing is raised."""
        client = Exponea(configure())
        assert (await client.health()).problems == ("the client is not started",)
        await client.start()
        await client.stop_integration()
        assert (await client.health()).problems == ("the client is stopped",)
        await client.start()
        assert (await client.health()).is_ready
        await client.aclose()
        health = await client.health()
        assert (health.is_ready, health.is_delivering, health.problems) == (False, False, ("the client is closed",))

    async def test_another_event_loop(self, connect: Connect) -> None:
        """A client of another event loop is not ready here."""
        client = await connect()

        health = await asyncio.to_thread(asyncio.run, client.health())

        assert health.problems == ("the client was started in another event loop or process",)

    async def test_a_full_queue(self, connect: Connect) -> None:
        """A queue that refuses events is not ready; it is after an upload."""
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_records=2))
        await fill(client, 2)
        with pytest.raises(QueueFullError):
            await fill(client, 1)

        health = await client.health()
        assert not health.is_ready
        assert "is full: 2 records wait" in health.problems[0]

        await client.flush_data(60)
        assert (await client.health()).is_ready

    @pytest.mark.file_only
    async def test_a_queue_of_full_size(self, connect: Connect) -> None:
        """A file that has reached its largest size is full, too."""
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_bytes=2_000_000))
        assert (await client.health()).is_ready

        async def fill_up() -> None:
            for _ in range(3000):
                await client.track_event(Event("visit", {"text": "x" * 1000}))

        with pytest.raises(QueueFullError):
            await fill_up()

        assert not (await client.health()).is_ready

    async def test_a_queue_that_drops(self, connect: Connect) -> None:
        """A queue that makes capacity for new events is ready when it is full."""
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_records=2, when_full="drop_oldest"))
        await fill(client, 2)
        await fill(client, 2)

        assert (await client.health()).is_ready

    @pytest.mark.file_only
    async def test_a_busy_queue(self, connect: Connect) -> None:
        """A queue that does not answer in time is not ready; the call does not take longer."""
        client = await connect()
        is_over = threading.Event()
        busy = occupy_storage(client, is_over)

        health = await client.health(timeout=0.05)
        is_over.set()
        await busy

        assert not health.is_ready
        assert "did not answer within 0.05 seconds" in health.problems[0]

    @pytest.mark.file_only
    async def test_a_queue_that_fails(self, connect: Connect, tmp_path: Path) -> None:
        """A queue that can't be read is not ready, and the failure is the last error."""
        client = await connect()
        with unreadable(tmp_path / "queue.sqlite"):
            health = await client.health()

        assert not health.is_ready
        assert "can't be used" in health.problems[0]
        assert health.stats.last_error is not None

    @pytest.mark.file_only
    async def test_a_locked_queue(self, connect: Connect, tmp_path: Path) -> None:
        """A queue that can be read but not written is not ready; the event that was refused is the last error."""
        client = await connect(queue=QueueSettings(lock_timeout=0.2))
        with locked(tmp_path / "queue.sqlite"):
            with pytest.raises(StorageError, match="locked"):
                await fill(client, 1)
            health = await client.health(timeout=None)

        assert not health.is_ready
        assert "can't be used" in health.problems[0]
        assert "locked" in health.problems[0]
        assert health.stats.last_error
        assert "locked" in health.stats.last_error.reason
        assert (await client.health()).is_ready

    @pytest.mark.parametrize("limits", [{"timeout": "5"}, {"timeout": -1}, {"max_age": nan}, {"max_age": True}])
    async def test_wrong_limits(self, configure: Configure, limits: Any) -> None:
        """A limit that is not a duration is refused, also before the start."""
        with pytest.raises(InvalidEventError, match=f"{next(iter(limits))}: expected seconds"):
            await Exponea(configure()).health(**limits)


class TestDelivery:
    async def test_a_paused_project(self, configure: Configure) -> None:
        """A wrong key is a problem, but the client is ready: events are kept."""
        async with Sandbox(projects=[Project("other", tokens=("right",))]) as sandbox:
            settings = evolve(configure(), base_url=sandbox.url)
            before = time.time()
            async with Exponea(settings) as client:
                await fill(client, 1)
                await until(lambda: bool(client.stats().paused))
                health = await client.health()
                await client.aclose(0)

        (problem,) = health.problems
        assert (health.is_ready, health.is_delivering) == (True, False)
        assert re.search(rf"project {settings.project_token} has been paused for \d+ second", problem)
        assert before <= health.stats.paused_since[settings.project_token] <= time.time()
        assert health.stats.last_error is not None
        assert health.stats.last_error.project == settings.project_token

    async def test_an_outage(self, connect: Connect, sandbox: Sandbox) -> None:
        """A project that does not respond is a problem, until it responds."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect()
        await fill(client, 1)
        await until(lambda: client.stats().last_error is not None)

        health = await client.health()
        assert (health.is_ready, health.is_delivering) == (True, False)
        assert "is unavailable: " in health.problems[0]

        sandbox.faults.clear()
        await client.flush_data(60)
        assert (await client.health()).is_delivering

    async def test_old_records(self, connect: Connect) -> None:
        """Records that wait for too long are a problem where they should have been sent."""
        client = await connect(flush_mode="MANUAL")
        await fill(client, 1)
        await asyncio.sleep(0.02)
        assert (await client.health(max_age=0.01)).is_delivering

        await client.set_flush_mode("PERIOD")
        assert (await client.health(max_age=0.01)).is_delivering
        await client.set_flush_period(0.001)
        await client.set_flush_mode("MANUAL")
        await client.flush_data(60)

    async def test_old_records_of_an_outage(self, connect: Connect, sandbox: Sandbox) -> None:
        """How long the oldest record waits is said as well."""
        sandbox.faults.add(Fault("timeout", seconds=600))
        client = await connect()
        await fill(client, 2)
        await until(lambda: sandbox.request_count > 0)
        await asyncio.sleep(0.02)

        problems = (await client.health(max_age=0.01)).problems

        assert any("the oldest of 2 records has been waiting for" in problem for problem in problems)


def test_a_configuration_is_enough() -> None:
    """The health of a client that was never started needs no event loop of its own."""
    client = Exponea(Configuration(project_token="shop", authorization_token="key", storage="memory:"))

    assert asyncio.run(client.health()).problems == ("the client is not started",)
