"""
Functions of the application that fail in unusual ways, or that are slow: the SDK goes on.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import pytest
from helpers.clients import Configure, Connect, DeliveryLog, numbered_events
from helpers.environment import SetConstants
from helpers.waiting import running, until

from exponea_async import DeliveryEvent, Event, Exponea, Hooks, InvalidEventError
from exponea_async._internal import closing
from exponea_async._internal.user_code import FunctionError, calling
from exponea_async.errors import RequestRefusedError
from exponea_async.sandbox import Sandbox

#: The tasks of the storages, in a file and in PostgreSQL.
STORAGE_TASKS = ("connections", "listening", "maintenance", "notifications")


class OddError(BaseException):
    """What some test frameworks and task libraries raise is not an `Exception`."""


def cancelled_result(*_: object) -> NoReturn:
    """Raise what the result of a cancelled future raises."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    future.result()
    raise AssertionError


def odd(*_: object) -> NoReturn:
    raise OddError


class TestHooks:
    @pytest.mark.parametrize("listener", [cancelled_result, odd])
    async def test_a_listener_that_raises_anything(
        self,
        connect: Connect,
        sandbox: Sandbox,
        deliveries: DeliveryLog,
        caplog: pytest.LogCaptureFixture,
        listener: Callable[[DeliveryEvent], None],
    ) -> None:
        """All events are sent once, receipts are resolved, the other listeners are called, and the log says why."""
        client = await connect(hooks=Hooks(listeners=[listener, deliveries]))
        for event in numbered_events(20):
            receipt = await client.track_event(event)
            await receipt.delivered(60)

        assert (client.stats().delivered, client.stats().restarts, sandbox.engine.duplicates) == (20, 0, 0)
        assert len([key for event in deliveries if event.kind == "delivered" for key in event.ids]) == 20
        assert f"the listener {listener.__qualname__} raised" in caplog.text

    @pytest.mark.parametrize("hook", [cancelled_result, odd])
    async def test_a_before_track_that_raises_anything(self, connect: Connect, hook: Callable[[Event], Event]) -> None:
        """The caller gets an `InvalidEventError`: a `CancelledError` would end its task without a word."""
        client = await connect(hooks=Hooks(before_track=hook), flush_mode="MANUAL")
        with pytest.raises(InvalidEventError, match=r"before_track: .* raised"):
            await client.track_event(Event("ping"))

        assert client.stats().tracked == 0

    async def test_automatic_events_with_such_a_before_track(self, connect: Connect) -> None:
        """Sign-out and sessions go on without the events that the hook fails on."""
        client = await connect(hooks=Hooks(before_track=cancelled_result), flush_mode="MANUAL", device=True)
        cookie = await client.get_customer_cookie()
        await client.anonymize()

        assert await client.get_customer_cookie() != cookie
        assert client.stats().dropped["before_track_failed"] > 0

    async def test_a_slow_listener_is_logged_once(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        """The log names a function that blocks the event loop, once."""

        def slow_listener(_event: DeliveryEvent) -> None:
            time.sleep(0.11)

        client = await connect(hooks=Hooks(listeners=[slow_listener]))
        for event in numbered_events(2):
            await (await client.track_event(event)).delivered(60)

        lines = [each for each in caplog.messages if "blocked the event loop" in each]
        assert [line for line in lines if "slow_listener" in line] == lines
        assert len(lines) == 1


class TestEncoders:
    @pytest.mark.parametrize("encoder", [cancelled_result, odd])
    async def test_an_encoder_that_raises_anything(self, connect: Connect, encoder: Callable[[Any], Any]) -> None:
        """The caller gets an error with the path of the value."""
        client = await connect(encoder=encoder, flush_mode="MANUAL")
        with pytest.raises(InvalidEventError, match=r"properties.a"):
            await client.track_event(Event("ping", {"a": object()}))


class TestCoroutines:
    @pytest.mark.parametrize("fail", [cancelled_result, odd])
    async def test_a_token_provider_that_raises_anything(self, configure: Configure, fail: Callable[[], Any]) -> None:
        """The caller gets an error that names what was raised."""

        async def provide() -> str:
            return str(fail())

        async with Exponea(configure(customer_token_provider=provide)) as client:
            with pytest.raises(RequestRefusedError, match=r"raised (CancelledError|OddError)"):
                await client.fetch_app_inbox()

    async def test_a_cancelled_caller(self) -> None:
        """A cancellation of the task that awaits the function stays one."""
        started = asyncio.Event()

        async def wait() -> None:
            started.set()
            await asyncio.Event().wait()

        async def call() -> None:
            with calling("the function", wait, is_async=True):
                await wait()

        task = asyncio.create_task(call())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_timeout(self) -> None:
        """A timeout of the SDK stays one."""

        async def call() -> None:
            async with asyncio.timeout(0.01):
                with calling("the function", odd, is_async=True):
                    await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await call()

    @pytest.mark.parametrize("is_async", [False, True])
    def test_what_is_passed_on(self, *, is_async: bool) -> None:
        """Errors are passed on as they are, and so is what ends the program; everything else becomes an error."""
        for error in (ValueError(), KeyboardInterrupt(), SystemExit(), FunctionError()):
            with pytest.raises(type(error)) as caught, calling("the function", odd, is_async=is_async):
                raise error
            assert caught.value is error
        with pytest.raises(FunctionError, match="the function odd raised OddError"), calling("the function", odd):
            odd()


class TestClocks:
    @pytest.mark.parametrize(
        "reading", [cancelled_result, odd, lambda: "noon", lambda: None, lambda: float("nan"), lambda: 1 / 0]
    )
    async def test_a_clock_that_fails(
        self, configure: Configure, sandbox: Sandbox, caplog: pytest.LogCaptureFixture, reading: Callable[[], Any]
    ) -> None:
        """The system's clock is used instead, and the log says so once."""
        before = time.time()
        async with Exponea(configure(), clock=reading) as client:
            for event in numbered_events(3):
                await client.track_event(event)
            await client.flush_data(60)

        assert all(before < event.timestamp < time.time() + 1 for event in sandbox.engine.events())
        assert caplog.text.count("The clock does not return a finite number") == 1


class TestTasks:
    @pytest.mark.both_storages
    async def test_tasks_that_are_cancelled_are_started_again(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog, caplog: pytest.LogCaptureFixture
    ) -> None:
        """If the application cancels all tasks there are, the client goes on, counts it, and tells the listeners."""
        client = await connect(hooks=Hooks(listeners=[deliveries]), device=True, flush_mode="IMMEDIATE")
        await (await client.track_event(Event("before"))).delivered(60)
        # These two run only while there is something to do.
        names = sorted(set(running()) - {"exponea_async: receipts", "exponea_async: commits"})
        for task in asyncio.all_tasks():
            if task.get_name() in names:
                task.cancel()
        # Those of the storage are started again by itself.
        restarted = [name for name in names if name.removeprefix("exponea_async: ") not in STORAGE_TASKS]
        await until(lambda: client.stats().restarts == len(restarted) and set(running()) >= set(names))

        await asyncio.gather(*[(await client.track_event(event)).delivered(60) for event in numbered_events(30)])
        assert sandbox.engine.duplicates == 0
        assert deliveries.kinds().count("restarted") == len(restarted)
        assert "was cancelled or has ended unexpectedly" in caplog.text
        assert caplog.records[0].levelno == logging.CRITICAL

    @pytest.mark.both_storages
    async def test_a_task_that_ignores_its_cancellation(
        self, connect: Connect, set_constants: SetConstants, sandbox: Sandbox
    ) -> None:
        """It looks as if the event loop were about to end. When it goes on all the same, the client does, too."""
        set_constants(closing, LONGEST_END=1.0)
        client = await connect(flush_mode="IMMEDIATE")
        await (await client.track_event(Event("before"))).delivered(60)
        may_end = asyncio.Event()

        async def ignore() -> None:
            with suppress(asyncio.CancelledError):
                await may_end.wait()
            await may_end.wait()

        ignoring = asyncio.create_task(ignore())
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task is ignoring or task.get_name().startswith("exponea_async"):
                task.cancel()
        async with asyncio.timeout(60):
            await client.track_event(Event("after"))
        await until(lambda: len(sandbox.engine.events()) == 2)
        assert ignoring.cancelling()
        may_end.set()
        await ignoring

    async def test_records_in_the_hands_of_a_cancelled_task(self, connect: Connect, sandbox: Sandbox) -> None:
        """What a cancelled task was sending or leasing is sent by the next one, without waiting for its lease."""
        client = await connect(flush_mode="MANUAL", upload={"concurrency": 2})
        await client.track_many(numbered_events(1_000))
        flush = asyncio.create_task(client.flush_data())
        for _ in range(6):
            await asyncio.sleep(0.01)
            for task in asyncio.all_tasks():
                if task.get_name().startswith(("exponea_async: sender", "exponea_async: leasing")):
                    task.cancel()
        await flush
        result = await client.flush_data(60)

        assert result.remaining == 0
        assert len({event.properties["number"] for event in sandbox.engine.events()}) == 1_000
