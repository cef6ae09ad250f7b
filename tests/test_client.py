"""
The life cycle of a client: start, close, stop, delete.
"""

import asyncio
import gc
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import PROJECT, SOMEONE, Configure, Connect, DeliveryLog, numbered_events
from helpers.environment import Environment
from helpers.queue_file import failing, locked, stored_state, unreadable
from helpers.waiting import running, until

from exponea_async import (
    ClosedError,
    ConfigurationChange,
    ConfigurationError,
    Customer,
    DroppedError,
    Event,
    Exponea,
    ExponeaProject,
    FlushMode,
    FlushResult,
    Hooks,
    LifecycleError,
    NotStartedError,
    PurchasedItem,
    QueueSettings,
    Receipt,
    StorageError,
    Subscription,
    WipedFileError,
)
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import pending_records

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
PUSH = {"source": "xnpe_platform", "notification_id": 1, "data": {"campaign_name": "a"}}
ITEM = PurchasedItem(7.99, "EUR", "card", "mug-1", "Blue mug")

Verb = Callable[[Exponea], Awaitable[Any]]
TRACKING: dict[str, Verb] = {
    "track_event": lambda client: client.track_event(Event("ping")),
    "track_payment_event": lambda client: client.track_payment_event(ITEM),
    "identify_customer": lambda client: client.identify_customer(Customer({"registered": "r"})),
    "device": lambda client: client.device("tg:1").track_event(Event("ping")),
    "device identify": lambda client: client.device("tg:1").identify_customer(Customer({"registered": "r"})),
    "customer": lambda client: client.for_customer({"registered": "r"}).track_event(Event("ping")),
    "track_session_start": lambda client: client.device("tg:1").track_session_start(),
    "track_session_end": lambda client: client.device("tg:1").track_session_end(),
    "track_push_token": lambda client: client.device("tg:1").track_push_token("token"),
    "track_delivered_push": lambda client: client.device("tg:1").track_delivered_push(PUSH),
    "track_clicked_push": lambda client: client.device("tg:1").track_clicked_push(PUSH),
    "handle_push_notification_opened": lambda client: client.device("tg:1").handle_push_notification_opened(PUSH),
}
OTHERS: dict[str, Verb] = {
    "track_many": lambda client: client.track_many(numbered_events(3)),
    "get_customer_cookie": lambda client: client.get_customer_cookie(),
    "open": lambda client: client.device("tg:1").open(),
    "anonymize": lambda client: client.device("tg:1").anonymize(),
    "resume": lambda client: client.device("tg:1").resume(),
    "pause": lambda client: client.device("tg:1").pause(),
    "handle_push_token": lambda client: client.device("tg:1").handle_push_token("token"),
    "verify_push": lambda client: client.device("tg:1").verify_push_status_and_track_push_token(),
    "handle_campaign_click": lambda client: client.device("tg:1").handle_campaign_click("https://x.com/?xnpe_cmp=a"),
    "flush_data": lambda client: client.flush_data(),
}
VERBS = TRACKING | OTHERS


def attributes_of(client: Exponea) -> dict[str, Any]:
    """Return the public attributes of a client whose values do not depend on the run."""
    names = [name for name in dir(Exponea) if not name.startswith("_") and isinstance(getattr(Exponea, name), property)]
    return {name: getattr(client, name) for name in names if name not in ("configuration", "current", "is_stopped")}


