"""
Push notifications: the verbs, their events and the streams.
"""

import asyncio
from typing import Any

import pytest
from helpers.app import App, PendingRecord

from exponea_async import DroppedError, Event, Exponea, InvalidEventError
from exponea_async._internal.streams import MAX_PENDING, Subscription
from exponea_async.testing import received

PLAIN = "https://shop.example/"
FORCED = "https://shop.example/?xnpe_force_track=true"
VERBS = ["track_delivered_push", "track_clicked_push", "handle_push_notification_opened"]


def push(**parts: Any) -> dict[str, Any]:
    """Return the payload of a notification with a title."""
    return {"source": "xnpe_platform", "title": "Sale", "attributes": {"campaign_id": "c-1"}, **parts}


async def only(app: App) -> PendingRecord:
    """Return the only campaign event in the queue."""
    (event,) = await app.pending("campaign")
    return event


class TestConsent:
    @pytest.mark.parametrize("consent", [None, True, "true", 1, False, "false", 0, "yes"])
    @pytest.mark.parametrize("url", [None, PLAIN, FORCED])
    @pytest.mark.parametrize("consider", [True, False])
    @pytest.mark.parametrize("verb", VERBS)
    async def test_combinations(self, app: App, verb: str, consider: bool, url: str | None, consent: Any) -> None:  # noqa: FBT001
        """Without consent an event is tracked only if consent does not count, or if its link forces a click."""
        client = await app.start()
        granted = consent in (None, True, "true", 1)
        forced = url == FORCED and verb != "track_delivered_push"
        receipt = await getattr(client, verb)(push(has_tracking_consent=consent, url=url), consider)

        kept = await app.pending("campaign")
        assert len(kept) == (granted or forced or not consider)
        assert receipt.status == ("queued" if kept else "dropped")
        assert [each.properties.get("tracking_forced") for each in kept] == ([True if forced else None] if kept else [])

    async def test_missing_consent_is_counted(self, app: App) -> None:
        """An event without consent has a dropped receipt, and is counted."""
        client = await app.start()
        receipt = await client.track_delivered_push(push(has_tracking_consent="false"))

        with pytest.raises(DroppedError, match="consent"):
            await receipt.delivered()
        assert client.stats().dropped == {"no_consent": 1}

    @pytest.mark.parametrize("verb", VERBS)
    async def test_consent_category(self, app: App, verb: str) -> None:
        """Events have the category of the consent."""
        await getattr(await app.start(), verb)(push(consent_category_tracking="Marketing"))
        assert (await only(app)).own["consent_category_tracking"] == "Marketing"


class TestProperties:
    async def test_delivery(self, app: App) -> None:
        """A delivery has the attributes of the notification, which do not replace what happened."""
        client = await app.start(application_id="com.example.shop", default_properties={"channel": "web"})
        await client.track_delivered_push(
            push(
                attributes={"campaign_id": "c-1", "status": "evil", "event_type": " "},
                url_params={"utm_source": "mail"},
            )
        )
        event = await only(app)

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

    async def test_click(self, app: App) -> None:
        """A click has the clicked action and its URL, as far as the payload says so."""
        client = await app.start()
        await client.track_clicked_push(push())
        await client.track_clicked_push(push(actionType="browser", actionName="Open", url="shop.example/x"))
        plain, button = await app.pending("campaign")

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
    async def test_state(self, app: App, parts: dict[str, Any], state: str) -> None:
        """A silent notification, or one without text, was not shown."""
        await (await app.start()).track_delivered_push(push(**parts))
        assert (await only(app)).own["state"] == state

    @pytest.mark.parametrize("verb", VERBS)
    async def test_custom_event_type(self, app: App, verb: str) -> None:
        """A notification can set the type of its events, which is not one of their properties."""
        await getattr(await app.start(), verb)(push(attributes={"event_type": "my_push", "campaign_id": "c-1"}))
        (event,) = await app.pending("my_push")

        assert "event_type" not in event.own
        assert await app.pending("campaign") == []

    @pytest.mark.parametrize("verb", VERBS)
    async def test_self_check(self, app: App, verb: str) -> None:
        """The vendor's self-check is not tracked."""
        receipt = await getattr(await app.start(), verb)(push(action="self-check"))

        assert receipt.status == "dropped"
        assert await app.pending("campaign") == []

    async def test_repeated_notifications(self, app: App) -> None:
        """Notifications without an id, or with the same id, are all tracked."""
        client = await app.start()
        for parts in ({}, {}, {"notification_id": "7"}, {"notification_id": "7"}):
            await client.track_delivered_push(push(**parts))

        assert len(await app.pending("campaign")) == 4

    @pytest.mark.parametrize("verb", VERBS)
    @pytest.mark.parametrize("payload", [None, "x", 5, ["a"]])
    async def test_wrong_payload(self, app: App, verb: str, payload: Any) -> None:
        """A payload that is not a mapping raises an error, and nothing is tracked."""
        client = await app.start()
        with pytest.raises(InvalidEventError, match="payload"):
            await getattr(client, verb)(payload)
        assert await app.pending() == []

    async def test_source(self, app: App) -> None:
        """Notifications of Engagement are recognized even before the client is started."""
        client = app.make()

        assert client.is_bloomreach_notification(push())
        assert not client.is_bloomreach_notification({"source": "other"})
        assert not client.is_bloomreach_notification({})


