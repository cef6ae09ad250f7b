"""
What rooms get to hear of devices, and what they can keep and ask for them.
"""

import asyncio
from typing import Any

import pytest
from attrs import evolve
from helpers.app import Phone
from helpers.clients import SOMEONE, Connect
from helpers.waiting import until

from exponea_async import (
    ClosedError,
    ConfigurationChange,
    Customer,
    Event,
    Exponea,
    ExponeaProject,
    Hooks,
    NotStartedError,
    Receipt,
    RequestRefusedError,
)
from exponea_async.devices.context import ApiRequest, SubjectContext
from exponea_async.devices.customers import TrackedEvent
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.features import Feature
from exponea_async.devices.impressions import Impression
from exponea_async.devices.state import DeviceState, TimestampSequence, UpdateResult
from exponea_async.models import EventType
from exponea_async.sandbox import Fault, Sandbox

PAYLOAD = {"source": "xnpe_platform", "title": "Sale", "has_tracking_consent": "false"}


class Probe(Feature):
    """A part that writes down what it hears."""

    def __init__(self) -> None:
        self.listening = True
        self.heard_of: list[TrackedEvent] = []
        self.signals: list[tuple[str, str]] = []
        self.receipts: list[Receipt] = []

    @property
    def is_listening(self) -> bool:
        return self.listening

    def tracked(self, context: SubjectContext, heard: TrackedEvent) -> None:
        self.heard_of.append(heard)

    def launched(self, scope: SubjectContext) -> None:
        self.signals.append(("launched", key(scope)))

    def identified(self, scope: SubjectContext, receipt: Receipt) -> None:
        self.signals.append(("identified", key(scope)))
        self.receipts.append(receipt)

    def anonymized(self, scope: SubjectContext) -> None:
        self.signals.append(("anonymized", key(scope)))

    def clear(self) -> None:
        self.signals.append(("clear", ""))

    async def aclose(self) -> None:
        self.signals.append(("aclose", ""))

    def names(self) -> list[str]:
        return [heard.event.name for heard in self.heard_of]


def key(scope: SubjectContext) -> str:
    told: Any = scope
    return str(told.key)


def probed(client: Exponea) -> Probe:
    """Put a probe among the parts of a client, which listens."""
    probe = Probe()
    client._features.add(probe)
    return probe


def scope_of(client: Exponea, device: str = "default") -> DeviceContext:
    return client.device(device)._device_context


class TestHearing:
    async def test_an_event_is_heard_as_it_goes_out(self, phone: Phone) -> None:
        """With default properties, stamps, its moment, the customer and the receipt."""
        client = await phone.start(default_properties={"shop": "nice"}, application_id="com.shop")
        probe = probed(client)
        receipt = await client.track_event(Event("view", {"item": "mug", "application_id": "evil"}))

        heard = probe.heard_of[-1]
        cookie, device_id = await client.get_customer_cookie(), (await phone.kept("view"))[0].properties["device_id"]
        assert heard.event.properties == {
            "shop": "nice",
            "item": "mug",
            "application_id": "com.shop",
            "device_id": device_id,
        }
        assert (heard.event.name, heard.kind, heard.receipt) == ("view", EventType.TRACK_EVENT, receipt)
        assert (heard.customer.ids, heard.customer.device) == ({"cookie": cookie}, "default")
        assert round(heard.timestamp, 3) == 1000.0

    async def test_a_moment_of_its_own_is_heard(self, phone: Phone) -> None:
        """An event that was given a moment has happened then, be it 0."""
        client = await phone.start()
        await client.track_event(Event("first"))
        probe = probed(client)
        for moment in (20.0, 0.0):
            await client.track_event(Event("a", timestamp=moment))

        assert [heard.timestamp for heard in probe.heard_of] == [20.0, 0.0]

    async def test_what_a_device_tracks_by_itself_is_heard(self, phone: Phone) -> None:
        """Its coming to life and the sessions, in order, each once."""
        client = await phone.start(at=1000)
        probe = probed(client)
        await client.track_event(Event("a"))
        phone.now = 2000
        await client.track_event(Event("b"))
        await client.track_event(Event("c"))

        assert probe.names() == ["installation", "session_start", "a", "session_end", "session_start", "b", "c"]
        assert [heard.kind for heard in probe.heard_of[:2]] == [EventType.INSTALL, EventType.SESSION_START]

    async def test_many_events_are_heard(self, phone: Phone) -> None:
        """What is tracked in one commit is heard as well, but for what is about others."""
        client = await phone.start()
        await client.track_event(Event("first"))
        probe = probed(client)
        await client.track_many([Event("a"), ({"registered": "joe"}, Event("joe's")), Event("b", timestamp=5.0)])

        assert [(heard.event.name, round(heard.timestamp, 3)) for heard in probe.heard_of] == [
            ("a", 1000.0),
            ("b", 5.0),
        ]

    async def test_what_lacks_consent_is_heard(self, phone: Phone) -> None:
        """It is not kept, but it has happened."""
        client = await phone.start()
        probe = probed(client)
        await client.track_delivered_push(PAYLOAD)
        await client.track_clicked_push(PAYLOAD)

        heard = probe.heard_of[-2:]
        assert [each.event.properties["status"] for each in heard] == ["delivered", "clicked"]
        assert [each.receipt for each in heard] == [None, None]
        assert await phone.kept("campaign") == []

    async def test_nobody_listens_nobody_hears(self, phone: Phone) -> None:
        """Once no part listens any more, drafts stop to carry their events along."""
        client = await phone.start()
        probe = probed(client)
        await client.track_event(Event("a"))
        probe.listening = False
        await client.track_event(Event("b"))
        assert client._features.has_subscribers is False
        probe.listening = True
        await client.track_event(Event("c"))

        assert "b" not in probe.names()
        assert "c" not in probe.names()

    async def test_a_customers_events_are_not_heard(self, phone: Phone) -> None:
        """A customer tracker remembers nothing, so nothing can come of them."""
        client = await phone.start()
        probe = probed(client)
        await client.for_customer(SOMEONE).track_event(Event("a"))

        assert probe.heard_of == []

    async def test_a_dropped_event_is_not_heard(self, phone: Phone) -> None:
        """What ``before_track`` takes out has not happened; what it changes is heard changed."""
        hooks = Hooks(
            before_track=lambda event: None if event.name == "secret" else evolve(event, name="x-" + event.name)
        )
        client = await phone.start(hooks=hooks)
        probe = probed(client)
        await client.track_event(Event("secret"))
        await client.track_event(Event("a"))

        assert probe.names() == ["x-installation", "x-session_start", "x-a"]


