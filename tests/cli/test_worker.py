"""
The command ``worker``, in processes of its own, on a real database.
"""

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

from aiohttp import web
from helpers.clients import PROJECT, SOMEONE
from helpers.command_line import run
from helpers.environment import Environment
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from helpers.waiting import until
from helpers.workers import Workers, numbers, record

from exponea_async import Event
from exponea_async.sandbox import Fault, Sandbox

OTHERS = '[{"project_token": "other", "authorization_token": "key"}]'


class TestQueues:
    async def test_several_producers_and_workers(self, workers: Workers, sandbox: Sandbox) -> None:
        """Several workers deliver each event of several clients once, and the receipts of the clients say so."""
        first, second = await workers.producer(), await workers.producer()
        await record(first, 300)
        for _ in range(2):
            await workers.start_ready()
        await record(second, 300, 300)
        with first.bind(first.for_customer(SOMEONE)):
            receipt = await first.track_event(Event("ping", {"number": 600}))
        await receipt.delivered(60)
        await until(lambda: len(numbers(sandbox)) >= 601)
        assert numbers(sandbox) == list(range(601))

    async def test_a_new_queue(self, workers: Workers, sandbox: Sandbox) -> None:
        """A worker that has started on an empty database serves the queue of an app group that appears later."""
        worker = await workers.start_ready()
        assert "waits for the first one" in worker.log
        client = await workers.producer(app_group="tablets")
        await record(client, 3)
        await until(lambda: numbers(sandbox) == [0, 1, 2])
        assert "queue shop@tablets" in worker.log

    async def test_the_queue_of_another_project(self, workers: Workers, sandbox: Sandbox) -> None:
        """The queues of all configured projects are served, also those of clients whose main project is another one."""
        client = await workers.producer(project_token="other", app_group="eu")
        await record(client, 2)
        await workers.start(OTHER_PROJECTS=OTHERS)
        await until(lambda: numbers(sandbox, "other") == [0, 1])

    async def test_a_project_that_is_not_configured(self, workers: Workers, sandbox: Sandbox) -> None:
        """For the queues of a project without a key there is one warning, and the others are served."""
        for group in ("eu", "us"):
            await record(await workers.producer(project_token="strange", app_group=group), 1)
        await record(await workers.producer(), 1)
        worker = await workers.start_ready()
        await until(lambda: numbers(sandbox) == [0])
        assert await worker.metric("worker_unserved", queue="strange@eu") == 1
        await worker.stop()
        warnings = [line for line in worker.log.splitlines() if "not configured" in line]
        assert len(warnings) == 1
        assert "its project strange is not configured; 1 records wait in it" in warnings[0]
        assert "EXPONEA_OTHER_PROJECTS" in warnings[0]

    async def test_a_wiped_queue(self, workers: Workers, sandbox: Sandbox) -> None:
        """After a client has deleted everything, what is recorded from then on is delivered."""
        client = await workers.producer()
        await record(client, 1)
        await workers.start_ready()
        await until(lambda: numbers(sandbox) == [0])
        await client.stop_integration()
        await client.start()
        await record(client, 2, 1)
        await until(lambda: numbers(sandbox) == [0, 1, 2])

    async def test_sessions_of_producers_that_are_gone(self, workers: Workers, sandbox: Sandbox) -> None:
        """The worker ends the session of a device whose process does not run any more."""
        client = await workers.producer()
        await client.device("tg:1").track_event(Event("ping"))
        await client.aclose()
        await workers.start(SESSION_TIMEOUT="1")

        def names() -> set[str]:
            return {event.event_type for event in sandbox.engine.events(PROJECT)}

        await until(lambda: "session_end" in names())
        assert names() == {"installation", "session_start", "ping", "session_end"}

    async def test_a_file(self, workers: Workers, sandbox: Sandbox, tmp_path: Path) -> None:
        """With a path, the worker serves this one file."""
        workers.environment["EXPONEA_STORAGE"] = str(tmp_path / "queue.sqlite")
        await record(await workers.producer(), 2)
        worker = await workers.start_ready()
        await until(lambda: numbers(sandbox) == [0, 1])
        assert await worker.stop() == 0
        assert f"serves 1 queue of {tmp_path / 'queue.sqlite'}: shop" in worker.log


class TestSharing:
    async def test_a_deep_queue_does_not_starve_another_one(self, workers: Workers, sandbox: Sandbox) -> None:
        """What is recorded for one project arrives while the queue of another one is still being sent."""
        deep = await workers.producer(project_token="other")
        await record(deep, 1000)
        client = await workers.producer()
        await workers.start(OTHER_PROJECTS=OTHERS, UPLOAD_BATCH_SIZE="1", UPLOAD_REQUESTS_PER_SECOND="100")
        await until(lambda: bool(numbers(sandbox, "other")))
        await record(client, 20)
        await until(lambda: len(numbers(sandbox)) == 20)
        assert len(numbers(sandbox, "other")) < 1000

    async def test_the_rate_of_two_workers(self, workers: Workers, sandbox: Sandbox) -> None:
        """Two workers together make no more requests than one address may."""
        rate, client = 40.0, await workers.producer()
        settings = {"UPLOAD_BATCH_SIZE": "1", "UPLOAD_REQUESTS_PER_SECOND": str(rate)}
        both = [await workers.start_ready(**settings) for _ in range(2)]
        # What may be early: the first request of each worker, what is saved up, and what each may be late with, all
        # for a tenth of a second.
        allowance = 2 + rate * 0.1 + 2 * rate * 0.1
        is_limited_together, rounds = False, 0
        while not is_limited_together and rounds < 10:
            rounds += 1
            started, logs = time.time(), [worker.log for worker in both]
            await record(client, 200)
            await until(lambda: len(numbers(sandbox)) == 200 * rounds)  # noqa: B023 - it is called at once
            times = sorted(request.at for request in sandbox.requests)[-200:]
            early = [number for number, at in enumerate(times) if at - started < (number - allowance) / rate]
            # On a machine that stands still for a second, each worker is limited by itself.
            is_limited_together = [worker.log for worker in both] == logs
        assert (is_limited_together, early) == (True, [])
        # Each of them has sent something.
        assert all([await worker.metric("requests_total", queue=PROJECT) for worker in both])


