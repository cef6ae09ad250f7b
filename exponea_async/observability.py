"""
Numbers about what a client has done, also as OpenTelemetry metrics.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from exponea_async.models import Stats


class Counters:
    """The counters behind `Stats`. Each part of the client increments its own."""

    def __init__(self) -> None:
        self.tracked = 0
        self.delivered = 0
        self.rejected = 0
        self.dropped: Counter[str] = Counter()
        self.retried = 0
        self.requests = 0
        self.failed_requests = 0
        self.bytes_sent = 0
        self.in_flight = 0
        self.paused: dict[str, str] = {}
        self.lost = 0
        self.restarts = 0
        self.revived = 0
        self.purged = 0
        self.not_shown: Counter[str] = Counter()

    @property
    def dead(self) -> int:
        """Records that became dead letters, without those that were put back since."""
        return self.rejected - self.revived

    def snapshot(self, commits: int) -> Stats:
        """Return the present numbers."""
        return Stats(
            tracked=self.tracked,
            delivered=self.delivered,
            rejected=self.rejected,
            dropped=dict(self.dropped),
            retried=self.retried,
            requests=self.requests,
            failed_requests=self.failed_requests,
            bytes_sent=self.bytes_sent,
            commits=commits,
            in_flight=self.in_flight,
            paused=dict(self.paused),
            lost=self.lost,
            restarts=self.restarts,
            revived=self.revived,
            purged=self.purged,
            not_shown=dict(self.not_shown),
        )


_METRICS = {
    "tracked": "Records written to the queue",
    "delivered": "Records that Engagement accepted",
    "rejected": "Records that became dead letters",
    "lost": "Records that left the queue without any proof that they were delivered",
    "restarts": "How often a task of the SDK ended unexpectedly and was started again",
    "revived": "Dead letters that were put back, since the records were not at fault",
    "purged": "Dead letters that were deleted for their number or age",
    "retried": "How often a record was put back to be sent again",
    "requests": "Requests made to upload records",
    "failed_requests": "Requests without a usable response",
    "bytes_sent": "Bytes of request bodies",
}


def export_metrics(stats: Callable[[], Stats], meter_provider: Any = None) -> None:
    """
    Export a client's numbers as OpenTelemetry counters, named ``exponea_async.tracked``, ``exponea_async.delivered``
    and so on.

    ::

        export_metrics(exponea.stats)

    Args:
        stats: The ``stats`` method of the client.
        meter_provider: An OpenTelemetry meter provider; by default the global one.

    Raises:
        ImportError: OpenTelemetry is not installed. Install it with ``pip install 'exponea-async[otel]'``.
    """
    try:
        from opentelemetry.metrics import CallbackOptions, Observation, get_meter  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError("Metrics require OpenTelemetry: pip install 'exponea-async[otel]'") from error
    meter = get_meter("exponea_async", meter_provider=meter_provider)

    def observe(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(getattr(stats(), name))]

    def observe_dropped(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, {"reason": reason}) for reason, count in stats().dropped.items()]

    def observe_not_shown(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, {"reason": reason}) for reason, count in stats().not_shown.items()]

    for name, description in _METRICS.items():
        meter.create_observable_counter(f"exponea_async.{name}", [observe(name)], description=description)
    meter.create_observable_counter(
        "exponea_async.dropped", [observe_dropped], description="Records discarded on purpose"
    )
    meter.create_observable_counter(
        "exponea_async.not_shown", [observe_not_shown], description="Events and calls for which no message was shown"
    )