def every(verbs: dict[str, Verb]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("verb", verbs.values(), ids=verbs)


async def end_uploads() -> None:
    tasks = [task for task in asyncio.all_tasks() if task.get_name() in running()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    del tasks, task
    await asyncio.sleep(0)
    gc.collect()


def collect(clients: list[Exponea]) -> None:
    clients.clear()
    gc.collect()


class TestStarting:
    async def test_leaving_the_block_uploads(self, configure: Configure, sandbox: Sandbox) -> None:
        """What was tracked in the block is delivered at its end."""
        async with Exponea(configure()) as client:
            await client.track_event(Event("ping"))

        arrived = sorted(sandbox.engine.events(), key=lambda event: event.timestamp)
        assert [event.event_type for event in arrived] == ["installation", "session_start", "ping"]

    async def test_starting_twice_is_starting_once(self, configure: Configure) -> None:
        """A second start, also a concurrent one, does nothing."""
        client = Exponea(configure())
        await asyncio.gather(client.start(), client.start())
        await client.start()

        assert running("leasing") == ["exponea_async: leasing"]
        await client.aclose()

    async def test_a_cancelled_start(self, configure: Configure) -> None:
        """After a start that was cancelled the client can be started again or closed, and no task is left."""
        for steps in range(12):
            client = Exponea(configure())
            starting = asyncio.create_task(client.start())
            for _ in range(steps):
                await asyncio.sleep(0.0005)
            starting.cancel()
            await asyncio.wait([starting])
            if steps % 2:
                await client.start()
                await client.track_event(Event("ping"))
            await client.aclose(timeout=0)
            await until(lambda: running() == [])

    async def test_closing_twice_is_closing_once(self, configure: Configure) -> None:
        """A second close, also a concurrent one, does nothing."""
        client = Exponea(configure())
        await client.start()

        await asyncio.gather(client.aclose(), client.aclose())
        await client.aclose()

    async def test_a_closed_client_does_not_start(self, configure: Configure) -> None:
        """A closed client stays closed, also if it was never started."""
        client = Exponea(configure())
        await client.aclose()

        with pytest.raises(ClosedError):
            await client.start()
        with pytest.raises(ClosedError):
            await client.stop_integration(everyone=True)

    @every(VERBS)
    async def test_verbs_before_the_start(self, configure: Configure, verb: Verb) -> None:
        """Each verb raises an error that says that the client is not started."""
        with pytest.raises(NotStartedError, match="not started"):
            await verb(Exponea(configure()))

    @every(VERBS)
    async def test_verbs_after_the_close(self, configure: Configure, verb: Verb) -> None:
        """Each verb raises an error that says that the client is closed."""
        async with Exponea(configure()) as client:
            pass

        with pytest.raises(ClosedError, match="closed"):
            await verb(client)

    async def test_a_wrong_configuration(self) -> None:
        """An object that is not a Configuration is refused."""
        with pytest.raises(ConfigurationError, match="configuration"):
            Exponea({"project_token": "x"})  # type: ignore[arg-type]

    async def test_an_unclosed_client_warns(self, configure: Configure) -> None:
        """A running client that is garbage-collected warns."""
        last = [Exponea(configure(storage="memory:"))]
        await last[0].start()

        with pytest.warns(ResourceWarning, match="never closed"):
            collect(last)
        # aiohttp warns of its session, too, as soon as the upload has ended.
        with pytest.warns(ResourceWarning, match="Unclosed"):
            await end_uploads()

    async def test_a_closed_client_does_not_warn(self, configure: Configure) -> None:
        """Neither a closed client nor one that was never started warns when it is garbage-collected."""
        async with Exponea(configure()) as closed:
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del closed
            Exponea(configure())
            gc.collect()

    async def test_the_repr(self, configure: Configure) -> None:
        """The repr shows the project and the state, and no key."""
        client = Exponea(configure(authorization_token="hidden-key"))
        shown = [repr(client)]
        async with client:
            shown.append(repr(client))
            await client.stop_integration(everyone=True)
            shown.append(repr(client))
        shown.append(repr(client))

        assert shown == [f"<Exponea {PROJECT} {state}>" for state in ("not started", "open", "stopped", "closed")]

    @pytest.mark.file_only
    async def test_a_file_that_cannot_be_opened(self, configure: Configure, tmp_path: Path) -> None:
        """After a failed start the client can be started later."""
        (tmp_path / "in the way").touch()
        client = Exponea(configure(storage=tmp_path / "in the way" / "queue.sqlite"))
        with pytest.raises(StorageError):
            await client.start()
        (tmp_path / "in the way").unlink()

        async with client:
            await client.track_event(Event("ping"))


class TestClosing:
    async def test_a_server_that_hangs(self, connect: Connect, sandbox: Sandbox) -> None:
        """Closing ends after its timeout, and what was not answered is sent after the next start."""
        sandbox.faults.add(Fault("timeout", seconds=600))
        client = await connect(upload={"request_timeout": 600})
        await client.track_event(Event("ping"))

        await asyncio.wait_for(client.aclose(timeout=0.2), 60)

        sandbox.faults.clear()
        again = await connect()
        assert await again.flush_data(60) == FlushResult(1, 0, 0)

    async def test_an_outage_is_not_waited_for(self, connect: Connect, sandbox: Sandbox) -> None:
        """Closing does not wait for a project that is known to be unavailable, even without a timeout."""
        sandbox.faults.add(Fault("status", status=503, retry_after=1000))
        client = await connect()
        await client.track_event(Event("ping"))
        await until(lambda: client.stats().failed_requests == 1)

        await asyncio.wait_for(client.aclose(timeout=None), 60)

        assert sandbox.request_count == 1

    async def test_closing_without_an_upload(self, connect: Connect, sandbox: Sandbox) -> None:
        """With a timeout of 0 nothing is uploaded and nothing is lost."""
        client = await connect(flush_mode=FlushMode.APP_CLOSE)
        await client.track_many(numbered_events(10))
        await client.aclose(timeout=0)
        assert sandbox.request_count == 0

        again = await connect()
        assert (await again.flush_data(60)).delivered == 10

    async def test_verbs_that_race_with_the_close(self, connect: Connect, sandbox: Sandbox) -> None:
        """A verb that runs while the client closes either records its event or raises."""
        client = await connect(device=True)
        tracker = client.for_customer({"registered": "r"})
        running = [asyncio.create_task(tracker.track_event(event)) for event in numbered_events(300)]
        running += [asyncio.create_task(client.track_event(event)) for event in numbered_events(300, 300)]
        await running[0]

        await client.aclose(timeout=0)
        outcomes = await asyncio.gather(*running, return_exceptions=True)

        kept = {number for number, outcome in enumerate(outcomes) if isinstance(outcome, Receipt)}
        assert all(isinstance(outcome, Receipt | LifecycleError) for outcome in outcomes)
        again = await connect()
        await again.flush_data(60)
        assert {event.properties["number"] for event in sandbox.engine.events(event_type="ping")} == kept

    async def test_a_paused_project_is_not_waited_for(self, connect: Connect, sandbox: Sandbox) -> None:
        """Closing probes a paused project once and does not wait for it."""
        sandbox.faults.add(Fault("status", status=401))
        client = await connect()
        await client.track_event(Event("ping"))
        await until(lambda: bool(client.stats().paused))

        await asyncio.wait_for(client.aclose(timeout=None), 60)
        assert sandbox.request_count == 2

    async def test_a_cancelled_close(self, connect: Connect, sandbox: Sandbox) -> None:
        """After a close that was cancelled the client is closed, and neither a task nor a file is left open."""
        sandbox.faults.add(Fault("timeout", seconds=600))
        client = await connect(upload={"request_timeout": 600})
        await client.track_event(Event("ping"))
        await until(lambda: sandbox.request_count >= 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.aclose(timeout=None), 0.1)
        await client.aclose()

        sandbox.faults.clear()
        again = await connect()
        assert (await asyncio.wait_for(again.flush_data(), 60)).delivered == 1

    @pytest.mark.file_only
    async def test_an_upload_that_has_failed_is_not_waited_for(
        self, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """While a task of the upload fails with an unexpected error, flushing and closing return, with what remains."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("ping"))
        with failing(tmp_path / "queue.sqlite", "DELETE ON record", unexpected=True):
            result = await asyncio.wait_for(client.flush_data(), 60)
        await asyncio.wait_for(client.aclose(timeout=None), 60)

        assert result.remaining == 1
        assert "'exponea_async: verdicts' has failed" in caplog.text

    async def test_awaited_receipts_raise(self, connect: Connect, sandbox: Sandbox) -> None:
        """Callers that wait for a receipt get a ClosedError when the client is closed."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("ping"))
        waiting = asyncio.create_task(receipt.delivered())
        await asyncio.sleep(0)
        await client.aclose()

        with pytest.raises(ClosedError):
            await waiting
        assert receipt.status == "queued"

    async def test_leased_records_are_given_back(self, connect: Connect, sandbox: Sandbox) -> None:
        """Records that were leased when the client was closed are due at once for the next one."""
        sandbox.faults.add(Fault("latency", seconds=0.1))
        client = await connect(upload={"concurrency": 2, "batch_size": 2})
        await client.track_many(numbered_events(100))
        await until(lambda: sandbox.request_count > 3)
        await client.aclose(timeout=0)
        sandbox.faults.clear()

        again = await connect()
        await asyncio.wait_for(again.flush_data(), 60)
        assert len(sandbox.engine.events()) == 100

    @pytest.mark.file_only
    @pytest.mark.parametrize("steps", range(6))
    async def test_closing_during_a_lease(self, connect: Connect, tmp_path: Path, steps: int) -> None:
        """Records that are being leased while the client closes are due at once for the next one."""
        client = await connect()
        await client.track_event(Event("ping"))
        # The lease waits for the lock.
        with locked(tmp_path / "queue.sqlite"):
            await asyncio.sleep(0.02)
            closing = asyncio.create_task(client.aclose(timeout=0))
            for _ in range(steps):
                await asyncio.sleep(0)
        await closing

        again = await connect()
        assert (await asyncio.wait_for(again.flush_data(), 60)).remaining == 0

    @pytest.mark.file_only
    async def test_a_queue_that_cannot_be_read(
        self, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A flush raises the error; closing logs it and closes the client."""
        client = await connect()
        with unreadable(tmp_path / "queue.sqlite"):
            with pytest.raises(StorageError):
                await client.flush_data(60)
            await client.aclose()
        with pytest.raises(ClosedError):
            await client.flush_data()

        assert "could not be uploaded while closing" in caplog.text

    @pytest.mark.file_only
    async def test_a_queue_that_cannot_be_written(
        self, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Sessions and activity that cannot be stored while closing are logged, and the client is closed."""
        client = await connect(device=True, flush_mode="MANUAL")
        await client.resume()
        path = tmp_path / "queue.sqlite"
        with failing(path, "UPDATE ON state"), failing(path, "INSERT ON activity"):
            await client.aclose(end_sessions=True)

        assert "last activity of devices in the foreground was not stored" in caplog.text
        assert "sessions could not be ended while closing" in caplog.text

    async def test_settings_may_change_while_it_closes(self, connect: Connect) -> None:
        """A change of the flush mode during the close leaves no task behind."""
        client = await connect(flush_mode="PERIOD")

        await asyncio.gather(client.aclose(), client.set_flush_mode("PERIOD"), client.set_flush_period(5))

        await until(lambda: running() == [])

    async def test_a_flush_ends_with_its_client(self, connect: Connect, sandbox: Sandbox) -> None:
        """A flush that waits through an outage ends when the client is closed."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect()
        await client.track_event(Event("ping"))
        flush = asyncio.create_task(client.flush_data())
        await until(lambda: sandbox.request_count > 2)

        await client.aclose(timeout=0)

        with pytest.raises(LifecycleError):
            await asyncio.wait_for(flush, 60)


class TestCancellation:
    async def test_a_cancelled_verb_records_all_or_nothing(self, connect: Connect, sandbox: Sandbox) -> None:
        """A cancelled call harms neither other calls nor the queue."""
        client = await connect(flush_mode="MANUAL")
        for steps in range(30):
            task = asyncio.create_task(client.track_many(numbered_events(3, steps * 3)))
            for _ in range(steps % 6):
                await asyncio.sleep(0)
            task.cancel()
        receipt = await client.track_event(Event("last"))

        await client.flush_data(60)
        assert receipt.status == "delivered"
        assert len(sandbox.engine.events(event_type="ping")) % 3 == 0
        assert sandbox.engine.duplicates == 0

    async def test_records_of_cancelled_calls_are_counted(self, connect: Connect, sandbox: Sandbox) -> None:
        """`Stats.tracked` is the number of committed records, whether their callers still waited or not."""
        client = await connect()
        tasks = [asyncio.create_task(client.track_event(event)) for event in numbered_events(300)]
        for index, task in enumerate(tasks):
            # Each is cancelled at another step of a commit.
            task.cancel() if index % 3 else None
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        result = await client.flush_data(60)

        assert any(task.cancelled() for task in tasks)
        assert result.remaining == 0
        assert client.stats().tracked == client.stats().delivered == len(sandbox.engine.events())

    @pytest.mark.file_only
    async def test_a_cancelled_identify(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """Whether or not the ids of a cancelled call were stored, the next event carries the stored ones."""
        client = await connect(device=True)
        for steps in range(12):
            task = asyncio.create_task(client.identify_customer(Customer({"registered": f"r{steps}"})))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await client.track_event(Event("ping", {"number": steps}))
        await client.flush_data(60)

        stored = stored_state(tmp_path / "queue.sqlite", "device:@default")
        last = max(sandbox.engine.events(event_type="ping"), key=lambda event: event.timestamp)
        assert stored is not None
        assert all(value.encode() in stored for value in last.customer_ids.values())


class TestTwoClients:
    async def test_clients_with_files_of_their_own(self, connect: Connect, tmp_path: Path, sandbox: Sandbox) -> None:
        """Clients with separate files share nothing."""
        one = await connect(device=True, project_token="one")
        two = await connect(device=True, project_token="two", storage=tmp_path / "2")
        await asyncio.gather(one.track_event(Event("a")), two.track_event(Event("b")))
        await asyncio.gather(one.flush_data(60), two.flush_data(60))

        for project, name in (("one", "a"), ("two", "b")):
            found = sorted((event.project, event.event_type) for event in sandbox.engine.events(project))
            assert found == sorted((project, each) for each in ("installation", "session_start", name))
        assert await one.get_customer_cookie() != await two.get_customer_cookie()

    async def test_two_clients_on_one_file_send_each_event_once(self, connect: Connect, sandbox: Sandbox) -> None:
        """Clients that share a file share the upload, and each event is sent once."""
        one, two = await connect(), await connect()
        await asyncio.gather(one.track_many(numbered_events(200)), two.track_many(numbered_events(200, 200)))
        await asyncio.gather(one.flush_data(60), two.flush_data(60))

        assert len(sandbox.engine.events()) == 400
        assert sandbox.engine.duplicates == 0


class TestStopping:
    async def test_stopping_deletes_and_sends_nothing(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog
    ) -> None:
        """The queue is deleted, its receipts are dropped, and no request is made."""
        client = await connect(flush_mode="MANUAL", hooks=Hooks(listeners=[deliveries]))
        receipts = await client.track_many(numbered_events(5))
        waiting = asyncio.create_task(receipts[0].delivered())
        await asyncio.sleep(0)

        await client.stop_integration(everyone=True)

        with pytest.raises(DroppedError, match="stopped"):
            await waiting
        assert client.is_stopped
        assert {receipt.status for receipt in receipts} == {"dropped"}
        assert (deliveries.kinds(), client.stats().dropped, sandbox.request_count) == (["dropped"], {"stopped": 5}, 0)

    @every(TRACKING)
    async def test_verbs_are_dropped_after_a_stop(self, connect: Connect, sandbox: Sandbox, verb: Verb) -> None:
        """Each tracking verb returns a dropped receipt."""
        client = await connect()
        await client.stop_integration(everyone=True)

        receipt: Receipt = await verb(client)

        assert (receipt.status, receipt.ids, sandbox.request_count) == ("dropped", (), 0)
        assert client.stats().dropped == {"stopped": 1}
        with pytest.raises(DroppedError, match="stopped"):
            await receipt.delivered()

    async def test_other_verbs_do_nothing_after_a_stop(self, connect: Connect) -> None:
        """Many events are dropped one by one; there is no cookie and nothing to flush."""
        client = await connect(device=True)
        await client.stop_integration(everyone=True)

        assert [receipt.status for receipt in await client.track_many(numbered_events(3))] == ["dropped"] * 3
        assert await client.get_customer_cookie() == ""
        assert await client.flush_data() == FlushResult(0, 0, 0)
        await client.device("tg:1").open()
        await client.stop_integration(everyone=True)

    async def test_one_warning_for_all_that_is_dropped(
        self, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A stopped client warns once, however many events are dropped."""
        client = await connect()
        await client.stop_integration(everyone=True)
        for event in numbered_events(10):
            await client.track_event(event)

        assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [logging.WARNING]

    async def test_a_start_after_a_stop_is_a_new_installation(self, connect: Connect, sandbox: Sandbox) -> None:
        """The device has a new cookie, a new id and no other ids, and receipts work."""
        client = await connect()
        device = client.device("tg:1")
        await device.identify_customer(Customer({"registered": "r"}))
        await (await device.track_event(Event("before"))).delivered(60)
        await client.stop_integration(everyone=True)
        await client.start()
        receipt = await device.track_event(Event("after"))
        await receipt.delivered(60)

        (before,) = sandbox.engine.events(event_type="before")
        (after,) = sandbox.engine.events(event_type="after")
        cookies = [event.customer_ids["cookie"] for event in sandbox.engine.events(event_type="installation")]
        assert sorted(cookies) == sorted(event.customer_ids["cookie"] for event in (before, after))
        assert before.customer_ids["cookie"] != after.customer_ids["cookie"]
        assert before.properties["device_id"] != after.properties["device_id"]
        assert set(after.customer_ids) == {"cookie"}
        assert not client.is_stopped

    async def test_flush_uploads_first(self, connect: Connect, sandbox: Sandbox) -> None:
        """With ``flush=True`` the queue is delivered before it is deleted."""
        client = await connect(flush_mode="MANUAL")
        receipts = await client.track_many(numbered_events(5))
        assert await client.stop_integration(flush=True, everyone=True) == FlushResult(5, 0, 0)

        assert {receipt.status for receipt in receipts} == {"delivered"}
        assert len(sandbox.engine.events()) == 5

    async def test_flush_ends_after_its_timeout(
        self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """If the platform stays unavailable the data is deleted; the result and one line of the log say how much."""
        sandbox.faults.add(Fault("status", status=503))
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("ping"))

        result = await asyncio.wait_for(client.stop_integration(flush=True, timeout=0.3, everyone=True), 60)

        assert result == FlushResult(0, 0, 1)
        assert receipt.status == "dropped"
        assert "0 records were delivered first, 1 were deleted unsent" in caplog.text

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("status", status=503, times=2),
            Fault("status", status=429, retry_after=0.05, times=2),
            Fault("drop", times=2),
        ],
        ids=["503", "429", "dropped connection"],
    )
    async def test_flush_retries(self, connect: Connect, sandbox: Sandbox, fault: Fault) -> None:
        """A failed request is repeated: nothing is deleted unsent because of it."""
        client = await connect(flush_mode="MANUAL")
        receipts = await client.track_many(numbered_events(5))
        sandbox.faults.add(fault)

        assert await client.stop_integration(flush=True, everyone=True) == FlushResult(5, 0, 0)
        assert {receipt.status for receipt in receipts} == {"delivered"}

    async def test_flush_does_not_wait_for_the_next_attempt(self, connect: Connect, sandbox: Sandbox) -> None:
        """What an outage has put off for long is tried at once."""
        sandbox.faults.add(Fault("status", status=503, retry_after=1000))
        client = await connect()
        await client.track_many(numbered_events(5))
        await until(lambda: client.stats().retried == 5)
        sandbox.faults.clear()

        assert await asyncio.wait_for(client.stop_integration(flush=True, everyone=True), 60) == FlushResult(5, 0, 0)

    async def test_nothing_is_taken_during_the_flush(self, connect: Connect, sandbox: Sandbox) -> None:
        """Events of that time are dropped, and their receipts say so, while those of before are delivered."""
        sandbox.faults.add(Fault("latency", seconds=0.3))
        client = await connect(flush_mode="MANUAL")
        before = await client.track_event(Event("before"))
        stopping = asyncio.create_task(client.stop_integration(flush=True, everyone=True))
        await until(lambda: sandbox.request_count >= 1)
        during = await client.track_event(Event("during"))

        assert (during.status, during.ids) == ("dropped", ())
        assert await stopping == FlushResult(1, 0, 0)
        assert before.status == "delivered"

    async def test_calls_in_progress_are_delivered_or_dropped(self, connect: Connect, sandbox: Sandbox) -> None:
        """A call that runs when the stop begins is delivered if it was recorded; no receipt is left undecided."""
        client = await connect(flush_mode="MANUAL")
        calls = [asyncio.create_task(client.track_event(event)) for event in numbered_events(200)]
        await asyncio.sleep(0)
        result = await client.stop_integration(flush=True, everyone=True)
        receipts = await asyncio.gather(*calls)

        assert {receipt.status for receipt in receipts} <= {"delivered", "dropped"}
        assert len(sandbox.engine.events()) == result.delivered == sum(each.status == "delivered" for each in receipts)
        assert result.remaining == 0

    async def test_a_paused_project_is_not_waited_for(self, connect: Connect, sandbox: Sandbox) -> None:
        """A refused key ends the upload after one attempt, and the data is deleted."""
        sandbox.faults.add(Fault("status", status=401))
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("ping"))

        assert await asyncio.wait_for(client.stop_integration(flush=True, everyone=True), 60) == FlushResult(0, 0, 1)
        assert sandbox.request_count == 1

    async def test_the_result_without_a_flush(self, connect: Connect) -> None:
        """It has the number of records that were deleted; a second call has nothing to do."""
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(3))

        assert await client.stop_integration(everyone=True) == FlushResult(0, 0, 3)
        assert await client.stop_integration(everyone=True) == FlushResult(0, 0, 0)

    @pytest.mark.file_only
    async def test_nothing_is_sent_while_it_wipes(self, connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
        """No request is made after the call, however long the deletion takes."""
        sandbox.faults.add(Fault("latency", seconds=0.02))
        client = await connect(upload={"concurrency": 1, "batch_size": 1})
        await client.track_many(numbered_events(50))
        await until(lambda: sandbox.request_count > 2)
        with locked(tmp_path / "queue.sqlite"):
            stopping = asyncio.create_task(client.stop_integration(everyone=True))
            await until(lambda: client.is_stopped)
            await asyncio.sleep(0.05)
            count = sandbox.request_count
            await asyncio.sleep(0.2)
        await stopping

        assert sandbox.request_count == count

    async def test_nothing_of_the_run_time_is_left(
        self, connect: Connect, configure: Configure, sandbox: Sandbox
    ) -> None:
        """After a stop and a start, every setting and every attribute is that of a client that was just created."""
        changed, hooks = await connect(default_properties={"shop": "a"}), Hooks()
        fresh = Exponea(configure(default_properties={"shop": "a"}, storage="memory:"), hooks=hooks)
        untouched = attributes_of(fresh)
        await changed.set_default_properties({"email": "jane@example.com"})
        await changed.set_flush_mode("PERIOD")
        await changed.set_flush_period(5)
        await changed.device("d").anonymize(
            ConfigurationChange(project=ExponeaProject("other", "other-key", sandbox.url))
        )
        streams: list[Subscription[Any]] = [changed.opened_push_stream(), changed.in_app_message_action_stream()]
        carousel = changed.content_block_carousel("top")
        await changed.stop_integration(everyone=True)

        assert attributes_of(changed) == untouched
        assert [[value async for value in stream] for stream in streams] == [[], []]
        assert await carousel.reload() is None
        await changed.start()
        await changed.track_event(Event("ping"))
        await changed.flush_data(60)
        (ping,) = sandbox.engine.events(event_type="ping")
        assert (ping.properties.get("shop"), "email" in ping.properties) == ("a", False)

    async def test_settings_between_a_stop_and_a_start(self, connect: Connect, sandbox: Sandbox) -> None:
        """Settings that are changed while the client is stopped are those of the fresh start."""
        client = await connect()
        await client.stop_integration(everyone=True)
        await client.set_flush_mode("MANUAL")
        await client.set_default_properties({"a": 1})
        await client.start()
        await client.track_event(Event("ping"))

        assert client.flush_mode is FlushMode.MANUAL
        assert (await pending_records(client, "ping"))[0].properties["a"] == 1

    @pytest.mark.file_only
    async def test_verbs_that_race_with_the_stop(self, connect: Connect, tmp_path: Path) -> None:
        """An event that is tracked during the stop is deleted or dropped, and no state of a device is left."""
        client = await connect(flush_mode="MANUAL")
        running = [
            asyncio.create_task(client.device(f"tg:{number}").track_event(Event("ping"))) for number in range(300)
        ]
        running += [
            asyncio.create_task(client.for_customer({"registered": "r"}).track_event(Event("ping"))) for _ in range(50)
        ]
        for _ in range(5):
            await asyncio.sleep(0)
        await client.stop_integration(everyone=True)
        receipts = await asyncio.gather(*running)

        assert {receipt.status for receipt in receipts} == {"dropped"}
        with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as file:
            assert file.execute("SELECT (SELECT count(*) FROM record), (SELECT count(*) FROM state)").fetchone() == (
                0,
                0,
            )
        file.close()

    async def test_verbs_that_wait_for_capacity(self, connect: Connect) -> None:
        """Calls that wait for capacity in the queue are dropped by a stop and refused by a close."""
        queue = QueueSettings(max_records=2, when_full="wait")
        client = await connect(flush_mode="MANUAL", queue=queue)
        await client.track_many(numbered_events(2))
        waiting = asyncio.create_task(client.track_event(Event("x")))
        await asyncio.sleep(0.02)
        await client.stop_integration(everyone=True)
        assert (await waiting).status == "dropped"

        await client.start()
        await client.track_many(numbered_events(2))
        waiting = asyncio.create_task(client.track_event(Event("x")))
        await asyncio.sleep(0.02)
        await client.aclose()
        with pytest.raises(ClosedError):
            await waiting
        again = await connect(flush_mode="MANUAL")
        assert len(await pending_records(again)) == 2

    @pytest.mark.parametrize("settings", [{}, {"storage": "memory:"}])
    async def test_nothing_is_left_after_a_stop(
        self, connect: Connect, sandbox: Sandbox, settings: dict[str, Any]
    ) -> None:
        """After a stop and a start there are no old records, pauses or reasons, with any storage."""
        sandbox.faults.add(Fault("status", status=401, times=4))
        client = await connect(**settings)
        await client.track_event(Event("before"))
        await client.flush_data(60)
        assert client.stats().paused
        await client.stop_integration(everyone=True)
        sandbox.faults.clear()
        await client.start()

        assert client.stats().paused == {}
        await (await client.track_event(Event("after"))).delivered(60)
        assert [event.event_type for event in sandbox.engine.events()] == ["after"]

    @pytest.mark.file_only
    async def test_a_wipe_that_failed_can_be_repeated(self, connect: Connect, tmp_path: Path) -> None:
        """If the file refuses, the caller gets the error, nothing is tracked, and another call deletes the data."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("ping"))
        in_the_way = tmp_path / "queue.sqlite.exponea-wiped"
        in_the_way.mkdir()
        with pytest.raises(StorageError, match="is a directory"):
            await client.stop_integration(everyone=True)
        in_the_way.rmdir()
        assert (await client.track_event(Event("ping"))).status == "dropped"

        await client.stop_integration(everyone=True)
        await client.start()
        assert await pending_records(client) == []

    async def test_a_client_that_was_never_started(self, connect: Connect, configure: Configure) -> None:
        """A client that was never started deletes what an earlier one has stored."""
        client = await connect(device=True, flush_mode="MANUAL")
        cookie = await client.get_customer_cookie()
        await client.aclose()
        await Exponea(configure()).stop_integration(everyone=True)

        assert await (await connect(device=True)).get_customer_cookie() != cookie


class TestStoppedByAnotherClient:
    async def test_it_stops_as_well(self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog) -> None:
        """After another client of the queue has stopped, this one sends and records nothing until it is started."""
        sandbox.faults.add(Fault("status", status=503))
        one = await connect(device=True)
        two = await connect(device=True, hooks=Hooks(listeners=[deliveries]))
        receipts = await two.track_many(numbered_events(5))
        cookie = await two.get_customer_cookie()
        await one.stop_integration(everyone=True)
        await until(lambda: two.is_stopped)
        sandbox.faults.clear()

        assert (await two.track_event(Event("later"))).status == "dropped"
        await until(lambda: {receipt.status for receipt in receipts} == {"lost"})
        (event,) = [event for event in deliveries if event.kind == "wiped"]
        assert isinstance(event.error, WipedFileError)
        assert sandbox.engine.events() == []

        await two.start()
        await (await two.track_event(Event("after"))).delivered(60)
        assert await two.get_customer_cookie() != cookie
        assert len(sandbox.engine.events(event_type="installation")) == 1

    async def test_nothing_is_recorded_before_it_is_noticed(self, connect: Connect) -> None:
        """Calls of a client that has not noticed yet are dropped, and are not in the queue of the other one."""
        one = await connect(flush_mode="MANUAL")
        two = await connect(flush_mode="MANUAL", device=True)
        await two.track_event(Event("before"))
        await one.stop_integration(everyone=True)

        receipts = await asyncio.gather(*(two.track_event(Event("late")) for _ in range(20)))
        assert {receipt.status for receipt in receipts} == {"dropped"}
        await one.start()
        assert await pending_records(one) == []

    async def test_it_can_be_closed(self, connect: Connect) -> None:
        """A client can be closed before and after it has noticed."""
        one = await connect(flush_mode="MANUAL")
        two, three = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")
        await one.stop_integration(everyone=True)
        await asyncio.wait_for(two.aclose(), 60)
        await three.track_event(Event("late"))
        assert three.is_stopped
        await asyncio.wait_for(three.aclose(), 60)

    async def test_it_can_be_stopped(self, connect: Connect) -> None:
        """Stopping deletes what is there by then, also in a client that was stopped by another one."""
        one, two = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")
        await one.stop_integration(everyone=True)
        await one.start()
        await two.track_event(Event("late"))
        await one.track_event(Event("new"))
        await two.stop_integration(everyone=True)

        assert (await one.track_event(Event("late"))).status == "dropped"


class TestClearing:
    async def test_everything_is_deleted(self, connect: Connect, configure: Configure, sandbox: Sandbox) -> None:
        """Nothing that a client has stored is left, and nothing is sent."""
        client = await connect(device=True, flush_mode="MANUAL")
        await client.track_event(Event("ping"))
        cookie = await client.get_customer_cookie()
        await client.aclose()
        await Exponea.clear_local_customer_data(configure())
        await Exponea.clear_local_customer_data(configure())

        again = await connect(device=True, flush_mode="MANUAL")
        assert (await again.flush_data(), sandbox.request_count) == (FlushResult(0, 0, 0), 0)
        assert await again.get_customer_cookie() != cookie

    @pytest.mark.file_only
    async def test_not_while_a_client_runs(self, connect: Connect, configure: Configure, tmp_path: Path) -> None:
        """The data of a running client is refused, however the path is written; another file's is deleted."""
        client = await connect()
        for path in (tmp_path / "queue.sqlite", f"{tmp_path}/x/../queue.sqlite"):
            with pytest.raises(LifecycleError, match="running"):
                await Exponea.clear_local_customer_data(configure(storage=path))
        await Exponea.clear_local_customer_data(configure(storage=tmp_path / "other.sqlite"))

        await client.aclose()
        await Exponea.clear_local_customer_data(configure())

    async def test_a_missing_file_is_not_created(self, configure: Configure, tmp_path: Path) -> None:
        """If nothing is stored nothing happens."""
        await Exponea.clear_local_customer_data(configure())

        assert os.listdir(tmp_path) == []  # noqa: PTH208 - that of pathlib would block, says another rule

    @pytest.mark.parametrize("given", ["group", None, {"project_token": "x"}])
    async def test_something_else_than_a_configuration(self, given: Any) -> None:
        """The error says what to pass."""
        with pytest.raises(ConfigurationError, match="Pass a Configuration"):
            await Exponea.clear_local_customer_data(given)

    async def test_application_groups(self, configure: Configure, tmp_path: Path, environment: Environment) -> None:
        """Without a path each application group has its own file, which can be selected."""
        environment(XDG_STATE_HOME=tmp_path)
        cookies = {}
        for group in ("a", "b"):
            async with Exponea(configure(storage=None, app_group=group)) as client:
                cookies[group] = await client.get_customer_cookie()
        await Exponea.clear_local_customer_data(configure(storage=None, app_group="a"), "b")

        for group, kept in (("a", True), ("b", False)):
            async with Exponea(configure(storage=None, app_group=group)) as client:
                assert (await client.get_customer_cookie() == cookies[group]) is kept

    async def test_an_empty_group(self, configure: Configure, tmp_path: Path, environment: Environment) -> None:
        """``""`` selects the data that belongs to no group."""
        environment(XDG_STATE_HOME=tmp_path)
        cookies = {}
        for group in (None, "a"):
            async with Exponea(configure(storage=None, app_group=group)) as client:
                cookies[group] = await client.get_customer_cookie()
        await Exponea.clear_local_customer_data(configure(storage=None, app_group="a"), "")

        for group, kept in ((None, False), ("a", True)):
            async with Exponea(configure(storage=None, app_group=group)) as client:
                assert (await client.get_customer_cookie() == cookies[group]) is kept

    @pytest.mark.parametrize("group", ["a", " ", 5])
    @pytest.mark.file_only
    async def test_a_group_without_data_of_its_own(self, configure: Configure, tmp_path: Path, group: Any) -> None:
        """A group is refused where a path is configured, and so is what is not a name; nothing is deleted."""
        async with Exponea(configure()) as client:
            cookie = await client.get_customer_cookie()
        with pytest.raises(ConfigurationError, match="app_group"):
            await Exponea.clear_local_customer_data(configure(), group)

        async with Exponea(configure()) as client:
            assert await client.get_customer_cookie() == cookie


class TestSettings:
    async def test_the_cookie_is_a_lowercase_uuid(self, connect: Connect) -> None:
        """The cookie is a UUID of version 4, in lowercase."""
        assert UUID4.fullmatch(await (await connect(device=True)).get_customer_cookie())

    async def test_default_properties_are_replaced(self, connect: Connect, sandbox: Sandbox) -> None:
        """New default properties apply to later events, as a copy of the argument."""
        client = await connect(default_properties={"a": 1})
        given = {"b": {"c": 1}}
        await client.track_event(Event("first"))
        await client.set_default_properties(given)
        given["b"]["c"] = 2
        await client.track_event(Event("second"))
        await client.flush_data(60)

        first, second = (event.properties for event in sandbox.engine.events())
        assert (first["a"], "b" in first) == (1, False)
        assert (second["b"], "a" in second) == ({"c": 1}, False)
        assert client.default_properties == {"b": {"c": 1}}

    async def test_wrong_settings_change_nothing(self, connect: Connect) -> None:
        """A wrong mode, period or set of default properties is refused by name."""
        client = await connect()
        with pytest.raises(ConfigurationError, match="flush_mode"):
            await client.set_flush_mode("SOMETIMES")
        with pytest.raises(ConfigurationError, match="flush_period"):
            await client.set_flush_period(0)
        with pytest.raises(ConfigurationError, match="default_properties"):
            await client.set_default_properties({1: 2})  # type: ignore[dict-item]

        assert (client.flush_mode, client.flush_period) == (FlushMode.IMMEDIATE, 3600.0)
        assert client.default_properties == {}

    async def test_the_mode_can_be_set_before_the_start(self, configure: Configure, sandbox: Sandbox) -> None:
        """A client that is not started yet keeps its mode."""
        client = Exponea(configure())
        await client.set_flush_mode("MANUAL")
        async with client:
            await client.track_event(Event("ping"))
        assert sandbox.request_count == 0

    async def test_the_clock_is_a_parameter(self, configure: Configure, sandbox: Sandbox) -> None:
        """All events carry the time of the clock that was given, the device's own events too."""
        async with Exponea(configure(), clock=lambda: 5) as client:
            await client.track_many(numbered_events(3))
        stamps = sorted(event.timestamp for event in sandbox.engine.events())

        assert len(stamps) == len(set(stamps)) == 5
        assert 5.0 <= stamps[0] <= stamps[-1] < 5.001

    async def test_clients_with_one_clock(self, configure: Configure, sandbox: Sandbox, tmp_path: Path) -> None:
        """Equal events of two clients of a process are all stored, even if their clock stands still."""

        def clock() -> float:
            return 1_700_000_000.25

        one = Exponea(configure(), clock=clock)
        two = Exponea(configure(storage=tmp_path / "other.sqlite"), clock=clock)
        async with one, two:
            for client in (one, two):
                with client.bind(client.for_customer(SOMEONE)):
                    await client.track_many([Event("ping")] * 50)

        assert (len(sandbox.engine.events()), sandbox.engine.duplicates) == (100, 0)

    async def test_the_statistics_add_up(self, connect: Connect, sandbox: Sandbox) -> None:
        """Every record is counted once when it is tracked and once when it is delivered or rejected."""
        sandbox.faults.add(Fault("reject", every_command=10))
        client = await connect()
        await client.track_many(numbered_events(100))
        result = await client.flush_data(60)

        stats = client.stats()
        assert (result.delivered, result.rejected, result.remaining) == (90, 10, 0)
        assert (stats.tracked, stats.delivered, stats.rejected, stats.in_flight) == (100, 90, 10, 0)
        assert stats.requests == sandbox.request_count
        assert stats.bytes_sent > 100 * 50
        assert stats.commits > 0
