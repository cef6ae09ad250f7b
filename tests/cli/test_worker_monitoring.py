"""
The health and the metrics of the command ``worker``.
"""

import asyncio
import urllib.request
from collections.abc import AsyncIterator

import aiohttp
import pytest
from helpers.clients import PROJECT
from helpers.environment import SetConstants
from helpers.waiting import until
from helpers.workers import Workers, record
from prometheus_client.parser import text_string_to_metric_families

from exponea_async.cli.worker import service
from exponea_async.cli.worker.metrics import COUNTERS, GAUGES
from exponea_async.cli.worker.monitoring import MonitoringServer
from exponea_async.cli.worker.queues import FoundQueue
from exponea_async.cli.worker.service import Worker
from exponea_async.sandbox import Fault, Project, Sandbox


class TestMetrics:
    async def test_what_was_delivered_and_rejected(self, workers: Workers, sandbox: Sandbox) -> None:
        """The counters are those of each queue, and the gauges say what is left in it."""
        sandbox.faults.add(Fault("reject", every_command=5))
        await record(await workers.producer(), 10)
        await record(await workers.producer(app_group="eu"), 5)
        worker = await workers.start_ready()
        await worker.wait_for("delivered_total", lambda value: value == 8, queue="shop")
        await worker.wait_for("dead", lambda value: value == 2, queue="shop")
        await worker.wait_for("rejected_total", lambda value: value == 1, queue="shop@eu")
        await worker.wait_for("waiting", lambda value: value == 0, queue="shop@eu")
        assert await worker.metric("rejected_total", queue="shop") == 2
        assert await worker.metric("requests_total", queue="shop") >= 1
        assert await worker.metric("failed_requests_total", queue="shop") == 0
        assert await worker.metric("oldest_age_seconds", queue="shop") == 0
        assert await worker.metric("worker_ready") == 1
        assert await worker.metric("worker_queues") == 2

    async def test_an_outage_of_the_platform(self, workers: Workers, sandbox: Sandbox) -> None:
        """Requests that failed, and records that are put back, are counted, and the worker stays ready."""
        sandbox.faults.add(Fault("status", status=503))
        await record(await workers.producer(), 3)
        worker = await workers.start_ready()
        await worker.wait_for("failed_requests_total", lambda value: value >= 2, queue="shop")
        await worker.wait_for("retried_total", lambda value: value >= 2, queue="shop")
        await worker.wait_for("waiting", lambda value: value == 3, queue="shop")
        await worker.wait_for("oldest_age_seconds", lambda value: value > 0, queue="shop")
        assert await worker.wait_ready() == "ok\n"

    async def test_a_paused_project(self, workers: Workers) -> None:
        """A project that refuses its key is a metric. The worker stays ready, since other projects are served."""
        async with Sandbox(projects=[Project("shop", tokens=("right",)), Project("other", tokens=("key",))]) as strict:
            workers.environment["EXPONEA_BASE_URL"] = strict.url
            await record(await workers.producer(), 1)
            await record(await workers.producer(project_token="other"), 1)
            others = '[{"project_token": "other", "authorization_token": "key"}]'
            worker = await workers.start_ready(OTHER_PROJECTS=others)
            await worker.wait_for("paused", lambda value: value == 1, queue="shop", project="shop")
            await worker.wait_for("delivered_total", lambda value: value == 1, queue="other")
            assert await worker.metric("paused", queue="other", project="other") == 0
            assert await worker.wait_ready() == "ok\n"

    async def test_the_format(self, workers: Workers) -> None:
        """The text is of version 0.0.4, and each metric has a type and a description."""
        await record(await workers.producer(), 1)
        worker = await workers.start_ready()

        def fetch() -> tuple[str, str]:
            with urllib.request.urlopen(f"{worker.url}/metrics") as response:
                return response.headers["Content-Type"], response.read().decode()

        content_type, text = await asyncio.to_thread(fetch)
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert {f"exponea_async_{name}" for name in [*COUNTERS, *GAUGES]} <= set(families)
        assert all(family.documentation for family in families.values())
        assert {family.type for family in families.values()} == {"counter", "gauge"}

    async def test_names_with_special_characters(self, workers: Workers) -> None:
        """The name of a queue may contain anything, and is read as it is."""
        group = 'eu "large"\\n\n, {x="y"} 100 ü'
        await record(await workers.producer(app_group=group), 1)
        worker = await workers.start_ready()
        await worker.wait_for("delivered_total", lambda value: value == 1, queue=f"{PROJECT}@{group}")


class TestProbes:
    async def test_a_worker_without_queues(self, workers: Workers) -> None:
        """A worker that waits for its first queue is alive and ready."""
        worker = await workers.start_ready()
        assert await worker.get("/healthz") == (200, "ok\n")
        assert await worker.get("/readyz") == (200, "ok\n")
        assert (await worker.get("/"))[0] == 404

    async def test_a_port_is_optional(self, workers: Workers, sandbox: Sandbox) -> None:
        """Without a port nothing is served, and nothing is printed."""
        await record(await workers.producer(), 1)
        worker = await workers.start_without_port()
        await until(lambda: len(sandbox.engine.events(PROJECT)) == 1)
        assert await worker.stop() == 0
        assert worker.url == ""


class HangingSource:
    """A database that accepts connections and never answers."""

    location = "nowhere"

    async def find(self) -> list[FoundQueue]:
        await asyncio.Event().wait()
        return []

    async def aclose(self) -> None:
        return


@pytest.fixture
async def hanging() -> AsyncIterator[MonitoringServer]:
    worker = Worker(HangingSource())
    server = MonitoringServer(worker, "127.0.0.1", 0)
    await server.start()
    task = asyncio.create_task(worker.run())
    yield server
    task.cancel()
    await asyncio.wait([task])
    await server.aclose()


async def test_a_task_that_hangs(
    hanging: MonitoringServer, session: aiohttp.ClientSession, set_constants: SetConstants
) -> None:
    """A worker whose task has hung for too long is to be restarted; before, it is only not ready."""
    async with session.get(f"{hanging.url}/healthz") as response:
        assert response.status == 200
    async with session.get(f"{hanging.url}/readyz") as response:
        assert (response.status, await response.text()) == (503, "the queues were not looked up yet\n")
    set_constants(service, HANG_TIME=0.0)
    async with session.get(f"{hanging.url}/healthz") as response:
        assert (response.status, await response.text()) == (503, "the task that looks for queues hangs\n")


async def test_an_address_of_version_6(session: aiohttp.ClientSession) -> None:
    """The address of a server at an IPv6 address can be used as it is printed."""
    server = MonitoringServer(Worker(HangingSource()), "::1", 0)
    try:
        await server.start()
    except OSError:
        pytest.skip("This machine has no IPv6.")
    async with session.get(f"{server.url}/healthz") as response:
        assert response.status == 200
    await server.aclose()
