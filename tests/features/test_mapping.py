"""
Additional projects by the type of the tracked event.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import App

from exponea_async import Customer, Event, EventType, Exponea, ExponeaProject, PurchasedItem

OTHER = ExponeaProject("other", "other-key")
CUSTOM = {"title": "Sale", "attributes": {"event_type": "my_push"}}

#: A call that tracks an event of each type, and the name of the event on the wire.
KINDS: dict[EventType, tuple[Callable[[Exponea], Awaitable[Any]], str]] = {
    EventType.INSTALL: (lambda client: client.track_event(Event("ping")), "installation"),
    EventType.SESSION_START: (lambda client: client.track_event(Event("ping")), "session_start"),
    EventType.SESSION_END: (lambda client: client.anonymize(), "session_end"),
    EventType.TRACK_EVENT: (lambda client: client.track_event(Event("own")), "own"),
    EventType.TRACK_CUSTOMER: (lambda client: client.identify_customer(Customer({"registered": "R"})), "customer"),
    EventType.PAYMENT: (
        lambda client: client.track_payment_event(PurchasedItem(1, "EUR", "card", "mug-1", "Mug")),
        "payment",
    ),
    EventType.PUSH_TOKEN: (lambda client: client.track_push_token("A"), "notification_state"),
    EventType.PUSH_DELIVERED: (lambda client: client.track_delivered_push({"title": "Sale"}), "delivered"),
    EventType.PUSH_OPENED: (lambda client: client.track_clicked_push({"title": "Sale"}), "clicked"),
    EventType.CAMPAIGN_CLICK: (lambda client: client.handle_campaign_click("https://e/?xnpe_cmp=1"), "click"),
}


async def routed(app: App) -> dict[str, list[str]]:
    """Return the projects of the records in the queue, by their name on the wire."""
    found: dict[str, list[str]] = defaultdict(list)
    for each in await app.pending():
        # Deliveries and clicks have the same event type.
        name = each.properties.get("status", each.name)
        found[name].append(each.project)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_each_type(app: App, kind: EventType) -> None:
    """An additional project gets the events of its type, and no others."""
    client = await app.start(project_mapping={kind: [OTHER]})
    await client.track_event(Event("ping"))
    for call, _ in KINDS.values():
        await call(client)
    _, name = KINDS[kind]

    twice = {name, "ping"} if kind is EventType.TRACK_EVENT else {name}
    found = await routed(app)
    assert set(found) == {name for _, name in KINDS.values()} | {"ping"}
    for each, projects in found.items():
        assert projects == (["shop", "other"] if each in twice else ["shop"]) * (len(projects) // (1 + (each in twice)))


async def test_same_data(app: App) -> None:
    """Both projects get the same data."""
    client = await app.start(project_mapping={EventType.PAYMENT: [OTHER]})
    await KINDS[EventType.PAYMENT][0](client)
    one, other = await app.pending("payment")

    assert one.data == other.data
    assert (one.project, other.project) == ("shop", "other")


async def test_notification_with_a_custom_type(app: App) -> None:
    """A notification with a custom event type is mapped like a tracked event."""
    client = await app.start(project_mapping={EventType.TRACK_EVENT: [OTHER], "PUSH_DELIVERED": []})
    await client.track_delivered_push(CUSTOM)
    await client.track_clicked_push(CUSTOM)

    assert [each.project for each in await app.pending("my_push")] == ["shop", "other"] * 2


async def test_alias_of_the_token_type(app: App) -> None:
    """Both names of the type of token events can be mapped."""
    client = await app.start(project_mapping={"NOTIFICATION_STATE": [OTHER]})
    await client.track_push_token("A")

    assert [each.project for each in await app.pending("notification_state")] == ["shop", "other"]


async def test_tokens_as_customer_properties(app: App) -> None:
    """A token as a customer property is mapped like a customer update."""
    client = await app.start(push_token_storage="property", project_mapping={EventType.TRACK_CUSTOMER: [OTHER]})
    await client.track_push_token("A")

    assert [each.project for each in await app.pending("customer")] == ["shop", "other"]


async def test_expired_session(app: App) -> None:
    """The end of an expired session is mapped like any end of a session."""
    client = await app.start(project_mapping={EventType.SESSION_END: [OTHER]})
    await client.track_event(Event("ping"))
    await app.expire(at=1100)

    assert [each.project for each in await app.pending("session_end")] == ["shop", "other"]
