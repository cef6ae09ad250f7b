"""
Who is given what, where a device becomes somebody else's, or nobody's, in the middle of it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from helpers.app import Phone
from helpers.personalised_content import (
    CATEGORY,
    FREQUENCIES,
    INBOX,
    ITEMS,
    LINK,
    SECRET,
    Personal,
    background,
    name_of,
    owner_of,
)
from helpers.waiting import until

from exponea_async import Customer, CustomerTracker, Device, Event, Exponea, Hooks
from exponea_async.errors import ClosedError
from exponea_async.messages import CustomerAttribute, InAppContentBlock, InAppMessage
from exponea_async.sandbox import Sandbox

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
    "attributes": lambda subject: subject.fetch_attributes([{"type": "property", "property": "asked"}]),
}
surfaces = pytest.mark.parametrize("surface", SURFACES)


class Gate:
    """
    Stands between a client and the platform, and lets calls wait there, on the way or on the way back.

    Args:
        client: The client.
        monkeypatch: Puts it there.
    """

    def __init__(self, client: Exponea, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on_the_way_back = False
        self.waiting = 0
        self._ask = client._devices.api.request
        self._is_open = asyncio.Event()
        self._is_open.set()
        monkeypatch.setattr(client._devices.api, "request", self._held)

    def close(self, *, on_the_way_back: bool = False) -> None:
        """Let calls wait from now on."""
        self.on_the_way_back, self.waiting = on_the_way_back, 0
        self._is_open.clear()

    def open(self) -> None:
        """Let them pass."""
        self._is_open.set()

    async def _held(self, *args: Any, **options: Any) -> bytes:
        if not self.on_the_way_back:
            await self._wait()
        answer = await self._ask(*args, **options)
        if self.on_the_way_back:
            await self._wait()
        return answer

    async def _wait(self) -> None:
        self.waiting += 1
        await self._is_open.wait()


class World:
    """A phone, the platform, and what is between them."""

    def __init__(self, phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phone = phone
        self.sandbox = sandbox
        self.monkeypatch = monkeypatch
        self.personal = Personal(sandbox)
        self.client: Exponea
        self.gate: Gate

    async def start(self, hooks: Hooks | None = None, **settings: Any) -> Exponea:
        """Start a client."""
        self.client = await self.phone.start(hooks=hooks, **settings)
        self.gate = Gate(self.client, self.monkeypatch)
        return self.client

    async def name(self, device: Device) -> str:
        """Tell the name of who a device is."""
        state = await device._device_context.load_state()
        assert state is not None
        return name_of(state.customer_ids)

    async def known(self, key: str = "a", **settings: Any) -> Device:
        """Start a client, and have a device whose customer the platform knows."""
        client = await self.start(**settings)
        device = client.device(key)
        await device.identify_customer(Customer(ANN))
        await client.flush_data()
        return device

    async def asked(self, device: Device, surface: str, *, on_the_way_back: bool) -> "asyncio.Task[Any]":
        """Ask for something, and come to where the platform is asked."""
        self.gate.close(on_the_way_back=on_the_way_back)
        asking = asyncio.ensure_future(SURFACES[surface](device))
        await until(lambda: self.gate.waiting > 0)
        return asking

    async def banners(self) -> list[tuple[str, str, str]]:
        """Tell of whom banners are told, what happened, and for whom it was."""
        await self.client.flush_data()
        return [
            (name_of(each.customer_ids), each.properties["action"], owner_told(each.properties))
            for each in self.sandbox.engine.events(event_type="banner")
        ]


def owner_told(properties: Any) -> str:
    """Tell whose name stands in a banner event."""
    return str(properties["variant_name" if "placeholder" in properties else "banner_name"])


def owners(given: Any) -> set[str]:
    """Tell the names on what was given, if anything was."""
    things = given if isinstance(given, list) else [given]
    return {each.value if isinstance(each, CustomerAttribute) else owner_of(each) for each in things if each}


def fits(given: Any, name: str) -> bool:
    """Tell whether nothing was given, or what is for somebody; segments only tell the cookie."""
    return owners(given) <= {name, name.partition(";")[0]}


@pytest.fixture
async def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    world = World(phone, sandbox, monkeypatch)
    yield world
    world.gate.open()
    await phone.aclose()
    assert background() == []


back = pytest.mark.parametrize("on_the_way_back", [False, True], ids=["on the way", "on the way back"])


@surfaces
@back
class TestInTheMiddle:
    """While the platform is asked, something happens."""

    @pytest.mark.parametrize("change", ["identify", "anonymize", "both", "twice"])
    async def test_somebody_else(self, world: World, surface: str, on_the_way_back: bool, change: str) -> None:  # noqa: FBT001
        """Nothing is given that was for the one before; who is told of banners is whom they are for."""
        device = await world.known()
        asking = await world.asked(device, surface, on_the_way_back=on_the_way_back)
        if change != "identify":
            await asyncio.gather(*[device.anonymize() for _ in range(2 if change == "twice" else 1)])
        if change in {"identify", "both"}:
            await device.identify_customer(Customer(BEN))
        world.gate.open()
        assert fits(await asking, await world.name(device))
        assert all(about == owner for about, _, owner in await world.banners())

    async def test_stopped(self, world: World, surface: str, on_the_way_back: bool) -> None:  # noqa: FBT001
        """Nothing is given."""
        device = await world.known()
        asking = await world.asked(device, surface, on_the_way_back=on_the_way_back)
        await world.client.stop_integration()
        world.gate.open()
        assert not await asking
        assert not await SURFACES[surface](device)
        assert background() == []

    async def test_stopped_and_started(self, world: World, surface: str, on_the_way_back: bool) -> None:  # noqa: FBT001
        """Nothing is given that was for the one before."""
        device = await world.known()
        asking = await world.asked(device, surface, on_the_way_back=on_the_way_back)
        await world.client.stop_integration()
        await world.client.start()
        world.gate.open()
        assert fits(await asking, await world.name(device))

    async def test_closed(self, world: World, surface: str, on_the_way_back: bool) -> None:  # noqa: FBT001
        """Nothing is given, or it is said that the client is closed; nothing goes on."""
        device = await world.known()
        asking = await world.asked(device, surface, on_the_way_back=on_the_way_back)
        await world.client.aclose(timeout=0)
        world.gate.open()
        with suppress(ClosedError):
            assert not await asking
        with pytest.raises(ClosedError):
            await SURFACES[surface](device)
        assert background() == []

    async def test_cancelled(self, world: World, surface: str, on_the_way_back: bool) -> None:  # noqa: FBT001
        """Who gives up takes nothing from the others, and what nobody waits for is in nobody's way."""
        device = await world.known()
        first = await world.asked(device, surface, on_the_way_back=on_the_way_back)
        others = [asyncio.ensure_future(SURFACES[surface](device)) for _ in range(3)]
        await asyncio.sleep(0.01)
        first.cancel()
        others[0].cancel()
        world.gate.open()
        given = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(each) for each in given[:2]] == [asyncio.CancelledError] * 2
        assert any(given[2:])
        name = await world.name(device)
        assert all(fits(each, name) for each in given[2:])


