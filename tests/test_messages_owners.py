"""
The owners of what is returned and tracked, if a device's customer changes, or the client stops, in the middle.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from helpers.app import App
from helpers.gateway import Gateway
from helpers.internals import context_of
from helpers.owned_content import (
    CATEGORY,
    FREQUENCIES,
    INBOX,
    ITEMS,
    LINK,
    SECRET,
    PersonalizedContent,
    name_of,
    owner_of,
)
from helpers.waiting import running, until

from exponea_async import Customer, CustomerTracker, Device, Event, Exponea
from exponea_async.errors import ClosedError
from exponea_async.messages import CustomerAttribute, InAppContentBlock, InAppMessage
from exponea_async.sandbox import Sandbox
from exponea_async.testing import idle, received

ANN, BEN = {"registered": "ann"}, {"registered": "ben"}
Verb = Callable[[Any], Coroutine[Any, Any, Any]]

SURFACES: dict[str, Verb] = {
    "in-app message": lambda subject: subject.in_app_message_for(Event("always")),
    "html message": lambda subject: subject.in_app_message_for(Event("page")),
    "content block": lambda subject: subject.content_block("always"),
    "inbox": lambda subject: subject.fetch_app_inbox(),
    "inbox item": lambda subject: subject.fetch_app_inbox_item(INBOX[0]),
    "segments": lambda subject: subject.get_segments(CATEGORY),
    "recommendations": lambda subject: subject.fetch_recommendations(ITEMS),
    "attributes": lambda subject: subject.fetch_attributes([{"type": "property", "property": "requested_as"}]),
}
surfaces = pytest.mark.parametrize("surface", SURFACES)
#: The paths that the gateway holds: those of all requests but uploads.
NO_UPLOADS = "^(?!/track)"


class OwnersFixture:
    """
    A client, and a sandbox whose content names its owner, behind a gateway.

    Args:
        app: The application that runs the client.
        sandbox: The sandbox.
        gateway: The gateway between them, for clients that are configured with its URL.
    """

    def __init__(self, app: App, sandbox: Sandbox, gateway: Gateway) -> None:
        self.app = app
        self.sandbox = sandbox
        self.gateway = gateway
        self.content = PersonalizedContent(sandbox)

    @property
    def client(self) -> Exponea:
        """The client that was started first."""
        return self._client

    async def start(self, **settings: Any) -> Exponea:
        """Start a client."""
        self._client = await self.app.start(**settings)
        return self._client

    async def name(self, device: Device) -> str:
        """Return the name of a device's customer."""
        return name_of(await self.ids(device))

    async def ids(self, device: Device) -> dict[str, str]:
        """Return the ids of a device's customer."""
        customer = await context_of(device).current_customer()
        assert customer is not None
        return dict(customer.ids)

    async def start_with_customer(self, key: str = "a", **settings: Any) -> Device:
        """Start a client, and return a device whose customer the platform knows."""
        client = await self.start(**settings)
        device = client.device(key)
        await device.identify_customer(Customer(ANN))
        await client.flush_data()
        return device

    async def request(self, device: Device, surface: str, *, holds_response: bool) -> "asyncio.Task[Any]":
        """Call something whose request, or the response to it, is held."""
        self.gateway.hold(NO_UPLOADS, responses=holds_response)
        request = asyncio.ensure_future(SURFACES[surface](device))
        await until(lambda: len(self.gateway.held) > 0)
        return request

    async def banners(self) -> list[tuple[str, str, str]]:
        """Return the customer, the action and the owner of the content of each banner event."""
        await self.client.flush_data()
        return [
            (name_of(each.customer_ids), each.properties["action"], owner_in_event(each.properties))
            for each in self.sandbox.engine.events(event_type="banner")
        ]


def owner_in_event(properties: Any) -> str:
    """Return the owner of the content of a banner event."""
    return str(properties["variant_name" if "placeholder" in properties else "banner_name"])


def owners_of(results: Any) -> set[str]:
    """Return the owners of a result, which may be empty."""
    things = results if isinstance(results, list) else [results]
    return {each.value if isinstance(each, CustomerAttribute) else owner_of(each) for each in things if each}


