"""
arq: jobs are about the end user who was bound where they were enqueued.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arq import ArqRedis, Worker, create_pool, cron, func
from arq.connections import RedisSettings
from helpers.clients import Configure
from helpers.job_users import JOBS_PER_USER, PATIENCE, USERS, check_identities, kinds, subject, visits
from helpers.redis_server import worker_environment, worker_process
from helpers.waiting import until

from exponea_async import ClosedError, Event, Exponea
from exponea_async.integrations.arq import ArqIntegration
from exponea_async.sandbox import Sandbox
from exponea_async.testing import pending_records

COMMAND = ("arq", "arq_app.WorkerSettings")
JANE = {"registered": "jane"}

# arq calls this method of Redis itself.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


@pytest.fixture
async def pool(redis_url: str) -> AsyncIterator[ArqRedis]:
    opened = await create_pool(RedisSettings.from_dsn(redis_url))
    yield opened
    await opened.aclose()


@pytest.fixture
async def client(configure: Configure) -> AsyncIterator[Exponea]:
    # Not started: only binding and enqueuing are about it, until a worker starts it.
    created = Exponea(configure(flush_mode="MANUAL"))
    yield created
    await created.aclose(timeout=0)


class Recorded:
    """A worker in the process of the test, which runs all jobs and ends; and the events that they tracked."""

    def __init__(self, client: Exponea, pool: ArqRedis) -> None:
        self._client = client
        self._pool = pool
        self.ran: list[str] = []
        self.events: list[tuple[str, dict[str, str]]] = []

    async def job(self, ctx: dict[str, Any], name: str = "event", **arguments: Any) -> None:
        """Track an event."""
        self.ran.append(name)
        await ctx["exponea"].track_event(Event(name, arguments))

    async def run(self, integration: ArqIntegration, **settings: Any) -> None:
        """Run the jobs."""
        usual: dict[str, Any] = {"functions": [func(self.job, name="job")], "on_shutdown": self._read}
        options = integration.settings({**usual, **settings})
        worker = Worker(redis_pool=self._pool, burst=True, handle_signals=False, poll_delay=0.01, **options)
        await worker.async_run()
        await worker.close()

    async def _read(self, ctx: dict[str, Any]) -> None:
        self.events = [(each.name, each.customer_ids) for each in await pending_records(self._client)]


@pytest.fixture
def recorded(client: Exponea, pool: ArqRedis) -> Recorded:
    return Recorded(client, pool)


class TestWorkerProcess:
    async def test_many_end_users(
        self, client: Exponea, pool: ArqRedis, sandbox: Sandbox, redis_url: str, tmp_path: Path
    ) -> None:
        """Hundreds of jobs of 60 end users at the same time: each event is about the end user of its job."""
        integration = ArqIntegration(client)
        ways = ("", "fail", "retry", "spawn", "enqueue")

        async def enqueue(user: str, kind: str) -> None:
            with client.bind(subject(client, user)):
                await integration.enqueue_job(pool, "visit", user, kind)

        await asyncio.gather(*(enqueue(user, kind) for user in USERS for kind in ways[:JOBS_PER_USER]))
        await integration.enqueue_job(pool, "visit", "", "nobody")
        for user in USERS[:4]:
            with client.bind(subject(client, user)):
                await integration.enqueue_job(pool, "hang", user)

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

    async def test_killed(
        self, client: Exponea, pool: ArqRedis, sandbox: Sandbox, redis_url: str, tmp_path: Path
    ) -> None:
        """If a worker is killed in the middle of a job, the next worker delivers what the job has tracked."""
        with client.bind(client.for_customer(JANE)):
            await ArqIntegration(client).enqueue_job(pool, "hang", "jane")
        storage = tmp_path / "worker.sqlite"

        manual = worker_environment(sandbox, storage, redis_url, EXPONEA_FLUSH_MODE="MANUAL")
        with worker_process(COMMAND, manual, tmp_path) as worker:
            await until(lambda: "tracked" in worker.output)
            worker.kill()
        assert sandbox.engine.events() == []

        with worker_process(COMMAND, worker_environment(sandbox, storage, redis_url), tmp_path):
            await until(lambda: kinds(sandbox)["hang"] == 1)
        assert {event.customer_ids["registered"] for event in visits(sandbox)} == {"jane"}


class TestSubjects:
    async def test_customers_devices_and_nobody(self, client: Exponea, pool: ArqRedis, recorded: Recorded) -> None:
        """A job is about the subject that was bound where it was enqueued; with nobody, nothing is tracked."""
        integration = ArqIntegration(client)
        for bound in (client.for_customer(JANE), client.device("tg:42"), client.nobody()):
            with client.bind(bound):
                await integration.enqueue_job(pool, "job", type(bound).__name__)
        await recorded.run(integration)

        assert sorted(recorded.ran) == ["CustomerTracker", "Device", "Nobody"]
        events = dict(recorded.events)
        assert events["CustomerTracker"] == JANE
        assert events["Device"].keys() == {"cookie"}
        assert "Nobody" not in events
        assert client.stats().dropped["nobody"] == 1

    async def test_without_end_user(self, client: Exponea, pool: ArqRedis, recorded: Recorded) -> None:
        """A job that was enqueued without a subject is about nobody, not about the default device of the worker."""
        integration = ArqIntegration(client)
        await pool.enqueue_job("job", "by arq")
        await integration.enqueue_job(pool, "job", "unbound")
        await recorded.run(integration, cron_jobs=[cron(recorded.job, run_at_startup=True)])

        # The cron job runs again if a minute begins meanwhile.
        assert set(recorded.ran) == {"by arq", "event", "unbound"}
        assert recorded.events == []

    async def test_default(self, client: Exponea, pool: ArqRedis, recorded: Recorded) -> None:
        """The application may name the subject of jobs without an end user; nobody stays nobody."""
        integration = ArqIntegration(client, default=client.for_customer({"registered": "system"}))
        await integration.enqueue_job(pool, "job", "unbound")
        with client.bind(client.nobody()):
            await integration.enqueue_job(pool, "job", "nobody")
        await recorded.run(integration)

        assert recorded.events == [("unbound", {"registered": "system"})]

    async def test_not_carried(self, client: Exponea, pool: ArqRedis, recorded: Recorded) -> None:
        """No id gets into Redis if subjects are not carried."""
        integration = ArqIntegration(client, carry=False)
        with client.bind(client.for_customer(JANE)):
            await integration.enqueue_job(pool, "job", "event")
        (job,) = await pool.queued_jobs()
        await recorded.run(integration)

        assert (job.args, job.kwargs) == (("event",), {})
        assert recorded.events == []

    @pytest.mark.parametrize("is_json", [False, True], ids=["pickle", "JSON"])
    async def test_no_ids_in_logs(
        self, client: Exponea, pool: ArqRedis, recorded: Recorded, caplog: pytest.LogCaptureFixture, *, is_json: bool
    ) -> None:
        """arq, which logs the arguments of jobs, does not log the ids, whatever serializes jobs."""
        integration, settings = ArqIntegration(client), {}
        if is_json:
            pool.job_serializer, pool.job_deserializer = _to_json, json.loads
            settings = {"job_serializer": _to_json, "job_deserializer": json.loads}
        with client.bind(client.for_customer({"registered": "jane@example.com"})), caplog.at_level("INFO"):
            await integration.enqueue_job(pool, "job", "event")
            await recorded.run(integration, **settings)

        assert "job('event', _exponea=<end user>)" in caplog.text
        assert "jane" not in caplog.text
        assert recorded.events == [("event", {"registered": "jane@example.com"})]

    async def test_foreign_metadata(
        self, client: Exponea, pool: ArqRedis, recorded: Recorded, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A job with invalid metadata runs as nobody's, and the log says so without a value of it."""
        await pool.enqueue_job("job", _exponea={"customer": "joe@example.com"})
        await recorded.run(ArqIntegration(client))

        assert recorded.ran == ["event"]
        assert recorded.events == []
        (text,) = [each.getMessage() for each in caplog.records if each.name == "exponea_async"]
        assert text.startswith("A job has no valid end user, so nothing is tracked: metadata: expected")
        assert "joe" not in text

    async def test_withdrawn(self, client: Exponea, pool: ArqRedis, recorded: Recorded) -> None:
        """Nothing is tracked of an end user who withdraws the consent after the job was enqueued."""
        integration = ArqIntegration(client)
        for bound in (client.for_customer(JANE), client.device("tg:42"), client.for_customer({"registered": "joe"})):
            with client.bind(bound):
                await integration.enqueue_job(pool, "job")
        await client.start()
        await client.for_customer(JANE).forget()
        await client.device("tg:42").forget()
        await recorded.run(integration)

        assert len(recorded.ran) == 3
        assert recorded.events == [("event", {"registered": "joe"})]
        assert client.stats().dropped["withdrawn"] == 2


