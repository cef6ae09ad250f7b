"""
The statements of the vendor's tracking documentation, one by one: events, customers, sessions, properties.

The tests use the sandbox over HTTP.
"""

from collections import Counter
from typing import Any

import pytest
from helpers.app import App

from exponea_async import (
    ConfigurationChange,
    Customer,
    Event,
    EventType,
    ExponeaProject,
    PurchasedItem,
)
from exponea_async.sandbox import Sandbox, StoredEvent

JANE = Customer(
    ids={"registered": "jane@example.com"}, properties={"first_name": "Jane", "last_name": "Doe", "age": 32}
)
DEFAULTS = {"thisIsADefaultStringProperty": "This is a default string value", "thisIsADefaultIntProperty": 1}
ITEM = PurchasedItem(12.34, "EUR", "Virtual", "handbag", "Awesome leather handbag")


async def arrived(app: App, sandbox: Sandbox, *types: str) -> list[StoredEvent]:
    """Upload the queue; return the events on the platform, all or of some types, ordered by timestamp."""
    result = await app.client.flush_data(60)
    assert (result.rejected, result.remaining) == (0, 0)
    found = [event for event in sandbox.engine.events() if not types or event.event_type in types]
    return sorted(found, key=lambda event: event.timestamp)


async def types(app: App, sandbox: Sandbox) -> list[str]:
    """Upload the queue, and return the types of the events on the platform."""
    return [event.event_type for event in await arrived(app, sandbox)]


class TestByDefault:
    async def test_the_sdk_tracks_certain_events_automatically(self, app: App, sandbox: Sandbox) -> None:
        """These are the installation, the start and end of the session, and the state of the push token."""
        client = await app.start()
        await client.resume()
        await client.handle_push_token("token")
        await client.pause()
        await app.expire(at=1100)

        assert await types(app, sandbox) == ["installation", "session_start", "notification_state", "session_end"]

    async def test_installation_after_installation_and_after_anonymize(self, app: App, sandbox: Sandbox) -> None:
        """An installation is tracked once, and once more for each new customer."""
        client = await app.start()
        await client.track_event(Event("ping"))
        await client.anonymize()
        client = await app.restart()
        await client.track_event(Event("ping"))

        assert (await types(app, sandbox)).count("installation") == 2


class TestEvents:
    async def test_you_can_use_any_name_for_a_custom_event_type(self, app: App, sandbox: Sandbox) -> None:
        """No name has a special meaning."""
        client = await app.start()
        names = ["screen_view", "session start", "Käufe", "campaign_click"]
        for name in names:
            await client.track_event(
                Event(name=name, properties={"screen_name": "dashboard", "other_property": 123.45})
            )

        found = await arrived(app, sandbox, *names)
        assert [event.event_type for event in found] == names
        assert {(event.properties["screen_name"], event.properties["other_property"]) for event in found} == {
            ("dashboard", 123.45)
        }

    async def test_you_can_use_a_nested_structure_for_complex_properties(self, app: App, sandbox: Sandbox) -> None:
        """Lists of mappings arrive unchanged."""
        products = [{"product_id": "abc123", "quantity": 2}, {"product_id": "abc456", "quantity": 1}]
        properties = {"purchase_status": "success", "product_list": products, "total_price": 7.99}
        client = await app.start()
        await client.track_event(Event("purchase", properties))

        (event,) = await arrived(app, sandbox, "purchase")
        assert properties.items() <= event.properties.items()

    async def test_the_timestamp_is_the_current_time_by_default(self, app: App, sandbox: Sandbox) -> None:
        """The default is the time of the call, not of the upload; a given timestamp is in UNIX seconds."""
        client = await app.start(at=1_700_000_000.0)
        await client.track_event(Event("now"))
        await client.track_event(Event("then", timestamp=1_600_000_000.25))
        app.now = 1_800_000_000.0

        then, now = await arrived(app, sandbox, "now", "then")
        assert then.timestamp == 1_600_000_000.25
        assert now.timestamp == pytest.approx(1_700_000_000.0, abs=0.001)


