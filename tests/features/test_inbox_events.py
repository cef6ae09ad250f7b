"""
The events of the app inbox, and the customers they are about.
"""

from typing import Any

import pytest
from helpers.app import STAMPS, App
from helpers.inbox import InboxFixture, push
from helpers.internals import features_of

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
def inbox(app: App, sandbox: Sandbox) -> InboxFixture:
    return InboxFixture(app, sandbox)


class Recorder(Feature):
    """A feature that keeps the tracked events of the app inbox."""

    name = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.events: list[TrackedEvent] = []

    @property
    def is_listening(self) -> bool:
        """Always true."""
        return True

    def tracked(self, context: SubjectContext, event: TrackedEvent) -> None:
        """Keep an event of the app inbox."""
        if event.kind.name.startswith("APP_INBOX"):
            self.events.append(event)


class TestConsent:
    @pytest.mark.parametrize("consent", [None, True, False])
    @pytest.mark.parametrize("url", [None, PLAIN, FORCED])
    @pytest.mark.parametrize("consider", [True, False])
    async def test_clicks(self, inbox: InboxFixture, consider: bool, url: str | None, consent: bool | None) -> None:  # noqa: FBT001
        """Without consent a click is tracked only if consent does not count, or if its link forces it."""
        client = await inbox.app.start()
        message = await inbox.fetched(push(has_tracking_consent=consent))
        receipt = await client.track_app_inbox_click(AppInboxAction("browser", "Web", url), message, consider)
        kept = await inbox.app.pending("campaign")
        assert len(kept) == (consent is not False or url == FORCED or not consider)
        assert receipt.status == ("queued" if kept else "dropped")
        forced = True if url == FORCED else None
        assert [each.own.get("tracking_forced") for each in kept] == [forced] * len(kept)

    @pytest.mark.parametrize("consent", [None, True, False])
    @pytest.mark.parametrize("consider", [True, False])
    async def test_opened(self, inbox: InboxFixture, consider: bool, consent: bool | None) -> None:  # noqa: FBT001
        """Without consent an opened message is tracked only if consent does not count; no link forces it."""
        client = await inbox.app.start()
        message = await inbox.fetched(push(has_tracking_consent=consent, url=FORCED))
        receipt = await client.track_app_inbox_opened(message, consider)
        kept = await inbox.app.pending("campaign")
        assert len(kept) == (consent is not False or not consider)
        assert receipt.status == ("queued" if kept else "dropped")

    async def test_without_consent(self, inbox: InboxFixture) -> None:
        """Without consent the receipt is dropped and counted, but features are notified of the event."""
        client = await inbox.app.start()
        recorder = Recorder()
        features_of(client).add(recorder)
        message = await inbox.fetched(push(has_tracking_consent=False))
        receipt = await client.track_app_inbox_opened(message)
        with pytest.raises(DroppedError, match="consent"):
            await receipt.delivered()
        assert client.stats().dropped == {"no_consent": 1}
        await client.track_app_inbox_click(WEB, message, consider_consent=False)
        assert [(each.event.properties["status"], each.receipt is not None) for each in recorder.events] == [
            ("opened", False),
            ("clicked", True),
        ]


class TestProperties:
    async def test_all_properties(self, inbox: InboxFixture) -> None:
        """An event has the message's tracking data and what happened, but no properties of the device."""
        client = await inbox.app.start(application_id="com.example.shop", default_properties={"channel": "web"})
        message = await inbox.fetched(
            push(
                attributes={"campaign_id": "c1", "event_type": "campaign", "sent_timestamp": 1700000099.0},
                url_params={"utm_source": "inbox", "xnpe_cmp": "zz"},
                consent_category_tracking="push",
            )
        )
        await client.track_app_inbox_opened(message)
        await client.track_app_inbox_click(WEB, message)
        opened, clicked = await inbox.app.pending("campaign")
        common = {
            "campaign_id": "c1",
            "sent_timestamp": 1700000099.0,
            "utm_source": "inbox",
            "xnpe_cmp": "zz",
            "consent_category_tracking": "push",
            "platform": "android",
            "action_type": "app inbox",
            "channel": "web",
        }
        assert opened.own == {**common, "status": "opened"}
        assert clicked.own == {**common, "status": "clicked", "url": PLAIN, "cta": "Web"}
        assert set(opened.properties) == set(opened.own) | STAMPS
        assert opened.properties["application_id"] == "com.example.shop"
        assert opened.ids == {"cookie": await client.get_customer_cookie()}

    async def test_reserved_properties(self, inbox: InboxFixture) -> None:
        """A message's own properties do not replace what happened."""
        names = ["status", "url", "cta", "platform", "action_type", "tracking_forced"]
        client = await inbox.app.start(message_platform="ios")
        message = await inbox.fetched(push(attributes=dict.fromkeys(names, "evil")))
        await client.track_app_inbox_click(AppInboxAction("app", "Go", FORCED), message)
        (event,) = await inbox.app.pending("campaign")
        assert event.own == {
            "status": "clicked",
            "url": FORCED,
            "cta": "Go",
            "platform": "ios",
            "action_type": "app inbox",
            "tracking_forced": True,
        }

    async def test_before_track(self, inbox: InboxFixture) -> None:
        """The `before_track` hook can change an event, or drop it."""

        def hook(event: Event) -> Event | None:
            if event.name != "campaign":
                return event
            return Event("campaign", {"mine": 1}) if event.properties["status"] == "opened" else None

        client = await inbox.app.start(hooks=Hooks(before_track=hook))
        message = await inbox.fetched(push())
        await client.track_app_inbox_opened(message)
        assert (await client.track_app_inbox_click(WEB, message)).status == "dropped"
        (event,) = await inbox.app.pending("campaign")
        assert event.own == {"mine": 1}

    async def test_delivery(self, inbox: InboxFixture) -> None:
        """Both events are delivered."""
        client = await inbox.app.start(flush_mode="IMMEDIATE")
        message = await inbox.fetched(push())
        await (await client.track_app_inbox_opened(message)).delivered()
        await (await client.track_app_inbox_click(WEB, message)).delivered()
        events = inbox.sandbox.engine.events(event_type="campaign")
        assert {each.properties["status"] for each in events} == {"opened", "clicked"}


