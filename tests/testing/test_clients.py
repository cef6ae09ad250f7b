"""
The functions for tests of applications.
"""

import asyncio

import pytest
from helpers.clients import Configure, Connect, DeliveryLog

from exponea_async import Customer, DeliveryEvent, Event, Exponea, Hooks
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import StoredRecord, dead_letters, end_idle_sessions, idle, pending_records, received

JANE = {"registered": "jane@example.com"}
CLICK = "https://shop.example/?xnpe_cmp=spring"
MESSAGE = {
    "id": "hello",
    "name": "Hello",
    "message_type": "modal",
    "frequency": "always",
    "payload": {"title": "Hello"},
    "variant_id": 0,
    "variant_name": "A",
    "trigger": {"event_type": "visit", "filter": []},
    "date_filter": {"enabled": False},
}


class TestIdle:
    async def test_uploads_are_waited_for(self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog) -> None:
        """In immediate mode the events are delivered, their receipts resolved and the listeners notified."""
        client = await connect(hooks=Hooks(listeners=[deliveries]))
        receipt = await client.track_event(Event("ping"))
        await idle(client)

        assert receipt.status == "delivered"
        assert deliveries.kinds() == ["delivered"]
        assert len(sandbox.engine.events()) == 1

    async def test_background_work_is_waited_for(self, connect: Connect, sandbox: Sandbox) -> None:
        """Messages for an event are loaded and delivered."""
        sandbox.messages.in_app_messages.put(MESSAGE)
        client = await connect(device=True)
        messages = client.in_app_messages()
        await client.track_event(Event("visit"))
        await idle(client)

        assert [message.id for message in received(messages)] == ["hello"]

    async def test_work_that_waits_for_an_upload(self, connect: Connect, sandbox: Sandbox) -> None:
        """Work after an upload is waited for where uploads are due, and not in manual mode."""
        sandbox.messages.in_app_messages.put(MESSAGE)
        client = await connect(device=True, flush_mode="MANUAL")
        messages = client.in_app_messages()
        await client.track_event(Event("ping"))
        await idle(client)
        await client.identify_customer(Customer(JANE))
        await idle(client)
        assert [request.path.rsplit("/", 1)[1] for request in sandbox.requests] == ["inappmessages"]

        await client.flush_data()
        await idle(client)
        paths = [request.path.rsplit("/", 1)[1] for request in sandbox.requests]
        assert paths == ["inappmessages", "batch", "inappmessages"]
        await messages.aclose()

    async def test_an_outage_is_not_waited_for(self, connect: Connect, sandbox: Sandbox) -> None:
        """Events for a project that is unavailable or paused stay in the queue."""
        client = await connect()
        for status, failed in ((503, 1), (401, 1)):
            sandbox.faults.add(Fault("status", status=status, retry_after=1000))
            await client.track_event(Event("ping"))
            await idle(client)
            assert client.stats().failed_requests == failed

        assert len(await pending_records(client)) == 2

    async def test_a_client_that_stays_busy(self, connect: Connect, sandbox: Sandbox) -> None:
        """After the timeout the error names what is under way."""
        sandbox.faults.add(Fault("timeout", seconds=600))
        client = await connect(device=True, upload={"request_timeout": 600})
        sandbox.messages.in_app_messages.put(MESSAGE)
        messages = client.in_app_messages()
        await client.track_event(Event("visit"))

        with pytest.raises(TimeoutError, match=r"not idle after 0\.2 seconds: uploads|exponea_async: in-app messages"):
            await idle(client, timeout=0.2)
        await messages.aclose()

    async def test_a_client_that_does_nothing(self, configure: Configure) -> None:
        """A client is idle before its start, after it, and when it is closed."""
        client = Exponea(configure())
        await idle(client)
        async with client:
            await idle(client)
        await idle(client)


