"""
Celery: tasks are about the end user who was bound where they were sent.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker
from celery.signals import before_task_publish
from helpers.celery_files import file_settings
from helpers.clients import Configure
from helpers.job_users import JOBS_PER_USER, PATIENCE, USERS, check_identities, kinds, subject, visits
from helpers.redis_server import worker_environment, worker_process
from helpers.waiting import until

from exponea_async import Event, Exponea
from exponea_async.integrations.celery import CeleryIntegration
from exponea_async.portal import Portal
from exponea_async.sandbox import Sandbox
from exponea_async.testing import pending_records

JANE = {"registered": "jane"}
PREFORK = ("--pool", "prefork", "--concurrency", "2")
THREADS = ("--pool", "threads", "--concurrency", "8")
SOLO = ("--pool", "solo")


def command(*options: str) -> tuple[str, ...]:
    """Return the arguments of a worker."""
    quick = ("--without-mingle", "--without-gossip", "--without-heartbeat")
    return ("celery", "--app", "celery_app", "worker", "--loglevel", "INFO", *quick, *options)


@pytest.fixture
async def portal(configure: Configure) -> AsyncIterator[Portal]:
    # Not started, where only binding and sending is about its client.
    created = Portal(Exponea(configure(flush_mode="MANUAL")))
    yield created
    await asyncio.to_thread(created.close, 0)


@pytest.fixture
def integration(portal: Portal) -> Iterator[CeleryIntegration]:
    created = CeleryIntegration(portal)
    created.connect()
    yield created
    created.disconnect()


@pytest.fixture
def celery(tmp_path: Path) -> Iterator[Celery]:
    app = Celery("tests")
    app.conf.update(file_settings(tmp_path / "celery"))
    yield app
    app.close()


@pytest.mark.parametrize("pool", [PREFORK, THREADS, SOLO], ids=lambda pool: pool[1])
async def test_many_end_users(  # noqa: PLR0917 - fixtures
    portal: Portal,
    integration: CeleryIntegration,
    celery: Celery,
    sandbox: Sandbox,
    tmp_path: Path,
    pool: tuple[str, ...],
) -> None:
    """Hundreds of tasks of 60 end users at the same time: each event is about the end user of its task."""
    users = USERS if pool is PREFORK else USERS[:40]
    ways = ("", "fail", "retry", "send")

    def send(name: str, user: str, *arguments: str) -> None:
        with portal.exponea.bind(subject(portal.exponea, user)):
            celery.send_task(name, (user, *arguments))

    for kind in ways[: JOBS_PER_USER - 1]:
        for user in users:
            send("visit", user, kind)
    for user in users:
        send("chains", user)
    celery.send_task("visit", ("", "nobody"))
    has_time_limits = pool is PREFORK
    for user in users[:2] if has_time_limits else ():
        send("hang", user)

    environment = worker_environment(sandbox, tmp_path / "worker.sqlite", CELERY_FOLDER=str(tmp_path / "celery"))
    with worker_process(command(*pool), environment, tmp_path) as worker:
        await until(lambda: kinds(sandbox).total() == 8 * len(users) + (4 if has_time_limits else 0), seconds=PATIENCE)
        assert await worker.stop() == 0

    check_identities(sandbox)
    assert kinds(sandbox) == {
        **dict.fromkeys(("", "fail", "send", "sent", "first", "second"), len(users)),
        "retry": 2 * len(users),
        **({"hang": 2, "cancelled": 2} if has_time_limits else {}),
    }
    if pool is PREFORK:
        assert len({event.properties.get("process") for event in visits(sandbox)} - {None}) == 2


@pytest.mark.parametrize(
    "options",
    [PREFORK, (*PREFORK, "--max-tasks-per-child", "1"), THREADS, SOLO],
    ids=["prefork", "process of prefork", "threads", "solo"],
)
async def test_upload_at_the_end(  # noqa: PLR0917 - fixtures
    portal: Portal,
    integration: CeleryIntegration,
    celery: Celery,
    sandbox: Sandbox,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    """A process of the worker uploads what waits in the queue when it ends, in each pool."""
    environment = worker_environment(
        sandbox, tmp_path / "worker.sqlite", CELERY_FOLDER=str(tmp_path / "celery"), EXPONEA_FLUSH_MODE="APP_CLOSE"
    )
    with worker_process(command(*options), environment, tmp_path) as worker:
        with portal.exponea.bind(portal.exponea.for_customer(JANE)):
            celery.send_task("visit", ("jane", "last"))
        await until(lambda: "succeeded in" in worker.output)
        if "--max-tasks-per-child" in options:
            await until(lambda: kinds(sandbox)["last"] == 1)
        assert await worker.stop() == 0

    assert [event.customer_ids for event in visits(sandbox)] == [JANE]


class TestEager:
    def test_subject_of_the_caller(self, portal: Portal, integration: CeleryIntegration, celery: Celery) -> None:
        """A task that runs at once is about the subject that is bound where it is called."""
        exponea = portal.exponea
        celery.conf.task_always_eager = True
        celery.task(_inner(exponea, integration), name="inner", shared=False)
        outer = celery.task(_outer(celery, exponea, integration), name="outer", shared=False)
        with exponea.bind(exponea.for_customer(JANE)):
            outer.delay()
            assert repr(exponea.current) == "<CustomerTracker registered>"
        outer.delay()

        assert repr(exponea.current) == "<Device '@default'>"
        assert _tracked(portal) == [("inner", {"registered": "joe"}), ("outer", JANE), ("inner", {"registered": "joe"})]
        assert portal.exponea.stats().dropped["nobody"] == 1

    def test_failure_and_retry(self, portal: Portal, integration: CeleryIntegration, celery: Celery) -> None:
        """The binding of the caller stays where a task fails, and where it is repeated within itself."""
        exponea = portal.exponea
        celery.conf.task_always_eager = True

        @celery.task(name="failing", bind=True, max_retries=2, shared=False)
        def failing(self: Any) -> None:
            integration.track_event(Event("attempt"))
            raise self.retry(exc=ValueError(), countdown=0)

        failing.delay()
        with exponea.bind(exponea.for_customer(JANE)):
            failing.delay()
            assert repr(exponea.current) == "<CustomerTracker registered>"

        assert _tracked(portal) == [("attempt", JANE)] * 3
        assert exponea.stats().dropped["nobody"] == 3


class ThreadWorker:
    """A worker in a thread, for all tests of this module, since its end takes seconds."""

    def __init__(self) -> None:
        self.app = Celery("thread", broker="memory://", backend="cache+memory://")
        self.app.conf.update(broker_transport_options={"polling_interval": 0.01}, worker_hijack_root_logger=False)
        self.integration: CeleryIntegration

        @self.app.task(name="task", shared=False)
        def task(name: str) -> str:
            self.integration.track_event(Event(name))
            return name

        @self.app.task(name="end", shared=False)
        def end(names: list[str]) -> None:
            self.integration.track_event(Event("end", {"names": sorted(names)}))

        self.task, self.end = task, end


@pytest.fixture(scope="module")
def thread_worker() -> Iterator[ThreadWorker]:
    created = ThreadWorker()
    with start_worker(created.app, pool="solo", loglevel="WARNING", perform_ping_check=False, shutdown_timeout=60):
        yield created


@pytest.fixture
def worker(thread_worker: ThreadWorker, integration: CeleryIntegration) -> ThreadWorker:
    thread_worker.integration = integration
    return thread_worker


class TestSubjects:
    def test_customers_devices_and_nobody(self, portal: Portal, worker: ThreadWorker) -> None:
        """A task is about the subject that was bound where it was sent; with nobody, nothing is tracked."""
        exponea = portal.exponea
        sent = []
        for bound in (exponea.for_customer(JANE), exponea.device("tg:42"), exponea.nobody()):
            with exponea.bind(bound):
                sent.append(worker.task.delay(type(bound).__name__))
        _wait(*sent)

        events = dict(_tracked(portal))
        assert events["CustomerTracker"] == JANE
        assert events["Device"].keys() == {"cookie"}
        assert "Nobody" not in events

    def test_without_end_user(self, portal: Portal, worker: ThreadWorker) -> None:
        """A task that was sent without a subject is about nobody, not about the default device of the worker."""
        _wait(worker.task.delay("unbound"))

        assert _tracked(portal) == []
        assert portal.exponea.stats().dropped["nobody"] == 1

    def test_foreign_metadata(self, portal: Portal, worker: ThreadWorker, caplog: pytest.LogCaptureFixture) -> None:
        """A task with invalid metadata runs as nobody's, and the log says so."""
        headers = ["jane", {"customer": "jane"}, {"customer": {"registered": ["jane"]}}, {"device": "@default"}, [], 1]
        _wait(*(_sent_with(header, worker.task) for header in headers))

        assert _tracked(portal) == []
        assert portal.exponea.stats().dropped["nobody"] == len(headers)
        texts = [each.getMessage() for each in caplog.records if "end user" in each.getMessage()]
        assert len(texts) == len(headers)
        assert "jane" not in "".join(texts)

    @pytest.mark.parametrize("headers", ["jane", ["exponea"], 1])
    def test_foreign_headers(self, portal: Portal, worker: ThreadWorker, headers: Any) -> None:
        """A task whose headers are none at all runs as nobody's, and not as that of the default device."""

        def write(headers: dict[str, Any], **_: Any) -> None:
            headers["headers"] = foreign

        foreign = headers
        before_task_publish.connect(write)
        sent = worker.task.delay("event")
        before_task_publish.disconnect(write)
        _wait(sent)

        assert _tracked(portal) == []
        assert portal.exponea.stats().dropped["nobody"] == 1

    def test_headers_of_another_task(self, portal: Portal, worker: ThreadWorker) -> None:
        """Headers with somebody else's metadata do not count: what is bound where the task is sent decides."""
        _wait(worker.task.apply_async(("event",), headers={"exponea": {"customer": JANE}}))

        assert _tracked(portal) == []

    def test_group_and_chord(self, portal: Portal, worker: ThreadWorker) -> None:
        """All tasks of a group, and the one that follows them, are about the subject that was bound."""
        exponea = portal.exponea
        with exponea.bind(exponea.for_customer(JANE)):
            sent = chord(group(worker.task.s("a"), worker.task.s("b")), worker.end.s()).delay()
        _wait(sent)

        assert sorted(_tracked(portal)) == [(name, JANE) for name in ("a", "b", "end")]

    def test_withdrawn(self, portal: Portal, worker: ThreadWorker) -> None:
        """Nothing is tracked of an end user who withdraws the consent after the task was sent."""
        exponea = portal.exponea
        with exponea.bind(exponea.for_customer(JANE)):
            sent = worker.task.delay("event")
        portal.call(exponea.for_customer(JANE).forget)
        _wait(sent)

        assert _tracked(portal) == []
        assert exponea.stats().dropped["withdrawn"] == 1