class TestAtAnyMoment:
    """Not only while the platform is asked."""

    @surfaces
    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_each_step(self, world: World, surface: str, change: str) -> None:
        """Whichever step of the event loop it is: who gets something later than the change gets the new one's."""
        device = await world.known(key="a")
        for steps in (*range(1, 40), *range(40, 200, 7)):
            device = world.client.device(f"a{steps}")
            await device.identify_customer(Customer(ANN))
            if steps % 2:
                await SURFACES[surface](device)
                await settled(device)
            asking = asyncio.ensure_future(SURFACES[surface](device))
            for _ in range(steps):
                await asyncio.sleep(0)
            done = asking.done()
            await (device.anonymize() if change == "anonymize" else device.identify_customer(Customer(BEN)))
            done = done or asking.done()
            given = await asking
            assert done or fits(given, await world.name(device)), steps
        assert all(about == owner for about, _, owner in await world.banners())

    @pytest.mark.parametrize("verb", ["in_app_message_for", "content_block"])
    async def test_what_may_not_be_tracked(self, world: World, verb: str) -> None:
        """It is remembered and heard of, which takes some steps more, and given to nobody else either."""
        await world.known()
        async with world.client.in_app_messages():
            for steps in range(1, 60):
                device = world.client.device(f"a{steps}")
                await device.content_block(SECRET)
                await device.track_event(Event("nothing"))
                await settled(device)
                asked: Any = Event(SECRET) if verb == "in_app_message_for" else SECRET
                asking = asyncio.ensure_future(getattr(device, verb)(asked))
                for _ in range(steps):
                    await asyncio.sleep(0)
                await device.anonymize()
                done = asking.done()
                assert done or fits(await asking, await world.name(device)), steps

    @surfaces
    async def test_a_stop_at_each_step(self, world: World, surface: str) -> None:
        """Whichever step of the event loop it is: who gets something after the stop gets nothing."""
        client = await world.start()
        for steps in (*range(1, 40), *range(40, 200, 14)):
            await client.device("b").open()
            asking = asyncio.ensure_future(SURFACES[surface](client.device("a")))
            for _ in range(steps):
                await asyncio.sleep(0)
            await client.stop_integration()
            done = asking.done()
            assert done or not await asking, steps
            assert background() == []
            await client.start()

    @pytest.mark.parametrize("change", ["anonymize", "stop"])
    async def test_in_app_messages_that_nobody_took(self, world: World, change: str) -> None:
        """A message that was for the one before is not handed to a host who comes for it later."""
        device = await world.known()
        async with device.in_app_messages() as messages:
            await device.track_event(Event("always"))
            await until(lambda: len(messages._pending) == 1)
            await (device.anonymize() if change == "anonymize" else world.client.stop_integration())
            assert [owner_of(each) for each in messages._pending] == []

    async def test_an_in_app_message_of_the_one_before(self, world: World) -> None:
        """What is done with it is no act of the new customer's."""
        device = await world.known()
        message = await device.in_app_message_for(Event("until"))
        assert message is not None
        await device.anonymize()
        await device.click_in_app_message(message, message.buttons[0])
        await device.close_in_app_message(message)
        await device.track_in_app_message_click(message, message.buttons[0])
        assert all(about == owner for about, _, owner in await world.banners())
        # And the new customer has not pressed anything.
        assert await device.in_app_message_for(Event("until")) is not None

    async def test_a_message_of_before_a_stop(self, world: World) -> None:
        """What is done with it is told of them, and the device comes to life as ever afterwards."""
        device = await world.known()
        message, block = await device.in_app_message_for(Event("always")), await device.content_block("always")
        assert message is not None
        assert block is not None
        await world.client.stop_integration()
        await world.client.start()
        await device.fail_in_app_message(message, "broken")
        await device.close_in_app_message(message, interaction=False)
        await device.open()
        await world.client.flush_data()
        state = await device._device_context.load_state()
        assert state is not None
        told = [each for each in world.sandbox.engine.events() if each.customer_ids == state.customer_ids]
        assert {each.event_type for each in told} == {"installation", "session_start"}
        assert all(about == owner for about, _, owner in await world.banners())

    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_a_carousel(self, world: World, change: str) -> None:
        """What is in it for the one before is not for the new one to see."""
        device = await world.known()
        async with device.content_block_carousel("always", scroll_delay=0) as carousel:
            assert carousel.block is not None
            await (device.anonymize() if change == "anonymize" else device.identify_customer(Customer(BEN)))
            async for block in carousel:
                assert owner_of(block) == await world.name(device)
                break

    async def test_segments_that_nobody_took(self, world: World) -> None:
        """Segments of the one before are not told to who comes for them later."""
        device = await world.known()
        async with device.segmentation_data_stream(CATEGORY) as stream:
            await device.get_segments(CATEGORY, force=True)
            assert len(stream._pending) == 1
            await device.anonymize()
            assert len(stream._pending) == 0

    async def test_nothing_stays_on_disk(self, world: World) -> None:
        """What was stored for the one before is forgotten with them."""
        device = await world.known()
        for verb in SURFACES.values():
            await verb(device)
        await settled(device)
        assert await world.client._storage.load_state("inbox:a") is not None
        await device.anonymize()
        await settled(device)
        kept = {
            name: await world.client._storage.load_state(f"{name}:a")
            for name in ("inbox", "segments", "in_app_messages")
        }
        assert [name for name, value in kept.items() if value is not None] == []


