"""
One end user's withdrawal of the consent to be tracked: what is erased, and what is dropped afterwards.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import Configure, DeliveryLog, pending_data
from helpers.inbox import push
from helpers.internals import before_storage_call
from helpers.waiting import running, until

from exponea_async import (
    Customer,
    CustomerTracker,
    Device,
    DroppedError,
    Event,
    Exponea,
    Hooks,
    LifecycleError,
    NotStartedError,
    StorageError,
)
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import dead_letters, end_idle_sessions

pytestmark = pytest.mark.both_storages

JANE = {"registered": "jane@example.com"}
JOE = {"registered": "joe@example.com"}


@pytest.fixture
async def client(configure: Configure) -> AsyncIterator[Exponea]:
    async with Exponea(configure(flush_mode="MANUAL")) as client:
        yield client


async def owners(client: Exponea) -> list[tuple[str, str | None]]:
    """Return the event type and the registered id of each waiting record; updates have no type."""
    return [(data.get("event_type", ""), data["customer_ids"].get("registered")) for data in await pending_data(client)]


def traces(path: Path, *words: bytes) -> list[bytes]:
    """Return the words that are in the file of a queue that is closed, or in its log."""
    content = b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    return [word for word in words if word in content]


class TestDevices:
    async def test_everything_is_erased(self, client: Exponea, tmp_path: Path) -> None:
        """A device's events, state and messages are erased, and nothing of another one's."""
        chat, other = client.device("tg:42"), client.device("tg:4")
        for device, ids in ((chat, JANE), (other, JOE)):
            await device.identify_customer(Customer(ids, {"name": "secret"}))
            await device.track_push_token(f"token-{ids['registered']}")
            await device.track_event(Event("ping"))
        cookie = await other.get_customer_cookie()
        before = len(await owners(client))

        assert await chat.forget() == before / 2
        assert {owner for _, owner in await owners(client)} == {None, JOE["registered"]}
        assert await other.get_customer_cookie() == cookie
        await client.aclose(timeout=0)
        # The file may be closed in the background.
        await until(lambda: running() == [])
        if client.configuration.storage == tmp_path / "queue.sqlite":
            assert traces(tmp_path / "queue.sqlite", b"jane@", b"tg:42", b"joe@") == [b"joe@"]

    async def test_earlier_identities(self, client: Exponea) -> None:
        """The events that it tracked as an earlier customer are its own, too."""
        chat = client.device("tg:42")
        await chat.track_event(Event("before"))
        await chat.anonymize()
        await chat.track_event(Event("after"))
        await chat.forget()
        assert await owners(client) == []

    async def test_what_follows_is_dropped(self, client: Exponea) -> None:
        """Every verb of it does nothing, and what is dropped is counted, until it is started again."""
        chat = client.device("tg:42")
        cookie = await chat.get_customer_cookie()
        await chat.forget()
        receipt = await chat.track_event(Event("ping"))
        with pytest.raises(DroppedError, match="withdrawn"):
            await receipt.delivered()
        await chat.identify_customer(Customer(JANE))
        await chat.track_push_token("token")
        await chat.anonymize()
        await chat.resume()
        await chat.track_session_start()
        await chat.handle_push_notification_opened({"notification_id": 1})
        assert await chat.get_customer_cookie() == ""
        assert await chat.fetch_app_inbox() == []
        assert await client.device("tg:42").track_event(Event("ping")) is not None
        assert await owners(client) == []
        assert client.stats().dropped["withdrawn"] > 4
        await chat.start()
        await chat.track_event(Event("ping"))
        assert [name for name, _ in await owners(client)] == ["installation", "session_start", "ping"]
        assert await chat.get_customer_cookie() not in ("", cookie)

    async def test_after_a_restart(self, configure: Configure, client: Exponea) -> None:
        """A new process drops its events, too."""
        await client.device("tg:42").track_event(Event("ping"))
        await client.device("tg:42").forget()
        await client.aclose(timeout=0)
        async with Exponea(configure(flush_mode="MANUAL")) as again:
            await again.device("tg:42").track_event(Event("ping"))
            assert await owners(again) == []
            await again.device("tg:42").start()
            await again.device("tg:42").track_event(Event("ping"))
            assert len(await owners(again)) == 3

    @pytest.mark.parametrize("is_known", [True, False])
    async def test_another_process(self, configure: Configure, client: Exponea, is_known: bool) -> None:  # noqa: FBT001
        """Another client of the same file notices it with the next event, whether it knew the device or not."""
        async with Exponea(configure(flush_mode="MANUAL")) as other:
            await client.device("tg:42").track_event(Event("ping"))
            if is_known:
                await other.device("tg:42").track_event(Event("ping"))
            await client.device("tg:42").forget()
            receipt = await other.device("tg:42").track_event(Event("ping"))
            assert await owners(client) == []
            with pytest.raises(DroppedError, match="withdrawn"):
                await receipt.delivered()

    async def test_receipts_and_listeners(self, configure: Configure, deliveries: DeliveryLog) -> None:
        """The receipts of erased events say why, listeners are notified, and the events are counted."""
        async with Exponea(configure(flush_mode="MANUAL"), hooks=Hooks(listeners=[deliveries])) as client:
            receipt = await client.device("tg:42").track_event(Event("ping"))
            await client.device("tg:42").forget()
            with pytest.raises(DroppedError, match="withdrawn"):
                await receipt.delivered()
            assert deliveries.kinds() == ["dropped"]
            assert client.stats().dropped == {"withdrawn": 3}

    async def test_dead_letters(self, sandbox: Sandbox, client: Exponea) -> None:
        """Its dead letters are erased, and others stay."""
        sandbox.faults.add(Fault("reject", times=4))
        for key in ("tg:42", "tg:4"):
            await client.device(key).track_event(Event("ping"))
        await client.flush_data()
        assert len(await dead_letters(client)) == 4
        await client.device("tg:42").forget()
        assert len(await dead_letters(client)) < 4

    async def test_a_storage_that_refuses(self, configure: Configure, tmp_path: Path) -> None:
        """Before the start and after the end of the client there is a clear error."""
        client = Exponea(configure())
        with pytest.raises(NotStartedError):
            await client.device("tg:42").forget()
        with pytest.raises((NotStartedError, StorageError)):
            await client.device("tg:42").start()

    async def test_concurrent_events(self, client: Exponea) -> None:
        """Events that are tracked at the same time are erased or dropped."""
        chat = client.device("tg:42")
        await chat.track_event(Event("ping"))
        await asyncio.gather(*(chat.track_event(Event("ping")) for _ in range(50)), chat.forget())
        await chat.track_event(Event("ping"))
        assert await owners(client) == []

    async def test_a_look_that_fails(self, client: Exponea) -> None:
        """If the storage refuses to load the withdrawals, each caller gets the error, and the next one loads them."""
        calls, is_refusing = 0, True

        async def refuse() -> None:
            nonlocal calls
            calls += 1
            if is_refusing and calls > 20:
                raise StorageError("refused")

        before_storage_call(client, "load_state", refuse)
        devices = [client.device(str(number)) for number in range(20)]
        results = await asyncio.gather(
            *(device.track_event(Event("ping")) for device in devices), return_exceptions=True
        )
        assert [str(each) for each in results] == ["refused"] * 20
        is_refusing = False
        assert (await devices[0].track_event(Event("ping"))).status == "queued"

    async def test_keys_that_look_alike(self, client: Exponea) -> None:
        """Only the device with the key is meant."""
        for key in ("a", "aa", "device:a", "a:a", "0"):
            await client.device(key).track_event(Event("ping"))
        await client.device("a").forget()
        await client.device("0").forget()
        assert len(await owners(client)) == 9
        for key in ("aa", "device:a", "a:a"):
            await client.device(key).track_event(Event("ping"))
        assert len(await owners(client)) == 12


class TestCustomers:
    async def test_everything_is_erased(self, client: Exponea, tmp_path: Path) -> None:
        """The customer's events are erased, those of their devices, and what devices remember of them."""
        jane, joe = client.for_customer({**JANE, "phone": "1"}), client.for_customer(JOE)
        await jane.track_event(Event("ping"))
        await joe.track_event(Event("ping", {"registered": JANE["registered"]}))
        chat = client.device("tg:42")
        await chat.identify_customer(Customer(JANE))
        await chat.track_event(Event("ping"))
        await client.for_customer(JANE).forget()

        left = await owners(client)
        assert ("ping", JOE["registered"]) in left
        assert JANE["registered"] not in [owner for _, owner in left]
        # The device goes on, as nobody known.
        await chat.track_event(Event("ping"))
        assert (await owners(client))[-1] == ("ping", None)

    async def test_what_follows_is_dropped(self, client: Exponea) -> None:
        """Whatever has any of the ids is dropped, until the customer is started again."""
        await client.for_customer(JANE).forget()
        both = client.for_customer({**JANE, "phone": "1"})
        receipts = [await both.track_event(Event("ping")), await both.identify_customer(Customer({}))]
        receipts += [await client.device("tg:42").identify_customer(Customer(JANE))]
        receipts += [await client.for_customer({"phone": "1"}).track_event(Event("ping"))]
        many = await client.track_many([(JANE, Event("ping")), (JOE, Event("ping"))])
        assert [each.status for each in receipts] == ["dropped"] * 3 + ["queued"]
        assert [each.status for each in many] == ["dropped", "queued"]
        await client.for_customer(JANE).start()
        assert (await both.track_event(Event("ping"))).status == "queued"

    async def test_a_look_for_changes_meanwhile(self, client: Exponea) -> None:
        """A look for changes of other processes during a change does not undo it in memory."""
        jane = client.for_customer(JANE)
        await jane.forget()
        looks: list[asyncio.Future[int]] = []

        async def look() -> None:
            looks.append(asyncio.ensure_future(end_idle_sessions(client)))
            await asyncio.sleep(0.05)

        before_storage_call(client, "erase", look)
        await jane.start()
        assert (await jane.track_event(Event("ping"))).status == "queued"
        await jane.forget()
        assert (await jane.track_event(Event("ping"))).status == "dropped"
        await asyncio.gather(*looks)

    async def test_messages(self, client: Exponea, sandbox: Sandbox) -> None:
        """There are no messages for the customer any more."""
        jane = client.for_customer(JANE)
        await jane.identify_customer(Customer({}))
        await client.flush_data()
        sandbox.messages.inbox.put(push("m"), to=JANE)
        assert len(await jane.fetch_app_inbox()) == 1
        await jane.forget()
        assert await jane.fetch_app_inbox() == []

    async def test_another_process(self, configure: Configure, client: Exponea) -> None:
        """Another client of the same file notices it within seconds, and a new one at its start."""
        async with Exponea(configure(flush_mode="MANUAL")) as other:
            await client.for_customer(JANE).forget()
            # It looks for changes when it looks for idle sessions, each second.
            await end_idle_sessions(other)
            assert (await other.for_customer(JANE).track_event(Event("ping"))).status == "dropped"
        async with Exponea(configure(flush_mode="MANUAL")) as new:
            assert (await new.for_customer(JANE).track_event(Event("ping"))).status == "dropped"

    async def test_nothing_personal_is_kept(self, client: Exponea, tmp_path: Path) -> None:
        """That the customer has withdrawn is stored without the ids."""
        await client.for_customer({"registered": "jane@example.com", "umlaut": "Jäne"}).track_event(Event("ping"))
        await client.for_customer({"registered": "jane@example.com", "umlaut": "Jäne"}).forget()
        assert await owners(client) == []
        await client.aclose(timeout=0)
        # The file may be closed in the background.
        await until(lambda: running() == [])
        assert traces(tmp_path / "queue.sqlite", b"jane@", "Jäne".encode(), b"J\\u00e4ne") == []


