"""
In-app messages when many things happen at once, and when they end in the middle.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from helpers.cancelling import pause
from helpers.in_app import InAppFixture, message, types_of
from helpers.waiting import running, until

from exponea_async import Customer, Event, QueueSettings
from exponea_async.testing import received

ANN, BEN = {"registered": "ann@x.com"}, {"registered": "ben@x.com"}
PICTURE = {"image_url": "https://i.example/1.png"}


class TestAtOnce:
    async def test_two_events(self, in_app: InAppFixture) -> None:
        """Of two messages for two concurrent events, one is shown and tracked."""
        client = await in_app.start(message("a"), message("b", "y"))
        await in_app.track("z")
        for _ in range(10):
            await asyncio.gather(client.track_event(Event("x")), client.track_event(Event("y")))
            (shown,) = await in_app.received()
            await client.close_in_app_message(shown)
        assert await in_app.actions() == ["show", "close"] * 10

    async def test_only_once(self, in_app: InAppFixture) -> None:
        """A message that may be shown once is shown once, however many events and calls there are."""
        client = await in_app.start(message(frequency="only_once", load_delay=20))
        await in_app.track("z")
        await asyncio.gather(
            *[client.track_event(Event("x")) for _ in range(10)],
            *[client.in_app_message_for(Event("x")) for _ in range(10)],
        )
        await in_app.idle()
        assert await in_app.actions() == ["show"]

    @pytest.mark.parametrize("html", [False, True])
    async def test_two_messages_that_are_prepared(self, in_app: InAppFixture, html: bool) -> None:  # noqa: FBT001
        """Of two messages that are prepared at once, one is shown, and the other is not tracked."""
        sign = asyncio.Event()

        async def load(_url: str) -> bytes:
            await sign.wait()
            return b"data"

        source = f"<img src='{PICTURE['image_url']}'><p>Sale</p>"
        fields = {"is_html": True, "payload_html": source} if html else {"payload": PICTURE}
        messages = message("a", **fields), message("b", "y", **fields)
        client = await in_app.start(*messages, resource_loader=load)
        await in_app.track("z")
        await client.track_event(Event("x"))
        await client.track_event(Event("y"))
        await until(lambda: len(in_app.service.active.preparing) == 2)
        sign.set()
        assert len(await in_app.received()) == 1
        assert await in_app.actions() == ["show"]

    async def test_a_failure_while_another_is_shown(self, in_app: InAppFixture) -> None:
        """While a message is shown, another one that can't be shown is not tracked."""

        async def load(_url: str) -> None:
            return None

        client = await in_app.start(message("a"), message("b", "y", payload=PICTURE), resource_loader=load)
        await in_app.first()
        await client.track_event(Event("y"))
        await in_app.idle()
        assert await in_app.actions() == ["show"]

    async def test_a_full_queue(self, in_app: InAppFixture) -> None:
        """A message whose display can't be recorded is not shown, and does not prevent the next one."""
        client = await in_app.start(message(), queue=QueueSettings(max_records=3))
        await client.track_event(Event("y"))
        assert await in_app.track() == []
        assert len(in_app.service.active) == 0
        await client.flush_data()
        assert await client.in_app_message_for(Event("x")) is not None

    async def test_many_devices(self, in_app: InAppFixture) -> None:
        """Each device has its own message, and nothing is left of those that were closed."""
        client = await in_app.start(message(frequency="only_once"))
        devices = [client.device(str(number)) for number in range(100)]
        await asyncio.gather(*[each.track_event(Event("x")) for each in devices])
        shown = await in_app.received()
        assert sorted(each.device or "" for each in shown) == sorted(each.key for each in devices)
        await asyncio.gather(*[client.close_in_app_message(each) for each in shown])
        await asyncio.gather(*[each.track_event(Event("x")) for each in devices])
        assert await in_app.shown() == []
        assert (len(in_app.service.active), len(in_app.service.pending), running("in-app")) == (0, 0, [])
        assert len(in_app.service.cache.definitions) == 1

    async def test_one_load_for_many_callers(self, in_app: InAppFixture) -> None:
        """A caller that is cancelled does not cancel the load for the others."""
        client = await in_app.start(message(), listen=False)
        ann = client.for_customer(ANN)
        in_app.hold()
        waiting = [asyncio.create_task(ann.in_app_message_for(Event("x"))) for _ in range(3)]
        await until(lambda: in_app.held == 1)
        waiting[0].cancel()
        await in_app.release()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert [each.id for each in results[1:]] == ["m", "m"]  # type: ignore[union-attr]
        assert in_app.loads == 1