class TestCustomers:
    async def test_without_identification_events_are_tracked_for_an_anonymous_customer(
        self, app: App, sandbox: Sandbox
    ) -> None:
        """Such a customer is identified by a cookie only."""
        client = await app.start()
        await client.track_event(Event("ping"))

        (event,) = await arrived(app, sandbox, "ping")
        assert event.customer_ids == {"cookie": await client.get_customer_cookie()}

    async def test_these_events_are_transferred_to_the_identified_customer(self, app: App, sandbox: Sandbox) -> None:
        """The cookie and the hard id are sent together, so that the platform can merge them."""
        client = await app.start()
        await client.track_event(Event("before"))
        await client.flush_data(60)
        await client.identify_customer(JANE)
        await client.track_event(Event("after"))

        before, after = await arrived(app, sandbox, "before", "after")
        (customer,) = sandbox.engine.customers()
        assert before.customer == after.customer == customer.key
        assert customer.ids["registered"] == ("jane@example.com",)

    async def test_you_can_track_additional_customer_properties(self, app: App, sandbox: Sandbox) -> None:
        """The properties can be empty: then only the ids are updated."""
        client = await app.start()
        await client.identify_customer(JANE)
        await client.identify_customer(Customer(ids={"crm": "5"}, properties={}))
        await client.flush_data(60)

        (customer,) = sandbox.engine.customers()
        assert customer.properties == {"first_name": "Jane", "last_name": "Doe", "age": 32}
        assert (customer.ids["registered"], customer.ids["crm"]) == (("jane@example.com",), ("5",))

    async def test_the_hard_id_is_stored_until_anonymize(self, app: App, sandbox: Sandbox) -> None:
        """Later events carry it, also after a restart, but not those of the next customer."""
        await (await app.start()).identify_customer(JANE)
        client = await app.restart()
        await client.track_event(Event("hers"))
        await client.anonymize()
        await client.track_event(Event("not hers"))

        hers, others = await arrived(app, sandbox, "hers", "not hers")
        assert hers.customer_ids["registered"] == "jane@example.com"
        assert set(others.customer_ids) == {"cookie"}


class TestAnonymize:
    async def test_it_resets_the_current_state(self, app: App, sandbox: Sandbox) -> None:
        """The token is removed, then come a new cookie, an installation, a session start, and the token again."""
        client = await app.start()
        await client.identify_customer(JANE)
        await client.track_push_token("token")
        old = await client.get_customer_cookie()
        app.now = 1030
        await client.anonymize()
        new = await client.get_customer_cookie()

        found = [(event.event_type, event.customer_ids["cookie"]) for event in await arrived(app, sandbox)]
        assert found[-5:] == [
            ("session_end", old),
            ("notification_state", old),
            ("installation", new),
            ("session_start", new),
            ("notification_state", new),
        ]
        assert old != new

    async def test_the_token_is_removed_by_a_notification_state(self, app: App, sandbox: Sandbox) -> None:
        """The event has ``valid = false`` and ``description = Invalidated``."""
        client = await app.start()
        await client.track_push_token("token")
        await client.anonymize()

        _, removed, _ = await arrived(app, sandbox, "notification_state")
        assert (removed.properties["valid"], removed.properties["description"]) == (False, "Invalidated")

    async def test_versions_below_2_3_0_assign_an_empty_string(self, app: App, sandbox: Sandbox) -> None:
        """With tokens as customer properties, the old customer's is emptied and the new customer gets it."""
        client = await app.start(push_token_storage="property")
        await client.track_push_token("token")
        await client.anonymize()
        await client.flush_data(60)

        old, new = sandbox.engine.customers()
        assert old.properties == {"google_push_notification_id": ""}
        assert new.properties == {"google_push_notification_id": "token"}

    async def test_tracked_events_are_kept(self, app: App, sandbox: Sandbox) -> None:
        """Events that were tracked before and not uploaded yet still arrive, for the old customer."""
        client = await app.start()
        await client.track_event(Event("before"))
        old = await client.get_customer_cookie()
        await client.anonymize()

        (event,) = await arrived(app, sandbox, "before")
        assert event.customer_ids == {"cookie": old}

    async def test_you_can_switch_to_a_different_project(self, app: App, sandbox: Sandbox) -> None:
        """Events then go to a new customer in the new project, payments to its mapped one, also after a restart."""
        await (await app.start()).track_event(Event("before"))
        change = ConfigurationChange(
            project=ExponeaProject(project_token="new-project-token", authorization_token="new-authorization-token"),
            mapping={
                EventType.PAYMENT: [
                    ExponeaProject("special-project-for-payments", "payment-authorization-token", sandbox.url)
                ]
            },
        )
        await app.client.anonymize(change)
        await (await app.restart()).track_payment_event(ITEM)

        places = Counter((event.project, event.event_type) for event in await arrived(app, sandbox))
        assert places["shop", "before"] == 1
        assert places["new-project-token", "installation"] == places["new-project-token", "payment"] == 1
        assert places["special-project-for-payments", "payment"] == 1
        assert places["shop", "payment"] == places["special-project-for-payments", "installation"] == 0


