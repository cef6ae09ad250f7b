"""
SAQ: jobs are about the end user who was bound where they were enqueued.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import Configure
from helpers.job_users import JOBS_PER_USER, PATIENCE, TIME_LIMIT, USERS, check_identities, kinds, subject
from helpers.redis_server import worker_environment, worker_process
from helpers.waiting import until
from saq import Job, Queue, Worker

from exponea_async import ClosedError, Event, Exponea
from exponea_async.integrations.saq import SaqIntegration
from exponea_async.sandbox import Sandbox
from exponea_async.testing import pending_records

COMMAND = ("saq", "saq_app.settings")
JANE = {"registered": "jane"}


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    opened = Queue.from_url(redis_url)
    await opened.connect()
    yield opened
    await opened.disconnect()


@pytest.fixture
async def client(configure: Configure) -> AsyncIterator[Exponea]:
    # Not started: only binding and enqueuing are about it, until a worker starts it.
    created = Exponea(configure(flush_mode="MANUAL"))
    yield created
    await created.aclose(timeout=0)


class Recorded:
    """A worker in the process of the test, which runs all jobs and ends; and the events that they tracked."""

    def __init__(self, client: Exponea, queue: Queue) -> None:
        self._client = client
        self._queue = queue
        self._expected = 0
        self._done = asyncio.Event()
        self.ran: list[str] = []
        self.events: list[tuple[str, dict[str, str]]] = []

    async def job(self, ctx: Any, *, name: str = "event") -> None:
        """Track an event."""
        self.ran.append(name)
        await ctx["exponea"].track_event(Event(name))

    async def after(self, ctx: Any) -> None:
        """Count a job that has ended."""
        self._expected -= 1
        if not self._expected:
            self._done.set()

    async def run(self, integration: SaqIntegration, **settings: Any) -> None:
        """Run the jobs that are in the queue."""
        self._expected = await self._queue.count("queued")
        usual: dict[str, Any] = {
            "queue": self._queue,
            "functions": [("job", self.job)],
            "after_process": self.after,
            "shutdown": self._read,
        }
        worker = Worker(**integration.settings({**usual, **settings}))
        running = asyncio.create_task(worker.start())
        await asyncio.wait([asyncio.create_task(self._done.wait()), running], return_when=asyncio.FIRST_COMPLETED)
        await worker.stop()
        await running

    async def _read(self, ctx: Any) -> None:
        self.events = [(each.name, each.customer_ids) for each in await pending_records(self._client)]


@pytest.fixture
def recorded(client: Exponea, queue: Queue) -> Recorded:
    return Recorded(client, queue)


async def test_many_end_users(client: Exponea, queue: Queue, sandbox: Sandbox, redis_url: str, tmp_path: Path) -> None:
    """Hundreds of jobs of 60 end users at the same time: each event is about the end user of its job."""
    SaqIntegration(client).register(queue)
    ways = ("", "fail", "retry", "spawn", "enqueue")

    async def enqueue(user: str, kind: str) -> None:
        with client.bind(subject(client, user)):
            await queue.enqueue("visit", user=user, kind=kind, retries=2 if kind == "retry" else 1)

    await asyncio.gather(*(enqueue(user, kind) for user in USERS for kind in ways[:JOBS_PER_USER]))
    await queue.enqueue("visit", user="", kind="nobody")
    for user in USERS[:4]:
        with client.bind(subject(client, user)):
            await queue.enqueue("hang", user=user, timeout=TIME_LIMIT)

    environment = worker_environment(sandbox, tmp_path / "worker.sqlite", redis_url)
    with worker_process(COMMAND, environment, tmp_path) as worker:
        await until(lambda: kinds(sandbox).total() == 8 * len(USERS) + 8, seconds=PATIENCE)
        assert await worker.stop() == 0

    check_identities(sandbox)
    assert kinds(sandbox) == {
        **dict.fromkeys(("", "fail", "spawn", "spawned", "enqueue", "enqueued"), len(USERS)),
        "retry": 2 * len(USERS),
        "hang": 4,
        "cancelled": 4,
    }
    assert {event.event_type for event in sandbox.engine.events()} >= {"started", "stopped"}


class TestSubjects:
    async def test_customers_devices_and_nobody(self, client: Exponea, queue: Queue, recorded: Recorded) -> None:
        """A job is about the subject that was bound where it was enqueued; with nobody, nothing is tracked."""
        integration = SaqIntegration(client)
        integration.register(queue)
        for bound in (client.for_customer(JANE), client.device("tg:42"), client.nobody()):
            with client.bind(bound):
                await queue.enqueue("job", name=type(bound).__name__)
        await recorded.run(integration)

        assert sorted(recorded.ran) == ["CustomerTracker", "Device", "Nobody"]
        events = dict(recorded.events)
        assert events["CustomerTracker"] == JANE
        assert events["Device"].keys() == {"cookie"}
        assert "Nobody" not in events

    async def test_without_end_user(self, client: Exponea, queue: Queue, recorded: Recorded) -> None:
        """A job that was enqueued without a subject is about nobody, not about the default device of the worker."""
        await queue.enqueue("job", name="before")
        integration = SaqIntegration(client)
        integration.register(queue)
        await queue.enqueue("job", name="after")
        await recorded.run(integration)

        assert sorted(recorded.ran) == ["after", "before"]
        assert recorded.events == []

    async def test_default(self, client: Exponea, queue: Queue, recorded: Recorded) -> None:
        """The application may name the subject of jobs without an end user."""
        integration = SaqIntegration(client, default=client.for_customer({"registered": "system"}))
        await queue.enqueue("job")
        await recorded.run(integration)

        assert recorded.events == [("event", {"registered": "system"})]

    async def test_job_of_two_end_users(self, client: Exponea, queue: Queue) -> None:
        """A job object that is enqueued again has the end user of now, or none; its other metadata stays."""
        integration = SaqIntegration(client)
        integration.register(queue)
        job = Job("job", key="job", meta={"own": 1})
        with client.bind(client.for_customer(JANE)):
            await queue.enqueue(job)
        assert job.meta == {"own": 1, "exponea": {"customer": JANE}}

        await queue.enqueue(job)
        assert job.meta == {"own": 1}

    async def test_not_carried(self, client: Exponea, queue: Queue) -> None:
        """No id gets into Redis if subjects are not carried."""
        SaqIntegration(client, carry=False).register(queue)
        with client.bind(client.for_customer(JANE)):
            job = await queue.enqueue("job")

        assert job is not None
        assert job.meta == {}

    @pytest.mark.parametrize("meta", [{"exponea": {"customer": "jane"}}, {"exponea": []}, ["exponea"], "exponea"])
    async def test_foreign_metadata(
        self, client: Exponea, queue: Queue, recorded: Recorded, caplog: pytest.LogCaptureFixture, meta: Any
    ) -> None:
        """A job with invalid metadata runs as nobody's."""
        await queue.enqueue("job", meta=meta)
        await recorded.run(SaqIntegration(client))

        assert recorded.ran == ["event"]
        assert recorded.events == []

    async def test_no_ids_in_logs(
        self, client: Exponea, queue: Queue, recorded: Recorded, caplog: pytest.LogCaptureFixture
    ) -> None:
        """SAQ, which logs a job that fails with its metadata, does not log the ids."""
        integration = SaqIntegration(client)
        integration.register(queue)
        with client.bind(client.for_customer({"registered": "jane@example.com"})):
            await queue.enqueue("job", name="event", unknown="argument")
        await recorded.run(integration)

        assert "{'exponea': <end user>}" in caplog.text
        assert "jane" not in caplog.text

    async def test_withdrawn(self, client: Exponea, queue: Queue, recorded: Recorded) -> None:
        """Nothing is tracked of an end user who withdraws the consent after the job was enqueued."""
        integration = SaqIntegration(client)
        integration.register(queue)
        for bound in (client.for_customer(JANE), client.device("tg:42"), client.for_customer({"registered": "joe"})):
            with client.bind(bound):
                await queue.enqueue("job")
        await client.start()
        await client.for_customer(JANE).forget()
        await client.device("tg:42").forget()
        await recorded.run(integration)

        assert len(recorded.ran) == 3
        assert recorded.events == [("event", {"registered": "joe"})]


