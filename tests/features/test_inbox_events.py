"""
What is tracked of messages of the app inbox, and about whom.
"""

from typing import Any

import pytest
from helpers.app import STAMPS, Phone
from inbox_world import World, push

from exponea_async import ConfigurationChange, Customer, DroppedError, Event, ExponeaProject, Hooks, InvalidEventError
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import TrackedEvent
from exponea_async.devices.features import Feature
from exponea_async.messages import AppInboxAction, AppInboxMessage
from exponea_async.sandbox import Sandbox

PLAIN = "https://shop.example/"
FORCED = "https://shop.example/?xnpe_force_track=true"
WEB = AppInboxAction("browser", "Web", PLAIN)


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


class Ears(Feature):
    """Hears all that is tracked."""

    def __init__(self) -> None:
        self.events: list[TrackedEvent] = []

    @property
    def is_listening(self) -> bool:
        """Always."""
        return True

    def tracked(self, context: SubjectContext, heard: TrackedEvent) -> None:
        """Note what was tracked of the app inbox."""
        if heard.kind.name.startswith("APP_INBOX"):
            self.events.append(heard)


class TestConsent:
    @pytest.mark.parametrize("consent", [None, True, False])
    @pytest.mark.parametrize("url", [None, PLAIN, FORCED])
    @pytest.mark.parametrize("consider", [True, False])
    async def test_clicks(self, world: World, consider: bool, url: str | None, consent: bool | None) -> None:  # noqa: FBT001
        """Without consent a click is tracked which is asked for all the same, or which its link forces."""
        client = await world.phone.start()
        message = await world.fetched(push(has_tracking_consent=consent))
        receipt = await client.track_app_inbox_click(AppInboxAction("browser", "Web", url), message, consider)
        kept = await world.phone.kept("campaign")
        assert len(kept) == (consent is not False or url == FORCED or not consider)
        assert receipt.status == ("queued" if kept else "dropped")
        forced = True if url == FORCED else None
        assert [each.own.get("tracking_forced") for each in kept] == [forced] * len(kept)

    @pytest.mark.parametrize("consent", [None, True, False])
    @pytest.mark.parametrize("consider", [True, False])
    async def test_openings(self, world: World, consider: bool, consent: bool | None) -> None:  # noqa: FBT001
        """Without consent only that opening is tracked which is asked for all the same; no link forces it."""
        client = await world.phone.start()
        message = await world.fetched(push(has_tracking_consent=consent, url=FORCED))
        receipt = await client.track_app_inbox_opened(message, consider)
        kept = await world.phone.kept("campaign")
        assert len(kept) == (consent is not False or not consider)
        assert receipt.status == ("queued" if kept else "dropped")

    async def test_the_want_of_it(self, world: World) -> None:
        """The want of consent is told by the receipt, and counted; who listens hears of the event all the same."""
        client = await world.phone.start()
        ears = Ears()
        client._features.add(ears)
        client._features.has_subscribers = True
        message = await world.fetched(push(has_tracking_consent=False))
        receipt = await client.track_app_inbox_opened(message)
        with pytest.raises(DroppedError, match="consent"):
            await receipt.delivered()
        assert client.stats().dropped == {"no_consent": 1}
        await client.track_app_inbox_click(WEB, message, consider_consent=False)
        assert [(each.event.properties["status"], each.receipt is not None) for each in ears.events] == [
            ("opened", False),
            ("clicked", True),
        ]


class TestWhatIsTold:
    async def test_all_properties(self, world: World) -> None:
        """An event tells what the message carries, under what happened; nothing tells of the device."""
        client = await world.phone.start(application_id="com.example.shop", default_properties={"channel": "web"})
        message = await world.fetched(
            push(
                attributes={"campaign_id": "c1", "event_type": "campaign", "sent_timestamp": 1700000099.0},
                url_params={"utm_source": "inbox", "xnpe_cmp": "zz"},
                consent_category_tracking="push",
            )
        )
        await client.track_app_inbox_opened(message)
        await client.track_app_inbox_click(WEB, message)
        opened, clicked = await world.phone.kept("campaign")
        both = {
            "campaign_id": "c1",
            "sent_timestamp": 1700000099.0,
            "utm_source": "inbox",
            "xnpe_cmp": "zz",
            "consent_category_tracking": "push",
            "platform": "android",
            "action_type": "app inbox",
            "channel": "web",
        }
        assert opened.own == {**both, "status": "opened"}
        assert clicked.own == {**both, "status": "clicked", "url": PLAIN, "cta": "Web"}
        assert set(opened.properties) == set(opened.own) | STAMPS
        assert opened.properties["application_id"] == "com.example.shop"
        assert opened.ids == {"cookie": await client.get_customer_cookie()}

    async def test_what_happened_is_a_fact(self, world: World) -> None:
        """No property of the message's own stands in for what happened."""
        names = ["status", "url", "cta", "platform", "action_type", "tracking_forced"]
        client = await world.phone.start(message_platform="ios")
        message = await world.fetched(push(attributes=dict.fromkeys(names, "evil")))
        await client.track_app_inbox_click(AppInboxAction("app", "Go", FORCED), message)
        (event,) = await world.phone.kept("campaign")
        assert event.own == {
            "status": "clicked",
            "url": FORCED,
            "cta": "Go",
            "platform": "ios",
            "action_type": "app inbox",
            "tracking_forced": True,
        }

    async def test_before_track(self, world: World) -> None:
        """The host's hook may change an event, or drop it."""

        def hook(event: Event) -> Event | None:
            if event.name != "campaign":
                return event
            return Event("campaign", {"mine": 1}) if event.properties["status"] == "opened" else None

        client = await world.phone.start(hooks=Hooks(before_track=hook))
        message = await world.fetched(push())
        await client.track_app_inbox_opened(message)
        assert (await client.track_app_inbox_click(WEB, message)).status == "dropped"
        (event,) = await world.phone.kept("campaign")
        assert event.own == {"mine": 1}

    async def test_it_arrives(self, world: World) -> None:
        """The platform takes both, as the customer's."""
        client = await world.phone.start(flush_mode="IMMEDIATE")
        message = await world.fetched(push())
        await (await client.track_app_inbox_opened(message)).delivered()
        await (await client.track_app_inbox_click(WEB, message)).delivered()
        told = world.sandbox.engine.events(event_type="campaign")
        assert {each.properties["status"] for each in told} == {"opened", "clicked"}