class TestEnd:
    async def test_sigterm_finishes_what_is_in_flight(self, workers: Workers, sandbox: Sandbox) -> None:
        """On SIGTERM the worker waits for the response of a request under way, leases no more, and exits with 0."""
        may_respond = asyncio.Event()

        async def wait(request: ReceivedRequest) -> web.StreamResponse:
            await may_respond.wait()
            return request.accept()

        async with ScriptedServer(wait) as platform:
            workers.environment["EXPONEA_BASE_URL"] = platform.url
            client = await workers.producer()
            await record(client, 500)
            worker = await workers.start("--drain", "50", UPLOAD_CONCURRENCY="1", UPLOAD_REQUEST_TIMEOUT="600")
            await until(lambda: bool(platform.requests))
            worker.signal()
            assert "being stopped" in await worker.wait_ready(ready=False)
            may_respond.set()
            assert await worker.wait() == 0
            sent = sum(len(request.numbers) for request in platform.requests)
            assert 0 < sent < 500
            # The verdicts were stored, and the leases were given back, so that another worker sends the rest.
            assert (await client.health()).stats.waiting == 500 - sent
            assert f"{sent} records were delivered, 0 became dead letters, {500 - sent} wait" in worker.log
            await workers.start()
            await until(lambda: sum(len(request.numbers) for request in platform.requests) >= 500)
            assert sorted(number for request in platform.requests for number in request.numbers) == list(range(500))

    async def test_a_request_that_takes_too_long(self, workers: Workers, sandbox: Sandbox) -> None:
        """After the time for draining, the worker ends, and gives back what it could not finish."""
        sandbox.faults.add(Fault("timeout", seconds=600.0, times=1))
        await record(await workers.producer(), 1)
        worker = await workers.start("--drain", "0.2", UPLOAD_REQUEST_TIMEOUT="600")
        await until(lambda: sandbox.request_count >= 1)
        assert await worker.stop() == 0
        await workers.start()
        await until(lambda: numbers(sandbox) == [0])

    async def test_a_second_signal(self, workers: Workers, sandbox: Sandbox) -> None:
        """A second signal ends the worker at once, whatever is in flight."""
        sandbox.faults.add(Fault("timeout", seconds=600.0, times=1))
        await record(await workers.producer(), 1)
        worker = await workers.start("--drain", "500", UPLOAD_REQUEST_TIMEOUT="600")
        await until(lambda: sandbox.request_count >= 1)
        worker.signal(signal.SIGINT)
        await worker.wait_ready(ready=False)
        worker.signal()
        assert await worker.wait() == 130

    async def test_a_killed_worker(self, workers: Workers, sandbox: Sandbox) -> None:
        """When a worker is killed, its leases run out, and another one delivers what it had."""
        sandbox.faults.add(Fault("timeout", seconds=20.0, times=1))
        await record(await workers.producer(), 50)
        worker = await workers.start_with_short_leases()
        await until(lambda: sandbox.request_count >= 1)
        worker.signal(signal.SIGKILL)
        await worker.wait()
        await workers.start_ready()
        await until(lambda: len(numbers(sandbox)) >= 50)
        assert set(Counter(numbers(sandbox)).values()) == {1}


class TestUsage:
    def test_a_queue_in_memory(self, environment: Environment) -> None:
        """A queue in memory can't be served by another process."""
        environment(EXPONEA_PROJECT_TOKEN="shop", EXPONEA_AUTHORIZATION_TOKEN="key", EXPONEA_STORAGE="memory:")
        result = run("worker")
        assert result.code == 2
        assert "--storage: must be" in result.err

    def test_a_host_without_a_port(self) -> None:
        """An address without a port would have no effect."""
        result = run("worker", "--host", "0.0.0.0")
        assert result.code == 2
        assert "--host: has no effect without --port" in result.err

    def test_a_limit_name(self, environment: Environment, tmp_path: Path) -> None:
        """An invalid name of the rate limit is refused under the name of its option."""
        environment(
            EXPONEA_PROJECT_TOKEN="shop", EXPONEA_AUTHORIZATION_TOKEN="key", EXPONEA_STORAGE=tmp_path / "q.sqlite"
        )
        result = run("worker", "--limit-name", "a b")
        assert result.code == 2
        assert "--limit-name: must consist of 1 to 100" in result.err

    async def test_a_port_that_is_in_use(self, workers: Workers, sandbox: Sandbox) -> None:
        """A port that another program uses is refused."""
        worker = await workers.start("--port", sandbox.url.rpartition(":")[2])
        assert await worker.wait() == 2
        assert "--port: port" in worker.log
        assert "can't be used" in worker.log
