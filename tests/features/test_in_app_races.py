"""
In-app messages when much happens at once, and when it ends in the middle.
"""

import asyncio
import json
from typing import Any

import pytest
from helpers.app import Phone
from helpers.waiting import running, until
from in_app_world import World, message, taken, types

from exponea_async import Customer, Event, QueueSettings
from exponea_async.sandbox import Sandbox

ANN, BEN = {"registered": "ann@x.com"}, {"registered": "ben@x.com"}
PICTURE = {"image_url": "https://i.example/1.png"}


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(phone, sandbox, monkeypatch)


def tasks() -> list[str]:
    """Tell what goes on for the SDK in the background."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if "in-app" in name or "resources" in name]


class TestAtOnce:
    async def test_two_events(self, world: World) -> None:
        """Of two messages upon two events one is shown, and one is tracked."""
        client = await world.start(message("a"), message("b", "y"))
        await world.track("z")
        for _ in range(10):
            await asyncio.gather(client.track_event(Event("x")), client.track_event(Event("y")))
            (given,) = await world.given()
            await client.close_in_app_message(given)
        assert await world.told() == ["show", "close"] * 10

    async def test_once_is_once(self, world: World) -> None:
        """A message that is shown once is, however many events there are, and whoever asks."""
        client = await world.start(message(frequency="only_once", load_delay=20))
        await world.track("z")
        await asyncio.gather(
            *[client.track_event(Event("x")) for _ in range(10)],
            *[client.in_app_message_for(Event("x")) for _ in range(10)],
        )
        await world.rest()
        assert await world.told() == ["show"]

    @pytest.mark.parametrize("html", [False, True])
    async def test_two_that_are_delayed(self, world: World, html: bool) -> None:  # noqa: FBT001
        """Of two that are made ready beside each other one is shown, and the other one is not told of."""
        sign = asyncio.Event()

        async def load(_url: str) -> bytes:
            await sign.wait()
            return b"data"

        source = f"<img src='{PICTURE['image_url']}'><p>Sale</p>"
        fields = {"is_html": True, "payload_html": source} if html else {"payload": PICTURE}
        messages = message("a", **fields), message("b", "y", **fields)
        client = await world.start(*messages, resource_loader=load)
        await world.track("z")
        await client.track_event(Event("x"))
        await client.track_event(Event("y"))
        await until(lambda: len(world.part.stage._preparing) == 2)
        sign.set()
        assert len(await world.given()) == 1
        assert await world.told() == ["show"]

    async def test_one_that_fails_beside_one_that_is_shown(self, world: World) -> None:
        """While a message is shown nobody looks at another one, and at what is wrong with it."""

        async def load(_url: str) -> None:
            return None

        client = await world.start(message("a"), message("b", "y", payload=PICTURE), resource_loader=load)
        await world.first()
        await client.track_event(Event("y"))
        await world.rest()
        assert await world.told() == ["show"]

    async def test_a_queue_that_is_full(self, world: World) -> None:
        """A message whose show can't be kept is not shown, and is not in the way of the next one."""
        client = await world.start(message(), queue=QueueSettings(max_records=3))
        await client.track_event(Event("y"))
        assert await world.track() == []
        assert len(world.part.stage) == 0
        await client.flush_data()
        assert await client.in_app_message_for(Event("x")) is not None

    async def test_many_devices(self, world: World) -> None:
        """Each has its own, and nothing is left of those that are over."""
        client = await world.start(message(frequency="only_once"))
        devices = [client.device(str(number)) for number in range(100)]
        await asyncio.gather(*[each.track_event(Event("x")) for each in devices])
        given = await world.given()
        assert sorted(each.device or "" for each in given) == sorted(each.key for each in devices)
        await asyncio.gather(*[client.close_in_app_message(each) for each in given])
        await asyncio.gather(*[each.track_event(Event("x")) for each in devices])
        assert await world.shown() == []
        assert (len(world.part.stage), len(world.part._requests), running("in-app")) == (0, 0, [])
        assert len(world.part._cache._definitions) == 1

    async def test_one_question_for_many(self, world: World) -> None:
        """One who gives up waiting does not take the answer from the others."""
        client = await world.start(message(), listen=False)
        ann = client.for_customer(ANN)
        world.hold()
        waiting = [asyncio.create_task(ann.in_app_message_for(Event("x"))) for _ in range(3)]
        await until(lambda: world.part._loader._flights != {})
        waiting[0].cancel()
        await world.release()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert [each.id for each in results[1:]] == ["m", "m"]  # type: ignore[union-attr]
        assert world.fetches == 1