class TestSignals:
    async def test_life_is_told(self, phone: Phone) -> None:
        """A device's coming to life, identify and anonymize are told once each, with the device."""
        client = await phone.start()
        probe = probed(client)
        receipt = await client.device("d").identify_customer(Customer({"registered": "jane"}))
        await client.device("d").track_event(Event("a"))
        await client.device("d").anonymize()

        assert probe.signals == [("launched", "d"), ("identified", "d"), ("anonymized", "d")]
        assert probe.receipts == [receipt]

    async def test_the_end_is_told(self, phone: Phone) -> None:
        """Stopping clears, closing closes."""
        client = await phone.start()
        probe = probed(client)
        await client.stop_integration()
        await client.aclose(timeout=0)

        assert probe.signals == [("clear", ""), ("aclose", "")]


class TestWho:
    async def test_a_new_identity_is_somebody_else(self, phone: Phone) -> None:
        """Each identify, anonymize and change of the project gives another mark; nothing else does."""
        client = await phone.start()
        scope, marks = scope_of(client), []

        async def mark() -> None:
            who = await scope.current_customer()
            assert who is not None
            marks.append(who.fingerprint)

        await mark()
        await client.track_event(Event("a"))
        await mark()
        assert marks[0] == marks[1]
        await client.identify_customer(Customer({"registered": "jane"}))
        await mark()
        await client.anonymize()
        await mark()
        await client.anonymize(ConfigurationChange(project=ExponeaProject("other", "key")))
        await mark()
        assert len(set(marks)) == 4

    async def test_to_ask_who_it_is_need_not_wake_a_device(self, phone: Phone) -> None:
        """Background work is no sign of life."""
        client = await phone.start()
        who = await scope_of(client).current_customer(counts_as_activity=False)

        assert await phone.told() == []
        assert who is not None
        await scope_of(client).current_customer()
        assert [name for name, _ in await phone.told()] == ["installation", "session_start"]

    async def test_a_customer_is_who_was_said(self, phone: Phone) -> None:
        """A tracker has the given ids and no device."""
        client = await phone.start()
        scope = client.for_customer(SOMEONE)._context
        who = await scope.current_customer()

        assert who is not None
        assert (who.ids, who.device, scope.is_device) == (SOMEONE, None, False)

    async def test_nobody_after_a_stop(self, phone: Phone) -> None:
        """A stopped integration knows nobody, and a client that is not running says so."""
        client = phone.make()
        with pytest.raises(NotStartedError):
            await scope_of(client).current_customer(counts_as_activity=False)
        await client.start()
        await client.stop_integration()
        assert await scope_of(client).current_customer() is None
        assert await scope_of(client).current_customer(counts_as_activity=False) is None