class TestInterrupted:
    @pytest.mark.parametrize("steps", range(0, 30, 2))
    @pytest.mark.parametrize("kind", ["device", "customer"])
    async def test_a_cancelled_call(self, client: Exponea, kind: str, steps: int) -> None:
        """What a call has erased that was cancelled is counted; nothing is tracked afterwards."""
        subject = client.device("tg:42") if kind == "device" else client.for_customer(JANE)
        await subject.track_event(Event("ping"))
        waiting = len(await owners(client))
        forgetting = asyncio.create_task(subject.forget())
        for _ in range(steps):
            await asyncio.sleep(0)
        forgetting.cancel()
        await asyncio.wait([forgetting])
        left = len(await owners(client))
        assert client.stats().dropped.get("withdrawn", 0) == waiting - left
        status = (await subject.track_event(Event("ping"))).status
        assert (left, status) in ((waiting, "queued"), (0, "dropped"))

    async def test_a_failed_call(self, client: Exponea) -> None:
        """Where the storage has refused, what was withdrawn stays so, and nothing else is dropped."""
        jane, is_refusing = client.for_customer(JANE), True

        async def refuse() -> None:
            if is_refusing:
                raise StorageError("refused")

        before_storage_call(client, "erase", refuse)
        with pytest.raises(StorageError, match="refused"):
            await jane.forget()
        assert (await jane.track_event(Event("ping"))).status == "queued"
        is_refusing = False
        await jane.forget()
        is_refusing = True
        with pytest.raises(StorageError, match="refused"):
            await jane.start()
        assert (await jane.track_event(Event("ping"))).status == "dropped"
        await end_idle_sessions(client)
        assert (await jane.track_event(Event("ping"))).status == "dropped"

    async def test_the_second_half_fails(self, client: Exponea) -> None:
        """What was erased before the storage refused is counted."""
        jane, calls = client.for_customer(JANE), 0
        await jane.track_event(Event("ping"))

        async def refuse() -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise StorageError("refused")

        before_storage_call(client, "erase", refuse)
        with pytest.raises(StorageError, match="refused"):
            await jane.forget()
        assert await owners(client) == []
        assert client.stats().dropped == {"withdrawn": 1}