def is_for(results: Any, name: str) -> bool:
    """Return whether a result is empty or belongs to a customer; segments only name the cookie."""
    return owners_of(results) <= {name, name.partition(";")[0]}


@pytest.fixture
async def owners(app: App, sandbox: Sandbox) -> AsyncIterator[OwnersFixture]:
    async with Gateway(sandbox.url) as gateway:
        yield OwnersFixture(app, sandbox, gateway)
        gateway.release()
        await app.aclose()
        await until(lambda: running() == [])


both_ways = pytest.mark.parametrize("holds_response", [False, True], ids=["request", "response"])


@surfaces
@both_ways
class TestInTheMiddle:
    """While a request is held, something happens."""

    @pytest.mark.parametrize("change", ["identify", "anonymize", "both", "twice"])
    async def test_another_customer(
        self,
        owners: OwnersFixture,
        surface: str,
        holds_response: bool,  # noqa: FBT001
        change: str,
    ) -> None:
        """
        Nothing that belongs to the customer before is returned, and banners are tracked for the owners of their
        content.
        """
        device = await owners.start_with_customer(base_url=owners.gateway.url)
        request = await owners.request(device, surface, holds_response=holds_response)
        if change != "identify":
            await asyncio.gather(*[device.anonymize() for _ in range(2 if change == "twice" else 1)])
        if change in {"identify", "both"}:
            await device.identify_customer(Customer(BEN))
        owners.gateway.release()
        assert is_for(await request, await owners.name(device))
        assert all(about == owner for about, _, owner in await owners.banners())

    async def test_stopped(self, owners: OwnersFixture, surface: str, holds_response: bool) -> None:  # noqa: FBT001
        """Nothing is returned."""
        device = await owners.start_with_customer(base_url=owners.gateway.url)
        request = await owners.request(device, surface, holds_response=holds_response)
        await owners.client.stop_integration(everyone=True)
        owners.gateway.release()
        assert not await request
        assert not await SURFACES[surface](device)
        await until(lambda: running() == [])

    async def test_stopped_and_started(self, owners: OwnersFixture, surface: str, holds_response: bool) -> None:  # noqa: FBT001
        """Nothing that belongs to the customer before is returned."""
        device = await owners.start_with_customer(base_url=owners.gateway.url)
        request = await owners.request(device, surface, holds_response=holds_response)
        await owners.client.stop_integration(everyone=True)
        await owners.client.start()
        owners.gateway.release()
        assert is_for(await request, await owners.name(device))

    async def test_closed(self, owners: OwnersFixture, surface: str, holds_response: bool) -> None:  # noqa: FBT001
        """Nothing is returned, or the client is reported as closed; no task is left."""
        device = await owners.start_with_customer(base_url=owners.gateway.url)
        request = await owners.request(device, surface, holds_response=holds_response)
        await owners.client.aclose(timeout=0)
        owners.gateway.release()
        with suppress(ClosedError):
            assert not await request
        with pytest.raises(ClosedError):
            await SURFACES[surface](device)
        await until(lambda: running() == [])

    async def test_cancelled(self, owners: OwnersFixture, surface: str, holds_response: bool) -> None:  # noqa: FBT001
        """A caller that is cancelled does not affect the others."""
        device = await owners.start_with_customer(base_url=owners.gateway.url)
        first = await owners.request(device, surface, holds_response=holds_response)
        others = [asyncio.ensure_future(SURFACES[surface](device)) for _ in range(3)]
        await asyncio.sleep(0.01)
        first.cancel()
        others[0].cancel()
        owners.gateway.release()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(each) for each in results[:2]] == [asyncio.CancelledError] * 2
        assert any(results[2:])
        name = await owners.name(device)
        assert all(is_for(each, name) for each in results[2:])


