"""
The app inbox by numbered scenarios, on which the platforms agree or one of them was chosen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import Phone
from inbox_world import MARK_AS_READ, World, html, ids_of, push

from exponea_async import Customer, RequestRefusedError, UnavailableError
from exponea_async.messages import AppInboxAction, AppInboxMessage
from exponea_async.sandbox import Fault, Sandbox

Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


async def unknown_types_are_dropped(world: World) -> None:
    """Of push, html and survey the survey is dropped."""
    world.put(push("p"), html("h"), {"id": "s", "type": "survey", "content": {}}, check=False)
    await world.phone.start()
    assert ids_of(await world.fetch()) == ["h", "p"]


async def newest_first(world: World) -> None:
    """Messages come newest first."""
    world.put(push("a", 5), push("b", 9), push("c", 7))
    await world.phone.start()
    assert [each.create_time for each in await world.fetch()] == [9, 7, 5]


async def one_of_an_id(world: World) -> None:
    """A message that comes again takes the place of the one before, and its place in the order."""
    world.put(push("x", 5), push("y", 6))
    await world.phone.start()
    assert ids_of(await world.fetch()) == ["y", "x"]
    world.sandbox.messages.inbox.change("x", {"create_time": 8.0})
    assert ids_of(await world.fetch()) == ["x", "y"]


async def first_fetch(world: World) -> None:
    """The first fetch has no token to send."""
    await world.phone.start(application_id="com.example.shop")
    await world.fetch()
    cookie = await world.client.get_customer_cookie()
    assert world.bodies() == [{"customer_ids": {"cookie": cookie}, "application_id": "com.example.shop"}]


async def later_fetches(world: World) -> None:
    """Later ones send the latest token; an answer without one leaves the one before in force."""
    world.put(push())
    await world.phone.start()
    (first,) = await world.fetch()
    world.sandbox.sync.issues_tokens = False
    world.put(push("later", 6.0))
    later, again = await world.fetch()
    await world.fetch()
    tokens = [body.get("sync_token") for body in world.bodies()]
    assert tokens == [None, first.sync_token, first.sync_token]
    # What came without a token can be marked as read all the same.
    assert later.sync_token == again.sync_token == first.sync_token


async def corrupt_cache(world: World) -> None:
    """What is stored but can't be read counts as nothing."""
    world.put(push())
    await world.phone.start()
    await world.fetch()
    await world.client._devices.save_data("inbox:default", b"\x00 rubbish")
    await world.phone.restart()
    assert ids_of(await world.fetch()) == ["m1"]
    assert "sync_token" not in world.bodies()[-1]


async def other_application(world: World) -> None:
    """What another application stored is not used."""
    world.put(push())
    await world.phone.start(application_id="one")
    await world.fetch()
    await world.phone.restart(application_id="two")
    await world.fetch()
    assert "sync_token" not in world.bodies()[-1]
    assert world.bodies()[-1]["application_id"] == "two"


async def anonymize(world: World) -> None:
    """Another customer has none of the messages and no token; the application is the same."""
    world.sandbox.messages.inbox.put(push(), to={"registered": "jane"})
    await world.phone.start(application_id="one")
    await world.client.identify_customer(Customer({"registered": "jane"}))
    await world.client.flush_data()
    assert ids_of(await world.fetch()) == ["m1"]
    await world.client.anonymize()
    assert await world.fetch() == []
    assert "sync_token" not in world.bodies()[-1]
    assert world.bodies()[-1]["application_id"] == "one"


async def mark_hand_made(world: World) -> None:
    """A message that was never fetched can't be marked, and nobody is asked."""
    await world.phone.start()
    assert await world.client.mark_app_inbox_as_read(AppInboxMessage(id="m1", type="push")) is False
    assert world.asked(MARK_AS_READ) == []