class TestAnotherCustomer:
    async def test_identify_while_loading(self, in_app: InAppFixture) -> None:
        """
        What was requested for the customer before an identify is discarded; the messages after it come after the
        upload.
        """
        client = await in_app.start()
        in_app.put(message("anybody"))
        in_app.put(message("ann"), to=ANN)
        in_app.hold()
        await client.track_event(Event("x"))
        await client.identify_customer(Customer(ANN))
        await in_app.release()
        assert await in_app.shown() == []
        assert len(in_app.service.cache) == 0
        await client.flush_data()
        await until(lambda: in_app.loads == 2)
        assert await in_app.track() in (["anybody"], ["ann"])

    async def test_identify_again_while_loading(self, in_app: InAppFixture) -> None:
        """A response from before an update is discarded, and a caller that waits gets the one after it."""
        client = await in_app.start()
        in_app.put(message("old"))
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: in_app.loads == 2)
        await in_app.idle()
        in_app.hold()
        in_app.app.now += 4000
        waiting = asyncio.create_task(client.in_app_message_for(Event("x")))
        await until(lambda: in_app.held == 1)
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        await client.flush_data()
        await until(lambda: in_app.held == 2)
        await in_app.release()
        shown = await waiting
        assert shown is not None
        assert in_app.loads == 4
        assert len(in_app.service.cache) == 1

    @pytest.mark.parametrize("when", ["delay", "resources"])
    async def test_anonymize_while_preparing(self, in_app: InAppFixture, when: str) -> None:
        """A message of the customer before is not shown to the new one, which is tracked for the customer before."""
        sign = asyncio.Event()

        async def load(_url: str) -> bytes:
            await sign.wait()
            return b"data"

        fields: dict[str, Any] = {"load_delay": 300} if when == "delay" else {"payload": PICTURE}
        client = await in_app.start(message(**fields), resource_loader=load)
        actions = client.in_app_message_action_stream()
        await client.identify_customer(Customer(ANN))
        await client.track_event(Event("x"))
        await client.flush_data()
        await client.track_event(Event("x"))
        await until(lambda: in_app.service.active.preparing != set())
        await client.anonymize()
        sign.set()
        assert await in_app.shown() == []
        (event,) = await in_app.banners()
        assert (event.properties["action"], event.ids["registered"]) == ("error", "ann@x.com")
        assert types_of(actions) == ["error"]

    async def test_anonymize_while_choosing(self, in_app: InAppFixture) -> None:
        """A message that is chosen while the customer changes is neither shown nor tracked."""
        client = await in_app.start(message())
        await in_app.track("y")
        await client.track_event(Event("x"))
        await client.anonymize()
        assert await in_app.shown() == []
        assert await in_app.actions() == []

    @pytest.mark.parametrize("first_comes_first", [True, False])
    async def test_two_responses(self, in_app: InAppFixture, first_comes_first: bool) -> None:  # noqa: FBT001
        """Of two responses for one customer, the one that was requested last counts, in whichever order they arrive."""
        client = await in_app.start(message("new"))
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: in_app.loads == 2)
        await in_app.idle()
        in_app.hold()
        in_app.app.now += 4000
        await client.track_event(Event("y"))
        await until(lambda: in_app.held == 1)
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        await client.flush_data()
        await until(lambda: in_app.held == 2)
        for left, index in enumerate((0, 1) if first_comes_first else (1, 0)):
            in_app.gateway.held[index].set()
            await until(lambda: len(running("exponea_async: in-app messages")) == 1 - left)  # noqa: B023 - awaited here
            if index == 1:
                in_app.sandbox.messages.in_app_messages.clear()
        in_app.gateway.release()
        assert await in_app.track() == ["new"]

    async def test_events_before_an_identify(self, in_app: InAppFixture) -> None:
        """No message is shown for an event before an identify, even if the customer stays the same."""
        client = await in_app.start(message())
        await client.identify_customer(Customer(ANN))
        await in_app.idle()
        in_app.hold()
        in_app.service.uploads.clear()
        await client.track_event(Event("x"))
        assert len(in_app.service.pending) == 1
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        await in_app.release()
        assert await in_app.shown() == []


