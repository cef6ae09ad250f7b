"""
Taskiq: tasks are about the end user who was bound where they were sent.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from helpers.clients import Configure
from helpers.job_users import JOBS_PER_USER, PATIENCE, TIME_LIMIT, USERS, check_identities, kinds, subject
from helpers.redis_broker import RedisBroker
from helpers.redis_server import worker_environment, worker_process
from helpers.waiting import until
from taskiq import (
    AsyncBroker,
    InMemoryBroker,
    ScheduledTask,
    ScheduleSource,
    TaskiqDepends,
    TaskiqMessage,
    TaskiqMiddleware,
    TaskiqScheduler,
)
from taskiq.kicker import AsyncKicker

from exponea_async import Event, Exponea
from exponea_async.integrations.taskiq import ExponeaMiddleware
from exponea_async.sandbox import Sandbox
from exponea_async.testing import pending_records

JANE = {"registered": "jane"}
JOE = {"registered": "joe"}


@pytest.fixture
async def client(configure: Configure) -> AsyncIterator[Exponea]:
    async with Exponea(configure(flush_mode="MANUAL")) as opened:
        yield opened


async def tracked(client: Exponea) -> list[tuple[str, dict[str, str]]]:
    """Return the events that tasks have tracked, with the ids of their customers."""
    return [(each.name, each.customer_ids) for each in await pending_records(client)]


def kicker(broker: AsyncBroker, name: str, **labels: Any) -> AsyncKicker[Any, Any]:
    """Return what sends a task by its name."""
    return AsyncKicker(name, broker, labels)


@pytest.fixture(params=[False, True], ids=["in tasks", "in place"])
async def broker(request: pytest.FixtureRequest, client: Exponea) -> AsyncIterator[InMemoryBroker]:
    opened = InMemoryBroker(await_inplace=request.param)

    async def task(name: str, exponea: Annotated[Exponea, TaskiqDepends()]) -> None:
        await exponea.track_event(Event(name))

    async def outer(name: str, exponea: Annotated[Exponea, TaskiqDepends()]) -> None:
        with exponea.bind(exponea.for_customer(JOE)):
            await kicker(opened, "task").kiq(f"inner of {name}")
        await exponea.track_event(Event(f"end of {name}"))

    opened.register_task(task, "task")
    opened.register_task(outer, "outer")
    await opened.startup()
    yield opened
    await opened.shutdown()


@pytest.mark.parametrize("processes", [1, 2])
async def test_many_end_users(
    client: Exponea, sandbox: Sandbox, redis_url: str, tmp_path: Path, processes: int
) -> None:
    """Hundreds of tasks of 60 end users at the same time: each event is about the end user of its task."""
    broker = RedisBroker(redis_url).with_middlewares(ExponeaMiddleware(client))

    async def send(user: str, kind: str, **labels: Any) -> None:
        with client.bind(subject(client, user)):
            await kicker(broker, "visit", **labels).kiq(user, kind)

    ways = ("", "fail", "retry", "spawn", "send")
    for kind in ways[:JOBS_PER_USER]:
        await asyncio.gather(*(send(user, kind, retry_on_error=kind == "retry") for user in USERS))
    await kicker(broker, "visit").kiq("", "nobody")
    await asyncio.gather(*(send(user, "hang", timeout=TIME_LIMIT) for user in USERS[:4]))
    await broker.shutdown()

    environment = worker_environment(sandbox, tmp_path / "worker.sqlite", redis_url)
    command = ("taskiq", "worker", "taskiq_app:broker", "--workers", str(processes))
    with worker_process(command, environment, tmp_path) as worker:
        await until(lambda: kinds(sandbox).total() == 8 * len(USERS) + 4, seconds=PATIENCE)
        assert await worker.stop() == 0

    check_identities(sandbox)
    assert kinds(sandbox) == {
        **dict.fromkeys(("", "fail", "spawn", "spawned", "send", "sent"), len(USERS)),
        "retry": 2 * len(USERS),
        "hang": 4,
    }
    names = [event.event_type for event in sandbox.engine.events()]
    assert (names.count("started"), names.count("stopped")) == (processes, processes)


class TestSubjects:
    async def test_customers_devices_and_nobody(self, client: Exponea, broker: InMemoryBroker) -> None:
        """A task is about the subject that was bound where it was sent; with nobody, nothing is tracked."""
        broker.add_middlewares(ExponeaMiddleware(client))
        for bound in (client.for_customer(JANE), client.device("tg:42"), client.nobody()):
            with client.bind(bound):
                await kicker(broker, "task").kiq(type(bound).__name__)
        await broker.wait_all()

        events = dict(await tracked(client))
        assert events["CustomerTracker"] == JANE
        assert events["Device"].keys() == {"cookie"}
        assert "Nobody" not in events

    async def test_without_end_user(self, client: Exponea, broker: InMemoryBroker) -> None:
        """A task that was sent without a subject is about nobody, not about the default device of the worker."""
        broker.add_middlewares(ExponeaMiddleware(client))
        await kicker(broker, "task").kiq("unbound")
        await broker.wait_all()

        assert await tracked(client) == []
        assert client.stats().dropped["nobody"] == 1

    async def test_default(self, client: Exponea, broker: InMemoryBroker) -> None:
        """The application may name the subject of tasks without an end user."""
        broker.add_middlewares(ExponeaMiddleware(client, default=client.for_customer({"registered": "system"})))
        await kicker(broker, "task").kiq("unbound")
        await broker.wait_all()

        assert await tracked(client) == [("unbound", {"registered": "system"})]

    async def test_task_within_a_task(self, client: Exponea, broker: InMemoryBroker) -> None:
        """A task that a task sends may be about somebody else, and the binding of the outer one stays."""
        broker.add_middlewares(ExponeaMiddleware(client))
        with client.bind(client.for_customer(JANE)):
            await kicker(broker, "outer").kiq("a")
        await kicker(broker, "outer").kiq("b")
        await broker.wait_all()
        await broker.wait_all()

        assert sorted(await tracked(client)) == [
            ("end of a", JANE),
            ("inner of a", JOE),
            ("inner of b", JOE),
        ]

    async def test_binding_of_the_sender_stays(self, client: Exponea, broker: InMemoryBroker) -> None:
        """Sending a task changes nothing in the code that sends it, also if the task fails."""
        broker.add_middlewares(ExponeaMiddleware(client))
        with client.bind(client.for_customer(JANE)):
            for arguments in (("event",), ()):
                await kicker(broker, "task").kiq(*arguments)
                assert repr(client.current) == "<CustomerTracker registered>"
        for arguments in (("event",), ()):
            await kicker(broker, "task").kiq(*arguments)
            assert repr(client.current) == "<Device '@default'>"
        await broker.wait_all()

    async def test_not_carried(self, client: Exponea, broker: InMemoryBroker) -> None:
        """No id gets into the broker if subjects are not carried."""
        sent = Sent()
        broker.add_middlewares(ExponeaMiddleware(client, carry=False), sent)
        with client.bind(client.for_customer(JANE)):
            await kicker(broker, "task").kiq("event")
        await broker.wait_all()

        assert sent.labels == [{}]
        assert await tracked(client) == []

    async def test_labels_of_another_task(self, client: Exponea, broker: InMemoryBroker) -> None:
        """Labels with somebody else's metadata do not count: what is bound where the task is sent decides."""
        sent = Sent()
        broker.add_middlewares(ExponeaMiddleware(client), sent)
        with client.bind(client.for_customer(JANE)):
            await kicker(broker, "task").kiq("first")
        await kicker(broker, "task", **sent.labels[0]).kiq("second")
        with client.bind(client.for_customer(JOE)):
            await kicker(broker, "task", **sent.labels[0]).kiq("third")
        await broker.wait_all()

        assert sorted(await tracked(client)) == [("first", JANE), ("third", JOE)]

    async def test_scheduler(self, client: Exponea, broker: InMemoryBroker) -> None:
        """What a task has scheduled, such as its next attempt, keeps the end user when the scheduler sends it."""
        sent = Sent()
        broker.add_middlewares(ExponeaMiddleware(client, default=client.for_customer({"registered": "system"})), sent)
        with client.bind(client.for_customer(JANE)):
            await kicker(broker, "task").kiq("first")
        broker.is_scheduler_process = True
        for name, labels in (("second", sent.labels[0]), ("third", {})):
            scheduled = ScheduledTask(task_name="task", labels=labels, args=[name], kwargs={}, time=datetime.now(UTC))
            await TaskiqScheduler(broker, []).on_ready(NoSchedules(), scheduled)
        await broker.wait_all()

        assert sorted(await tracked(client)) == [("first", JANE), ("second", JANE), ("third", {"registered": "system"})]

    @pytest.mark.parametrize(
        "label", ["", "{", "[]", '{"customer": "jane"}', {"customer": ["jane"]}, 1, [], "[" * 9999]
    )
    async def test_foreign_metadata(
        self, client: Exponea, broker: InMemoryBroker, caplog: pytest.LogCaptureFixture, label: Any
    ) -> None:
        """A task with invalid metadata runs as nobody's, and the log says so."""
        broker.add_middlewares(ExponeaMiddleware(client), Sent({"exponea": label}))
        await kicker(broker, "task").kiq("event")
        await broker.wait_all()

        assert await tracked(client) == []
        assert client.stats().dropped["nobody"] == 1
        (text,) = [each.getMessage() for each in caplog.records if each.name == "exponea_async"]
        assert text.startswith("A job has no valid end user")
        assert "jane" not in text

    async def test_withdrawn(self, client: Exponea, broker: InMemoryBroker) -> None:
        """Nothing is tracked of an end user who withdraws the consent after the task was sent."""
        sent = Sent()
        carrying = InMemoryBroker(await_inplace=True)
        carrying.register_task(_nothing, "task")
        carrying.add_middlewares(ExponeaMiddleware(client), sent)
        with client.bind(client.for_customer(JANE)):
            await kicker(carrying, "task").kiq()
        await carrying.shutdown()
        await client.for_customer(JANE).forget()

        broker.add_middlewares(ExponeaMiddleware(client), Sent(sent.labels[0]))
        await kicker(broker, "task").kiq("event")
        await broker.wait_all()

        assert await tracked(client) == []
        assert client.stats().dropped["withdrawn"] == 1


class NoSchedules(ScheduleSource):
    """Has no schedules of its own."""

    async def get_schedules(self) -> list[ScheduledTask]:
        """Return none."""
        return []


async def _nothing() -> None:
    """Do nothing."""


class Sent(TaskiqMiddleware):
    """Keeps the labels of what is sent, and adds others."""

    def __init__(self, more: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._more = more or {}
        self.labels: list[dict[str, Any]] = []

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Keep the labels."""
        message.labels |= self._more
        self.labels.append(dict(message.labels))
        return message


async def test_client_of_the_application(client: Exponea) -> None:
    """A broker that is no worker leaves the client of the application alone."""
    broker = InMemoryBroker().with_middlewares(ExponeaMiddleware(client))
    await broker.startup()
    await broker.shutdown()

    await client.track_event(Event("still open"))
