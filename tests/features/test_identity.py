"""
The identity of a device: cookies, ``anonymize``, other projects.
"""

import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from helpers.app import App, PendingRecord
from helpers.clients import Configure
from helpers.queue_file import stored_state
from helpers.waiting import until

from exponea_async import (
    BasicAuth,
    ConfigurationChange,
    ConfigurationError,
    Customer,
    Event,
    EventType,
    Exponea,
    ExponeaProject,
    Hooks,
    InvalidEventError,
    PurchasedItem,
)
from exponea_async.sandbox import Project, Sandbox
from exponea_async.testing import pending_records

NEW = ExponeaProject("new-project", "new-key")
FINANCE = ExponeaProject("finance", "finance-key")
ITEM = PurchasedItem(12.5, "EUR", "card", "mug-1", "Blue mug")
COOKIE = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

Line = tuple[str, dict[str, str], str, float]


def lines(kept: list[PendingRecord]) -> list[Line]:
    """Return name, ids, project and timestamp."""
    return [(each.name, each.ids, each.project, each.at) for each in kept]


async def grown_up(app: App, **settings: Any) -> Exponea:
    """Start a client whose device belongs to Jane for half a minute, in a session from 10 to 40, with a token."""
    client = await app.start(at=10.0, **settings)
    await client.identify_customer(Customer({"registered": "jane"}))
    await client.handle_push_token("T")
    app.now = 40.0
    return client


class TestAnonymize:
    @pytest.mark.parametrize("change", [None, ConfigurationChange(project=NEW)])
    async def test_the_order(self, app: App, change: ConfigurationChange | None) -> None:
        """The old customer's events come first, in the old project, then those of the new one, in the new project."""
        client = await grown_up(app)
        jane = {"cookie": await client.get_customer_cookie(), "registered": "jane"}
        events = await app.new(lambda: client.anonymize(change))
        new_customer = {"cookie": await client.get_customer_cookie()}
        project = "shop" if change is None else "new-project"

        assert lines(events) == [
            ("session_end", jane, "shop", 40),
            ("notification_state", jane, "shop", 40),
            ("installation", new_customer, project, 40),
            ("session_start", new_customer, project, 40),
            ("notification_state", new_customer, project, 40),
        ]
        assert events[0].own == {"duration": 30}
        assert [(each.own["valid"], each.own["description"]) for each in (events[1], events[4])] == [
            (False, "Invalidated"),
            (True, "Permission granted"),
        ]
        assert len({each.properties["device_id"] for each in events}) == 1
        assert new_customer["cookie"] != jane["cookie"]

    async def test_without_automatic_sessions(self, app: App) -> None:
        """Where sessions are explicit, no session is tracked, and the open one is forgotten."""
        client = await grown_up(app, automatic_session_tracking=False)
        await client.track_session_start()
        events = await app.new(client.anonymize)

        assert [each.name for each in events] == ["notification_state", "installation", "notification_state"]
        assert (await client.track_session_end()).status == "dropped"

    async def test_without_a_token(self, app: App) -> None:
        """Without a token no token state is tracked."""
        client = await app.start()
        await client.track_event(Event("ping"))
        events = await app.new(client.anonymize)

        assert [each.name for each in events] == ["session_end", "installation", "session_start"]

    async def test_as_the_first_call(self, app: App) -> None:
        """A new device has no events of an old customer."""
        client = await app.start()
        receipts = await client.anonymize()

        assert await app.names() == ["installation", "session_start"]
        assert [receipt.status for receipt in receipts] == ["queued", "queued"]
        assert {each.ids["cookie"] for each in await app.pending()} == {await client.get_customer_cookie()}

    async def test_after_the_session_timeout(self, app: App) -> None:
        """A session that has expired ends at its last activity, not at the call."""
        client = await app.start()
        await client.track_event(Event("ping"))
        app.now = 1020
        await client.track_event(Event("ping"))
        app.now = 5000
        await client.anonymize()

        assert await app.sessions() == [("start", 1000), ("end", 1020, 20), ("start", 5000)]

    async def test_the_new_session_is_remembered(self, app: App) -> None:
        """The session that starts with the new customer continues: no second start, and an exact end."""
        client = await grown_up(app)
        await client.anonymize()
        app.now = 50
        await client.track_event(Event("ping"))
        await app.expire(at=200)

        assert await app.sessions() == [("start", 10), ("end", 40, 30), ("start", 40), ("end", 50, 10)]

    async def test_queued_events_stay(self, app: App) -> None:
        """Events that were tracked before keep their ids and their project, byte for byte."""
        client = await grown_up(app)
        before = await app.pending()
        await client.anonymize(ConfigurationChange(project=NEW, mapping={}))

        assert (await app.pending())[: len(before)] == before

    async def test_one_commit(self, app: App) -> None:
        """All events and the state are one transaction."""
        client = await grown_up(app)
        before = client.stats().commits
        await client.anonymize()

        assert client.stats().commits == before + 1

    async def test_other_devices_are_not_affected(self, app: App) -> None:
        """Anonymizing one device does not affect the others."""
        client = await app.start()
        one, two = client.device("tg:1"), client.device("tg:2")
        cookies = await one.get_customer_cookie(), await two.get_customer_cookie()
        await one.anonymize(ConfigurationChange(project=NEW))
        await two.track_event(Event("ping"))

        assert await one.get_customer_cookie() != cookies[0]
        assert await two.get_customer_cookie() == cookies[1]
        assert [(each.project, each.ids) for each in await app.pending("ping")] == [("shop", {"cookie": cookies[1]})]

    @pytest.mark.parametrize("change", [5, "new-project", NEW, {}])
    async def test_invalid_changes(self, app: App, change: Any) -> None:
        """A value that is not a ConfigurationChange is refused, and nothing happens."""
        client = await grown_up(app)
        before = await app.pending()
        with pytest.raises(InvalidEventError, match="ConfigurationChange"):
            await client.anonymize(change)

        assert await app.pending() == before

    @pytest.mark.parametrize("verb", ["anonymize", "get_customer_cookie"])
    async def test_a_customer_has_no_cookie(self, app: App, verb: str) -> None:
        """The identity methods are refused on a customer tracker."""
        client = await app.start()
        with (
            client.bind(client.for_customer({"registered": "R"})),
            pytest.raises(InvalidEventError, match="Use a device"),
        ):
            await getattr(client, verb)()
        assert await app.pending() == []


