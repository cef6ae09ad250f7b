"""
Numbered scenarios of the app inbox. The vendor's SDKs agree on them, or one of them was chosen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import App
from helpers.inbox import MARK_AS_READ, InboxFixture, html, ids_of, push
from helpers.internals import devices_of

from exponea_async import Customer, RequestRefusedError, UnavailableError
from exponea_async.messages import AppInboxAction, AppInboxMessage
from exponea_async.sandbox import Fault, Sandbox

Scenario = Callable[[InboxFixture], Awaitable[None]]


@pytest.fixture
def inbox(app: App, sandbox: Sandbox) -> InboxFixture:
    return InboxFixture(app, sandbox)


async def unknown_types(inbox: InboxFixture) -> None:
    """Of the types push, html and survey the survey is left out."""
    inbox.put(push("p"), html("h"), {"id": "s", "type": "survey", "content": {}}, check=False)
    await inbox.app.start()
    assert ids_of(await inbox.fetch()) == ["h", "p"]


async def newest_first(inbox: InboxFixture) -> None:
    """Messages are returned newest first."""
    inbox.put(push("a", 5), push("b", 9), push("c", 7))
    await inbox.app.start()
    assert [each.create_time for each in await inbox.fetch()] == [9, 7, 5]


async def same_id(inbox: InboxFixture) -> None:
    """A message that comes again replaces the previous one, and is sorted again."""
    inbox.put(push("x", 5), push("y", 6))
    await inbox.app.start()
    assert ids_of(await inbox.fetch()) == ["y", "x"]
    inbox.sandbox.messages.inbox.change("x", {"create_time": 8.0})
    assert ids_of(await inbox.fetch()) == ["x", "y"]


async def first_fetch(inbox: InboxFixture) -> None:
    """The first fetch sends no sync token."""
    await inbox.app.start(application_id="com.example.shop")
    await inbox.fetch()
    cookie = await inbox.client.get_customer_cookie()
    assert inbox.bodies() == [{"customer_ids": {"cookie": cookie}, "application_id": "com.example.shop"}]


async def later_fetches(inbox: InboxFixture) -> None:
    """Later fetches send the latest sync token; after a response without one the previous token stays valid."""
    inbox.put(push())
    await inbox.app.start()
    (first,) = await inbox.fetch()
    inbox.sandbox.sync.issues_tokens = False
    inbox.put(push("later", 6.0))
    later, again = await inbox.fetch()
    await inbox.fetch()
    tokens = [body.get("sync_token") for body in inbox.bodies()]
    assert tokens == [None, first.sync_token, first.sync_token]
    # A message from a response without a token can be marked as read, too.
    assert later.sync_token == again.sync_token == first.sync_token


async def damaged_storage(inbox: InboxFixture) -> None:
    """A stored mailbox that can't be read is treated as empty."""
    inbox.put(push())
    await inbox.app.start()
    await inbox.fetch()
    await devices_of(inbox.client).save_data("inbox:@default", b"\x00 rubbish")
    await inbox.app.restart()
    assert ids_of(await inbox.fetch()) == ["m1"]
    assert "sync_token" not in inbox.bodies()[-1]


async def other_application(inbox: InboxFixture) -> None:
    """A mailbox that another application stored is not used."""
    inbox.put(push())
    await inbox.app.start(application_id="one")
    await inbox.fetch()
    await inbox.app.restart(application_id="two")
    await inbox.fetch()
    assert "sync_token" not in inbox.bodies()[-1]
    assert inbox.bodies()[-1]["application_id"] == "two"


async def anonymize(inbox: InboxFixture) -> None:
    """An anonymized device has no messages and no sync token; the application id stays."""
    inbox.sandbox.messages.inbox.put(push(), to={"registered": "jane"})
    await inbox.app.start(application_id="one")
    await inbox.client.identify_customer(Customer({"registered": "jane"}))
    await inbox.client.flush_data()
    assert ids_of(await inbox.fetch()) == ["m1"]
    await inbox.client.anonymize()
    assert await inbox.fetch() == []
    assert "sync_token" not in inbox.bodies()[-1]
    assert inbox.bodies()[-1]["application_id"] == "one"


async def mark_message_without_token(inbox: InboxFixture) -> None:
    """A message that was never fetched can't be marked, and no request is sent."""
    await inbox.app.start()
    assert await inbox.client.mark_app_inbox_as_read(AppInboxMessage(id="m1", type="push")) is False
    assert inbox.requests(MARK_AS_READ) == []