class TestAtAnyStep:
    """At each step of the event loop, not only during a request, something happens."""

    @surfaces
    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_another_customer(self, owners: OwnersFixture, surface: str, change: str) -> None:
        """What is returned after the change belongs to the new customer."""
        device = await owners.start_with_customer(key="a")
        for steps in (*range(1, 40), *range(40, 200, 7)):
            device = owners.client.device(f"a{steps}")
            await device.identify_customer(Customer(ANN))
            if steps % 2:
                await SURFACES[surface](device)
                await idle(owners.client)
            request = asyncio.ensure_future(SURFACES[surface](device))
            for _ in range(steps):
                await asyncio.sleep(0)
            done = request.done()
            await (device.anonymize() if change == "anonymize" else device.identify_customer(Customer(BEN)))
            done = done or request.done()
            results = await request
            assert done or is_for(results, await owners.name(device)), steps
        assert all(about == owner for about, _, owner in await owners.banners())

    @pytest.mark.parametrize("verb", ["in_app_message_for", "content_block"])
    async def test_content_without_consent(self, owners: OwnersFixture, verb: str) -> None:
        """What must not be tracked takes some steps more, and is not returned to another customer either."""
        await owners.start_with_customer()
        async with owners.client.in_app_messages():
            for steps in range(1, 60):
                device = owners.client.device(f"a{steps}")
                await device.content_block(SECRET)
                await device.track_event(Event("nothing"))
                await idle(owners.client)
                event_or_placeholder: Any = Event(SECRET) if verb == "in_app_message_for" else SECRET
                request = asyncio.ensure_future(getattr(device, verb)(event_or_placeholder))
                for _ in range(steps):
                    await asyncio.sleep(0)
                await device.anonymize()
                done = request.done()
                assert done or is_for(await request, await owners.name(device)), steps

    @surfaces
    async def test_a_stop_at_each_step(self, owners: OwnersFixture, surface: str) -> None:
        """Nothing is returned after the stop."""
        client = await owners.start()
        for steps in (*range(1, 40), *range(40, 200, 14)):
            await client.device("b").open()
            request = asyncio.ensure_future(SURFACES[surface](client.device("a")))
            for _ in range(steps):
                await asyncio.sleep(0)
            await client.stop_integration(everyone=True)
            done = request.done()
            assert done or not await request, steps
            await until(lambda: running() == [])
            await client.start()

    @pytest.mark.parametrize("change", ["anonymize", "stop"])
    async def test_in_app_messages_of_another_customer(self, owners: OwnersFixture, change: str) -> None:
        """A subscription does not yield a message of the customer before."""
        device = await owners.start_with_customer()
        async with device.in_app_messages() as messages:
            await device.track_event(Event("always"))
            await idle(owners.client)
            await (device.anonymize() if change == "anonymize" else owners.client.stop_integration(everyone=True))
            assert received(messages) == []

    async def test_interactions_of_another_customer(self, owners: OwnersFixture) -> None:
        """Interactions with a message of the customer before do not count for the new customer."""
        device = await owners.start_with_customer()
        message = await device.in_app_message_for(Event("until"))
        assert message is not None
        await device.anonymize()
        await device.click_in_app_message(message, message.buttons[0])
        await device.close_in_app_message(message)
        await device.track_in_app_message_click(message, message.buttons[0])
        assert all(about == owner for about, _, owner in await owners.banners())
        # And the new customer has not pressed anything.
        assert await device.in_app_message_for(Event("until")) is not None

    async def test_a_message_from_before_a_stop(self, owners: OwnersFixture) -> None:
        """Interactions with it are tracked for its owner, and the device is created by its own first event."""
        device = await owners.start_with_customer()
        message, block = await device.in_app_message_for(Event("always")), await device.content_block("always")
        assert message is not None
        assert block is not None
        await owners.client.stop_integration(everyone=True)
        await owners.client.start()
        await device.fail_in_app_message(message, "broken")
        await device.close_in_app_message(message, interaction=False)
        await device.open()
        await owners.client.flush_data()
        ids = await owners.ids(device)
        tracked = [each for each in owners.sandbox.engine.events() if each.customer_ids == ids]
        assert {each.event_type for each in tracked} == {"installation", "session_start"}
        assert all(about == owner for about, _, owner in await owners.banners())

    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_a_carousel(self, owners: OwnersFixture, change: str) -> None:
        """A carousel does not show blocks of the customer before to the new one."""
        device = await owners.start_with_customer()
        async with device.content_block_carousel("always", scroll_delay=0) as carousel:
            assert carousel.block is not None
            await (device.anonymize() if change == "anonymize" else device.identify_customer(Customer(BEN)))
            async for block in carousel:
                assert owner_of(block) == await owners.name(device)
                break

    async def test_segments_of_another_customer(self, owners: OwnersFixture) -> None:
        """A stream does not yield segments of the customer before."""
        device = await owners.start_with_customer()
        async with device.segmentation_data_stream(CATEGORY) as stream:
            segments = await device.get_segments(CATEGORY, force=True)
            assert received(stream) == [segments]
            await device.anonymize()
            await device.get_segments(CATEGORY, force=True)
            await device.anonymize()
            assert received(stream) == []

    async def test_nothing_stays_on_disk(self, owners: OwnersFixture) -> None:
        """What was stored for the customer before is deleted."""
        device = await owners.start_with_customer()
        for verb in SURFACES.values():
            await verb(device)
        await idle(owners.client)
        context = context_of(device)
        assert await context.load_data("inbox") is not None
        await device.anonymize()
        await idle(owners.client)
        for name in ("inbox", "segments", "in_app_messages"):
            assert await context.load_data(name) is None, name