class TestOthers:
    @pytest.mark.parametrize("kind", ["device", "customer", "nobody"])
    async def test_a_call_about_several(self, client: Exponea, kind: str) -> None:
        """A call about a subject that is not tracked and others drops only what is about it, and counts each event."""
        withdrawn = client.device("tg:42") if kind == "device" else client.for_customer(JANE)
        await withdrawn.forget()
        with client.bind(client.nobody() if kind == "nobody" else withdrawn):
            receipts = await client.track_many([Event("a"), (JOE, Event("b")), Event("c"), ({"crm": "1"}, Event("d"))])

        assert [each.status for each in receipts] == ["dropped", "queued", "dropped", "queued"]
        assert client.stats().dropped == {"nobody" if kind == "nobody" else "withdrawn": 2}
        assert [data["customer_ids"] for data in await pending_data(client)] == [JOE, {"crm": "1"}]

    async def test_a_call_before_it_is_noticed(self, configure: Configure, client: Exponea) -> None:
        """So does a call of another client that has not noticed yet that the device is not tracked any more."""
        async with Exponea(configure(flush_mode="MANUAL")) as other:
            await client.device("tg:42").forget()
            with other.bind(other.device("tg:42")):
                receipts = await other.track_many([Event("a"), (JOE, Event("b")), Event("c"), (JANE, Event("d"))])

            assert [each.status for each in receipts] == ["dropped", "queued", "dropped", "queued"]
            assert other.stats().dropped == {"withdrawn": 2}
            for receipt in receipts[::2]:
                with pytest.raises(DroppedError, match="has withdrawn the consent"):
                    await receipt.delivered()
        assert [data["customer_ids"] for data in await pending_data(client)] == [JOE, JANE]