class TestHooks:
    async def test_hooks_of_the_application(self, client: Exponea, queue: Queue, recorded: Recorded) -> None:
        """The application's own hooks run while the client is open, those of a job with its end user bound."""
        integration = SaqIntegration(client)
        integration.register(queue)
        with client.bind(client.for_customer(JANE)):
            await queue.enqueue("job")

        async def track(ctx: Any, name: str) -> None:
            await ctx["exponea"].track_event(Event(name))

        async def before(ctx: Any) -> None:
            await track(ctx, "before")

        async def after(ctx: Any) -> None:
            await track(ctx, "after")
            await recorded.after(ctx)

        async def startup(ctx: Any) -> None:
            await ctx["exponea"].for_customer({"registered": "worker"}).track_event(Event("started"))

        await recorded.run(integration, startup=[startup], before_process=before, after_process=(after,))

        assert recorded.events == [
            ("started", {"registered": "worker"}),
            *[(name, JANE) for name in ("before", "event", "after")],
        ]
        with pytest.raises(ClosedError):
            await client.start()

    async def test_two_clients(
        self, client: Exponea, queue: Queue, recorded: Recorded, configure: Configure, tmp_path: Path
    ) -> None:
        """Two clients in one worker have their own end users, if their keys differ."""
        other = Exponea(configure(storage=tmp_path / "other.sqlite", flush_mode="MANUAL"))
        first, second = SaqIntegration(client), SaqIntegration(other, key="other")
        found: list[str] = []
        for each in (first, second):
            each.register(queue)
        with client.bind(client.for_customer(JANE)), other.bind(other.device("tg:42")):
            await queue.enqueue("job")

        async def look(ctx: Any) -> None:
            found.append(f"{client.current} {other.current}")

        # Each integration puts its hooks around those that are there.
        settings = {"before_process": [look], "after_process": [look]}
        settings = second.settings({"queue": queue, **settings})
        settings["after_process"] = [*settings["after_process"], look, recorded.after]
        await recorded.run(first, **settings)

        assert found == ["<CustomerTracker registered> <Device 'tg:42'>"] * 2 + [
            "<CustomerTracker registered> <Device '@default'>"
        ]

    async def test_failing_hook(self, client: Exponea, queue: Queue, recorded: Recorded) -> None:
        """If a hook of the application fails, the job fails, and the next one is about its own end user."""
        integration = SaqIntegration(client)
        integration.register(queue)
        for name in ("jane", "joe"):
            with client.bind(client.for_customer({"registered": name})):
                await queue.enqueue("job", name=name)

        async def before(ctx: Any) -> None:
            if ctx["job"].kwargs["name"] == "jane":
                raise LookupError

        await recorded.run(integration, before_process=before, concurrency=1)

        assert recorded.events == [("joe", {"registered": "joe"})]