async def mark_for_the_owner(inbox: InboxFixture) -> None:
    """A message is marked for the ids it was fetched for, whatever ids were added since."""
    inbox.put(push())
    await inbox.app.start()
    client = inbox.client
    for ids in ({}, {"registered": "jane"}, {"registered": "joe", "email": "joe@example.com"}):
        if ids:
            await client.identify_customer(Customer(ids))
        (message,) = await client.fetch_app_inbox()
        await client.identify_customer(Customer({"registered": "other", "phone": "1"}))
        await client.mark_app_inbox_as_read(message)
        body = inbox.bodies(MARK_AS_READ)[-1]
        assert body["customer_ids"] == dict(message.customer_ids)
        assert body["customer_ids"].items() >= ids.items()
        assert (body["message_ids"], body["sync_token"]) == (["m1"], message.sync_token)
    assert [len(body["customer_ids"]) for body in inbox.bodies(MARK_AS_READ)] == [1, 3, 4]


async def mark_fails(inbox: InboxFixture) -> None:
    """A mark that fails returns False, and the message stays unread, as in the iOS SDK."""
    await inbox.app.start()
    message = await inbox.fetched(push())
    inbox.sandbox.faults.add(Fault("status", status=503, path=MARK_AS_READ))
    assert await inbox.client.mark_app_inbox_as_read(message) is False
    stored = await inbox.client.fetch_app_inbox_item("m1")
    assert stored is not None
    assert not stored.is_read


async def parallel_fetches(inbox: InboxFixture) -> None:
    """Concurrent fetches share one request."""
    inbox.put(push())
    await inbox.app.start(customer_token_provider=inbox.provider)
    fetches = [asyncio.create_task(inbox.fetch()) for _ in range(3)]
    await inbox.provider.blocks()
    await inbox.callers_wait()
    inbox.provider.unblock()
    first, second, third = await asyncio.gather(*fetches)
    assert ids_of(first) == ["m1"]
    assert first == second == third
    assert len(inbox.requests()) == 1


async def customer_changes_during_a_fetch(inbox: InboxFixture) -> None:
    """When the customer changes, all callers that wait receive the new customer's messages."""
    inbox.sandbox.messages.inbox.put(push("for jane"), to={"registered": "jane"})
    inbox.sandbox.messages.inbox.put(push("for joe"), to={"registered": "joe"})
    await inbox.app.start(customer_token_provider=inbox.provider)
    client = inbox.client
    for name in ("jane", "joe"):
        await client.for_customer({"registered": name}).identify_customer(Customer({}))
    await client.flush_data()
    await client.identify_customer(Customer({"registered": "jane"}))
    early = asyncio.create_task(inbox.fetch())
    await inbox.provider.blocks()
    await client.identify_customer(Customer({"registered": "joe"}))
    late = asyncio.create_task(inbox.fetch())
    await inbox.callers_wait()
    assert len(inbox.provider.ids) == 1
    inbox.provider.unblock()
    assert [ids_of(each) for each in await asyncio.gather(early, late)] == [["for joe"], ["for joe"]]
    requests = [(body["customer_ids"]["registered"], body.get("sync_token")) for body in inbox.bodies()]
    assert requests == [("jane", None), ("joe", None)]


async def failure(inbox: InboxFixture) -> None:
    """After a failure another fetch may succeed."""
    inbox.put(push())
    inbox.sandbox.faults.add(Fault("status", status=503, times=1))
    await inbox.app.start()
    with pytest.raises(UnavailableError):
        await inbox.fetch()
    assert ids_of(await inbox.fetch()) == ["m1"]


async def gone_with_token(inbox: InboxFixture) -> None:
    """When the platform no longer knows the token, all messages are fetched once, and no old ones stay."""
    inbox.put(push("old"))
    await inbox.app.start()
    await inbox.fetch()
    inbox.sandbox.messages.inbox.clear()
    inbox.put(push("new"))
    inbox.sandbox.sync.expire_tokens()
    assert ids_of(await inbox.fetch()) == ["new"]
    assert ["sync_token" in body for body in inbox.bodies()] == [False, True, False]


async def gone_without_token(inbox: InboxFixture) -> None:
    """Without a token the error is raised after one request."""
    inbox.sandbox.faults.add(Fault("status", status=410))
    await inbox.app.start()
    with pytest.raises(RequestRefusedError) as caught:
        await inbox.fetch()
    assert caught.value.status == 410
    assert len(inbox.requests()) == 1