class TestStopping:
    @pytest.mark.parametrize("kind", ["device", "customer", "nobody"])
    async def test_a_bound_subject(self, client: Exponea, kind: str) -> None:
        """One end user's withdrawal does not delete the data of all, unless that is said."""
        subject: Any = {
            "device": client.device("tg:42"),
            "customer": client.for_customer(JANE),
            "nobody": client.nobody(),
        }[kind]
        await client.for_customer(JOE).track_event(Event("ping"))
        with client.bind(subject):
            with pytest.raises(LifecycleError, match=r"current\.forget\(\)"):
                await client.stop_integration()
            assert len(await owners(client)) == 1
            await client.stop_integration(everyone=True)
        assert client.is_stopped

    async def test_all_are_tracked_again_after_a_fresh_install(self, client: Exponea) -> None:
        """A wipe forgets who has withdrawn, as a fresh install does."""
        await client.for_customer(JANE).forget()
        await client.stop_integration()
        await client.start()
        assert (await client.for_customer(JANE).track_event(Event("ping"))).status == "queued"


@pytest.mark.parametrize("storage", ["memory:"])
async def test_in_memory(configure: Configure, storage: str) -> None:
    """The same works without a file."""
    async with Exponea(configure(flush_mode="MANUAL", storage=storage)) as client:
        subjects: list[Device | CustomerTracker] = [client.device("tg:42"), client.for_customer(JANE)]
        for subject in subjects:
            await subject.track_event(Event("ping"))
            assert await subject.forget() > 0
            assert (await subject.track_event(Event("ping"))).status == "dropped"
        assert await owners(client) == []