async def mark_for_its_own_customer(world: World) -> None:
    """A message is marked for whom it was fetched, whatever ids have come since."""
    world.put(push())
    await world.phone.start()
    client = world.client
    for ids in ({}, {"registered": "jane"}, {"registered": "joe", "email": "joe@example.com"}):
        if ids:
            await client.identify_customer(Customer(ids))
        (message,) = await client.fetch_app_inbox()
        await client.identify_customer(Customer({"registered": "other", "phone": "1"}))
        await client.mark_app_inbox_as_read(message)
        body = world.bodies(MARK_AS_READ)[-1]
        assert body["customer_ids"] == dict(message.customer_ids)
        assert body["customer_ids"].items() >= ids.items()
        assert (body["message_ids"], body["sync_token"]) == (["m1"], message.sync_token)
    assert [len(body["customer_ids"]) for body in world.bodies(MARK_AS_READ)] == [1, 3, 4]


async def mark_failing(world: World) -> None:
    """A mark that fails is told, and the message stays unread, as in the iOS SDK."""
    await world.phone.start()
    message = await world.fetched(push())
    world.sandbox.faults.add(Fault("status", status=503, path=MARK_AS_READ))
    assert await world.client.mark_app_inbox_as_read(message) is False
    kept = await world.client.fetch_app_inbox_item("m1")
    assert kept is not None
    assert not kept.is_read


async def parallel_fetches(world: World) -> None:
    """Who fetches at the same time gets the same answer to one request."""
    world.put(push())
    await world.phone.start(customer_token_provider=world.gate)
    fetches = [asyncio.create_task(world.fetch()) for _ in range(3)]
    await world.gate.reached()
    await world.all_wait()
    world.gate.open()
    first, second, third = await asyncio.gather(*fetches)
    assert ids_of(first) == ["m1"]
    assert first == second == third
    assert len(world.asked()) == 1


async def other_customer_meanwhile(world: World) -> None:
    """Where the customer changes, all who wait get the new one's messages."""
    world.sandbox.messages.inbox.put(push("for jane"), to={"registered": "jane"})
    world.sandbox.messages.inbox.put(push("for joe"), to={"registered": "joe"})
    await world.phone.start(customer_token_provider=world.gate)
    client = world.client
    for name in ("jane", "joe"):
        await client.for_customer({"registered": name}).identify_customer(Customer({}))
    await client.flush_data()
    await client.identify_customer(Customer({"registered": "jane"}))
    early = asyncio.create_task(world.fetch())
    await world.gate.reached()
    await client.identify_customer(Customer({"registered": "joe"}))
    late = asyncio.create_task(world.fetch())
    await world.all_wait()
    assert world.gate.calls == 1
    world.gate.open()
    assert [ids_of(each) for each in await asyncio.gather(early, late)] == [["for joe"], ["for joe"]]
    told = [(body["customer_ids"]["registered"], body.get("sync_token")) for body in world.bodies()]
    assert told == [("jane", None), ("joe", None)]


async def failure(world: World) -> None:
    """After a failure another fetch may succeed."""
    world.put(push())
    world.sandbox.faults.add(Fault("status", status=503, times=1))
    await world.phone.start()
    with pytest.raises(UnavailableError):
        await world.fetch()
    assert ids_of(await world.fetch()) == ["m1"]


async def gone_with_token(world: World) -> None:
    """Where the platform does not know the token any more, all is asked for, once, and nothing old stays."""
    world.put(push("old"))
    await world.phone.start()
    await world.fetch()
    world.sandbox.messages.inbox.clear()
    world.put(push("new"))
    world.sandbox.sync.expire_tokens()
    assert ids_of(await world.fetch()) == ["new"]
    assert ["sync_token" in body for body in world.bodies()] == [False, True, False]


async def gone_without_token(world: World) -> None:
    """Without a token there is nothing else to try."""
    world.sandbox.faults.add(Fault("status", status=410))
    await world.phone.start()
    with pytest.raises(RequestRefusedError) as caught:
        await world.fetch()
    assert caught.value.status == 410
    assert len(world.asked()) == 1


async def stopped(world: World) -> None:
    """A stopped integration has no messages, and asks nobody."""
    world.put(push())
    await world.phone.start()
    await world.client.stop_integration()
    assert await world.fetch() == []
    assert await world.client.fetch_app_inbox_item("m1") is None
    assert world.asked() == []