class TestManyAtOnce:
    """Many tasks, with many subjects."""

    async def test_bound(self, owners: OwnersFixture) -> None:
        """Each task gets and tracks what belongs to the subject that is bound to it."""
        client = await owners.start()

        async def serve(subject: Device | CustomerTracker) -> None:
            with client.bind(subject):
                await asyncio.sleep(0)
                name = await owners.name(subject) if isinstance(subject, Device) else name_of(subject.ids)
                message = await client.in_app_message_for(Event("always"))
                block, inbox = await asyncio.gather(client.content_block("once"), client.fetch_app_inbox())
                assert message is not None
                assert block is not None
                assert owners_of([message, block, *inbox, *await client.fetch_recommendations(ITEMS)]) == {name}
                await asyncio.gather(
                    client.close_in_app_message(message),
                    client.click_content_block("once", block, LINK),
                    client.track_app_inbox_opened(inbox[0]),
                )

        devices: list[Device | CustomerTracker] = [client.device(f"tg:{number}") for number in range(20)]
        trackers = [client.for_customer({"registered": str(number)}) for number in range(20)]
        await asyncio.gather(*[serve(subject) for subject in (*devices, *trackers)])
        banners = await owners.banners()
        assert len(banners) == 40 * 4
        assert all(about == owner for about, _, owner in banners)
        opened = owners.sandbox.engine.events(event_type="campaign")
        assert all(name_of(each.customer_ids) == each.properties["owner"] for each in opened)
        assert len(opened) == 40

    async def test_one_device(self, owners: OwnersFixture) -> None:
        """Many tasks with one device, whose customer changes again and again."""
        device = await owners.start_with_customer()
        names = {await owners.name(device)}

        async def ask(verb: Verb) -> set[str]:
            return owners_of(await verb(device))

        async def change() -> set[str]:
            for number in range(10):
                await (
                    device.anonymize()
                    if number % 3
                    else device.identify_customer(Customer({"registered": str(number)}))
                )
                names.add(await owners.name(device))
                await asyncio.sleep(0.003)
            return names

        verbs = [verb for name, verb in SURFACES.items() if name != "segments"]
        found = await asyncio.gather(change(), *[ask(verb) for verb in verbs * 20])
        assert set().union(*found) <= names
        for verb in verbs:
            assert is_for(await verb(device), await owners.name(device))
        assert all(about == owner for about, _, owner in await owners.banners())

    @pytest.mark.parametrize("change", ["stop", "close"])
    async def test_the_end_of_many_tasks(self, owners: OwnersFixture, change: str) -> None:
        """No background task is left, whatever they were doing."""
        client = await owners.start()

        async def use(number: int) -> None:
            device = client.device(str(number))
            verb = [*SURFACES.values()][number % len(SURFACES)]
            with suppress(ClosedError):
                await verb(device)

        for wait in (0, 0.002, 0.01, 0.03):
            tasks = [asyncio.ensure_future(use(number)) for number in range(50)]
            await asyncio.sleep(wait)
            await (client.stop_integration(everyone=True) if change == "stop" else client.aclose(timeout=0))
            await asyncio.gather(*tasks)
            await until(lambda: running() == [])
            if change == "stop":
                await client.start()
            else:
                client = await owners.start()


