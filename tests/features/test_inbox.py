"""
The app inbox: fetching, storing and marking messages.
"""

import asyncio
import logging
import random
import traceback
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from helpers.app import App
from helpers.inbox import FETCH, MARK_AS_READ, InboxFixture, html, ids_of, push
from helpers.internals import context_of, features_of
from helpers.modules import uninstalled
from helpers.waiting import until

from exponea_async import (
    ClosedError,
    ConfigurationChange,
    Customer,
    ExponeaProject,
    InvalidEventError,
    RequestRefusedError,
    UnavailableError,
)
from exponea_async.features.inbox.mailbox import mailbox_cache
from exponea_async.messages import AppInboxMessage
from exponea_async.sandbox import Fault, Project, Sandbox, issue_token
from exponea_async.testing import idle

SECRET = "sesame"


@pytest.fixture
def inbox(app: App, sandbox: Sandbox) -> InboxFixture:
    return InboxFixture(app, sandbox)


async def registered(inbox: InboxFixture, *names: str) -> None:
    """Add customers with these names to the sandbox, each with a message of the same name."""
    for name in names:
        await inbox.client.for_customer({"registered": name}).identify_customer(Customer({}))
        inbox.sandbox.messages.inbox.put(push(name), to={"registered": name})
    await inbox.client.flush_data()


class TestOwners:
    async def test_two_devices(self, inbox: InboxFixture) -> None:
        """Two devices never receive each other's messages, nor send each other's sync tokens."""
        client = await inbox.app.start()
        await registered(inbox, "jane", "joe")
        jane, joe = client.device("a"), client.device("b")
        await jane.identify_customer(Customer({"registered": "jane"}))
        await joe.identify_customer(Customer({"registered": "joe"}))
        for _ in range(2):
            found = await asyncio.gather(jane.fetch_app_inbox(), joe.fetch_app_inbox())
            assert [ids_of(each) for each in found] == [["jane"], ["joe"]]
        assert await jane.fetch_app_inbox_item("joe") is None
        tokens = [body["sync_token"] for body in inbox.bodies() if "sync_token" in body]
        assert len(tokens) == len(set(tokens)) >= 2

    async def test_a_customer_tracker(self, inbox: InboxFixture) -> None:
        """A customer tracker sends only its ids, and requests all messages each time."""
        client = await inbox.app.start()
        await registered(inbox, "jane")
        jane = client.for_customer({"registered": "jane"})
        for _ in range(2):
            (message,) = await jane.fetch_app_inbox()
            assert message.customer_ids == {"registered": "jane"}
        found = await jane.fetch_app_inbox_item("jane")
        assert found is not None
        assert found.id == "jane"
        assert all(set(body) == {"customer_ids", "application_id"} for body in inbox.bodies())

    async def test_identification(self, inbox: InboxFixture) -> None:
        """An identification deletes the previous customer's messages, in the storage too."""
        client = await inbox.app.start()
        await registered(inbox, "jane", "joe")
        for name in ("jane", "joe"):
            await client.identify_customer(Customer({"registered": name}))
            assert await client.fetch_app_inbox_item("jane" if name == "joe" else "joe") is None
            assert ids_of(await client.fetch_app_inbox()) == [name]
        await client.identify_customer(Customer({"registered": "jim"}))
        await idle(inbox.client)
        assert not inbox.service.store.mailboxes
        assert await inbox.stored() is None

    async def test_another_customer(self, inbox: InboxFixture) -> None:
        """Stored messages are not returned for another customer, even before they are deleted."""
        client = await inbox.app.start()
        await inbox.fetched(push())
        customer = await context_of(client).current_customer()
        assert customer is not None
        jane = evolve(customer, ids={"registered": "jane"})
        assert await inbox.service.find(context_of(client), customer, "m1") is not None
        assert await inbox.service.find(context_of(client), jane, "m1") is None

    async def test_late_response(self, inbox: InboxFixture) -> None:
        """A response for a previous customer is not stored."""
        client = await inbox.app.start(customer_token_provider=inbox.provider)
        inbox.put(push())
        fetch = asyncio.create_task(inbox.fetch())
        await inbox.provider.blocks()
        await client.identify_customer(Customer({"registered": "jane"}))
        inbox.sandbox.faults.add(Fault("status", status=503, path=FETCH, after=1))
        inbox.provider.unblock()
        with pytest.raises(UnavailableError):
            await fetch
        assert len(inbox.requests()) == 2
        assert not inbox.service.store.mailboxes
        assert await inbox.stored() is None

    async def test_random_identifications(self, inbox: InboxFixture) -> None:
        """Whenever the customer changes, each result has the messages of one customer, and says whose they are."""
        client = await inbox.app.start()
        names = ["jane", "joe", "jim"]
        await registered(inbox, *names)
        rng = random.Random(7)
        fetches: list[asyncio.Task[list[AppInboxMessage]]] = []
        for _ in range(30):
            await client.identify_customer(Customer({"registered": rng.choice(names)}))
            fetches += [asyncio.create_task(inbox.fetch()) for _ in range(rng.randrange(3))]
            await asyncio.sleep(rng.choice([0.0, 0.001, 0.005]))
        for messages in await asyncio.gather(*fetches):
            assert [each.customer_ids["registered"] for each in messages] == ids_of(messages)
            assert len(messages) == 1
        await client.identify_customer(Customer({"registered": "joe"}))
        assert ids_of(await inbox.fetch()) == ["joe"]
        await inbox.app.restart()
        assert ids_of(await inbox.fetch()) == ["joe"]

    async def test_another_project(self, inbox: InboxFixture) -> None:
        """A device that was switched to another project fetches from there, without a sync token."""
        client = await inbox.app.start()
        inbox.sandbox.messages.inbox.put(push("there"), project="other")
        await inbox.fetch()
        await client.anonymize(ConfigurationChange(ExponeaProject("other", "key")))
        assert ids_of(await inbox.fetch()) == ["there"]
        assert "/projects/other/" in inbox.requests()[-1].path
        assert "sync_token" not in inbox.bodies()[-1]