def _raise(_event: Event) -> Event:
    raise ZeroDivisionError("my hook is broken")


class TestWhatApplicationsGive:
    """A customer can always sign out, whatever the application's hook and default properties are like."""

    @pytest.mark.parametrize(
        "hook",
        [
            _raise,
            lambda _event: 5,
            lambda event: evolve(event, properties={"a": 1j}),
            lambda event: evolve(event, properties=5),
            lambda event: evolve(event, name=""),
            lambda event: evolve(event, timestamp="now"),
            lambda event: evolve(event, properties={f"p{n}": "x" * 16_000 for n in range(60)}),
        ],
    )
    async def test_a_hook_that_fails(self, app: App, hook: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Its events are dropped, which is counted and logged once; the device belongs to a new customer."""
        await grown_up(app)
        await app.client.aclose(timeout=0)
        client = await app.start(hooks=Hooks(before_track=hook))
        cookie = await client.get_customer_cookie()
        receipts = await client.anonymize()

        assert await client.get_customer_cookie() != cookie
        assert {receipt.status for receipt in receipts} == {"dropped"}
        assert client.stats().dropped["before_track_failed"] >= len(receipts) == 5
        assert len([each for each in caplog.messages if "before_track failed" in each]) == 1
        with pytest.raises((InvalidEventError, ZeroDivisionError)):
            await client.track_event(Event("ping"))

    async def test_an_event_that_was_invalid_before_the_hook(self, app: App) -> None:
        """The caller gets the error of a token that is too long, hook or not."""
        client = await app.start(hooks=Hooks(before_track=_raise))
        with pytest.raises(InvalidEventError, match="push_notification_token"):
            await client.track_push_token("x" * 20_000)

    @pytest.mark.parametrize("value", [1j, print, float("nan"), "x" * 20_000, {"b": object()}])
    async def test_default_properties_that_no_event_can_carry(self, app: App, value: Any) -> None:
        """They are an error where they are given, and everything goes on as before."""
        client = await grown_up(app)
        with pytest.raises(ConfigurationError, match=r"default_properties\.cart"):
            await client.set_default_properties({"cart": value})
        receipts = await client.anonymize()

        assert client.default_properties == {}
        assert [receipt.status for receipt in receipts] == ["queued"] * 5

    async def test_default_properties_as_large_as_they_may_be(self, app: App) -> None:
        """The events of the SDK have room for them."""
        client = await app.start(default_properties={f"p{number}": "x" * 16_000 for number in range(25)})
        await client.track_event(Event("ping"))

        assert [receipt.status for receipt in await client.anonymize()] == ["queued"] * 3

    async def test_an_app_version_that_no_event_can_carry(self, app: App) -> None:
        """It is an error of the configuration, since it would be one of every automatic event."""
        for version in ("x" * 20_000, "\ud800"):
            with pytest.raises(ConfigurationError, match="app_version"):
                await app.start(app_version=version)


class TestAnotherProject:
    @pytest.fixture
    async def sandbox(self) -> Any:
        projects = [Project("shop", ["key"]), Project("new-project", ["new-key"]), Project("finance", ["finance-key"])]
        async with Sandbox(projects=[*projects, Project("private", basic=[("id", "secret")])]) as running:
            yield running

    async def test_events_are_sent_to_their_project(self, app: App, sandbox: Sandbox) -> None:
        """Each project gets the events of its customer, with its own key."""
        client = await grown_up(app)
        await client.anonymize(ConfigurationChange(project=NEW))
        await client.track_event(Event("ping"))
        await client.handle_campaign_click("https://shop.example/?xnpe_cmp=1")
        result = await client.flush_data(60)

        assert (result.rejected, result.remaining) == (0, 0)
        types = [event.event_type for event in sandbox.engine.events("new-project")]
        assert sorted(types) == ["campaign_click", "installation", "notification_state", "ping", "session_start"]
        assert len(sandbox.engine.events("shop")) == 5

    async def test_the_switch_survives_a_restart(self, app: App, sandbox: Sandbox) -> None:
        """Another process continues in the new project, and has the key for the queued events."""
        client = await grown_up(app)
        await client.anonymize(ConfigurationChange(project=NEW))
        client = await app.restart()
        await client.track_event(Event("ping"))
        result = await client.flush_data(60)

        assert (result.rejected, result.remaining) == (0, 0)
        assert [event.event_type for event in sandbox.engine.events("shop")].count("ping") == 0
        assert len(sandbox.engine.events("new-project", "ping")) == 1

    async def test_switched_twice(self, app: App, sandbox: Sandbox) -> None:
        """Events from before a second switch are sent to their own project, even after a restart."""
        client = await grown_up(app)
        await client.anonymize(ConfigurationChange(project=NEW))
        await client.track_event(Event("first"))
        await client.anonymize(ConfigurationChange(project=FINANCE))
        await client.track_event(Event("second"))
        result = await (await app.restart()).flush_data(60)

        assert (result.rejected, result.remaining) == (0, 0)
        assert len(sandbox.engine.events("new-project", "first")) == 1
        assert len(sandbox.engine.events("finance", "second")) == 1

    async def test_private_access(self, app: App, sandbox: Sandbox) -> None:
        """Credentials for private access are stored like a public key."""
        client = await app.start()
        await client.anonymize(ConfigurationChange(project=ExponeaProject("private", BasicAuth("id", "secret"))))
        result = await (await app.restart()).flush_data(60)

        assert result.delivered == 2

    async def test_an_address_is_inherited(self, app: App, sandbox: Sandbox) -> None:
        """A project without an address inherits that of the previous project; so do the additional projects."""
        other = Sandbox(projects=[Project("new-project", ["new-key"]), Project("finance", ["finance-key"])])
        async with other:
            client = await app.start()
            await client.anonymize(ConfigurationChange(project=evolve(NEW, base_url=other.url)))
            await client.anonymize(ConfigurationChange(mapping={EventType.PAYMENT: [FINANCE]}))
            await client.track_payment_event(ITEM)
            await client.anonymize(ConfigurationChange(project=FINANCE))
            result = await (await app.restart()).flush_data(60)

            assert (result.rejected, result.remaining) == (0, 0)
            assert len(other.engine.events("finance", "payment")) == 1
            assert len(other.engine.events("finance", "installation")) == 1
            assert sandbox.engine.events() == []

    async def test_a_corrected_key_takes_effect_at_once(self, app: App, sandbox: Sandbox) -> None:
        """A project that was paused for a wrong key is resumed by the next change, before its next probe."""
        client = await app.start(flush_mode="IMMEDIATE")
        await client.anonymize(ConfigurationChange(project=evolve(NEW, authorization_token="wrong")))
        await until(lambda: len(client.stats().paused) == 1)
        await client.anonymize(ConfigurationChange(project=NEW))
        await until(
            lambda: not client.stats().paused and len(sandbox.engine.events("new-project", "installation")) == 2
        )

        assert client.stats().rejected == 0

    @pytest.mark.file_only
    async def test_keys_are_only_in_the_queue_file(self, app: App, configure: Configure) -> None:
        """Keys are stored in the queue file, which only its owner can read, and in no name of a record or a device."""
        client = await app.start()
        await client.anonymize(ConfigurationChange(project=NEW))
        file = configure().storage
        assert isinstance(file, Path)
        with closing(sqlite3.connect(file)) as database:
            dump = "\n".join(database.iterdump())

        assert stat.S_IMODE(configure().storage.stat().st_mode) == 0o600  # type: ignore[union-attr]
        # As bytes it is written in hexadecimal digits.
        assert dump.upper().count(b'"new-key"'.hex().upper()) == 1
        assert "new-key" not in repr(client) + str([record.route for record in await pending_records(client)])

    @pytest.mark.file_only
    async def test_a_stop_deletes_switch_and_keys(self, app: App, sandbox: Sandbox) -> None:
        """After a stop neither the switch nor its key is remembered."""
        client = await app.start()
        await client.anonymize(ConfigurationChange(project=NEW))
        await client.stop_integration(everyone=True)
        await client.start()
        await client.track_event(Event("ping"))

        assert {each.project for each in await app.pending()} == {"shop"}
        assert stored_state(client.configuration.storage, "project:new-project") is None  # type: ignore[arg-type]

    @pytest.mark.parametrize("phase", ["before", "after a stop", "after the end"])
    async def test_when_the_client_is_not_running(self, app: App, phase: str) -> None:
        """A switch is refused or dropped like any call, and no key is written."""
        client = app.make()
        if phase != "before":
            await client.start()
            await (client.stop_integration(everyone=True) if phase == "after a stop" else client.aclose())
        if phase == "after a stop":
            assert [receipt.status for receipt in await client.anonymize(ConfigurationChange(project=NEW))] == [
                "dropped"
            ]
        else:
            with pytest.raises(Exception, match="not started" if phase == "before" else "closed"):
                await client.anonymize(ConfigurationChange(project=NEW))


class TestMapping:
    @pytest.mark.parametrize(
        ("mapping", "projects"),
        [
            (None, {"shop", "finance"}),
            ({}, {"shop"}),
            ({EventType.PAYMENT: [NEW]}, {"shop", "new-project"}),
            ({"SESSION_START": [NEW]}, {"shop"}),
        ],
    )
    @pytest.mark.parametrize("restarted", [True, False])
    async def test_mapping_of_the_change(
        self,
        app: App,
        restarted: bool,  # noqa: FBT001
        mapping: Any,
        projects: set[str],
    ) -> None:
        """None keeps the additional projects, an empty mapping clears them, another mapping replaces them."""
        settings: dict[str, Any] = {"project_mapping": {EventType.PAYMENT: [FINANCE]}}
        client = await app.start(**settings)
        await client.anonymize(ConfigurationChange(mapping=mapping))
        if restarted:
            client = await app.restart(**settings)
        await client.track_payment_event(ITEM)

        assert {each.project for each in await app.pending("payment")} == projects

    async def test_mapping_beside_another_project(self, app: App) -> None:
        """Another main project keeps the additional ones, unless they change too."""
        client = await app.start(project_mapping={EventType.PAYMENT: [FINANCE]})
        await client.anonymize(ConfigurationChange(project=NEW))
        await client.track_payment_event(ITEM)
        await client.anonymize(ConfigurationChange(project=FINANCE))
        await client.track_payment_event(ITEM)

        assert [each.project for each in await app.pending("payment")] == ["new-project", "finance", "finance"]