class TestOptions:
    def test_default_and_key(self, portal: Portal, celery: Celery) -> None:
        """The application may name the subject of tasks without an end user, and the header."""
        exponea = portal.exponea
        integration = CeleryIntegration(portal, default=exponea.for_customer({"registered": "system"}), key="own")
        integration.connect()
        seen = _headers_of_a_task(celery, integration, exponea)

        assert seen["own"] == {"customer": JANE}
        assert "exponea" not in seen

    def test_not_carried(self, portal: Portal, celery: Celery) -> None:
        """No id gets into the broker if subjects are not carried."""
        integration = CeleryIntegration(portal, carry=False)
        integration.connect()

        assert "exponea" not in _headers_of_a_task(celery, integration, portal.exponea)

    def test_disconnected(self, portal: Portal, celery: Celery) -> None:
        """After the integration is disconnected, tasks carry nothing."""
        integration = CeleryIntegration(portal)
        integration.connect()
        integration.disconnect()

        assert "exponea" not in _headers_of_a_task(celery, integration, portal.exponea)


def _headers_of_a_task(celery: Celery, integration: CeleryIntegration, exponea: Exponea) -> dict[str, Any]:
    """Send a task that is about Jane, disconnect, and return the headers of the message."""
    seen: dict[str, Any] = {}

    def see(headers: dict[str, Any], **_: Any) -> None:
        seen.update(headers)

    before_task_publish.connect(see)
    with exponea.bind(exponea.for_customer(JANE)):
        celery.send_task("task")
    before_task_publish.disconnect(see)
    integration.disconnect()
    return seen


def _sent_with(header: Any, task: Any) -> Any:
    """Send a task whose header another program has written."""

    def write(headers: dict[str, Any], **_: Any) -> None:
        headers["exponea"] = header

    before_task_publish.connect(write)
    sent = task.delay("event")
    before_task_publish.disconnect(write)
    return sent


def _inner(exponea: Exponea, integration: CeleryIntegration) -> Any:
    def inner() -> None:
        integration.track_event(Event("inner"))

    return inner


def _outer(celery: Celery, exponea: Exponea, integration: CeleryIntegration) -> Any:
    def outer() -> None:
        with exponea.bind(exponea.for_customer({"registered": "joe"})):
            celery.tasks["inner"].delay()
        integration.track_event(Event("outer"))

    return outer


def _wait(*sent: Any) -> None:
    """Wait for the end of tasks."""
    for each in sent:
        each.get(timeout=60, interval=0.01)


def _tracked(portal: Portal) -> list[tuple[str, dict[str, str]]]:
    """Return the events that tasks have tracked, with the ids of their customers."""
    return [(each.name, each.customer_ids) for each in portal.call(pending_records, portal.exponea)]