class TestAboutWhom:
    async def test_the_customer_of_the_message(self, world: World) -> None:
        """An event is about whom the message was fetched for, whoever the device is by now."""
        client = await world.phone.start()
        message = await world.fetched(push())
        await client.identify_customer(Customer({"registered": "jane"}))
        await client.anonymize()
        await client.track_app_inbox_opened(message)
        (event,) = await world.phone.kept("campaign")
        assert event.ids == message.customer_ids
        assert event.ids != {"cookie": await client.get_customer_cookie()}

    async def test_another_device_comes_to_life(self, world: World) -> None:
        """Whether or not there is consent, it is a sign of life of the device, whose id goes along."""
        client = await world.phone.start()
        message = await world.fetched(push())
        silent = await world.fetched(push("m2", has_tracking_consent=False))
        other, third = client.device("other"), client.device("third")
        told = await world.phone.new(lambda: other.track_app_inbox_opened(message))
        assert [each.name for each in told] == ["installation", "session_start", "campaign"]
        assert told[-1].ids == message.customer_ids
        assert told[-1].properties["device_id"] == told[0].properties["device_id"]
        told = await world.phone.new(lambda: third.track_app_inbox_opened(silent))
        assert [each.name for each in told] == ["installation", "session_start"]

    async def test_a_customer_tracker(self, world: World) -> None:
        """A tracker's event is about the message's customer, and no device has a part in it."""
        client = await world.phone.start()
        world.put(push(), push("m2", has_tracking_consent=False))
        jane = client.for_customer({"registered": "jane"})
        messages = {each.id: each for each in await jane.fetch_app_inbox()}
        await client.for_customer({"registered": "joe"}).track_app_inbox_click(WEB, messages["m1"])
        assert (await jane.track_app_inbox_opened(messages["m2"])).status == "dropped"
        (event,) = await world.phone.kept()
        assert event.ids == {"registered": "jane"}
        assert "device_id" not in event.properties

    async def test_where_it_goes(self, world: World) -> None:
        """It goes where its kind is mapped to, and with a device to another project."""
        there = ExponeaProject("there", "key", world.sandbox.url)
        client = await world.phone.start(project_mapping={"APP_INBOX_OPENED": [there]})
        message = await world.fetched(push())
        await client.track_app_inbox_opened(message)
        await client.track_app_inbox_click(WEB, message)
        assert [each.project for each in await world.phone.kept("campaign")] == ["shop", "there", "shop"]
        await client.anonymize(ConfigurationChange(ExponeaProject("other", "key"), {}))
        told = await world.phone.new(lambda: client.track_app_inbox_opened(message), "campaign")
        assert [(each.project, each.ids) for each in told] == [("other", message.customer_ids)]

    async def test_made_by_hand(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Of a message of nobody's nothing is tracked, with or without consent, and the log says why."""
        client = await world.phone.start()
        for consent in (True, False):
            message = AppInboxMessage(id="m", type="push", has_tracking_consent=consent)
            for subject in (client, client.for_customer({"registered": "jane"})):
                receipt = await subject.track_app_inbox_click(WEB, message, consider_consent=False)
                with pytest.raises(DroppedError, match="not loaded for any customer"):
                    await receipt.delivered()
        assert await world.phone.kept("campaign") == []
        assert len(caplog.records) == 4

    async def test_by_hand_but_complete(self, world: World) -> None:
        """A host that keeps messages itself may make them again."""
        client = await world.phone.start()
        message = AppInboxMessage(id="m", type="push", customer_ids={"registered": "jane"}, tracking_data={"a": 1})
        await client.track_app_inbox_opened(message)
        (event,) = await world.phone.kept("campaign")
        assert (event.ids, event.own["a"]) == ({"registered": "jane"}, 1)

    @pytest.mark.parametrize(
        ("action", "message"),
        [(None, AppInboxMessage(id="m", type="push")), (WEB, None), (AppInboxMessage(id="m", type="push"), WEB)],
    )
    async def test_mixed_up(self, world: World, action: Any, message: Any) -> None:
        """What is no action or no message, such as both in the wrong order, is refused."""
        client = await world.phone.start()
        with pytest.raises(InvalidEventError, match="AppInbox"):
            await client.track_app_inbox_click(action, message)

    async def test_stopped(self, world: World) -> None:
        """A stopped integration tracks nothing."""
        client = await world.phone.start()
        message = await world.fetched(push())
        await client.stop_integration()
        assert (await client.track_app_inbox_opened(message)).status == "dropped"
        assert (await client.track_app_inbox_click(WEB, message)).status == "dropped"