class TestStorage:
    async def test_restart(self, inbox: InboxFixture) -> None:
        """Messages, read marks and the sync token survive a restart: only changes are requested."""
        inbox.put(push("a"), html("b", source="<b>B</b>"))
        client = await inbox.app.start()
        before = await client.fetch_app_inbox()
        assert await client.mark_app_inbox_as_read(before[0])
        client = await inbox.app.restart()
        stored = await client.fetch_app_inbox_item("b")
        assert stored is not None
        assert (stored.html, stored.is_read, stored.sync_token) == ("<b>B</b>", True, before[0].sync_token)
        assert len(inbox.requests()) == 1
        inbox.put(push("c", 1.0))
        assert ids_of(await client.fetch_app_inbox()) == ["b", "a", "c"]
        assert inbox.bodies()[-1]["sync_token"] == before[0].sync_token

    async def test_identification_after_a_restart(self, inbox: InboxFixture) -> None:
        """An identification deletes what an earlier process has stored for the previous customer, and nothing else."""
        await inbox.app.start()
        await inbox.fetched(push())
        client = await inbox.app.restart()
        await client.identify_customer(Customer({}, {"likes": "mugs"}))
        await idle(client)
        assert await inbox.stored() is not None
        client = await inbox.app.restart()
        await client.identify_customer(Customer({"registered": "jane"}))
        await idle(client)
        assert await inbox.stored() is None
        assert not features_of(client).is_used("app inbox")

    async def test_item(self, inbox: InboxFixture) -> None:
        """A known message is returned without a request, another one after one request."""
        client = await inbox.app.start()
        assert await client.fetch_app_inbox_item("m1") is None
        inbox.put(push())
        found = await client.fetch_app_inbox_item("m1")
        assert found is not None
        assert await client.fetch_app_inbox_item("m1") is found
        assert len(inbox.requests()) == 2

    async def test_preload_after_anonymize(self, inbox: InboxFixture) -> None:
        """With `preload_messages` an anonymize() fetches the new customer's messages."""
        client = await inbox.app.start(preload_messages=True)
        await inbox.fetch()
        inbox.put(push())
        await client.anonymize()
        await until(lambda: len(inbox.requests()) == 2)
        assert await client.fetch_app_inbox_item("m1") is not None
        assert len(inbox.requests()) == 2

    async def test_preload_fails(self, inbox: InboxFixture, caplog: pytest.LogCaptureFixture) -> None:
        """A failed preload is not logged above DEBUG."""
        client = await inbox.app.start(preload_messages=True)
        inbox.sandbox.faults.add(Fault("status", status=500, path=FETCH))
        caplog.set_level(logging.INFO)
        await client.anonymize()
        await until(lambda: len(inbox.requests()) == 1)
        await idle(inbox.client)
        assert "inbox" not in caplog.text

    async def test_eviction(self, inbox: InboxFixture) -> None:
        """A mailbox that was evicted from memory is read from the storage again."""
        inbox.put(push())
        client = await inbox.app.start()
        inbox.service.store.mailboxes = mailbox_cache(max_mailboxes=1)
        for key in ("a", "b"):
            await client.device(key).fetch_app_inbox()
        assert await client.device("a").fetch_app_inbox_item("m1") is not None
        assert len(inbox.requests()) == 2

    async def test_long_sync_token(self, inbox: InboxFixture) -> None:
        """A sync token that is too long is ignored."""
        response = '{"success": true, "messages": [], "sync_token": "' + "x" * 5_000 + '"}'
        inbox.sandbox.messages.set_response("appinbox/fetch", response)
        await inbox.app.start()
        await inbox.fetch()
        await inbox.fetch()
        assert "sync_token" not in inbox.bodies()[-1]

    async def test_without_the_html_extra(self, inbox: InboxFixture, caplog: pytest.LogCaptureFixture) -> None:
        """Without the libraries for HTML, messages are returned without their HTML, and a warning is logged once."""
        inbox.put(html("a"), html("b"))
        await inbox.app.start()
        with uninstalled("selectolax.lexbor"):
            assert [(each.title, each.html) for each in await inbox.fetch()] == [("News", None)] * 2
        assert caplog.text.count("without their HTML") == 1