class TestAnotherCustomer:
    async def test_identify_while_fetching(self, world: World) -> None:
        """What was asked for the one before is not for this one, and what this one is to see comes after the upload."""
        client = await world.start()
        world.put(message("anybody"))
        world.put(message("ann"), to=ANN)
        world.hold()
        await client.track_event(Event("x"))
        await client.identify_customer(Customer(ANN))
        await world.release()
        assert await world.shown() == []
        assert len(world.part._cache) == 0
        await client.flush_data()
        await until(lambda: world.fetches == 2)
        assert await world.track() in (["anybody"], ["ann"])

    async def test_identify_again_while_fetching(self, world: World) -> None:
        """An answer from before an update is not taken for the one after it, and who waits gets that one."""
        client = await world.start()
        world.put(message("old"))
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: world.fetches == 2)
        await world.rest()
        world.hold()
        world.phone.now += 4000
        waiting = asyncio.create_task(client.in_app_message_for(Event("x")))
        await until(lambda: world.part._loader._flights != {})
        (first,) = world.part._loader._flights.values()
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        await client.flush_data()
        await until(lambda: first not in world.part._loader._flights.values())
        await world.release()
        given = await waiting
        assert given is not None
        assert world.fetches == 4
        assert len(world.part._cache) == 1

    @pytest.mark.parametrize("when", ["delay", "resources"])
    async def test_while_it_is_made_ready(self, world: World, when: str) -> None:
        """A message of the customer before is not shown to this one, and that is told of the one before."""
        sign = asyncio.Event()

        async def load(_url: str) -> bytes:
            await sign.wait()
            return b"data"

        fields: dict[str, Any] = {"load_delay": 300} if when == "delay" else {"payload": PICTURE}
        client = await world.start(message(**fields), resource_loader=load)
        actions = client.in_app_message_action_stream()
        await client.identify_customer(Customer(ANN))
        await client.track_event(Event("x"))
        await client.flush_data()
        await client.track_event(Event("x"))
        await until(lambda: world.part.stage._preparing != set())
        await client.anonymize()
        sign.set()
        assert await world.shown() == []
        (event,) = await world.banners()
        assert (event.properties["action"], event.ids["registered"]) == ("error", "ann@x.com")
        assert types(actions) == ["error"]

    async def test_while_it_is_chosen(self, world: World) -> None:
        """The moment between an event and its message is enough to become somebody else, who is not told of it."""
        client = await world.start(message())
        await world.track("y")
        await client.track_event(Event("x"))
        await client.anonymize()
        assert await world.shown() == []
        assert await world.told() == []

    @pytest.mark.parametrize("first_comes_first", [True, False])
    async def test_two_answers(self, world: World, first_comes_first: bool) -> None:  # noqa: FBT001
        """Of two answers about one customer the one that was asked for last counts, in whichever order they come."""
        client = await world.start(message("new"))
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: world.fetches == 2)
        await world.rest()
        gates = [asyncio.Event(), asyncio.Event()]
        waiting, ask = iter(gates), client._devices.api.request

        async def held(*args: Any, **options: Any) -> bytes:
            await next(waiting).wait()
            return await ask(*args, **options)

        world.monkeypatch.setattr(client._devices.api, "request", held)
        world.phone.now += 4000
        await client.track_event(Event("y"))
        (first,) = world.part._loader._flights.values()
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        await client.flush_data()
        await until(lambda: list(world.part._loader._flights.values()) not in ([], [first]))
        for index in (0, 1) if first_comes_first else (1, 0):
            gates[index].set()
            if index == 0:
                assert await first.task is None
            else:
                await until(lambda: world.part._loader._flights == {})
                world.sandbox.messages.in_app_messages.clear()
        assert await world.track() == ["new"]

    async def test_what_waited_before_an_identify(self, world: World) -> None:
        """It is not shown upon after it, even where the customer stays the same."""
        client = await world.start(message())
        await client.identify_customer(Customer(ANN))
        await world.rest()
        world.hold()
        world.part._uploads.clear()
        await client.track_event(Event("x"))
        assert len(world.part._requests) == 1
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        await world.release()
        assert await world.shown() == []