async def no_customer_token(world: World) -> None:
    """Where the host gives no token for the customer, nobody is asked."""

    async def nothing() -> Any:
        return None

    await world.phone.start(customer_token_provider=nothing)
    with pytest.raises(RequestRefusedError) as caught:
        await world.fetch()
    assert caught.value.status == 0
    assert world.asked() == []


async def customer_token(world: World) -> None:
    """A token is given as a bearer's."""

    async def given() -> str:
        return "abc"

    world.put(push())
    await world.phone.start(customer_token_provider=given)
    assert ids_of(await world.fetch()) == ["m1"]
    assert [each.scheme for each in world.asked()] == ["Bearer"]


async def opened_hand_made(world: World) -> None:
    """Of a message that was not fetched for anybody nothing is tracked."""
    await world.phone.start()
    receipt = await world.client.track_app_inbox_opened(AppInboxMessage(id="m1", type="push"))
    assert receipt.status == "dropped"
    assert await world.phone.kept("campaign") == []


async def bare_click(world: World) -> None:
    """A press that says and leads nowhere is told in the Android SDK's words."""
    await world.phone.start()
    message = await world.fetched(push())
    await world.client.track_app_inbox_click(AppInboxAction(), message)
    (event,) = await world.phone.kept("campaign")
    assert (event.own["cta"], event.own["url"]) == ("inbox", "app")


async def tracking_data(world: World) -> None:
    """The type of the events is not one of their properties."""
    await world.phone.start()
    message = await world.fetched(push(attributes={"event_type": "campaign", "campaign_id": "c9"}))
    assert message.tracking_data == {"campaign_id": "c9"}


async def html_actions(world: World) -> None:
    """Links and buttons of HTML are actions; to close is one of nobody's, as in the Android SDK."""
    await world.phone.start()
    source = '<div data-actiontype="close">x</div><a data-link="https://s.example">Read</a><a data-link="app://offers">Go</a>'
    message = await world.fetched(html(source=source))
    assert [(each.action, each.title) for each in message.actions] == [
        ("no_action", "x"),
        ("browser", "Read"),
        ("deeplink", "Go"),
    ]
    assert [each.url for each in message.actions[1:]] == ["https://s.example", "app://offers"]


async def no_consent(world: World) -> None:
    """Without consent only that is tracked which is asked for all the same."""
    await world.phone.start()
    message = await world.fetched(push(has_tracking_consent="false"))
    assert (await world.client.track_app_inbox_opened(message)).status == "dropped"
    assert await world.phone.kept("campaign") == []
    assert (await world.client.track_app_inbox_opened(message, consider_consent=False)).status == "queued"
    assert len(await world.phone.kept("campaign")) == 1


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(unknown_types_are_dropped, id="I01"),
        pytest.param(newest_first, id="I02"),
        pytest.param(one_of_an_id, id="I03"),
        pytest.param(first_fetch, id="I04"),
        pytest.param(later_fetches, id="I05"),
        pytest.param(corrupt_cache, id="I06"),
        pytest.param(other_application, id="I07"),
        pytest.param(anonymize, id="I08"),
        pytest.param(mark_hand_made, id="I09"),
        pytest.param(mark_for_its_own_customer, id="I10"),
        pytest.param(mark_failing, id="I11"),
        pytest.param(parallel_fetches, id="I12"),
        pytest.param(other_customer_meanwhile, id="I13"),
        pytest.param(failure, id="I14"),
        pytest.param(gone_with_token, id="I15"),
        pytest.param(gone_without_token, id="I16"),
        pytest.param(stopped, id="I17"),
        pytest.param(no_customer_token, id="I18"),
        pytest.param(customer_token, id="I19"),
        pytest.param(opened_hand_made, id="I20"),
        pytest.param(bare_click, id="I21"),
        pytest.param(tracking_data, id="I22"),
        pytest.param(html_actions, id="I23"),
        pytest.param(no_consent, id="I24"),
    ],
)
async def test_vector(world: World, scenario: Scenario) -> None:
    """A scenario, which its function tells, comes out as it should."""
    await scenario(world)