class TestHostileResponses:
    @pytest.mark.parametrize(
        "response", [b"", b"rubbish", b"[]", b"{}", b'{"success": 1}', b'{"success": true, "messages": [', b"\xff" * 50]
    )
    async def test_no_envelope(self, inbox: InboxFixture, response: bytes) -> None:
        """A response that is not an envelope raises an error, and stored messages stay."""
        await inbox.app.start()
        await inbox.fetched(push())
        inbox.sandbox.messages.set_response("appinbox/fetch", response, times=1)
        with pytest.raises(UnavailableError):
            await inbox.fetch()
        assert ids_of(await inbox.fetch()) == ["m1"]

    async def test_refusal(self, inbox: InboxFixture) -> None:
        """An envelope without success raises a refusal with its reason."""
        inbox.sandbox.messages.set_response("appinbox/fetch", '{"success": false, "errors": ["closed"]}')
        await inbox.app.start()
        with pytest.raises(RequestRefusedError, match="closed"):
            await inbox.fetch()

    @pytest.mark.parametrize("elements", [[None, 7, "x", [], {}], [{"id": 1}], [[[[]]]]])
    async def test_malformed_messages(self, inbox: InboxFixture, elements: Sequence[Any]) -> None:
        """Malformed messages are skipped, the others are returned."""
        inbox.put(*elements, push(), check=False)
        await inbox.app.start()
        assert ids_of(await inbox.fetch()) == ["m1"]

    async def test_many_messages(self, inbox: InboxFixture) -> None:
        """Of a hundred thousand messages the newest thousand are returned and stored."""
        many = b",".join(b'{"id":"%d","type":"push","create_time":%d}' % (each, each) for each in range(100_000))
        inbox.sandbox.messages.set_response("appinbox/fetch", b'{"success":true,"messages":[' + many + b"]}")
        await inbox.app.start()
        found = await inbox.fetch()
        assert (len(found), found[0].id, found[-1].id) == (1_000, "99999", "99000")