async def settled(_: Device) -> None:
    """Wait until nothing is under way but what waits for ever."""
    await until(
        lambda: not [name for name in background() if "in-app" in name or "inbox" in name or "segments" in name]
    )


class TestManyAtOnce:
    """Many tasks, many subjects."""

    async def test_bound(self, world: World) -> None:
        """Each task is given what is for whom it speaks of, and tells of them."""
        client = await world.start()

        async def serve(subject: Device | CustomerTracker) -> None:
            with client.bind(subject):
                await asyncio.sleep(0)
                name = await world.name(subject) if isinstance(subject, Device) else name_of(subject.ids)
                message = await client.in_app_message_for(Event("always"))
                block, inbox = await asyncio.gather(client.content_block("once"), client.fetch_app_inbox())
                assert message is not None
                assert block is not None
                assert owners([message, block, *inbox, *await client.fetch_recommendations(ITEMS)]) == {name}
                await asyncio.gather(
                    client.close_in_app_message(message),
                    client.click_content_block("once", block, LINK),
                    client.track_app_inbox_opened(inbox[0]),
                )

        devices: list[Device | CustomerTracker] = [client.device(f"tg:{number}") for number in range(20)]
        trackers = [client.for_customer({"registered": str(number)}) for number in range(20)]
        await asyncio.gather(*[serve(subject) for subject in (*devices, *trackers)])
        banners = await world.banners()
        assert len(banners) == 40 * 4
        assert all(about == owner for about, _, owner in banners)
        opened = world.sandbox.engine.events(event_type="campaign")
        assert all(name_of(each.customer_ids) == each.properties["owner"] for each in opened)
        assert len(opened) == 40

    async def test_one_device(self, world: World) -> None:
        """A crowd on one device, which becomes somebody else's again and again."""
        device = await world.known()
        names = {await world.name(device)}

        async def ask(verb: Verb) -> set[str]:
            return owners(await verb(device))

        async def change() -> set[str]:
            for number in range(10):
                await (
                    device.anonymize()
                    if number % 3
                    else device.identify_customer(Customer({"registered": str(number)}))
                )
                names.add(await world.name(device))
                await asyncio.sleep(0.003)
            return names

        verbs = [verb for name, verb in SURFACES.items() if name != "segments"]
        found = await asyncio.gather(change(), *[ask(verb) for verb in verbs * 20])
        assert set().union(*found) <= names
        for verb in verbs:
            assert fits(await verb(device), await world.name(device))
        assert all(about == owner for about, _, owner in await world.banners())

    @pytest.mark.parametrize("change", ["stop", "close"])
    async def test_the_end_of_a_crowd(self, world: World, change: str) -> None:
        """Nothing is left of them, whatever they were at."""
        client = await world.start()

        async def use(number: int) -> None:
            device = client.device(str(number))
            verb = [*SURFACES.values()][number % len(SURFACES)]
            with suppress(ClosedError):
                await verb(device)

        for wait in (0, 0.002, 0.01, 0.03):
            tasks = [asyncio.ensure_future(use(number)) for number in range(50)]
            await asyncio.sleep(wait)
            await (client.stop_integration() if change == "stop" else client.aclose(timeout=0))
            await asyncio.gather(*tasks)
            assert background() == []
            if change == "stop":
                await client.start()
            else:
                client = await world.start()


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
    " ",
    "\n",
    "%s{0}'\"\\",
    "x" * 20_000,
]


