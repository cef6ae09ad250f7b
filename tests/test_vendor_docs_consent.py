"""
The statements of the vendor's tracking documentation, one by one: push notifications, payments, withdrawn consent.

The tests use the sandbox over HTTP.
"""

from pathlib import Path
from typing import Any

import pytest
from helpers.app import App
from helpers.clients import Configure
from helpers.environment import Environment
from helpers.waiting import running, until

from exponea_async import Customer, Event, Exponea, FlushMode, LifecycleError, PurchasedItem
from exponea_async.sandbox import Sandbox, StoredEvent

PAYLOAD = {
    "source": "xnpe_platform",
    "title": "Sale",
    "attributes": {"campaign_id": "c-1", "sent_timestamp": 990.0},
    "url_params": {"utm_source": "push"},
}


async def arrived(app: App, sandbox: Sandbox, *types: str) -> list[StoredEvent]:
    """Upload the queue; return the events on the platform, all or of some types, ordered by timestamp."""
    result = await app.client.flush_data(60)
    assert (result.rejected, result.remaining) == (0, 0)
    found = [event for event in sandbox.engine.events() if not types or event.event_type in types]
    return sorted(found, key=lambda event: event.timestamp)


class TestPushNotifications:
    async def test_the_token_is_tracked_automatically_each_time_the_app_becomes_active(
        self, app: App, sandbox: Sandbox
    ) -> None:
        """How often the same token is tracked is a setting."""
        client = await app.start(push_token_tracking_frequency="EVERY_LAUNCH")
        await client.handle_push_token("token")
        await client.resume()
        await (await app.restart(at=1001.0, push_token_tracking_frequency="EVERY_LAUNCH")).resume()

        assert len(await arrived(app, sandbox, "notification_state")) == 3

    async def test_automatic_push_notification_tracking_can_be_disabled(self, app: App, sandbox: Sandbox) -> None:
        """Then the application tracks push notifications itself."""
        client = await app.start(automatic_push_notification=False, push_token_tracking_frequency="EVERY_LAUNCH")
        await client.track_push_token("token")
        await client.resume()

        assert len(await arrived(app, sandbox, "notification_state")) == 1

    async def test_the_token_is_assigned_to_the_currently_logged_in_customer(self, app: App, sandbox: Sandbox) -> None:
        """This holds for Firebase and for Huawei."""
        client = await app.start()
        await client.identify_customer(Customer({"registered": "jane@example.com"}))
        await client.track_push_token("value-of-push-token")
        await client.track_hms_push_token("value-of-push-token")

        found = await arrived(app, sandbox, "notification_state")
        assert [event.properties["platform"] for event in found] == ["android", "huawei"]
        assert {event.customer_ids["registered"] for event in found} == {"jane@example.com"}

    async def test_a_token_is_tracked_immediately_regardless_of_the_frequency(self, app: App, sandbox: Sandbox) -> None:
        """This holds for explicit calls."""
        client = await app.start(push_token_tracking_frequency="ON_TOKEN_CHANGE")
        await client.track_push_token("token")
        await client.track_push_token("token")

        assert len(await arrived(app, sandbox, "notification_state")) == 2

    async def test_anonymize_ensures_that_the_token_is_removed_from_the_profile(
        self, app: App, sandbox: Sandbox
    ) -> None:
        """After a sign-out no two customers share a token."""
        client = await app.start()
        await client.identify_customer(Customer({"registered": "jane@example.com"}))
        await client.track_push_token("token")
        await client.anonymize()
        await client.identify_customer(Customer({"registered": "joe@example.com"}))

        states: dict[int, bool] = {}
        for event in await arrived(app, sandbox, "notification_state"):
            states[event.customer] = event.properties["valid"]
        assert sorted(states.values()) == [False, True]

    async def test_delivery_and_click_may_be_tracked_manually(self, app: App, sandbox: Sandbox) -> None:
        """Both are tracked from the notification's payload, the delivery before the click."""
        client = await app.start()
        await client.track_delivered_push(PAYLOAD)
        app.now = 1005
        await client.track_clicked_push(PAYLOAD)

        delivered, clicked = await arrived(app, sandbox, "campaign")
        assert (delivered.properties["status"], clicked.properties["status"]) == ("delivered", "clicked")
        assert {event.properties["campaign_id"] for event in (delivered, clicked)} == {"c-1"}

    async def test_tracking_may_require_explicit_consent(self, app: App, sandbox: Sandbox) -> None:
        """A notification without consent is not tracked, unless the caller overrides it."""
        client = await app.start()
        unwilling = {**PAYLOAD, "has_tracking_consent": False}
        await client.track_delivered_push(unwilling)
        await client.track_clicked_push(unwilling)
        assert await arrived(app, sandbox, "campaign") == []

        await client.track_delivered_push(unwilling, consider_consent=False)
        assert len(await arrived(app, sandbox, "campaign")) == 1


