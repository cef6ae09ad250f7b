"""
Push notifications through the verbs: what is tracked of them, and who hears of them.
"""

import asyncio
from typing import Any

import pytest
from helpers.app import Kept, Phone

from exponea_async import DroppedError, Event, Exponea, InvalidEventError
from exponea_async._internal import streams as _streams
from exponea_async._internal.streams import Subscription

PLAIN = "https://shop.example/"
FORCED = "https://shop.example/?xnpe_force_track=true"
VERBS = ["track_delivered_push", "track_clicked_push", "handle_push_notification_opened"]


def push(**parts: Any) -> dict[str, Any]:
    """Make the payload of a notification with a headline."""
    return {"source": "xnpe_platform", "title": "Sale", "attributes": {"campaign_id": "c-1"}, **parts}


async def only(phone: Phone) -> Kept:
    """Tell the one campaign event that waits."""
    (event,) = await phone.kept("campaign")
    return event


class TestConsent:
    @pytest.mark.parametrize("consent", [None, True, "true", 1, False, "false", 0, "yes"])
    @pytest.mark.parametrize("url", [None, PLAIN, FORCED])
    @pytest.mark.parametrize("consider", [True, False])
    @pytest.mark.parametrize("verb", VERBS)
    async def test_the_matrix(self, phone: Phone, verb: str, consider: bool, url: str | None, consent: Any) -> None:  # noqa: FBT001
        """Without consent only that is tracked which is asked for all the same, or a click that its link forces."""
        client = await phone.start()
        granted = consent in (None, True, "true", 1)
        forced = url == FORCED and verb != "track_delivered_push"
        receipt = await getattr(client, verb)(push(has_tracking_consent=consent, url=url), consider)

        kept = await phone.kept("campaign")
        assert len(kept) == (granted or forced or not consider)
        assert receipt.status == ("queued" if kept else "dropped")
        assert [each.properties.get("tracking_forced") for each in kept] == ([True if forced else None] if kept else [])

    async def test_the_want_of_it_is_counted(self, phone: Phone) -> None:
        """What is not tracked for want of consent is told by the receipt, and counted."""
        client = await phone.start()
        receipt = await client.track_delivered_push(push(has_tracking_consent="false"))

        with pytest.raises(DroppedError, match="consent"):
            await receipt.delivered()
        assert client.stats().dropped == {"no_consent": 1}

    @pytest.mark.parametrize("verb", VERBS)
    async def test_the_category(self, phone: Phone, verb: str) -> None:
        """The category of the consent goes along."""
        await getattr(await phone.start(), verb)(push(consent_category_tracking="Marketing"))
        assert (await only(phone)).own["consent_category_tracking"] == "Marketing"