class TestRecords:
    async def test_what_waits_in_the_queue(self, connect: Connect) -> None:
        """Events, updates and clicks are returned in the order of their calls, with what is sent."""
        client = await connect(device=True, flush_mode="MANUAL", automatic_session_tracking=False)
        receipt = await client.track_event(Event("purchase", {"price": 5}, 1000.0))
        await client.identify_customer(Customer(JANE, {"vip": True}))
        await client.handle_campaign_click(CLICK)
        _, purchase, update, click = await pending_records(client)

        assert (purchase.id,) == receipt.ids
        assert (purchase.kind, purchase.name, purchase.timestamp) == ("event", "purchase", 1000.0)
        assert purchase.properties["price"] == 5
        assert (purchase.project, purchase.reason) == ("shop", "")
        assert purchase.route == "shop/batch"
        assert (update.kind, update.name, update.properties) == ("customer", "customer", {"vip": True})
        assert update.customer_ids == {"cookie": await client.get_customer_cookie(), **JANE}
        assert update.timestamp > 1000.0
        assert (click.kind, click.name, click.data["url"]) == ("click", "click", CLICK)

    async def test_records_by_name(self, connect: Connect) -> None:
        """With names only those records are returned."""
        client = await connect(flush_mode="MANUAL")
        for name in ("a", "b", "c", "a"):
            await client.track_event(Event(name))

        assert [each.name for each in await pending_records(client, "a", "c")] == ["a", "c", "a"]
        assert await pending_records(client, "d") == []

    async def test_what_was_rejected(self, connect: Connect, sandbox: Sandbox) -> None:
        """Rejected records have left the queue and are returned with the reason."""
        sandbox.faults.add(Fault("reject", every_command=1, times=1))
        client = await connect()
        await client.track_event(Event("ping"))
        await idle(client)
        (letter,) = await dead_letters(client)

        assert isinstance(letter, StoredRecord)
        assert (letter.kind, letter.name, letter.customer_ids) == ("event", "ping", {"registered": "someone"})
        assert letter.reason
        assert await pending_records(client) == await dead_letters(client, "pong") == []


async def test_idle_sessions_end_on_demand(configure: Configure) -> None:
    """Sessions that are idle by the client's clock are ended at their last activity, the others are not."""
    now = 1000.0
    async with Exponea(configure(flush_mode="MANUAL", session_timeout=60), clock=lambda: now) as client:
        await client.track_event(Event("ping"))
        assert await end_idle_sessions(client) == 0
        now = 2000.0
        assert await end_idle_sessions(client) == 1

        (end,) = await pending_records(client, "session_end")
        assert round(end.timestamp) == 1000


async def test_received_values_are_not_yielded_again(connect: Connect) -> None:
    """What a test has taken from a subscription is not yielded later; what comes afterwards is."""
    client = await connect(flush_mode="MANUAL")
    device = client.device("phone")
    pushes = device.received_push_stream()
    for campaign in ("a", "b"):
        payload = {"source": "xnpe_platform", "notification_id": 1, "data": {"campaign_name": campaign}}
        await device.track_delivered_push(payload)
    assert len(received(pushes)) == 2
    assert received(pushes) == []

    payload = {"source": "xnpe_platform", "notification_id": 2, "data": {"campaign_name": "c"}}
    await device.track_delivered_push(payload)
    assert (await asyncio.wait_for(anext(pushes), 60)).data == payload


async def test_listeners_are_notified_of_the_same_ids(connect: Connect, sandbox: Sandbox) -> None:
    """The id of a stored record is that of the receipt and of the delivery event."""
    events: list[DeliveryEvent] = []
    sandbox.faults.add(Fault("reject", every_command=1, times=1))
    client = await connect(hooks=Hooks(listeners=[events.append]))
    receipt = await client.track_event(Event("ping"))
    await idle(client)
    (letter,) = await dead_letters(client)

    assert (letter.id,) == receipt.ids == events[0].ids