class TestKeys:
    """Devices whose keys are made to be taken for something else."""

    async def test_hostile(self, world: World) -> None:
        """Each is somebody of their own, also after a restart."""
        client = await world.start()

        async def given(client: Exponea, key: str) -> tuple[str, set[str]]:
            device = client.device(key)
            things = [await verb(device) for verb in SURFACES.values()]
            message = next(each for each in things if isinstance(each, InAppMessage))
            block = next(each for each in things if isinstance(each, InAppContentBlock))
            await device.close_in_app_message(message)
            await device.click_content_block("always", block, LINK)
            return await world.name(device), set().union(*map(owners, things))

        before = await asyncio.gather(*[given(client, key) for key in KEYS])
        assert all(found == {name} for name, found in before)
        assert len({name for name, _ in before}) == len(KEYS)
        await client.flush_data()
        await client.aclose(timeout=0)
        client = await world.start()
        world.phone.now += 1
        after = await asyncio.gather(*[given(client, key) for key in KEYS])
        assert after == before
        assert all(about == owner for about, _, owner in await world.banners())

    async def test_a_tracker_with_the_ids_of_a_device(self, world: World) -> None:
        """It is the same customer, and goes its own way when the device becomes somebody else's."""
        device = await world.known()
        state = await device._device_context.load_state()
        assert state is not None
        tracker, name = world.client.for_customer(state.customer_ids), name_of(state.customer_ids)
        # It depends on who comes first with what, where both share what is in memory.
        assert owners([await tracker.content_block("once"), await device.content_block("visit")]) == {name}
        for subject in (tracker, device):
            for surface in SURFACES.keys() - {"segments"}:
                assert fits(await SURFACES[surface](subject), name)
        for _ in range(3):
            await device.anonymize()
            for verb in SURFACES.values():
                assert fits(await verb(device), await world.name(device))
        assert owners(await tracker.content_block("always")) == {name}