class TestKeeping:
    async def test_a_device_keeps_things_beside_its_state(self, phone: Phone) -> None:
        """They are there after a restart, under the device's key, until they are forgotten."""
        client = await phone.start()
        await scope_of(client, "a").save_data("cache", b"one")
        await scope_of(client, "a").save_data("cache", b"two")
        await scope_of(client, "b").save_data("cache", b"three")
        client = await phone.restart()

        assert await scope_of(client, "a").load_data("cache") == b"two"
        assert await scope_of(client, "b").load_data("cache") == b"three"
        await scope_of(client, "a").save_data("cache", None)
        assert await scope_of(client, "a").load_data("cache") is None
        await scope_of(client, "a").save_data("cache", b"four")
        assert await scope_of(client, "a").load_data("cache") == b"four"

    async def test_two_at_once(self, phone: Phone) -> None:
        """Whoever comes last is right, and nobody fails."""
        client = await phone.start()
        await asyncio.gather(*[scope_of(client).save_data("cache", b"%d" % number) for number in range(20)])

        assert await scope_of(client).load_data("cache") is not None

    async def test_a_stop_wipes_it(self, phone: Phone) -> None:
        """Nothing is left of it, and nothing is kept while the integration is stopped."""
        client = await phone.start()
        await scope_of(client).save_data("cache", b"one")
        await client.stop_integration()
        await scope_of(client).save_data("cache", b"two")
        assert await scope_of(client).load_data("cache") is None
        await client.start()
        assert await scope_of(client).load_data("cache") is None

    async def test_trouble_is_logged_and_harmless(self, phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
        """What is only a cache must not make its user fail."""
        client = await phone.start()
        await client._storage.aclose()
        await scope_of(client).save_data("cache", b"one")

        assert "could not be stored" in caplog.text

    async def test_a_customer_keeps_nothing(self, phone: Phone) -> None:
        """A tracker remembers nothing."""
        scope = (await phone.start()).for_customer(SOMEONE)._context
        await scope.save_data("cache", b"one")

        assert await scope.load_data("cache") is None

    async def test_displays_are_remembered(self, phone: Phone) -> None:
        """They outlive a restart; identify forgets content blocks, anonymize all, and a month what is old."""
        client = await phone.start(at=1000)

        def plan(state: DeviceState, _: TimestampSequence) -> UpdateResult:
            shown = {"m": Impression(1000.0, None), "n": Impression(None, 900.5)}
            return evolve(state, messages=shown, blocks=shown), ()

        async def shown() -> tuple[set[str], set[str]]:
            state = await scope_of(phone.client).load_state()
            assert state is not None
            return set(state.messages), set(state.blocks)

        await scope_of(client).transact(plan)
        client = await phone.restart()
        assert await shown() == ({"m", "n"}, {"m", "n"})
        await client.identify_customer(Customer({"registered": "jane"}))
        assert await shown() == ({"m", "n"}, set())
        await phone.restart(at=950 + 30 * 86_400)
        assert await shown() == ({"m"}, set())
        await phone.client.anonymize()
        assert await shown() == (set(), set())


class TestCalls:
    async def test_a_question_goes_to_the_devices_project(self, phone: Phone, sandbox: Sandbox) -> None:
        """The path names it, also after the device was switched to another one."""
        client = await phone.start()
        scope = scope_of(client)
        await client.anonymize(ConfigurationChange(project=ExponeaProject("other", "other-key")))
        who = await scope.current_customer()
        assert who is not None
        assert await scope.request(who, ApiRequest("/data/v2/projects/{project}/consent/categories")) is not None

        assert sandbox.requests[-1].path.startswith("/data/v2/projects/other/")

    async def test_a_stopped_integration_asks_nothing(self, phone: Phone, sandbox: Sandbox) -> None:
        """There is no answer and no error, also where it is stopped while the question is under way."""
        client = await phone.start()
        scope = scope_of(client)
        who = await scope.current_customer()
        assert who is not None
        sandbox.faults.add(Fault("timeout", seconds=30.0, paths="/webxp/"))
        waiting = asyncio.create_task(scope.request(who, ApiRequest("/webxp/s/{project}/inappmessages", {}, tries=4)))
        await until(lambda: sandbox.request_count > 0)
        await client.stop_integration()
        count = sandbox.request_count

        assert await asyncio.wait_for(waiting, 5.0) is None
        assert await scope.request(who, ApiRequest("/webxp/s/{project}/inappmessages", {})) is None
        assert sandbox.request_count == count

    async def test_a_closed_client_says_so(self, phone: Phone) -> None:
        """Who asks a closed client is told."""
        client = await phone.start()
        scope = scope_of(client)
        who = await scope.current_customer()
        assert who is not None
        await client.aclose(timeout=0)

        with pytest.raises(ClosedError):
            await scope.request(who, ApiRequest("/webxp/s/{project}/inappmessages", {}))

    async def test_a_refusal_comes_through(self, connect: Connect) -> None:
        """What the platform refuses is told to who asks, and tracking goes on."""
        client = await connect()
        scope = client.for_customer(SOMEONE)._context
        who = await scope.current_customer()
        assert who is not None
        with pytest.raises(RequestRefusedError):
            await scope.request(who, ApiRequest("/nowhere/{project}"))
        await (await client.track_event(Event("a"))).delivered(timeout=10)