async def test_payments_have_a_convenience_method(app: App, sandbox: Sandbox) -> None:
    """A purchased item becomes a payment, with the time of the call or a given timestamp."""
    client = await app.start()
    item = PurchasedItem(12.34, "EUR", "Virtual", "handbag", "Awesome leather handbag")
    await client.track_payment_event(item)
    await client.track_payment_event(item, timestamp=500.5)

    then, now = await arrived(app, sandbox, "payment")
    assert (then.timestamp, round(now.timestamp, 3)) == (500.5, 1000)
    assert {name: value for name, value in now.properties.items() if not name.endswith("_id") or name == "item_id"} == {
        "brutto": 12.34,
        "currency": "EUR",
        "payment_system": "Virtual",
        "item_id": "handbag",
        "product_title": "Awesome leather handbag",
    }


async def lived(app: App) -> dict[str, Any]:
    """Use a device, and return its ids."""
    client = await app.start()
    await client.identify_customer(Customer({"registered": "jane@example.com"}))
    await client.track_push_token("token")
    await client.handle_campaign_click("https://shop.example/?utm_source=a&xnpe_cmp=1")
    return (await app.pending("installation"))[0].properties | {"cookie": await client.get_customer_cookie()}


async def assert_fresh(app: App, sandbox: Sandbox, before: dict[str, Any]) -> None:
    """Check that the device is a new one, and that nothing of the old one was sent."""
    await app.client.track_event(Event("ping"))
    events = await arrived(app, sandbox)
    assert [event.event_type for event in events] == ["installation", "session_start", "ping"]
    assert all(set(event.customer_ids) == {"cookie"} for event in events)
    assert not set(before.values()) & {events[0].customer_ids["cookie"], events[0].properties["device_id"]}


class TestClearLocalCustomerData:
    async def test_it_removes_all_locally_stored_information(
        self, app: App, sandbox: Sandbox, configure: Configure
    ) -> None:
        """Token, unsent events, session and customer are deleted; nothing is sent."""
        before = await lived(app)
        await app.client.aclose(timeout=0)
        # The file may be closed in the background.
        await until(lambda: running() == [])
        await Exponea.clear_local_customer_data(configure())
        assert sandbox.request_count == 0

        await app.start()
        await assert_fresh(app, sandbox, before)

    async def test_it_is_called_before_the_sdk_is_initialized(self, app: App, configure: Configure) -> None:
        """While a client is running the call is refused."""
        await app.start()
        with pytest.raises(LifecycleError, match="stop_integration"):
            await Exponea.clear_local_customer_data(configure())

    async def test_each_application_group_is_cleared_separately(
        self, tmp_path: Path, configure: Configure, environment: Environment
    ) -> None:
        """The data of other groups is kept."""
        environment(XDG_STATE_HOME=tmp_path / "state")
        cookies: dict[str, list[str]] = {"one": [], "two": []}
        for _ in range(2):
            for group, seen in cookies.items():
                async with Exponea(configure(storage=None, app_group=group, flush_mode="MANUAL")) as client:
                    seen.append(await client.get_customer_cookie())
            await Exponea.clear_local_customer_data(configure(storage=None), "one")

        assert cookies["one"][0] != cookies["one"][1]
        assert cookies["two"][0] == cookies["two"][1]