class TestTwoClients:
    """On one file, as two processes have it."""

    @surfaces
    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_the_other_one_changes(self, world: World, surface: str, change: str) -> None:
        """What one client has in memory for the one before is not given to whom the other client made of the device."""
        device = await world.known()
        await SURFACES[surface](device)
        other = (await world.phone.start()).device("a")
        await (other.anonymize() if change == "anonymize" else other.identify_customer(Customer(BEN)))
        given = await SURFACES[surface](device)
        assert fits(given, await world.name(other))
        assert await world.name(device) == await world.name(other)
        assert all(about == owner for about, _, owner in await world.banners())

    async def test_frequencies(self, world: World) -> None:
        """What one has shown once, the other does not show again."""
        device = await world.known()
        other = (await world.phone.start()).device("a")
        shown = await asyncio.gather(*[each.content_block("once") for each in (device, other) * 5])
        assert len([each for each in shown if each]) == 1
        for which in FREQUENCIES:
            for each in (device, other):
                message = await each.in_app_message_for(Event(which))
                if message is not None:
                    await each.close_in_app_message(message)
        await world.client.flush_data()
        counts = [
            each.properties["banner_id"]
            for each in world.sandbox.engine.events(event_type="banner")
            if each.properties["action"] == "show" and "placeholder" not in each.properties
        ]
        assert sorted(counts) == sorted(["always", "always", "once", "visit", "until", "until"])