class TestMarking:
    async def test_mark(self, inbox: InboxFixture) -> None:
        """A marked message is read for the device and in the sandbox, and no event is tracked."""
        client = await inbox.app.start()
        message = await inbox.fetched(push())
        before = await inbox.app.pending()
        assert await client.mark_app_inbox_as_read(message) is True
        assert await client.mark_app_inbox_as_read(message) is True
        assert [each.is_read for each in await inbox.fetch()] == [True]
        assert await inbox.app.pending() == before

    async def test_mark_during_a_fetch(self, inbox: InboxFixture) -> None:
        """A message that is marked during a fetch stays read, although the response does not say so."""
        client = await inbox.app.start(customer_token_provider=inbox.provider)
        inbox.provider.unblock()
        message = await inbox.fetched(push())
        inbox.provider.block()
        inbox.sandbox.messages.set_response("appinbox/fetch", '{"success": true, "sync_token": "later"}')
        fetch = asyncio.create_task(inbox.fetch())
        await inbox.provider.blocks()
        customer = await context_of(client).current_customer(counts_as_activity=False)
        assert customer is not None
        await inbox.service.set_read(context_of(client), customer, message.id)
        inbox.provider.unblock()
        assert [each.is_read for each in await fetch] == [True]

    async def test_mark_by_a_customer_tracker(self, inbox: InboxFixture) -> None:
        """A message of a customer tracker can be marked, too."""
        client = await inbox.app.start()
        await registered(inbox, "jane")
        jane = client.for_customer({"registered": "jane"})
        (message,) = await jane.fetch_app_inbox()
        assert await jane.mark_app_inbox_as_read(message)
        assert [each.is_read for each in await jane.fetch_app_inbox()] == [True]

    async def test_unknown_message(self, inbox: InboxFixture) -> None:
        """A message that the platform refuses is not marked."""
        client = await inbox.app.start()
        message = await inbox.fetched(push())
        inbox.sandbox.messages.inbox.clear()
        assert not await client.mark_app_inbox_as_read(message)

    async def test_no_customer_token(self, inbox: InboxFixture) -> None:
        """Without a customer token no request is sent."""
        tokens = ["token"]

        async def once() -> Any:
            return tokens.pop() if tokens else None

        client = await inbox.app.start(customer_token_provider=once)
        message = await inbox.fetched(push())
        assert not await client.mark_app_inbox_as_read(message)
        assert inbox.requests(MARK_AS_READ) == []

    async def test_stopped(self, inbox: InboxFixture) -> None:
        """A stopped integration sends no request."""
        client = await inbox.app.start()
        message = await inbox.fetched(push())
        await client.stop_integration(everyone=True)
        assert not await client.mark_app_inbox_as_read(message)
        assert inbox.requests(MARK_AS_READ) == []

    async def test_stopped_and_closed_during_a_mark(self, inbox: InboxFixture) -> None:
        """Stopping the integration during a mark returns False; closing the client raises an error."""
        inbox.sandbox.faults.add(Fault("timeout", seconds=600, path=MARK_AS_READ))
        client = await inbox.app.start()
        message = await inbox.fetched(push())
        count = inbox.sandbox.request_count
        mark = asyncio.create_task(client.mark_app_inbox_as_read(message))
        await until(lambda: inbox.sandbox.request_count > count)
        await client.stop_integration(everyone=True)
        assert await mark is False
        await client.start()
        count = inbox.sandbox.request_count
        mark = asyncio.create_task(client.mark_app_inbox_as_read(message))
        await until(lambda: inbox.sandbox.request_count > count)
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await mark

    @pytest.mark.parametrize("message", [None, {"id": "m1"}, "m1"])
    async def test_wrong_type(self, inbox: InboxFixture, message: Any) -> None:
        """A value that is not a message raises an error."""
        client = await inbox.app.start()
        with pytest.raises(InvalidEventError, match="AppInboxMessage"):
            await client.mark_app_inbox_as_read(message)

    async def test_wrong_ids(self, inbox: InboxFixture) -> None:
        """A message that the caller made with malformed ids raises an error."""
        client = await inbox.app.start()
        wrong: Any = {"registered": 7}
        with pytest.raises(InvalidEventError, match="registered"):
            await client.mark_app_inbox_as_read(AppInboxMessage(id="m1", type="push", customer_ids=wrong))


class TestSecuredAccess:
    async def test_token_per_customer(self, app: App) -> None:
        """The provider is called for each request, with the ids of its customer."""
        calls: list[dict[str, str]] = []

        async def provider(ids: Any) -> str:
            calls.append(dict(ids))
            return issue_token(SECRET, ids)

        async with Sandbox(projects=[Project("shop", ("key",), jwt_secret=SECRET, require_jwt=True)]) as sandbox:
            inbox = InboxFixture(app, sandbox)
            client = await app.start(base_url=sandbox.url, customer_token_provider=provider)
            message = await inbox.fetched(push())
            await client.identify_customer(Customer({"registered": "jane"}))
            assert await client.mark_app_inbox_as_read(message)
            cookie = {"cookie": await client.get_customer_cookie()}
            assert calls == [cookie, cookie]
            await app.client.aclose(timeout=0)

    async def test_invalid_token(self, app: App) -> None:
        """A token that the platform does not accept raises a refusal."""

        async def provider() -> str:
            return "Bearer forged"

        async with Sandbox(projects=[Project("shop", ("key",), jwt_secret=SECRET)]) as sandbox:
            client = await app.start(base_url=sandbox.url, customer_token_provider=provider)
            with pytest.raises(RequestRefusedError) as caught:
                await client.fetch_app_inbox()
            assert caught.value.status == 401
            await client.aclose(timeout=0)