async def stopped(inbox: InboxFixture) -> None:
    """A stopped integration returns no messages, and sends no request."""
    inbox.put(push())
    await inbox.app.start()
    await inbox.client.stop_integration(everyone=True)
    assert await inbox.fetch() == []
    assert await inbox.client.fetch_app_inbox_item("m1") is None
    assert inbox.requests() == []


async def no_customer_token(inbox: InboxFixture) -> None:
    """Without a customer token no request is sent."""

    async def nothing() -> Any:
        return None

    await inbox.app.start(customer_token_provider=nothing)
    with pytest.raises(RequestRefusedError) as caught:
        await inbox.fetch()
    assert caught.value.status == 0
    assert inbox.requests() == []


async def customer_token(inbox: InboxFixture) -> None:
    """A customer token is sent as a bearer token."""

    async def given() -> str:
        return "abc"

    inbox.put(push())
    await inbox.app.start(customer_token_provider=given)
    assert ids_of(await inbox.fetch()) == ["m1"]
    assert [each.scheme for each in inbox.requests()] == ["Bearer"]


async def opened_without_ids(inbox: InboxFixture) -> None:
    """A message without customer ids is not tracked."""
    await inbox.app.start()
    receipt = await inbox.client.track_app_inbox_opened(AppInboxMessage(id="m1", type="push"))
    assert receipt.status == "dropped"
    assert await inbox.app.pending("campaign") == []


async def action_without_fields(inbox: InboxFixture) -> None:
    """A click on an action without title and URL has the Android SDK's default values."""
    await inbox.app.start()
    message = await inbox.fetched(push())
    await inbox.client.track_app_inbox_click(AppInboxAction(), message)
    (event,) = await inbox.app.pending("campaign")
    assert (event.own["cta"], event.own["url"]) == ("inbox", "app")


async def tracking_data(inbox: InboxFixture) -> None:
    """The event type is not part of the tracking data."""
    await inbox.app.start()
    message = await inbox.fetched(push(attributes={"event_type": "campaign", "campaign_id": "c9"}))
    assert message.tracking_data == {"campaign_id": "c9"}


async def html_actions(inbox: InboxFixture) -> None:
    """Links and buttons of HTML are actions; closing is `no_action`, as in the Android SDK."""
    await inbox.app.start()
    source = '<div data-actiontype="close">x</div><a data-link="https://s.example">Read</a><a data-link="app://offers">Go</a>'
    message = await inbox.fetched(html(source=source))
    assert [(each.action, each.title) for each in message.actions] == [
        ("no_action", "x"),
        ("browser", "Read"),
        ("deeplink", "Go"),
    ]
    assert [each.url for each in message.actions[1:]] == ["https://s.example", "app://offers"]


async def no_consent(inbox: InboxFixture) -> None:
    """Without consent an event is tracked only if consent does not count."""
    await inbox.app.start()
    message = await inbox.fetched(push(has_tracking_consent="false"))
    assert (await inbox.client.track_app_inbox_opened(message)).status == "dropped"
    assert await inbox.app.pending("campaign") == []
    assert (await inbox.client.track_app_inbox_opened(message, consider_consent=False)).status == "queued"
    assert len(await inbox.app.pending("campaign")) == 1


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(unknown_types, id="I01"),
        pytest.param(newest_first, id="I02"),
        pytest.param(same_id, id="I03"),
        pytest.param(first_fetch, id="I04"),
        pytest.param(later_fetches, id="I05"),
        pytest.param(damaged_storage, id="I06"),
        pytest.param(other_application, id="I07"),
        pytest.param(anonymize, id="I08"),
        pytest.param(mark_message_without_token, id="I09"),
        pytest.param(mark_for_the_owner, id="I10"),
        pytest.param(mark_fails, id="I11"),
        pytest.param(parallel_fetches, id="I12"),
        pytest.param(customer_changes_during_a_fetch, id="I13"),
        pytest.param(failure, id="I14"),
        pytest.param(gone_with_token, id="I15"),
        pytest.param(gone_without_token, id="I16"),
        pytest.param(stopped, id="I17"),
        pytest.param(no_customer_token, id="I18"),
        pytest.param(customer_token, id="I19"),
        pytest.param(opened_without_ids, id="I20"),
        pytest.param(action_without_fields, id="I21"),
        pytest.param(tracking_data, id="I22"),
        pytest.param(html_actions, id="I23"),
        pytest.param(no_consent, id="I24"),
    ],
)
async def test_vector(inbox: InboxFixture, scenario: Scenario) -> None:
    """Each numbered scenario has the specified outcome."""
    await scenario(inbox)
