"""
Hooks: which functions are valid, and how listeners are called.
"""

import asyncio
import functools
import logging
from typing import Any

import pytest
from helpers.clients import SOMEONE, Configure
from helpers.waiting import until

from exponea_async import Exponea, NoSubjectError, QueueSettings, RequestReport
from exponea_async.errors import ConfigurationError, RejectedError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Event, FlushMode

EVENT = DeliveryEvent("rejected", ids=("1", "2"), project="https://p.example", reason="bad", error=RejectedError("bad"))


def fail(_event: DeliveryEvent) -> None:
    raise RuntimeError("my listener is broken")


async def asynchronous(_given: Any) -> None:
    """Would never be awaited."""


class Listener:
    def keep(self, event: Event) -> Event | None:
        return event

    async def __call__(self, event: DeliveryEvent) -> None:
        """Would never be awaited either."""


def test_all_listeners_are_called_in_order() -> None:
    """Each listener gets the event itself."""
    received: list[tuple[str, DeliveryEvent]] = []
    hooks = Hooks(listeners=[lambda each: received.append(("a", each)), lambda each: received.append(("b", each))])

    hooks.notify(EVENT)

    assert received == [("a", EVENT), ("b", EVENT)]


def test_an_exception_of_a_listener_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, and the other listeners are still called."""
    received: list[DeliveryEvent] = []

    Hooks(listeners=(fail, received.append, fail)).notify(EVENT)

    assert received == [EVENT]
    assert [(record.name, record.levelno) for record in caplog.records] == [("exponea_async", logging.ERROR)] * 2
    assert "'rejected'" in caplog.records[0].message
    assert "my listener is broken" in caplog.text


def test_a_keyboard_interrupt_is_not_caught() -> None:
    """Only exceptions that are errors are caught."""

    def interrupt(_event: DeliveryEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Hooks(listeners=[interrupt]).notify(EVENT)


def test_there_are_no_hooks_by_default() -> None:
    """Without listeners, `notify` does nothing."""
    hooks = Hooks()

    hooks.notify(DeliveryEvent("delivered"))

    assert (hooks.before_track, hooks.listeners) == (None, ())


def test_before_track_may_be_any_plain_callable() -> None:
    """Functions, partials and methods are valid."""
    for function in (lambda each: each, functools.partial(lambda _, each: each, 1), Listener().keep):
        assert Hooks(before_track=function).before_track is function


@pytest.mark.parametrize(
    ("hooks", "field", "trouble"),
    [
        ({"before_track": 5}, "before_track", "expected a function, got 5"),
        ({"before_track": asynchronous}, "before_track", "expected a plain function, got the async function "),
        (
            {"before_track": functools.partial(asynchronous)},
            "before_track",
            "expected a plain function, got the async function ",
        ),
        ({"listeners": print}, "listeners", "expected a list of functions, got "),
        ({"listeners": "print"}, "listeners", "expected a list of functions, got "),
        ({"listeners": [print, 5]}, "listeners[1]", "expected a function, got 5"),
        ({"listeners": [asynchronous]}, "listeners[0]", "expected a plain function, got the async function "),
        (
            {"listeners": [print, print, Listener()]},
            "listeners[2]",
            "expected a plain function, got the async function ",
        ),
    ],
)
def test_other_values_and_async_functions_are_invalid(hooks: dict[str, Any], field: str, trouble: str) -> None:
    """The error names the hook; an async function would return a coroutine that is never awaited."""
    with pytest.raises(ConfigurationError, match=trouble) as caught:
        Hooks(**hooks)

    assert caught.value.field == field


class TestBindings:
    @pytest.mark.parametrize("when", ["delivered", "dropped"])
    async def test_nothing_is_bound_in_listeners(self, configure: Configure, when: str) -> None:
        """
        What a listener tracks is never the customer's whose call happens to run it, or has started the task that does.

        Without a default device it is an error.
        """
        tracked: list[asyncio.Task[object]] = []

        def track(event: DeliveryEvent) -> None:
            if event.kind == when and not tracked:
                tracked.append(asyncio.ensure_future(client.track_event(Event("noticed"))))

        mode = FlushMode.MANUAL if when == "dropped" else FlushMode.IMMEDIATE
        queue = QueueSettings(max_records=1, when_full="drop_oldest")
        settings = configure(default_device=False, queue=queue, flush_mode=mode)
        client = Exponea(settings, hooks=Hooks(listeners=[track]))
        with client.bind(client.for_customer(SOMEONE)):
            await client.start()
            for _ in range(2):
                await client.track_event(Event("visit"))
            await until(lambda: bool(tracked))
            with pytest.raises(NoSubjectError):
                await tracked[0]
            await client.aclose()

    async def test_nothing_is_bound_where_requests_are_reported(self, configure: Configure) -> None:
        """The same holds for the function that gets reports of requests, in uploads and where a caller waits."""
        tracked: list[asyncio.Task[object]] = []

        def track(_report: RequestReport) -> None:
            if len(tracked) < 2:
                tracked.append(asyncio.ensure_future(client.track_event(Event("noticed"))))

        client = Exponea(configure(default_device=False), hooks=Hooks(on_request=track))
        with client.bind(client.for_customer(SOMEONE)):
            await client.start()
            await client.fetch_consents()
            await client.track_event(Event("visit"))
            await until(lambda: len(tracked) == 2)
            results = await asyncio.gather(*tracked, return_exceptions=True)
            await client.aclose()

        assert [type(result) for result in results] == [NoSubjectError, NoSubjectError]
