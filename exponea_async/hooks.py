"""
Hooks: change or drop events before they are recorded, and get notified of what happens to them and of requests.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from attrs import Attribute, field, frozen

from exponea_async._internal import validation as checks
from exponea_async._internal.binding import unbound_context
from exponea_async._internal.user_code import calling
from exponea_async.errors import ExponeaError
from exponea_async.models import Event
from exponea_async.requests import RequestReport

LOG = logging.getLogger("exponea_async")


@frozen
class DeliveryEvent:
    """
    Something that happened to records, to a project or to the queue.

    Attributes:
        kind: What happened. ``"delivered"``, ``"rejected"``, ``"revived"``, ``"purged"``, ``"dropped"``, ``"lost"``
            and ``"retried"`` are about records; ``"paused"``, ``"unavailable"`` and ``"resumed"`` about a project;
            ``"damaged"`` and ``"wiped"`` (another process has deleted everything, and this client has stopped) about
            the queue; ``"restarted"`` about a background task of the client that ended unexpectedly.
        ids: The ids of the records, as in `Receipt.ids`; empty if it is not about records.
        project: The token of the project; empty if it is not about a project.
        reason: The reason; empty if there is none.
        error: The exception that says the same, or None.
    """

    kind: Literal[
        "delivered",
        "rejected",
        "revived",
        "purged",
        "dropped",
        "lost",
        "retried",
        "paused",
        "resumed",
        "unavailable",
        "damaged",
        "wiped",
        "restarted",
    ]
    ids: tuple[str, ...] = ()
    project: str = ""
    reason: str = ""
    error: ExponeaError | None = None


_check_list = checks.check(
    (lambda value: not isinstance(value, tuple), "expected a list of functions, got {value}"),
    hint="Use a list of functions.",
)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _check_each(instance: object, attribute: "Attribute[Any]", value: tuple[Any, ...]) -> None:
    for index, listener in enumerate(value):
        with checks.renamed(lambda field, index=index: f"{field}[{index}]"):  # type: ignore[misc]
            checks.plain_function(instance, attribute, listener)


@frozen
class Hooks:
    """
    Functions of the application that the client calls.

    ::

        def add_release(event: Event) -> Event:
            return attrs.evolve(event, properties={**event.properties, "release": "1.2"})

        Exponea(configuration, hooks=Hooks(before_track=add_release, listeners=[print]))

    Args:
        before_track: A plain function that is called with each `Event` before it is recorded. It returns the event,
            changed or not, or None to drop it. If it raises an exception, nothing is recorded and the caller gets the
            exception. It is also called for the events that the SDK makes itself: installation, sessions, push tokens
            and messages. Where it fails on one of these, or makes it invalid, that event is dropped, counted as
            ``before_track_failed`` and logged, and the rest goes on. For these it is called more than once if another
            process changes the device at the same time.
        listeners: Plain functions that are called with each `DeliveryEvent`. They run in the event loop and must be
            quick. Their exceptions are logged. No subject is bound in them, nor in the tasks that they start.
        on_request: A plain function that is called with a `RequestReport` after each request to the platform, in the
            same way as `listeners`: for spans, see `request_spans`, or for a log of requests.

    Raises:
        ConfigurationError: One of them is not a function, or an async function.
    """

    before_track: Callable[[Event], Event | None] | None = field(
        default=None, validator=checks.optional(checks.plain_function)
    )
    listeners: Sequence[Callable[[DeliveryEvent], None]] = field(
        default=(), converter=_as_tuple, validator=[_check_list, _check_each]
    )
    on_request: Callable[[RequestReport], None] | None = field(
        default=None, validator=checks.optional(checks.plain_function)
    )

    def notify(self, event: DeliveryEvent) -> None:
        """Call all listeners with an event. Nothing is bound there: an event is about records of many end users."""
        for listener in self.listeners:
            try:
                with calling("the listener", listener):
                    unbound_context().run(listener, event)
            except Exception:
                LOG.exception("A listener failed on a %r event.", event.kind)

    def report(self, request: RequestReport) -> None:
        """Call ``on_request``, if it is set. Nothing is bound there: an upload is about many end users."""
        if self.on_request is None:
            return
        try:
            with calling("on_request", self.on_request):
                # A copy of the context, in which a tracer finds the span of a caller.
                unbound_context().run(self.on_request, request)
        except Exception:
            LOG.exception("The function on_request failed.")