class TestStopIntegration:
    async def test_it_deletes_all_information_stored_locally(self, app: App, sandbox: Sandbox) -> None:
        """This includes tracked events that were not flushed yet; nothing is sent."""
        before = await lived(app)
        await app.client.stop_integration()
        assert sandbox.request_count == 0

        await app.restart()
        await assert_fresh(app, sandbox, before)

    async def test_the_next_initialization_is_a_fresh_new_start(self, app: App, sandbox: Sandbox) -> None:
        """The same client starts afresh, too."""
        before = await lived(app)
        await app.client.stop_integration()
        await app.client.start()
        await assert_fresh(app, sandbox, before)

    async def test_it_may_be_called_without_initializing(self, app: App, sandbox: Sandbox) -> None:
        """Then nothing that was stored is uploaded, and the customer is not created again."""
        before = await lived(app)
        await app.client.aclose(timeout=0)
        await app.make().stop_integration()
        assert sandbox.request_count == 0

        await app.start()
        await assert_fresh(app, sandbox, before)

    async def test_it_drops_any_method_invocation_until_the_next_start(self, app: App, sandbox: Sandbox) -> None:
        """Events, sessions, tokens, push notifications, links and flushes: nothing is tracked or uploaded."""
        client = await app.start()
        await client.stop_integration()
        app.now = 2000
        receipts = [
            await client.track_event(Event("ping")),
            await client.identify_customer(Customer({"registered": "R"})),
            await client.track_session_start(),
            await client.track_session_end(),
            await client.track_push_token("token"),
            *await client.handle_push_token("token"),
            *await client.verify_push_status_and_track_push_token(),
            *await client.anonymize(),
            await client.track_delivered_push(PAYLOAD),
            await client.track_clicked_push(PAYLOAD),
            await client.handle_push_notification_opened(PAYLOAD),
        ]
        await client.resume()
        await client.pause()

        assert {receipt.status for receipt in receipts} == {"dropped"}
        assert await client.handle_campaign_click("https://shop.example/?xnpe_cmp=1") is False
        assert await client.get_customer_cookie() == ""
        result = await client.flush_data(60)
        assert (result.delivered, result.remaining, sandbox.request_count) == (0, 0, 0)

    async def test_it_stops_handling_of_received_push_notifications(self, app: App) -> None:
        """Subscriptions receive nothing more."""
        client = await app.start()
        received = client.received_push_stream()
        await client.stop_integration()
        await client.track_delivered_push(PAYLOAD)
        await received.aclose()

        assert [push async for push in received] == []

    async def test_it_stops_session_tracking(self, app: App, sandbox: Sandbox) -> None:
        """The end of the session that was open is not tracked, then or later."""
        client = await app.start()
        await client.resume()
        await client.stop_integration()
        app.now = 5000
        await client.start()
        await app.expire()

        assert await arrived(app, sandbox) == []

    async def test_tracked_data_can_be_uploaded_first(self, app: App, sandbox: Sandbox) -> None:
        """These are the page's three steps: manual mode, flush, stop."""
        client = await app.start(flush_mode=FlushMode.PERIOD)
        await client.track_event(Event("ping"))
        await client.set_flush_mode(FlushMode.MANUAL)
        await client.flush_data()
        await client.stop_integration()

        assert len(sandbox.engine.events(event_type="ping")) == 1

    async def test_the_stop_can_upload_first(self, app: App, sandbox: Sandbox) -> None:
        """With ``flush=True`` the stop uploads by itself."""
        client = await app.start()
        await client.track_event(Event("ping"))
        await client.stop_integration(flush=True)

        assert len(sandbox.engine.events(event_type="ping")) == 1
        assert client.is_stopped


async def test_without_consent_nothing_is_tracked(app: App, sandbox: Sandbox) -> None:
    """A client that is not started stores nothing and sends nothing."""
    client = app.make()
    with pytest.raises(LifecycleError, match="not started"):
        await client.track_event(Event("ping"))
    await app.start()

    assert await app.pending() == []
    assert sandbox.request_count == 0