class TestWhatIsTold:
    async def test_a_delivery(self, phone: Phone) -> None:
        """A delivery tells what the notification carries, under what it is."""
        client = await phone.start(application_id="com.example.shop", default_properties={"channel": "web"})
        await client.track_delivered_push(
            push(
                attributes={"campaign_id": "c-1", "status": "evil", "event_type": " "},
                url_params={"utm_source": "mail"},
            )
        )
        event = await only(phone)

        device_id = event.properties["device_id"]
        assert event.properties == {
            "campaign_id": "c-1",
            "utm_source": "mail",
            "status": "delivered",
            "platform": "android",
            "state": "shown",
            "channel": "web",
            "application_id": "com.example.shop",
            "device_id": device_id,
        }
        assert event.ids == {"cookie": await client.get_customer_cookie()}

    async def test_a_click(self, phone: Phone) -> None:
        """A click tells what was pressed and where it led to, as far as the payload says."""
        client = await phone.start()
        await client.track_clicked_push(push())
        await client.track_clicked_push(push(actionType="browser", actionName="Open", url="shop.example/x"))
        plain, button = await phone.kept("campaign")

        assert plain.own == {
            "campaign_id": "c-1",
            "status": "clicked",
            "platform": "android",
            "url": "app",
            "cta": "notification",
            "action_type": "mobile notification",
        }
        assert button.own == {**plain.own, "url": "http://shop.example/x", "cta": "Open"}

    @pytest.mark.parametrize(
        ("parts", "state"),
        [
            ({}, "shown"),
            ({"silent": "true"}, "not_shown"),
            ({"silent": 1}, "not_shown"),
            ({"silent": "false"}, "shown"),
            ({"title": " ", "message": ""}, "not_shown"),
        ],
    )
    async def test_whether_it_was_shown(self, phone: Phone, parts: dict[str, Any], state: str) -> None:
        """What has nothing to show, or is silent, was not shown."""
        await (await phone.start()).track_delivered_push(push(**parts))
        assert (await only(phone)).own["state"] == state

    @pytest.mark.parametrize("verb", VERBS)
    async def test_a_type_of_its_own(self, phone: Phone, verb: str) -> None:
        """A notification may name the type of its events, which is not told among the properties."""
        await getattr(await phone.start(), verb)(push(attributes={"event_type": "my_push", "campaign_id": "c-1"}))
        (event,) = await phone.kept("my_push")

        assert "event_type" not in event.own
        assert await phone.kept("campaign") == []

    @pytest.mark.parametrize("verb", VERBS)
    async def test_a_self_check(self, phone: Phone, verb: str) -> None:
        """The vendor's self-check is none of the customer's."""
        receipt = await getattr(await phone.start(), verb)(push(action="self-check"))

        assert receipt.status == "dropped"
        assert await phone.kept("campaign") == []

    async def test_without_a_number(self, phone: Phone) -> None:
        """Notifications without a number, or with the same one, are not taken for each other."""
        client = await phone.start()
        for parts in ({}, {}, {"notification_id": "7"}, {"notification_id": "7"}):
            await client.track_delivered_push(push(**parts))

        assert len(await phone.kept("campaign")) == 4

    @pytest.mark.parametrize("verb", VERBS)
    @pytest.mark.parametrize("payload", [None, "x", 5, ["a"]])
    async def test_no_payload(self, phone: Phone, verb: str, payload: Any) -> None:
        """What is no payload is refused, and nothing is kept."""
        client = await phone.start()
        with pytest.raises(InvalidEventError, match="payload"):
            await getattr(client, verb)(payload)
        assert await phone.kept() == []

    async def test_whose_it_is(self, phone: Phone) -> None:
        """Whether a notification is Engagement's can be asked at any time."""
        client = phone.make()

        assert client.is_bloomreach_notification(push())
        assert not client.is_bloomreach_notification({"source": "other"})
        assert not client.is_bloomreach_notification({})


class TestTime:
    @pytest.mark.parametrize(
        ("sent", "received", "clicked", "told"),
        [
            (100, 200, 300, [200, 300]),
            (100, 100, 300, [101, 300]),
            (100, 90, 300, [101, 300]),
            (100, 90, 95, [101, 102]),
            (100, 200, 199.999, [200, 201]),
            (100, 200, 150, [200, 201]),
            (None, 200, 150, [200, 201]),
            (100, 100.5, 101.2, [100.5, 101.2]),
        ],
    )
    async def test_the_order_of_moments(
        self, phone: Phone, sent: float | None, received: float, clicked: float, told: list[float]
    ) -> None:
        """Sent, delivered and clicked follow each other, whatever the clocks say."""
        attributes = {"campaign_id": "c-1", **({"sent_timestamp": sent} if sent is not None else {})}
        client = await phone.start(at=clicked, automatic_session_tracking=False)
        await client.track_event(Event("ping"))
        payload = push(attributes=attributes, receivedSeconds=received)
        await client.track_delivered_push(payload)
        await client.track_clicked_push(payload)

        assert [each.at for each in await phone.kept("campaign")] == pytest.approx(told, abs=0.002)

    async def test_without_a_moment(self, phone: Phone) -> None:
        """Where nothing is said, it is the moment of the call."""
        client = await phone.start()
        await client.track_delivered_push(push())
        phone.now = 1005
        await client.track_clicked_push(push())

        assert [each.at for each in await phone.kept("campaign")] == [1000, 1005]


async def taken(listener: Subscription[Any], count: int) -> list[Any]:
    """Take values from a listener."""
    async with asyncio.timeout(20):
        return [await anext(listener) for _ in range(count)]


