"""
What becomes of invalid arguments with ``Configuration(on_invalid="log")``: tracking does not break its host.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.clients import Connect, DeliveryLog, pending_data

from exponea_async import (
    ClosedError,
    DroppedError,
    Event,
    Exponea,
    Hooks,
    InAppContentBlock,
    InvalidEventError,
    PurchasedItem,
    Receipt,
)

JANE = {"registered": "jane@example.com"}
INVALID = Event("x", {"items": [{"price": object()}]})
NONE: Any = None
NOW: Any = "now"


@pytest.fixture
async def client(connect: Connect) -> Exponea:
    return await connect(device=True, flush_mode="MANUAL", on_invalid="log")


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each for each in caplog.messages if "invalid was dropped" in each]


async def cause_of(receipt: Receipt) -> InvalidEventError:
    """Return the error that a dropped receipt was made of."""
    assert receipt.status == "dropped"
    with pytest.raises(DroppedError) as caught:
        await receipt.delivered()
    cause = caught.value.__cause__
    assert isinstance(cause, InvalidEventError)
    assert str(cause) in str(caught.value)
    return cause


async def test_an_invalid_event_is_dropped(client: Exponea, caplog: pytest.LogCaptureFixture) -> None:
    """Its receipt has the error with the path; it is counted, and logged with the place of the call."""
    receipt = await client.track_event(INVALID)
    cause = await cause_of(receipt)

    assert cause.path == "properties.items[0].price"
    assert cause.__traceback__ is None
    assert client.stats().dropped == {"invalid": 1}
    assert await pending_data(client) == []
    assert [each for each in logged(caplog) if cause.path in each]
    assert caplog.records[-1].exc_info
    assert caplog.records[-1].levelno == logging.ERROR


async def test_the_log_is_not_flooded(client: Exponea, caplog: pytest.LogCaptureFixture) -> None:
    """Many invalid events are counted, and logged once in a minute."""
    for _ in range(100):
        await client.track_event(INVALID)

    assert len(logged(caplog)) == 1
    assert client.stats().dropped == {"invalid": 100}


async def test_listeners_are_notified(connect: Connect, deliveries: DeliveryLog) -> None:
    """They learn of each event that is dropped, since it is invalid or the hook failed, and why."""
    hooks = Hooks(before_track=lambda event: fail(event) if event.name == "y" else event, listeners=[deliveries])
    client = await connect(flush_mode="MANUAL", on_invalid="log", hooks=hooks)
    await client.track_event(INVALID)
    await client.track_event(Event("y"))

    invalid, failed = deliveries
    assert (invalid.kind, failed.kind) == ("dropped", "dropped")
    assert isinstance(invalid.error, InvalidEventError)
    assert "items[0].price" in invalid.reason
    assert "ZeroDivisionError" in failed.reason


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.track_event(NONE),
        lambda client: client.track_payment_event(PurchasedItem("7", "EUR", "card", "1", "Mug")),
        lambda client: client.identify_customer({"registered": "null"}),
        lambda client: client.identify_customer(NONE),
        lambda client: client.track_push_token(" "),
        lambda client: client.track_hms_push_token(NONE),
        lambda client: client.track_apns_push_token(5),
        lambda client: client.track_delivered_push(NONE),
        lambda client: client.track_clicked_push("x"),
        lambda client: client.handle_push_notification_opened(5),
        lambda client: client.track_app_inbox_opened(NONE),
        lambda client: client.track_app_inbox_click(NONE, NONE),
        lambda client: client.track_in_app_message_click(NONE, NONE),
        lambda client: client.track_in_app_message_close(NONE),
        lambda client: client.track_in_app_content_block_shown("", NONE),
        lambda client: client.track_in_app_content_block_click("", NONE, NONE),
        lambda client: client.track_in_app_content_block_close("", NONE),
        lambda client: client.track_in_app_content_block_error("", NONE, ""),
        lambda client: client.for_customer(JANE).identify_customer({"registered": None}),
    ],
)
async def test_all_verbs_with_a_receipt(client: Exponea, call: Callable[[Exponea], Awaitable[Receipt]]) -> None:
    """Each returns a dropped receipt for an argument that is invalid."""
    await cause_of(await call(client))

    assert client.stats().dropped == {"invalid": 1}


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.handle_push_token(" "),
        lambda client: client.handle_hms_push_token(NONE),
        lambda client: client.anonymize("shop"),
    ],
)
async def test_all_verbs_with_several_receipts(
    client: Exponea, call: Callable[[Exponea], Awaitable[list[Receipt]]]
) -> None:
    """Each returns one dropped receipt for an argument that is invalid."""
    (receipt,) = await call(client)
    await cause_of(receipt)


async def test_verbs_of_devices(client: Exponea) -> None:
    """A verb that needs a device is dropped where a customer is bound."""
    with client.bind(client.for_customer(JANE)):
        for call in (client.track_session_start(), client.track_session_end(), client.track_push_token("T")):
            assert (await cause_of(await call)).path == "subject"


@pytest.mark.parametrize(
    ("url", "timestamp"),
    [("https://x.example/?xnpe_cmp=1", NOW), (f"https://x.example/?utm_source={'x' * 20_000}", None)],
)
async def test_links(client: Exponea, url: str, timestamp: Any) -> None:
    """A link that was opened at no valid time, or with a campaign that no event can carry, is not tracked."""
    assert await client.handle_campaign_click(url, timestamp) is False
    assert client.stats().dropped == {"invalid": 1}


async def test_many_events(client: Exponea) -> None:
    """The valid ones are recorded in one commit, and each invalid one has a dropped receipt in its place."""
    large = Event("x", {f"p{number}": "x" * 16_000 for number in range(60)})
    given: list[Any] = [Event("a"), INVALID, (JANE, Event("b")), ({"registered": ""}, Event("c")), large, Event("d")]
    receipts = await client.track_many(given)

    assert [each.status for each in receipts] == ["queued", "dropped", "queued", "dropped", "dropped", "queued"]
    assert (await cause_of(receipts[1])).path == "events[1].properties.items[0].price"
    assert (await cause_of(receipts[3])).path == "events[3].ids.registered"
    names = [data["event_type"] for data in await pending_data(client)]
    assert [name for name in names if len(name) == 1] == ["a", "b", "d"]


@pytest.mark.parametrize("ids", [{}, {"registered": "null"}, {"registered": None}, None])
async def test_a_customer_with_invalid_ids(client: Exponea, ids: Any) -> None:
    """What is tracked about it is dropped and counted, and there are no messages for it; others are not affected."""
    block = InAppContentBlock(id="a", name="a", content_type="html")
    customer = client.for_customer(ids)
    with client.bind(customer):
        receipts = [
            await client.track_event(Event("x")),
            await client.track_payment_event(PurchasedItem(7, "EUR", "card", "1", "Mug")),
            await client.identify_customer({"registered": "jane"}),
            await client.track_in_app_content_block_error("top", block, "!"),
        ]
        many = await client.track_many([Event("a"), (JANE, Event("b"))])
        assert await client.fetch_app_inbox() == []
        assert await client.content_block("top") is None
        assert await client.in_app_message_for(Event("x")) is None
    for receipt in (*receipts, many[0]):
        assert (await cause_of(receipt)).path.startswith("ids")

    assert dict(customer.ids) == {}
    assert many[1].status == "queued"
    assert client.stats().dropped == {"invalid": 5}
    assert [data["customer_ids"] for data in await pending_data(client)] == [JANE]
    await client.aclose(timeout=0)
    with pytest.raises(ClosedError):
        await customer.track_event(Event("x"))


def fail(_event: Event) -> Event:
    raise ZeroDivisionError


async def test_a_hook_that_fails(connect: Connect) -> None:
    """Its error does not reach the caller either: the event is dropped and counted."""
    hooks = Hooks(before_track=fail)
    client = await connect(flush_mode="MANUAL", on_invalid="log", hooks=hooks)
    receipt = await client.track_event(Event("x"))

    assert receipt.status == "dropped"
    assert client.stats().dropped == {"before_track_failed": 1}


async def test_errors_are_raised_by_default(connect: Connect) -> None:
    """Without the setting the caller gets the error, with its own place in the traceback."""
    client = await connect()
    with pytest.raises(InvalidEventError) as caught:
        await client.track_event(INVALID)
    with pytest.raises(InvalidEventError, match=r"events\[0\]\.properties"):
        await client.track_many([INVALID])

    assert caught.value.path == "properties.items[0].price"
    assert client.stats().dropped == {}
