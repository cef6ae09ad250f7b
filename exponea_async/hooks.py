"""
Change an event before it is kept; hear what became of it.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from attrs import Attribute, field, frozen

from exponea_async._internal import validation as checks
from exponea_async.errors import ExponeaError
from exponea_async.models import Event

LOG = logging.getLogger("exponea_async")


@frozen
class DeliveryEvent:
    """
    Something that became of records, or of a project.

    Attributes:
        kind: ``"delivered"``, ``"rejected"``, ``"dropped"`` and ``"retried"`` are about records, ``"paused"``,
            ``"resumed"`` and ``"unavailable"`` about a project, ``"damaged"`` about the queue's file.
        ids: The records, as in `Receipt.ids`; empty where it is about no records.
        project: The project's address; empty where it is about none.
        reason: Why, in words.
        error: The error behind it, where there is one.
    """

    kind: Literal["delivered", "rejected", "dropped", "retried", "paused", "resumed", "unavailable", "damaged"]
    ids: tuple[str, ...] = ()
    project: str = ""
    reason: str = ""
    error: ExponeaError | None = None


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


# Nobody would await what an async function gives back, so it would never run.
_check_plain = checks.check(
    (lambda value: not callable(value), "{} can't be called"),
    (_is_async, "{} is an async function"),
    hint="Use a plain function.",
)
_check_list = checks.check(
    (lambda value: not isinstance(value, tuple), "{} is no list"), hint="Use a list of functions."
)


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _check_each(instance: object, attribute: "Attribute[Any]", value: tuple[Any, ...]) -> None:
    for index, listener in enumerate(value):
        with checks.renamed(lambda field, index=index: f"{field}[{index}]"):  # type: ignore[misc]
            _check_plain(instance, attribute, listener)


@frozen
class Hooks:
    """
    What an application wants to have a say in.

    Args:
        before_track: A plain function that gets each `Event` before it is kept and returns it, changed or not, or
            None to drop it. What it raises reaches the caller of the verb, and nothing is kept. It sees what a device
            tracks by itself, too, and such an event more than once where another process changes the device meanwhile.
        listeners: Plain functions that get each `DeliveryEvent`. They run on the event loop and must be quick; what
            they raise is logged.

    Raises:
        ConfigurationError: One of them is no function, or an async one.
    """

    before_track: Callable[[Event], Event | None] | None = field(default=None, validator=checks.optional(_check_plain))
    listeners: Sequence[Callable[[DeliveryEvent], None]] = field(
        default=(), converter=_listed, validator=[_check_list, _check_each]
    )

    def notify(self, event: DeliveryEvent) -> None:
        """Call every listener with an event."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                LOG.exception("A listener failed on a %r event.", event.kind)