class TestInterruptedChange:
    @pytest.mark.parametrize("steps", [*range(0, 20, 2), None])
    @pytest.mark.parametrize("change", ["anonymize", "forget the device", "forget the customer"])
    async def test_a_shown_message(self, in_app: InAppFixture, change: str, steps: int | None) -> None:
        """
        A message of the old customer is dismissed, and the next one's is shown, also where the caller is cancelled.
        """
        client = await in_app.start(message(frequency="always"))
        device = client.device("tg:1")
        await device.identify_customer(Customer(ANN))
        await client.flush_data()
        cookie = await device.get_customer_cookie()
        actions, messages = device.in_app_message_action_stream(), device.in_app_messages()
        await device.track_event(Event("x"))
        await in_app.idle()
        assert len(received(messages)) == 1
        assert types_of(actions) == ["show"]
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "anonymize": device.anonymize,
            "forget the device": device.forget,
            "forget the customer": client.for_customer(ANN).forget,
        }
        changing = asyncio.create_task(calls[change]())
        if steps is not None:
            await pause(steps)
            changing.cancel()
        await asyncio.wait([changing])
        await in_app.idle()
        await device.start()
        if await device.get_customer_cookie() == cookie:
            assert changing.cancelled()
            return

        assert types_of(actions) == ["close"]
        await device.track_event(Event("x"))
        await in_app.idle()
        assert len(received(messages)) == 1


class TestStopping:
    @pytest.mark.parametrize("end", ["stop", "close"])
    @pytest.mark.parametrize("when", ["fetching", "delay", "resources", "shown", "upload"])
    async def test_in_the_middle(
        self,
        in_app: InAppFixture,
        when: str,
        end: str,
        recwarn: pytest.WarningsRecorder,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Nothing continues or is published, except that a message is dismissed, and there are no warnings."""

        async def load(_url: str) -> bytes:
            await asyncio.sleep(60)
            return b""

        fields: dict[str, dict[str, Any]] = {
            "delay": {"load_delay": 60_000},
            "resources": {"payload": PICTURE},
            # Longer than the test on a busy machine.
            "shown": {"close_timeout": 600_000},
        }
        client = await in_app.start(message(**fields.get(when, {})), resource_loader=load)
        if when == "fetching":
            in_app.hold()
        if when == "upload":
            await client.identify_customer(Customer(ANN))
        await client.track_event(Event("x"))
        if when == "shown":
            shown = await anext(in_app.messages)
            assert shown.id == "m"
        elif when != "upload":
            await until(lambda: bool(in_app.service.active.preparing or when == "fetching"))
        actions = client.in_app_message_action_stream()
        received(actions)

        await (client.stop_integration(everyone=True) if end == "stop" else client.aclose(timeout=0))
        await asyncio.sleep(0.1)
        assert running("in-app") == running("resources") == []
        assert types_of(actions) == (["close"] if (when, end) == ("shown", "stop") else [])
        assert (len(in_app.service.active), len(in_app.service.pending), len(in_app.service.cache)) == (0, 0, 0)
        assert not recwarn.list
        assert "broken down" not in caplog.text

    async def test_a_fresh_install(self, in_app: InAppFixture) -> None:
        """After a stop and start a new subscription gets messages as if for the first time; the old one has ended."""
        client = await in_app.start(message(frequency="only_once"))
        await client.close_in_app_message(await in_app.first())
        await client.stop_integration(everyone=True)
        assert [shown async for shown in in_app.messages] == []
        await client.start()
        in_app.messages = client.in_app_messages()
        assert await in_app.track() == ["m"]
        assert in_app.loads == 2

    async def test_a_cancelled_caller(self, in_app: InAppFixture) -> None:
        """A message that no caller gets does not prevent the next one."""
        loads = asyncio.Event()

        async def load(_url: str) -> bytes:
            await loads.wait()
            return b"p"

        client = await in_app.start(message(payload=PICTURE), listen=False, resource_loader=load)
        waiting = asyncio.create_task(client.in_app_message_for(Event("x")))
        await until(lambda: in_app.service.active.preparing != set())
        waiting.cancel()
        await asyncio.wait([waiting])
        in_app.put(message())
        in_app.app.now = 9000.0
        assert await client.in_app_message_for(Event("x")) is not None

    async def test_a_burst_while_loading(self, in_app: InAppFixture) -> None:
        """The number of pending events is limited, whatever is tracked."""
        client = await in_app.start(message())
        in_app.hold()
        for number in range(300):
            await client.track_event(Event(f"e{number}"))
        assert len(in_app.service.pending.of_device("@default")) == 100
        await in_app.release()
        assert len(in_app.service.pending) == 0

    async def test_two_processes(self, in_app: InAppFixture) -> None:
        """What one process has shown, the other one knows."""
        await in_app.start(message(frequency="only_once"))
        assert await in_app.track() == ["m"]
        first = in_app.client
        await in_app.start()
        assert await in_app.track() == []
        assert first is not in_app.client

    async def test_the_stored_size(self, in_app: InAppFixture) -> None:
        """Fifty messages are stored in some kilobytes."""
        await in_app.start(*[message(f"m{number}", load_priority=number) for number in range(50)])
        assert await in_app.track() == ["m49"]
        stored = await in_app.stored()
        assert stored is not None
        raw = len(json.dumps([message(f"m{number}") for number in range(50)]))
        assert len(stored) < raw / 8
