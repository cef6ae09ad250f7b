"""
The app inbox through the verbs: for whom messages are fetched, what is kept of them, and what breaks a fetch off.
"""

import asyncio
import builtins
import logging
import random
import traceback
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from helpers.app import Phone
from helpers.waiting import until
from inbox_world import FETCH, MARK_AS_READ, World, html, ids_of, push

from exponea_async import (
    ClosedError,
    ConfigurationChange,
    Customer,
    ExponeaProject,
    InvalidEventError,
    RequestRefusedError,
    UnavailableError,
)
from exponea_async.features.inbox.verbs import Inbox
from exponea_async.messages import AppInboxMessage
from exponea_async.sandbox import Fault, Project, Sandbox, issue_token
from exponea_async.testing import idle

SECRET = "sesame"


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


async def registered(world: World, *names: str) -> None:
    """Let the platform have customers of these names, each with a message of the same name."""
    for name in names:
        await world.client.for_customer({"registered": name}).identify_customer(Customer({}))
        world.sandbox.messages.inbox.put(push(name), to={"registered": name})
    await world.client.flush_data()


class TestWhoseTheyAre:
    async def test_devices(self, world: World) -> None:
        """Two devices never see each other's messages, nor send each other's tokens."""
        client = await world.phone.start()
        await registered(world, "jane", "joe")
        jane, joe = client.device("a"), client.device("b")
        await jane.identify_customer(Customer({"registered": "jane"}))
        await joe.identify_customer(Customer({"registered": "joe"}))
        for _ in range(2):
            told = await asyncio.gather(jane.fetch_app_inbox(), joe.fetch_app_inbox())
            assert [ids_of(each) for each in told] == [["jane"], ["joe"]]
        assert await jane.fetch_app_inbox_item("joe") is None
        tokens = [body["sync_token"] for body in world.bodies() if "sync_token" in body]
        assert len(tokens) == len(set(tokens)) >= 2

    async def test_a_customer_tracker(self, world: World) -> None:
        """A customer is asked for with its ids alone, and for all each time."""
        client = await world.phone.start()
        await registered(world, "jane")
        jane = client.for_customer({"registered": "jane"})
        for _ in range(2):
            (message,) = await jane.fetch_app_inbox()
            assert message.customer_ids == {"registered": "jane"}
        found = await jane.fetch_app_inbox_item("jane")
        assert found is not None
        assert found.id == "jane"
        assert all(set(body) == {"customer_ids", "application_id"} for body in world.bodies())

    async def test_identify(self, world: World) -> None:
        """What was fetched for a customer is forgotten with the next one, on the disk too."""
        client = await world.phone.start()
        await registered(world, "jane", "joe")
        for name in ("jane", "joe"):
            await client.identify_customer(Customer({"registered": name}))
            assert await client.fetch_app_inbox_item("jane" if name == "joe" else "joe") is None
            assert ids_of(await client.fetch_app_inbox()) == [name]
        await client.identify_customer(Customer({"registered": "jim"}))
        inbox = client._features[Inbox]
        await until(lambda: inbox._store.is_empty)
        await idle(client)
        assert await client._devices.load_data("inbox:default") is None

    async def test_another_mark(self, world: World) -> None:
        """What is kept is given to nobody else, even before it is forgotten."""
        client = await world.phone.start()
        await world.fetched(push())
        who = await client._context.current_customer()
        assert who is not None
        inbox = client._features[Inbox]
        assert await inbox.find(client._context, who, "m1") is not None
        assert await inbox.find(client._context, evolve(who, ids={"registered": "jane"}), "m1") is None

    async def test_a_late_answer(self, world: World) -> None:
        """An answer for who is somebody else by now is not kept."""
        client = await world.phone.start(customer_token_provider=world.gate)
        world.put(push())
        fetch = asyncio.create_task(world.fetch())
        await world.gate.reached()
        await client.identify_customer(Customer({"registered": "jane"}))
        world.sandbox.faults.add(Fault("status", status=503, path=FETCH, after=1))
        world.gate.open()
        with pytest.raises(UnavailableError):
            await fetch
        assert len(world.asked()) == 2
        assert client._features[Inbox]._store.is_empty
        assert await client._devices.load_data("inbox:default") is None

    async def test_at_any_moment(self, world: World) -> None:
        """Whenever customers change, each answer is one customer's: whom it says it is for."""
        client = await world.phone.start()
        names = ["jane", "joe", "jim"]
        await registered(world, *names)
        chance = random.Random(7)
        fetches: list[asyncio.Task[list[AppInboxMessage]]] = []
        for _ in range(30):
            await client.identify_customer(Customer({"registered": chance.choice(names)}))
            fetches += [asyncio.create_task(world.fetch()) for _ in range(chance.randrange(3))]
            await asyncio.sleep(chance.choice([0.0, 0.001, 0.005]))
        for told in await asyncio.gather(*fetches):
            assert [each.customer_ids["registered"] for each in told] == ids_of(told)
            assert len(told) == 1
        await client.identify_customer(Customer({"registered": "joe"}))
        assert ids_of(await world.fetch()) == ["joe"]
        await world.phone.restart()
        assert ids_of(await world.fetch()) == ["joe"]

    async def test_another_project(self, world: World) -> None:
        """A device that was switched to another project asks there."""
        client = await world.phone.start()
        world.sandbox.messages.inbox.put(push("there"), project="other")
        await world.fetch()
        await client.anonymize(ConfigurationChange(ExponeaProject("other", "key")))
        assert ids_of(await world.fetch()) == ["there"]
        assert "/projects/other/" in world.asked()[-1].path
        assert "sync_token" not in world.bodies()[-1]