class TestCancellation:
    async def test_one_caller_is_cancelled(self, inbox: InboxFixture) -> None:
        """Cancelling one caller, even the first one, does not affect the others."""
        inbox.put(push())
        await inbox.app.start(customer_token_provider=inbox.provider)
        first = asyncio.create_task(inbox.fetch())
        await inbox.provider.blocks()
        second = asyncio.create_task(inbox.fetch())
        await inbox.callers_wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        inbox.provider.unblock()
        assert ids_of(await second) == ["m1"]
        assert len(inbox.provider.ids) == 1

    async def test_all_callers_are_cancelled(self, inbox: InboxFixture) -> None:
        """The response is stored even if no caller waits for it any more."""
        inbox.put(push())
        client = await inbox.app.start(customer_token_provider=inbox.provider)
        fetch = asyncio.create_task(inbox.fetch())
        await inbox.provider.blocks()
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        inbox.provider.unblock()
        await idle(inbox.client)
        assert await client.fetch_app_inbox_item("m1") is not None
        assert len(inbox.provider.ids) == 1

    async def test_error_without_callers(self, inbox: InboxFixture, caplog: pytest.LogCaptureFixture) -> None:
        """An error that no caller waits for any more is not logged."""
        inbox.sandbox.faults.add(Fault("status", status=503))
        await inbox.app.start(customer_token_provider=inbox.provider)
        fetch = asyncio.create_task(inbox.fetch())
        await inbox.provider.blocks()
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        inbox.provider.unblock()
        await idle(inbox.client)
        assert "never retrieved" not in caplog.text

    async def test_error_for_all_callers(self, inbox: InboxFixture) -> None:
        """An error is raised to all callers that wait, each with its own traceback."""
        inbox.sandbox.faults.add(Fault("status", status=503))
        await inbox.app.start(customer_token_provider=inbox.provider)
        fetches = [asyncio.create_task(inbox.fetch()) for _ in range(3)]
        await inbox.provider.blocks()
        await inbox.callers_wait()
        inbox.provider.unblock()
        errors = await asyncio.gather(*fetches, return_exceptions=True)
        assert [type(each) for each in errors] == [UnavailableError] * 3
        assert isinstance(errors[0], BaseException)
        frames = [frame.name for frame in traceback.extract_tb(errors[0].__traceback__)]
        assert frames.count("messages") == frames.count("fetch_app_inbox") == 1
        assert len(inbox.requests()) == 1

    @pytest.mark.parametrize("where", ["provider", "wire"])
    async def test_stopped(self, inbox: InboxFixture, where: str, caplog: pytest.LogCaptureFixture) -> None:
        """Stopping the integration during a fetch returns an empty list, and nothing is stored."""
        client, fetch = await self._start_fetch(inbox, where)
        await client.stop_integration(everyone=True)
        assert await fetch == []
        assert [record.message for record in caplog.records if "were deleted" not in record.message] == []
        inbox.sandbox.faults.clear()
        inbox.put(push())
        await client.start()
        inbox.provider.unblock()
        assert ids_of(await inbox.fetch()) == ["m1"]
        assert "sync_token" not in inbox.bodies()[-1]

    @pytest.mark.parametrize("where", ["provider", "wire"])
    async def test_closed(self, inbox: InboxFixture, where: str, caplog: pytest.LogCaptureFixture) -> None:
        """Closing the client during a fetch raises an error, and logs nothing."""
        client, fetch = await self._start_fetch(inbox, where)
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await fetch
        warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert [each for each in warnings if "closed in the background" not in each] == []

    async def test_closed_before(self, inbox: InboxFixture) -> None:
        """A closed client raises an error."""
        client = await inbox.app.start()
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await client.fetch_app_inbox()

    async def test_call_while_closing(self, inbox: InboxFixture) -> None:
        """No request is sent while the client is closing."""
        client = await inbox.app.start()
        inbox.service.close()
        with pytest.raises(ClosedError):
            await client.fetch_app_inbox()
        assert inbox.requests() == []

    async def _start_fetch(self, inbox: InboxFixture, where: str) -> Any:
        """Start a fetch that waits for the token provider, or for the response."""
        if where == "wire":
            inbox.provider.unblock()
            inbox.sandbox.faults.add(Fault("timeout", seconds=600))
        client = await inbox.app.start(customer_token_provider=inbox.provider, upload={"request_timeout": 600})
        fetch = asyncio.create_task(inbox.fetch())
        await inbox.provider.blocks()
        if where == "wire":
            await until(lambda: inbox.sandbox.request_count > 0)
        return client, fetch