class TestTimestamps:
    @pytest.mark.parametrize(
        ("sent", "received", "clicked", "expected"),
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
    async def test_order(
        self, app: App, sent: float | None, received: float, clicked: float, expected: list[float]
    ) -> None:
        """Delivery comes after sending, and the click after the delivery, whatever the clocks say."""
        attributes = {"campaign_id": "c-1", **({"sent_timestamp": sent} if sent is not None else {})}
        client = await app.start(at=clicked, automatic_session_tracking=False)
        await client.track_event(Event("ping"))
        payload = push(attributes=attributes, receivedSeconds=received)
        await client.track_delivered_push(payload)
        await client.track_clicked_push(payload)

        assert [each.at for each in await app.pending("campaign")] == pytest.approx(expected, abs=0.002)

    async def test_default_timestamps(self, app: App) -> None:
        """Without timestamps in the payload, the time of the call is used."""
        client = await app.start()
        await client.track_delivered_push(push())
        app.now = 1005
        await client.track_clicked_push(push())

        assert [each.at for each in await app.pending("campaign")] == [1000, 1005]


async def values(stream: Subscription[Any], count: int) -> list[Any]:
    """Return the next values of a stream."""
    async with asyncio.timeout(60):
        return [await anext(stream) for _ in range(count)]


class TestStreams:
    async def test_opened(self, app: App) -> None:
        """The stream of opened notifications yields the action and the attributes."""
        client = await app.start()
        opened = client.opened_push_stream()
        await client.handle_push_notification_opened(push(actionType="web", url=PLAIN))
        await client.device("tg:1").handle_push_notification_opened(push())
        first, second = await values(opened, 2)

        assert (first.action, first.url, first.data) == ("browser", PLAIN, {"campaign_id": "c-1"})
        assert (second.action, second.url) == ("app", None)
        await opened.aclose()

    @pytest.mark.parametrize("url", ["javascript://x%0aalert(1)", "file:///etc/passwd", "data://x"])
    async def test_opened_with_a_dangerous_link(self, app: App, url: str) -> None:
        """A link that could run something is tracked as it came, and not handed out."""
        client = await app.start()
        opened = client.opened_push_stream()
        await client.handle_push_notification_opened(push(actionType="web", url=url))
        assert [(each.action, each.url) for each in await values(opened, 1)] == [("browser", None)]
        assert url in [each.properties.get("url") for each in await app.pending("campaign")]

    async def test_received(self, app: App) -> None:
        """The stream of received notifications yields the payload, with or without consent."""
        client = await app.start()
        stream = client.received_push_stream()
        await client.track_delivered_push(push(has_tracking_consent=False, silent=1))

        assert [each.data for each in await values(stream, 1)] == [push(has_tracking_consent=False, silent=1)]

    async def test_before_the_first_stream(self, app: App) -> None:
        """The latest hundred values are kept for the first stream; a second stream yields only later values."""
        client = await app.start()
        for number in range(MAX_PENDING + 20):
            await client.track_delivered_push(push(number=number))
        first, second = client.received_push_stream(), client.received_push_stream()
        await client.track_delivered_push(push(number="last"))

        held = [each.data["number"] for each in await values(first, MAX_PENDING)]
        # The stream was full when the last one was received.
        assert held == [*range(21, MAX_PENDING + 20), "last"]
        assert [each.data["number"] for each in await values(second, 1)] == ["last"]

    async def test_closed_stream(self, app: App) -> None:
        """A closed stream receives nothing more; the value is kept for the next stream."""
        client = await app.start()
        early = client.received_push_stream()
        await early.aclose()
        await client.track_delivered_push(push(number=1))

        assert [each async for each in early] == []
        assert [each.data["number"] for each in await values(client.received_push_stream(), 1)] == [1]

    async def test_closing_ends_an_iteration(self, app: App) -> None:
        """An iteration ends when its stream is closed."""
        client = await app.start()
        stream = client.opened_push_stream()

        async def iterate() -> list[str]:
            return [push.action async for push in stream]

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            actions = group.create_task(iterate())
            await client.handle_push_notification_opened(push(action="app"))
            await stream.aclose()
        assert actions.result() == ["app"]

    async def test_close_of_the_client(self, app: App) -> None:
        """Streams end with the client, and later ones are closed."""
        client = await app.start()
        early = client.received_push_stream()
        await client.track_delivered_push(push(number=1))
        await client.aclose(timeout=0)

        async with asyncio.timeout(60):
            assert [each.data["number"] async for each in early] == [1]
            assert [each async for each in client.received_push_stream()] == []
            assert [each async for each in client.opened_push_stream()] == []

    async def test_unreferenced_stream(self, app: App) -> None:
        """A stream that is no longer referenced does not receive values; they are kept for the next stream."""
        client = await app.start()
        await client.track_delivered_push(push(number=1))
        async for each in client.received_push_stream():
            assert each.data["number"] == 1
            break
        await client.track_delivered_push(push(number=2))

        assert [each.data["number"] for each in await values(client.received_push_stream(), 1)] == [2]


class TestMisuse:
    @pytest.mark.parametrize("consent", [True, False])
    @pytest.mark.parametrize("verb", VERBS)
    async def test_customer_tracker(self, app: App, verb: str, consent: bool) -> None:  # noqa: FBT001
        """A customer tracker raises an error, and nothing is published."""
        client: Exponea = await app.start()
        with client.bind(client.for_customer({"registered": "R"})), pytest.raises(InvalidEventError, match="device"):
            await getattr(client, verb)(push(has_tracking_consent=consent))

        assert await app.pending() == []
        assert received(client.opened_push_stream()) == []
        assert received(client.received_push_stream()) == []

    @pytest.mark.parametrize("verb", VERBS)
    async def test_stopped(self, app: App, verb: str) -> None:
        """A stopped integration neither tracks nor publishes notifications."""
        client = await app.start()
        await client.stop_integration(everyone=True)
        receipt = await getattr(client, verb)(push())

        assert receipt.status == "dropped"
        assert received(client.opened_push_stream()) == []
        assert received(client.received_push_stream()) == []