class TestWhatIsKept:
    async def test_a_restart(self, world: World) -> None:
        """Messages, marks and token survive a restart: only news are asked for."""
        world.put(push("a"), html("b", source="<b>B</b>"))
        client = await world.phone.start()
        before = await client.fetch_app_inbox()
        assert await client.mark_app_inbox_as_read(before[0])
        client = await world.phone.restart()
        kept = await client.fetch_app_inbox_item("b")
        assert kept is not None
        assert (kept.html, kept.is_read, kept.sync_token) == ("<b>B</b>", True, before[0].sync_token)
        assert len(world.asked()) == 1
        world.put(push("c", 1.0))
        assert ids_of(await client.fetch_app_inbox()) == ["b", "a", "c"]
        assert world.bodies()[-1]["sync_token"] == before[0].sync_token

    async def test_an_item(self, world: World) -> None:
        """A message that is kept is found without asking; one that is not, by asking once."""
        client = await world.phone.start()
        assert await client.fetch_app_inbox_item("m1") is None
        world.put(push())
        found = await client.fetch_app_inbox_item("m1")
        assert found is not None
        assert await client.fetch_app_inbox_item("m1") is found
        assert len(world.asked()) == 2

    async def test_anonymize_loads_ahead(self, world: World) -> None:
        """The new customer's messages are loaded ahead, where the settings say so."""
        client = await world.phone.start(preload_messages=True)
        await world.fetch()
        world.put(push())
        await client.anonymize()
        await until(lambda: len(world.asked()) == 2)
        assert await client.fetch_app_inbox_item("m1") is not None
        assert len(world.asked()) == 2

    async def test_loading_ahead_fails(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody hears of it where that fails, for nobody asked."""
        client = await world.phone.start(preload_messages=True)
        world.sandbox.faults.add(Fault("status", status=500, path=FETCH))
        caplog.set_level(logging.INFO)
        await client.anonymize()
        await until(lambda: len(world.asked()) == 1)
        await idle(client)
        assert "inbox" not in caplog.text

    async def test_a_refetch_after_eviction(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A device that has no room in memory finds its messages in the storage again."""
        monkeypatch.setattr("exponea_async.features.inbox.mailbox.CAPACITY", 1)
        world.put(push())
        client = await world.phone.start()
        for key in ("a", "b"):
            await client.device(key).fetch_app_inbox()
        assert await client.device("a").fetch_app_inbox_item("m1") is not None
        assert len(world.asked()) == 2

    async def test_a_long_token(self, world: World) -> None:
        """A sync token of absurd length is none."""
        answer = '{"success": true, "messages": [], "sync_token": "' + "x" * 5_000 + '"}'
        world.sandbox.messages.set_response("appinbox/fetch", answer)
        await world.phone.start()
        await world.fetch()
        await world.fetch()
        assert "sync_token" not in world.bodies()[-1]

    async def test_without_the_extra(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Without the libraries for HTML messages are there, but for their HTML, and it is told once."""
        usual = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("selectolax"):
                raise ImportError(name)
            return usual(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        world.put(html("a"), html("b"))
        await world.phone.start()
        assert [(each.title, each.html) for each in await world.fetch()] == [("News", None)] * 2
        assert caplog.text.count("without their HTML") == 1


class TestHostileAnswers:
    @pytest.mark.parametrize(
        "answer", [b"", b"rubbish", b"[]", b"{}", b'{"success": 1}', b'{"success": true, "messages": [', b"\xff" * 50]
    )
    async def test_no_envelope(self, world: World, answer: bytes) -> None:
        """What is no envelope is no answer, and what is kept stays."""
        await world.phone.start()
        await world.fetched(push())
        world.sandbox.messages.set_response("appinbox/fetch", answer, times=1)
        with pytest.raises(UnavailableError):
            await world.fetch()
        assert ids_of(await world.fetch()) == ["m1"]

    async def test_a_refusal(self, world: World) -> None:
        """An envelope that says no is a refusal."""
        world.sandbox.messages.set_response("appinbox/fetch", '{"success": false, "errors": ["closed"]}')
        await world.phone.start()
        with pytest.raises(RequestRefusedError, match="closed"):
            await world.fetch()

    @pytest.mark.parametrize("elements", [[None, 7, "x", [], {}], [{"id": 1}], [[[[]]]]])
    async def test_broken_messages(self, world: World, elements: Sequence[Any]) -> None:
        """Broken messages are left out, the others are there."""
        world.put(*elements, push(), check=False)
        await world.phone.start()
        assert ids_of(await world.fetch()) == ["m1"]

    async def test_a_flood(self, world: World) -> None:
        """Of a hundred thousand messages the newest thousand are told, and kept."""
        many = b",".join(b'{"id":"%d","type":"push","create_time":%d}' % (each, each) for each in range(100_000))
        world.sandbox.messages.set_response("appinbox/fetch", b'{"success":true,"messages":[' + many + b"]}")
        await world.phone.start()
        told = await world.fetch()
        assert (len(told), told[0].id, told[-1].id) == (1_000, "99999", "99000")


class TestMarking:
    async def test_it_is_remembered(self, world: World) -> None:
        """A message that was marked is a read one, here and there, and no event tells of it."""
        client = await world.phone.start()
        message = await world.fetched(push())
        before = await world.phone.kept()
        assert await client.mark_app_inbox_as_read(message) is True
        assert await client.mark_app_inbox_as_read(message) is True
        assert [each.is_read for each in await world.fetch()] == [True]
        assert await world.phone.kept() == before

    async def test_while_fetching(self, world: World) -> None:
        """A mark that is made while an answer is under way, which does not know of it, stays."""
        client = await world.phone.start(customer_token_provider=world.gate)
        world.gate.open()
        message = await world.fetched(push())
        world.gate.close()
        world.sandbox.messages.set_response("appinbox/fetch", '{"success": true, "sync_token": "later"}')
        fetch = asyncio.create_task(world.fetch())
        await world.gate.reached()
        inbox = client._features[Inbox]
        who = await client._context.current_customer(counts_as_activity=False)
        assert who is not None
        await inbox.note_read(client._context, who, message.id)
        world.gate.open()
        assert [each.is_read for each in await fetch] == [True]

    async def test_by_a_tracker(self, world: World) -> None:
        """A customer's message can be marked too."""
        client = await world.phone.start()
        await registered(world, "jane")
        jane = client.for_customer({"registered": "jane"})
        (message,) = await jane.fetch_app_inbox()
        assert await jane.mark_app_inbox_as_read(message)
        assert [each.is_read for each in await jane.fetch_app_inbox()] == [True]

    async def test_an_unknown_message(self, world: World) -> None:
        """What the platform refuses is not marked."""
        client = await world.phone.start()
        message = await world.fetched(push())
        world.sandbox.messages.inbox.clear()
        assert not await client.mark_app_inbox_as_read(message)

    async def test_no_token_of_the_customer(self, world: World) -> None:
        """Where the host gives no token for the customer, nobody is asked."""
        tokens = ["token"]

        async def once() -> Any:
            return tokens.pop() if tokens else None

        client = await world.phone.start(customer_token_provider=once)
        message = await world.fetched(push())
        assert not await client.mark_app_inbox_as_read(message)
        assert world.asked(MARK_AS_READ) == []

    async def test_stopped(self, world: World) -> None:
        """A stopped integration marks nothing."""
        client = await world.phone.start()
        message = await world.fetched(push())
        await client.stop_integration()
        assert not await client.mark_app_inbox_as_read(message)
        assert world.asked(MARK_AS_READ) == []

    async def test_broken_off(self, world: World) -> None:
        """A mark that is under way when the integration is stopped is none; when the client is closed, it says so."""
        world.sandbox.faults.add(Fault("timeout", seconds=30.0, path=MARK_AS_READ))
        client = await world.phone.start()
        message = await world.fetched(push())
        count = world.sandbox.request_count
        mark = asyncio.create_task(client.mark_app_inbox_as_read(message))
        await until(lambda: world.sandbox.request_count > count)
        await client.stop_integration()
        assert await mark is False
        await client.start()
        count = world.sandbox.request_count
        mark = asyncio.create_task(client.mark_app_inbox_as_read(message))
        await until(lambda: world.sandbox.request_count > count)
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await mark

    @pytest.mark.parametrize("message", [None, {"id": "m1"}, "m1"])
    async def test_no_message(self, world: World, message: Any) -> None:
        """What is no message is refused."""
        client = await world.phone.start()
        with pytest.raises(InvalidEventError, match="AppInboxMessage"):
            await client.mark_app_inbox_as_read(message)

    async def test_odd_ids(self, world: World) -> None:
        """A message that was made by hand with ids that are none is refused."""
        client = await world.phone.start()
        odd: Any = {"registered": 7}
        with pytest.raises(InvalidEventError, match="registered"):
            await client.mark_app_inbox_as_read(AppInboxMessage(id="m1", type="push", customer_ids=odd))


class TestSecuredAccess:
    async def test_the_customers_own_token(self, phone: Phone) -> None:
        """A token is asked for each request, for the customer it is about."""
        asked: list[dict[str, str]] = []

        async def provider(ids: Any) -> str:
            asked.append(dict(ids))
            return issue_token(SECRET, ids)

        async with Sandbox(projects=[Project("shop", ("key",), jwt_secret=SECRET, require_jwt=True)]) as sandbox:
            world = World(phone, sandbox)
            client = await phone.start(base_url=sandbox.url, customer_token_provider=provider)
            message = await world.fetched(push())
            await client.identify_customer(Customer({"registered": "jane"}))
            assert await client.mark_app_inbox_as_read(message)
            cookie = {"cookie": await client.get_customer_cookie()}
            assert asked == [cookie, cookie]
            await phone.client.aclose(timeout=0)

    async def test_a_bad_token(self, phone: Phone) -> None:
        """A token that the platform does not take is a refusal."""

        async def provider() -> str:
            return "Bearer forged"

        async with Sandbox(projects=[Project("shop", ("key",), jwt_secret=SECRET)]) as sandbox:
            client = await phone.start(base_url=sandbox.url, customer_token_provider=provider)
            with pytest.raises(RequestRefusedError) as caught:
                await client.fetch_app_inbox()
            assert caught.value.status == 401
            await client.aclose(timeout=0)


class TestBreakingOff:
    async def test_one_who_waits_is_cancelled(self, world: World) -> None:
        """Who is cancelled, the first one too, does not take the others down."""
        world.put(push())
        await world.phone.start(customer_token_provider=world.gate)
        first = asyncio.create_task(world.fetch())
        await world.gate.reached()
        second = asyncio.create_task(world.fetch())
        await world.all_wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        world.gate.open()
        assert ids_of(await second) == ["m1"]
        assert world.gate.calls == 1

    async def test_all_who_wait_are_cancelled(self, world: World) -> None:
        """Where nobody waits any more, the answer is kept all the same."""
        world.put(push())
        client = await world.phone.start(customer_token_provider=world.gate)
        fetch = asyncio.create_task(world.fetch())
        await world.gate.reached()
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        world.gate.open()
        await until(lambda: not client._features[Inbox]._flights)
        assert await client.fetch_app_inbox_item("m1") is not None
        assert world.gate.calls == 1

    async def test_an_error_of_nobodys(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """An error that nobody waits for any more is let go quietly."""
        world.sandbox.faults.add(Fault("status", status=503))
        client = await world.phone.start(customer_token_provider=world.gate)
        fetch = asyncio.create_task(world.fetch())
        await world.gate.reached()
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        world.gate.open()
        await until(lambda: not client._features[Inbox]._flights)
        assert "never retrieved" not in caplog.text

    async def test_an_error_for_all(self, world: World) -> None:
        """All who wait hear of an error, each by an own trace."""
        world.sandbox.faults.add(Fault("status", status=503))
        await world.phone.start(customer_token_provider=world.gate)
        fetches = [asyncio.create_task(world.fetch()) for _ in range(3)]
        await world.gate.reached()
        await world.all_wait()
        world.gate.open()
        told = await asyncio.gather(*fetches, return_exceptions=True)
        assert [type(each) for each in told] == [UnavailableError] * 3
        assert isinstance(told[0], BaseException)
        frames = [frame.name for frame in traceback.extract_tb(told[0].__traceback__)]
        assert frames.count("_given") == frames.count("fetch_app_inbox") == 1
        assert len(world.asked()) == 1

    @pytest.mark.parametrize("where", ["provider", "wire"])
    async def test_stopped(self, world: World, where: str, caplog: pytest.LogCaptureFixture) -> None:
        """Who waits when the integration is stopped gets nothing, and nothing is kept."""
        client, fetch = await self._under_way(world, where)
        await client.stop_integration()
        assert await fetch == []
        assert [record.message for record in caplog.records if "were deleted" not in record.message] == []
        world.sandbox.faults.clear()
        world.put(push())
        await client.start()
        world.gate.open()
        assert ids_of(await world.fetch()) == ["m1"]
        assert "sync_token" not in world.bodies()[-1]

    @pytest.mark.parametrize("where", ["provider", "wire"])
    async def test_closed(self, world: World, where: str, caplog: pytest.LogCaptureFixture) -> None:
        """Who waits when the client is closed hears so, and nothing else is told."""
        client, fetch = await self._under_way(world, where)
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await fetch
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []

    async def test_closed_before(self, world: World) -> None:
        """A client that is closed fetches nothing."""
        client = await world.phone.start()
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await client.fetch_app_inbox()

    async def test_closing(self, world: World) -> None:
        """Nothing more begins while the client is closing."""
        client = await world.phone.start()
        await client._features[Inbox].aclose()
        with pytest.raises(ClosedError):
            await client.fetch_app_inbox()
        assert world.asked() == []

    async def _under_way(self, world: World, where: str) -> Any:
        """Start a fetch that waits for the host's provider, or for the platform."""
        if where == "wire":
            world.gate.open()
            world.sandbox.faults.add(Fault("timeout", seconds=30.0))
        client = await world.phone.start(customer_token_provider=world.gate, upload={"request_timeout": 60.0})
        fetch = asyncio.create_task(world.fetch())
        await world.gate.reached()
        if where == "wire":
            await until(lambda: world.sandbox.request_count > 0)
        return client, fetch
