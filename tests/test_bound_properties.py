"""
Properties that are bound with a subject: which events carry them, and what takes precedence.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from helpers.clients import Configure
from helpers.inbox import push

from exponea_async import Customer, Event, Exponea, Hooks, InvalidEventError, PurchasedItem
from exponea_async.sandbox import Sandbox
from exponea_async.testing import pending_records

JANE = {"registered": "jane@example.com"}
JOE = {"registered": "joe@example.com"}


@pytest.fixture
async def client(configure: Configure) -> AsyncIterator[Exponea]:
    async with Exponea(configure(storage="memory:", flush_mode="MANUAL")) as client:
        yield client


async def carried(client: Exponea, *names: str) -> list[tuple[str, Any]]:
    """Return the names of the records that wait, each with the bound property that it carries."""
    return [(record.name, record.properties.get("ip")) for record in await pending_records(client, *names)]


async def test_events_of_a_customer(client: Exponea) -> None:
    """The events that are tracked through the client carry the properties; the customer's own do not get them."""
    with client.bind(client.for_customer(JANE), properties={"ip": "192.0.2.1"}):
        await client.track_event(Event("visit"))
        await client.track_payment_event(PurchasedItem(7.99, "EUR", "card", "mug", "Mug"))
        await client.track_many([Event("first"), Event("second")])
        await client.identify_customer(Customer({}, {"plan": "gold"}))
    await client.for_customer(JANE).track_event(Event("outside"))

    names = ["visit", "payment", "first", "second"]
    assert await carried(client) == [*((name, "192.0.2.1") for name in names), ("customer", None), ("outside", None)]


async def test_events_of_a_device(client: Exponea) -> None:
    """The events of a device carry them, but not the installation and the session, which no request is about."""
    with client.bind(client.device("tg:42"), properties={"ip": "192.0.2.1"}):
        await client.track_event(Event("first"))
        await client.track_event(Event("second"))
        await client.track_many([Event("third")])

    assert await carried(client) == [
        ("installation", None),
        ("session_start", None),
        *((name, "192.0.2.1") for name in ("first", "second", "third")),
    ]


async def test_events_about_others(client: Exponea) -> None:
    """An event about another customer does not carry what is known of this one."""
    with client.bind(client.for_customer(JANE), properties={"ip": "192.0.2.1"}):
        await client.for_customer(JOE).track_event(Event("invited"))
        await client.track_many([(JOE, Event("invited"))])

    assert await carried(client) == [("invited", None), ("invited", None)]


async def test_precedence(configure: Configure) -> None:
    """An event's own properties win over the bound ones, and these over the default ones; None leaves one out."""
    defaults = {"ip": "default", "user_agent": "default", "channel": "web"}
    settings = configure(storage="memory:", flush_mode="MANUAL", default_properties=defaults)
    async with Exponea(settings) as client:
        bound = {"ip": "bound", "user_agent": "bound", "referrer": "bound"}
        with client.bind(client.for_customer(JANE), properties=bound):
            await client.track_event(Event("visit", {"ip": "own", "referrer": None}))
            await client.identify_customer(Customer({}, {"plan": "gold"}))

        visit, update = await pending_records(client)
        own = {"ip": "own", "user_agent": "bound", "channel": "web"}
        assert visit.properties == {**own, "application_id": "default-application"}
        assert update.properties == {**defaults, "plan": "gold"}


async def test_hook(configure: Configure) -> None:
    """The hook `before_track` gets the bound properties with the event, and may remove them."""
    seen: list[Any] = []

    def without_address(event: Event) -> Event:
        seen.append(dict(event.properties))
        return Event(event.name, {"page": event.properties["page"]}, event.timestamp)

    settings = configure(storage="memory:", flush_mode="MANUAL")
    async with Exponea(settings, hooks=Hooks(before_track=without_address)) as client:
        with client.bind(client.for_customer(JANE), properties={"ip": "192.0.2.1"}):
            await client.track_event(Event("visit", {"page": "/"}))

        assert seen == [{"ip": "192.0.2.1", "page": "/"}]
        assert await carried(client) == [("visit", None)]


async def test_innermost_binding(client: Exponea) -> None:
    """The properties belong to their binding: another one within it has its own."""
    with client.bind(client.for_customer(JANE), properties={"ip": "192.0.2.1"}):
        with client.bind(client.for_customer(JOE)):
            await client.track_event(Event("inner"))
        with client.bind(client.nobody(), properties={"ip": "192.0.2.2"}):
            await client.track_event(Event("never"))
        await client.track_event(Event("outer"))

    assert await carried(client) == [("inner", None), ("outer", "192.0.2.1")]


@pytest.mark.parametrize(
    ("properties", "path"),
    [({"ip": object()}, "properties.ip"), ({"tags": [1, float("nan")]}, "properties.tags[1]"), (["ip"], "properties")],
)
async def test_invalid(client: Exponea, properties: Any, path: str) -> None:
    """Properties that no event could carry are an error where they are bound, which names the path."""
    with pytest.raises(InvalidEventError) as raised:
        client.bind(client.for_customer(JANE), properties=properties)
    assert raised.value.path == path


async def test_invalid_event(client: Exponea) -> None:
    """An event whose own properties are no mapping is refused as always."""
    with client.bind(client.for_customer(JANE), properties={"ip": "192.0.2.1"}):
        for event in (Event("visit", ["page"]), "visit"):  # type: ignore[arg-type]
            with pytest.raises(InvalidEventError, match="expected"):
                await client.track_event(event)  # type: ignore[arg-type]
    assert await carried(client) == []


async def test_messages(configure: Configure, sandbox: Sandbox) -> None:
    """An event about a message is about the customer whom it was loaded for; only theirs carry the properties."""
    sandbox.messages.inbox.put(push())
    async with Exponea(configure(storage="memory:", flush_mode="MANUAL")) as client:
        (message,) = await client.for_customer(JOE).fetch_app_inbox()
        for customer in (JANE, JOE):
            with client.bind(client.for_customer(customer), properties={"ip": "192.0.2.1"}):
                await client.track_app_inbox_opened(message)

        records = await pending_records(client)
        assert [(each.customer_ids, each.properties.get("ip")) for each in records] == [
            (JOE, None),
            (JOE, "192.0.2.1"),
        ]