class TestEnds:
    @pytest.mark.parametrize("end", ["stop", "close"])
    @pytest.mark.parametrize("when", ["fetching", "delay", "resources", "shown", "upload"])
    async def test_in_the_middle(
        self, world: World, when: str, end: str, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing goes on, nothing is told but that a message is dismissed, and nobody complains."""

        async def load(_url: str) -> bytes:
            await asyncio.sleep(60)
            return b""

        fields: dict[str, dict[str, Any]] = {
            "delay": {"load_delay": 60_000},
            "resources": {"payload": PICTURE},
            "shown": {"close_timeout": 50},
        }
        client = await world.start(message(**fields.get(when, {})), resource_loader=load)
        if when == "fetching":
            world.hold()
        if when == "upload":
            await client.identify_customer(Customer(ANN))
        await client.track_event(Event("x"))
        if when == "shown":
            await until(lambda: len(world.messages._pending) == 1)
        elif when != "upload":
            await until(lambda: bool(world.part.stage._preparing or when == "fetching"))
        actions = client.in_app_message_action_stream()
        taken(actions)

        await (client.stop_integration() if end == "stop" else client.aclose(timeout=0))
        await asyncio.sleep(0.1)
        assert tasks() == []
        assert types(actions) == (["close"] if (when, end) == ("shown", "stop") else [])
        assert (len(world.part.stage), len(world.part._requests), len(world.part._cache)) == (0, 0, 0)
        assert not recwarn.list
        assert "broken down" not in caplog.text

    async def test_a_fresh_install(self, world: World) -> None:
        """After a stop and a start the host that listened gets messages again, as if for the first time."""
        client = await world.start(message(frequency="only_once"))
        await client.close_in_app_message(await world.first())
        await client.stop_integration()
        await client.start()
        assert await world.track() == ["m"]
        assert world.fetches == 2

    async def test_a_caller_that_is_cancelled(self, world: World) -> None:
        """A message that nobody gets is not in the way of the next one."""
        client = await world.start(message(load_delay=60_000), listen=False)
        waiting = asyncio.create_task(client.in_app_message_for(Event("x")))
        await until(lambda: world.part.stage._preparing != set())
        waiting.cancel()
        await asyncio.wait([waiting])
        world.put(message())
        world.phone.now = 9000.0
        assert await client.in_app_message_for(Event("x")) is not None

    async def test_a_burst_while_fetching(self, world: World) -> None:
        """What waits is bounded, whatever is tracked."""
        client = await world.start(message())
        world.hold()
        for number in range(300):
            await client.track_event(Event(f"e{number}"))
        assert len(world.part._requests._devices["default"]) == 100
        await world.release()
        assert len(world.part._requests) == 0

    async def test_two_processes(self, world: World) -> None:
        """What one process has shown, the other one knows."""
        await world.start(message(frequency="only_once"))
        assert await world.track() == ["m"]
        first = world.phone.client
        await world.start()
        assert await world.track() == []
        assert first is not world.phone.client

    async def test_what_is_stored_per_device_is_small(self, world: World) -> None:
        """Fifty messages take some kilobytes."""
        await world.start(*[message(f"m{number}", load_priority=number) for number in range(50)])
        assert await world.track() == ["m49"]
        stored = await world.client._context.load_data("in_app_messages")
        assert stored is not None
        raw = len(json.dumps([message(f"m{number}") for number in range(50)]))
        assert len(stored) < raw / 8
