"""
Projects beside the main one, by the kind of what is tracked.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import Phone

from exponea_async import Customer, Event, EventType, Exponea, ExponeaProject, PurchasedItem

BESIDE = ExponeaProject("beside", "beside-key")
CUSTOM = {"title": "Sale", "attributes": {"event_type": "my_push"}}

#: What brings each kind about, and what it is called on the wire.
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


async def routed(phone: Phone) -> dict[str, list[str]]:
    """Tell the projects that each kind on the wire goes to."""
    found: dict[str, list[str]] = defaultdict(list)
    for each in await phone.kept():
        # Deliveries and clicks are of one type.
        name = each.properties.get("status", each.name)
        found[name].append(each.project)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_each_kind_for_itself(phone: Phone, kind: EventType) -> None:
    """Of all that a device tracks, a project beside the main one gets the kind it was named for, and only that."""
    client = await phone.start(project_mapping={kind: [BESIDE]})
    await client.track_event(Event("ping"))
    for act, _ in KINDS.values():
        await act(client)
    _, name = KINDS[kind]

    twice = {name, "ping"} if kind is EventType.TRACK_EVENT else {name}
    found = await routed(phone)
    assert set(found) == {name for _, name in KINDS.values()} | {"ping"}
    for each, projects in found.items():
        assert projects == (["shop", "beside"] if each in twice else ["shop"]) * (
            len(projects) // (1 + (each in twice))
        )


async def test_the_same_everywhere(phone: Phone) -> None:
    """Both projects get the same, to the letter."""
    client = await phone.start(project_mapping={EventType.PAYMENT: [BESIDE]})
    await KINDS[EventType.PAYMENT][0](client)
    one, other = await phone.kept("payment")

    assert one.data == other.data
    assert (one.project, other.project) == ("shop", "beside")


async def test_a_notification_with_a_type_of_its_own(phone: Phone) -> None:
    """What a notification calls otherwise is an event like any other."""
    client = await phone.start(project_mapping={EventType.TRACK_EVENT: [BESIDE], "PUSH_DELIVERED": []})
    await client.track_delivered_push(CUSTOM)
    await client.track_clicked_push(CUSTOM)

    assert [each.project for each in await phone.kept("my_push")] == ["shop", "beside"] * 2


async def test_the_word_of_the_other_sdk(phone: Phone) -> None:
    """Tokens go where either name of their kind says."""
    client = await phone.start(project_mapping={"NOTIFICATION_STATE": [BESIDE]})
    await client.track_push_token("A")

    assert [each.project for each in await phone.kept("notification_state")] == ["shop", "beside"]


async def test_tokens_as_customer_properties(phone: Phone) -> None:
    """A token that is told as a customer's property goes where such updates go."""
    client = await phone.start(push_token_storage="property", project_mapping={EventType.TRACK_CUSTOMER: [BESIDE]})
    await client.track_push_token("A")

    assert [each.project for each in await phone.kept("customer")] == ["shop", "beside"]


async def test_the_end_of_a_session_by_the_sweeper(phone: Phone) -> None:
    """It goes where ends go, whoever brought it about."""
    client = await phone.start(project_mapping={EventType.SESSION_END: [BESIDE]})
    await client.track_event(Event("ping"))
    await phone.expire(at=1100)

    assert [each.project for each in await phone.kept("session_end")] == ["shop", "beside"]