class TestCustomers:
    async def test_owner_of_the_message(self, inbox: InboxFixture) -> None:
        """An event is about the customer that the message was fetched for, even after the customer has changed."""
        client = await inbox.app.start()
        message = await inbox.fetched(push())
        await client.identify_customer(Customer({"registered": "jane"}))
        await client.anonymize()
        await client.track_app_inbox_opened(message)
        (event,) = await inbox.app.pending("campaign")
        assert event.ids == message.customer_ids
        assert event.ids != {"cookie": await client.get_customer_cookie()}

    async def test_another_device(self, inbox: InboxFixture) -> None:
        """With or without consent, an event is activity of the tracking device, whose id it has."""
        client = await inbox.app.start()
        message = await inbox.fetched(push())
        silent = await inbox.fetched(push("m2", has_tracking_consent=False))
        other, third = client.device("other"), client.device("third")
        events = await inbox.app.new(lambda: other.track_app_inbox_opened(message))
        assert [each.name for each in events] == ["installation", "session_start", "campaign"]
        assert events[-1].ids == message.customer_ids
        assert events[-1].properties["device_id"] == events[0].properties["device_id"]
        events = await inbox.app.new(lambda: third.track_app_inbox_opened(silent))
        assert [each.name for each in events] == ["installation", "session_start"]

    async def test_a_customer_tracker(self, inbox: InboxFixture) -> None:
        """An event of a customer tracker is about the message's customer, without a device."""
        client = await inbox.app.start()
        inbox.put(push(), push("m2", has_tracking_consent=False))
        jane = client.for_customer({"registered": "jane"})
        messages = {each.id: each for each in await jane.fetch_app_inbox()}
        await client.for_customer({"registered": "joe"}).track_app_inbox_click(WEB, messages["m1"])
        assert (await jane.track_app_inbox_opened(messages["m2"])).status == "dropped"
        (event,) = await inbox.app.pending()
        assert event.ids == {"registered": "jane"}
        assert "device_id" not in event.properties

    async def test_projects(self, inbox: InboxFixture) -> None:
        """Events go to the projects that their type is mapped to, and to the project of their device."""
        there = ExponeaProject("there", "key", inbox.sandbox.url)
        client = await inbox.app.start(project_mapping={"APP_INBOX_OPENED": [there]})
        message = await inbox.fetched(push())
        await client.track_app_inbox_opened(message)
        await client.track_app_inbox_click(WEB, message)
        assert [each.project for each in await inbox.app.pending("campaign")] == ["shop", "there", "shop"]
        await client.anonymize(ConfigurationChange(ExponeaProject("other", "key"), {}))
        events = await inbox.app.new(lambda: client.track_app_inbox_opened(message), "campaign")
        assert [(each.project, each.ids) for each in events] == [("other", message.customer_ids)]

    async def test_message_without_ids(self, inbox: InboxFixture, caplog: pytest.LogCaptureFixture) -> None:
        """A message without customer ids is not tracked, with or without consent, and the reason is logged."""
        client = await inbox.app.start()
        for consent in (True, False):
            message = AppInboxMessage(id="m", type="push", has_tracking_consent=consent)
            for subject in (client, client.for_customer({"registered": "jane"})):
                receipt = await subject.track_app_inbox_click(WEB, message, consider_consent=False)
                with pytest.raises(DroppedError, match="not loaded for any customer"):
                    await receipt.delivered()
        assert await inbox.app.pending("campaign") == []
        assert len(caplog.records) == 4

    async def test_message_made_by_the_caller(self, inbox: InboxFixture) -> None:
        """A message with customer ids is tracked, even if the caller made it."""
        client = await inbox.app.start()
        message = AppInboxMessage(id="m", type="push", customer_ids={"registered": "jane"}, tracking_data={"a": 1})
        await client.track_app_inbox_opened(message)
        (event,) = await inbox.app.pending("campaign")
        assert (event.ids, event.own["a"]) == ({"registered": "jane"}, 1)

    @pytest.mark.parametrize(
        ("action", "message"),
        [(None, AppInboxMessage(id="m", type="push")), (WEB, None), (AppInboxMessage(id="m", type="push"), WEB)],
    )
    async def test_wrong_types(self, inbox: InboxFixture, action: Any, message: Any) -> None:
        """Values that are not an action and a message, such as both in the wrong order, raise an error."""
        client = await inbox.app.start()
        with pytest.raises(InvalidEventError, match="AppInbox"):
            await client.track_app_inbox_click(action, message)

    async def test_stopped(self, inbox: InboxFixture) -> None:
        """A stopped integration drops events."""
        client = await inbox.app.start()
        message = await inbox.fetched(push())
        await client.stop_integration(everyone=True)
        assert (await client.track_app_inbox_opened(message)).status == "dropped"
        assert (await client.track_app_inbox_click(WEB, message)).status == "dropped"
