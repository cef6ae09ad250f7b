"""
Hooks: what an application may give, and how its listeners are told.
"""

import functools
import logging
from typing import Any

import pytest

from exponea_async.errors import ConfigurationError, RejectedError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Event

NOTICE = DeliveryEvent(
    "rejected", ids=("1", "2"), project="https://p.example", reason="bad", error=RejectedError("bad")
)


def fail(_notice: DeliveryEvent) -> None:
    raise RuntimeError("my listener is broken")


async def asynchronous(_given: Any) -> None:
    """Would never be awaited."""


class Listener:
    def keep(self, event: Event) -> Event | None:
        return event

    async def __call__(self, notice: DeliveryEvent) -> None:
        """Would never be awaited either."""


def test_every_listener_hears_everything() -> None:
    """Listeners get the notice itself, in their order."""
    heard: list[tuple[str, DeliveryEvent]] = []
    hooks = Hooks(listeners=[lambda each: heard.append(("a", each)), lambda each: heard.append(("b", each))])

    hooks.notify(NOTICE)

    assert heard == [("a", NOTICE), ("b", NOTICE)]


def test_a_failing_listener_keeps_nobody_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged with traceback on our logger, and the others still hear."""
    heard: list[DeliveryEvent] = []

    Hooks(listeners=(fail, heard.append, fail)).notify(NOTICE)

    assert heard == [NOTICE]
    assert [(record.name, record.levelno) for record in caplog.records] == [("exponea_async", logging.ERROR)] * 2
    assert "'rejected'" in caplog.records[0].message
    assert "my listener is broken" in caplog.text


def test_who_interrupts_is_not_held_up() -> None:
    """Only errors are caught, not the end of the program."""

    def interrupt(_notice: DeliveryEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Hooks(listeners=[interrupt]).notify(NOTICE)


def test_without_hooks_nothing_happens() -> None:
    """No listener, no before_track: the default."""
    hooks = Hooks()

    hooks.notify(DeliveryEvent("delivered"))

    assert (hooks.before_track, hooks.listeners) == (None, ())


def test_before_track_may_be_any_plain_callable() -> None:
    """Functions, partials and methods will do."""
    for function in (lambda each: each, functools.partial(lambda _, each: each, 1), Listener().keep):
        assert Hooks(before_track=function).before_track is function


@pytest.mark.parametrize(
    ("hooks", "field", "trouble"),
    [
        ({"before_track": 5}, "before_track", "5 can't be called"),
        ({"before_track": asynchronous}, "before_track", "is an async function"),
        ({"before_track": functools.partial(asynchronous)}, "before_track", "is an async function"),
        ({"listeners": print}, "listeners", "is no list"),
        ({"listeners": "print"}, "listeners", "is no list"),
        ({"listeners": [print, 5]}, "listeners[1]", "5 can't be called"),
        ({"listeners": [asynchronous]}, "listeners[0]", "is an async function"),
        ({"listeners": [print, print, Listener()]}, "listeners[2]", "is an async function"),
    ],
)
def test_what_would_never_run_is_refused(hooks: dict[str, Any], field: str, trouble: str) -> None:
    """What can't be called, or would give back a coroutine that nobody awaits, is refused by name."""
    with pytest.raises(ConfigurationError, match=trouble) as caught:
        Hooks(**hooks)

    assert caught.value.field == field