KEYS = [
    "a",
    "a:",
    ":a",
    "a:b",
    "device:a",
    "inbox:a",
    "segments:a",
    "in_app_messages:a",
    "ключ",
    "🦊",
    "a\n",
    "%s{0}'\"\\",
    "x" * 20_000,
]


class TestKeys:
    """Devices whose keys could be mistaken for something else."""

    async def test_hostile_keys(self, owners: OwnersFixture) -> None:
        """Each device is a customer of its own, also after a restart."""
        client = await owners.start()

        async def results(client: Exponea, key: str) -> tuple[str, set[str]]:
            device = client.device(key)
            things = [await verb(device) for verb in SURFACES.values()]
            message = next(each for each in things if isinstance(each, InAppMessage))
            block = next(each for each in things if isinstance(each, InAppContentBlock))
            await device.close_in_app_message(message)
            await device.click_content_block("always", block, LINK)
            return await owners.name(device), set().union(*map(owners_of, things))

        before = await asyncio.gather(*[results(client, key) for key in KEYS])
        assert all(found == {name} for name, found in before)
        assert len({name for name, _ in before}) == len(KEYS)
        await client.flush_data()
        await client.aclose(timeout=0)
        client = await owners.start()
        owners.app.now += 1
        after = await asyncio.gather(*[results(client, key) for key in KEYS])
        assert after == before
        assert all(about == owner for about, _, owner in await owners.banners())

    async def test_a_tracker_with_the_ids_of_a_device(self, owners: OwnersFixture) -> None:
        """It is the same customer, and stays so when the device's customer changes."""
        device = await owners.start_with_customer()
        ids = await owners.ids(device)
        tracker, name = owners.client.for_customer(ids), name_of(ids)
        # It depends on who comes first with what, where both share what is in memory.
        assert owners_of([await tracker.content_block("once"), await device.content_block("visit")]) == {name}
        for subject in (tracker, device):
            for surface in SURFACES.keys() - {"segments"}:
                assert is_for(await SURFACES[surface](subject), name)
        for _ in range(3):
            await device.anonymize()
            for verb in SURFACES.values():
                assert is_for(await verb(device), await owners.name(device))
        assert owners_of(await tracker.content_block("always")) == {name}


class TestTwoClients:
    """Two clients with one file, as in two processes."""

    @surfaces
    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_the_other_client_changes_the_customer(
        self, owners: OwnersFixture, surface: str, change: str
    ) -> None:
        """What one client has in memory is not returned for a customer that the other client has made of the device."""
        device = await owners.start_with_customer()
        await SURFACES[surface](device)
        other = (await owners.app.start()).device("a")
        await (other.anonymize() if change == "anonymize" else other.identify_customer(Customer(BEN)))
        results = await SURFACES[surface](device)
        assert is_for(results, await owners.name(other))
        assert await owners.name(device) == await owners.name(other)
        assert all(about == owner for about, _, owner in await owners.banners())

    async def test_frequencies(self, owners: OwnersFixture) -> None:
        """What one client has shown once, the other does not show again."""
        device = await owners.start_with_customer()
        other = (await owners.app.start()).device("a")
        shown = await asyncio.gather(*[each.content_block("once") for each in (device, other) * 5])
        assert len([each for each in shown if each]) == 1
        for which in FREQUENCIES:
            for each in (device, other):
                message = await each.in_app_message_for(Event(which))
                if message is not None:
                    await each.close_in_app_message(message)
        await owners.client.flush_data()
        counts = [
            each.properties["banner_id"]
            for each in owners.sandbox.engine.events(event_type="banner")
            if each.properties["action"] == "show" and "placeholder" not in each.properties
        ]
        assert sorted(counts) == sorted(["always", "always", "once", "visit", "until", "until"])