class TestSessions:
    async def test_a_session_is_the_actual_time_spent_in_the_app(self, app: App, sandbox: Sandbox) -> None:
        """It starts when the application is launched and ends when it goes to the background."""
        client = await app.start()
        await client.resume()
        app.now = 1600
        await client.pause()
        await app.expire(at=1661)

        start, end = await arrived(app, sandbox, "session_start", "session_end")
        assert (round(start.timestamp, 3), round(end.timestamp, 3)) == (1000, 1600)
        assert end.properties["duration"] == 600

    @pytest.mark.parametrize(("patience", "away", "sessions"), [(60, 59, 1), (60, 61, 2), (5, 4, 1), (5, 6, 2)])
    async def test_a_return_before_the_timeout_continues_the_session(
        self, app: App, sandbox: Sandbox, patience: int, away: int, sessions: int
    ) -> None:
        """The timeout is 60 seconds, or ``session_timeout``."""
        settings: dict[str, Any] = {} if patience == 60 else {"session_timeout": patience}
        client = await app.start(**settings)
        await client.resume()
        await client.pause()
        app.now += away
        await client.resume()

        assert len(await arrived(app, sandbox, "session_start")) == sessions
        assert len(await arrived(app, sandbox, "session_end")) == sessions - 1

    async def test_sessions_may_be_tracked_manually(self, app: App, sandbox: Sandbox) -> None:
        """With ``automatic_session_tracking`` off, only sessions of explicit calls are tracked."""
        client = await app.start(automatic_session_tracking=False)
        await client.resume()
        await client.track_event(Event("ping"))
        assert await types(app, sandbox) == ["installation", "ping"]

        await client.track_session_start()
        app.now = 1042
        await client.track_session_end()
        (end,) = await arrived(app, sandbox, "session_end")
        assert end.properties["duration"] == 42

    async def test_default_session_properties_can_be_overridden(self, app: App, sandbox: Sandbox) -> None:
        """An empty ``ip`` among the default properties keeps the platform from adding one."""
        client = await app.start(default_properties={"ip": "", "city": "nowhere"})
        await client.resume()
        await client.pause()
        await app.expire(at=1100)

        found = await arrived(app, sandbox, "session_start", "session_end")
        assert [(event.properties["ip"], event.properties["city"]) for event in found] == [("", "nowhere")] * 2


class TestDefaultProperties:
    async def test_default_properties_are_tracked_with_every_event(self, app: App, sandbox: Sandbox) -> None:
        """Except with the state of push tokens, whose properties are fixed."""
        client = await app.start(default_properties=DEFAULTS)
        await client.track_event(Event("ping"))
        await client.track_payment_event(ITEM)
        await client.track_clicked_push({"title": "Sale"})
        await client.track_push_token("token")
        await app.expire(at=1100)

        found = {
            event.event_type: DEFAULTS.items() <= event.properties.items() for event in await arrived(app, sandbox)
        }
        assert found.pop("notification_state") is False
        assert found == dict.fromkeys(
            ["installation", "session_start", "ping", "payment", "campaign", "session_end"], True
        )

    async def test_a_default_property_is_overwritten_by_the_events_own(self, app: App, sandbox: Sandbox) -> None:
        """The event's property with the same key counts."""
        client = await app.start(default_properties=DEFAULTS)
        await client.track_event(Event("ping", {"thisIsADefaultIntProperty": 2}))

        (event,) = await arrived(app, sandbox, "ping")
        assert event.properties["thisIsADefaultIntProperty"] == 2

    async def test_you_can_change_the_default_properties(self, app: App, sandbox: Sandbox) -> None:
        """Later events carry the new ones, and earlier events keep theirs."""
        client = await app.start(default_properties=DEFAULTS)
        await client.track_event(Event("before"))
        await client.set_default_properties({"other": True})
        await client.track_event(Event("after"))

        before, after = await arrived(app, sandbox, "before", "after")
        assert DEFAULTS.items() <= before.properties.items()
        assert not DEFAULTS.keys() & after.properties.keys()
        assert after.properties["other"] is True
        assert client.default_properties == {"other": True}