def _to_json(job: dict[str, Any]) -> bytes:
    return json.dumps(job).encode()


class TestSettings:
    async def test_hooks_of_the_application(self, client: Exponea, pool: ArqRedis, recorded: Recorded) -> None:
        """The application's own hooks run while the client is open."""
        ran: list[str] = []

        async def startup(ctx: dict[str, Any]) -> None:
            await ctx["exponea"].for_customer(JANE).track_event(Event("started"))

        async def shutdown(ctx: dict[str, Any]) -> None:
            ran.extend(each.name for each in await pending_records(client))
            raise LookupError("own")

        integration = ArqIntegration(client)
        await pool.enqueue_job("job")
        with pytest.raises(LookupError, match="own"):
            await recorded.run(integration, on_startup=startup, on_shutdown=shutdown)

        assert ran == ["started"]
        with pytest.raises(ClosedError):
            await client.start()

    async def test_other_settings_stay(self, client: Exponea) -> None:
        """A class keeps its other settings and the names of its functions; a dict is not changed."""
        integration = ArqIntegration(client)

        @integration.settings
        class Settings:
            functions: Any = (TestSettings.job, func(TestSettings.job, name="other", timeout=7))
            max_jobs = 3

        assert Settings.max_jobs == 3
        assert [(each.name, each.timeout_s) for each in Settings.functions] == [
            ("TestSettings.job", None),
            ("other", 7),
        ]
        own = {"functions": [TestSettings.job]}
        assert integration.settings(own) is not own
        assert own == {"functions": [TestSettings.job]}

    async def test_subject_of_another_client(self, client: Exponea, configure: Configure) -> None:
        """A default subject of another client is refused where it is set."""
        other = Exponea(configure())
        with pytest.raises(TypeError, match="expected a subject of this client"):
            ArqIntegration(client, default=other.device("tg:42"))

    @staticmethod
    async def job(ctx: dict[str, Any]) -> None:
        """Do nothing."""