class TestStreams:
    async def test_a_press(self, phone: Phone) -> None:
        """Whoever listens to presses hears what was pressed, and what the notification carries along."""
        client = await phone.start()
        opened = client.opened_push_stream()
        await client.handle_push_notification_opened(push(actionType="web", url=PLAIN))
        await client.device("tg:1").handle_push_notification_opened(push())
        first, second = await taken(opened, 2)

        assert (first.action, first.url, first.data) == ("browser", PLAIN, {"campaign_id": "c-1"})
        assert (second.action, second.url) == ("app", None)
        await opened.aclose()

    async def test_an_arrival(self, phone: Phone) -> None:
        """Whoever listens to arrivals hears the payload, whether or not it may be tracked."""
        client = await phone.start()
        received = client.received_push_stream()
        await client.track_delivered_push(push(has_tracking_consent=False, silent=1))

        assert [each.data for each in await taken(received, 1)] == [push(has_tracking_consent=False, silent=1)]

    async def test_before_anybody_listens(self, phone: Phone) -> None:
        """The latest hundred are held for the first listener; the second one hears only what comes."""
        client = await phone.start()
        for number in range(_streams.MAX_PENDING + 20):
            await client.track_delivered_push(push(number=number))
        first, second = client.received_push_stream(), client.received_push_stream()
        await client.track_delivered_push(push(number="last"))

        held = [each.data["number"] for each in await taken(first, _streams.MAX_PENDING)]
        # It was full when the last one came.
        assert held == [*range(21, _streams.MAX_PENDING + 20), "last"]
        assert [each.data["number"] for each in await taken(second, 1)] == ["last"]

    async def test_one_that_is_closed(self, phone: Phone) -> None:
        """A listener that was closed hears nothing more, even if it never began; the next one is told instead."""
        client = await phone.start()
        early = client.received_push_stream()
        await early.aclose()
        await client.track_delivered_push(push(number=1))

        assert [each async for each in early] == []
        assert [each.data["number"] for each in await taken(client.received_push_stream(), 1)] == [1]

    async def test_closing_ends_the_wait(self, phone: Phone) -> None:
        """A loop over a listener ends when that is closed."""
        client = await phone.start()
        listener = client.opened_push_stream()

        async def listen() -> list[str]:
            return [press.action async for press in listener]

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            heard = group.create_task(listen())
            await client.handle_push_notification_opened(push(action="app"))
            await listener.aclose()
        assert heard.result() == ["app"]

    async def test_the_clients_end(self, phone: Phone) -> None:
        """A loop over a listener ends with the client, and so does one that begins later."""
        client = await phone.start()
        early = client.received_push_stream()
        await client.track_delivered_push(push(number=1))
        await client.aclose(timeout=0)

        async with asyncio.timeout(20):
            assert [each.data["number"] async for each in early] == [1]
            assert [each async for each in client.received_push_stream()] == []
            assert [each async for each in client.opened_push_stream()] == []

    async def test_one_that_went_away(self, phone: Phone) -> None:
        """Whoever leaves a loop and forgets the listener is not waited for."""
        client = await phone.start()
        await client.track_delivered_push(push(number=1))
        async for each in client.received_push_stream():
            assert each.data["number"] == 1
            break
        await client.track_delivered_push(push(number=2))

        assert [each.data["number"] for each in await taken(client.received_push_stream(), 1)] == [2]


class TestWhoMayNot:
    @pytest.mark.parametrize("consent", [True, False])
    @pytest.mark.parametrize("verb", VERBS)
    async def test_a_customer(self, phone: Phone, verb: str, consent: bool) -> None:  # noqa: FBT001
        """Whoever speaks about a customer is told that notifications are a device's, and nobody hears of it."""
        client: Exponea = await phone.start()
        with client.bind(client.for_customer({"registered": "R"})), pytest.raises(InvalidEventError, match="device"):
            await getattr(client, verb)(push(has_tracking_consent=consent))

        assert await phone.kept() == []
        assert not client._devices.opened._early
        assert not client._devices.received._early

    @pytest.mark.parametrize("verb", VERBS)
    async def test_after_a_stop(self, phone: Phone, verb: str) -> None:
        """A stopped client neither tracks notifications nor hands them on."""
        client = await phone.start()
        await client.stop_integration()
        receipt = await getattr(client, verb)(push())

        assert receipt.status == "dropped"
        assert not client._devices.opened._early
        assert not client._devices.received._early
