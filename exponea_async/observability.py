"""
Numbers about what a client has done and how it is, also as OpenTelemetry metrics and spans.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from attrs import asdict, field, frozen

from exponea_async.requests import RequestReport

#: The name of the meter and of the tracer.
SCOPE = "exponea_async"


@frozen
class ErrorReport:
    """
    Something that went wrong in the background.

    Attributes:
        reason: What went wrong, in words.
        at: When it was noticed, UNIX seconds.
        project: The token of the project; empty if it is not about a project.
    """

    reason: str
    at: float
    project: str = ""


class QueueSize(NamedTuple):
    """
    What is in the queue, of all processes that share it.

    Attributes:
        waiting: Records that are not delivered yet.
        leased: Those of them that are being sent, or are to be sent again later.
        dead: Dead letters.
        oldest_at: When the oldest waiting record was written, UNIX seconds; None if none waits.
        bytes_on_disk: The size of the queue file and its log, or of a queue elsewhere that of its records, in bytes.
        is_full: Whether there is no capacity for a new record, or the disk is full.
    """

    waiting: int = 0
    leased: int = 0
    dead: int = 0
    oldest_at: float | None = None
    bytes_on_disk: int = 0
    is_full: bool = False


@frozen
class Stats:
    """
    What a client has done since it was created, in numbers, and what is in its queue.

    The numbers of the queue are those of the last measurement: a running client measures every five seconds, at the
    start and at the close, and in `Exponea.health`.

    Attributes:
        tracked: Records written to the queue. A call writes one record for each project that gets the event.
        delivered: Records that Engagement accepted.
        rejected: Records that became dead letters.
        dropped: Records that were discarded on purpose, by reason.
        retried: How often a record was put back into the queue, to be sent again.
        requests: Requests made to upload records.
        failed_requests: Those of them without a usable response.
        bytes_sent: Size of their bodies in bytes, before compression.
        commits: Transactions that wrote to the queue.
        in_flight: Records in requests that are in flight now.
        paused: The reasons why projects are paused now, by the token of the project.
        lost: Records that left the queue without any proof that they were delivered, as far as it was noticed: their
            receipts were awaited, or the file was damaged while receipts were held.
        restarts: How often a background task of the client ended unexpectedly and was started again.
        revived: Dead letters that the client has put back into the queue by itself: the events after them were refused
            one by one as well, so the events were not at fault. They are counted in `rejected`, too.
        purged: Dead letters that were deleted because of ``QueueSettings.max_dead_letters`` or ``dead_letter_max_age``.
        not_shown: Events and calls for which no in-app message or content block was shown, by reason: ``"late"``, one
            was loaded too late; ``"not_loaded"``, none could be loaded.
        paused_since: When these projects were paused, UNIX seconds, by the token of the project.
        last_error: The last failure of an upload or of the queue; None if there was none.
        waiting: Records in the queue that are not delivered yet, of all processes that share it.
        leased: Those of them that are being sent, or are to be sent again later.
        dead: Dead letters in the queue.
        oldest_age: How long the oldest waiting record has been in the queue, in seconds; 0 if none waits.
        bytes_on_disk: The size of the queue file and its log, or of a queue elsewhere that of its records, in bytes.
    """

    tracked: int
    delivered: int
    rejected: int
    dropped: Mapping[str, int]
    retried: int
    requests: int
    failed_requests: int
    bytes_sent: int
    commits: int
    in_flight: int
    paused: Mapping[str, str]
    lost: int = 0
    restarts: int = 0
    revived: int = 0
    purged: int = 0
    not_shown: Mapping[str, int] = field(factory=dict)
    paused_since: Mapping[str, float] = field(factory=dict)
    last_error: ErrorReport | None = None
    waiting: int = 0
    leased: int = 0
    dead: int = 0
    oldest_age: float = 0.0
    bytes_on_disk: int = 0


@frozen
class Health:
    """
    How a client is, for the probes of an application.

    Attributes:
        is_ready: Whether an event can be recorded now: the client is started, its queue can be written and is not full.
            An outage of Engagement does not change this, since events are kept.
        is_delivering: Whether, besides, what is in the queue is being delivered: no project is paused or unavailable,
            and no record has waited for too long.
        problems: What is wrong, in words; empty if nothing is.
        stats: The numbers of the client.
    """

    is_ready: bool
    is_delivering: bool
    problems: tuple[str, ...]
    stats: Stats

    def as_dict(self) -> dict[str, Any]:
        """Return everything as values that JSON has."""
        return asdict(self)


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
        self.paused: dict[str, ErrorReport] = {}
        self.lost = 0
        self.restarts = 0
        self.revived = 0
        self.purged = 0
        self.not_shown: Counter[str] = Counter()
        self.last_error: ErrorReport | None = None
        self.queue = QueueSize()

    @property
    def dead(self) -> int:
        """Records that became dead letters, without those that were put back since."""
        return self.rejected - self.revived

    def note_error(self, reason: str, project: str = "") -> None:
        """Remember the last failure."""
        self.last_error = ErrorReport(reason, time.time(), project)

    def pause(self, project: str, reason: str) -> None:
        """Note that a project is paused, and since when."""
        before = self.paused.get(project)
        self.paused[project] = ErrorReport(reason, before.at if before else time.time(), project)

    def snapshot(self, commits: int) -> Stats:
        """Return the present numbers."""
        queue = self.queue
        # Copied in one step: this may be called from any thread, and a project may be paused meanwhile.
        paused = dict(self.paused)
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
            paused={project: pause.reason for project, pause in paused.items()},
            lost=self.lost,
            restarts=self.restarts,
            revived=self.revived,
            purged=self.purged,
            not_shown=dict(self.not_shown),
            paused_since={project: pause.at for project, pause in paused.items()},
            last_error=self.last_error,
            waiting=queue.waiting,
            leased=queue.leased,
            dead=queue.dead,
            oldest_age=0.0 if queue.oldest_at is None else max(0.0, time.time() - queue.oldest_at),
            bytes_on_disk=queue.bytes_on_disk,
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


_METRICS_BY_REASON = {
    "dropped": "Records discarded on purpose",
    "not_shown": "Events and calls for which no message was shown",
}
#: The name, the unit and the description of each number that goes up and down.
_GAUGES = (
    ("waiting", "{record}", "Records in the queue that are not delivered yet"),
    ("leased", "{record}", "Records that are being sent, or are to be sent again later"),
    ("dead", "{record}", "Dead letters in the queue"),
    ("oldest_age", "s", "How long the oldest waiting record has been in the queue"),
    ("bytes_on_disk", "By", "The size of the queue file and its log"),
    ("in_flight", "{record}", "Records in requests that are in flight"),
)


def export_metrics(stats: Callable[[], Stats], meter_provider: Any = None) -> None:
    """
    Export a client's numbers as OpenTelemetry metrics, named ``exponea_async.tracked``, ``exponea_async.waiting`` and
    so on: counters of what it has done, gauges of what is in its queue. ``exponea_async.paused`` is 1 for each project
    that is paused.

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
    meter = get_meter(SCOPE, meter_provider=meter_provider)

    def observe(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(getattr(stats(), name))]

    def observe_by_reason(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(count, {"reason": why}) for why, count in getattr(stats(), name).items()]

    def observe_paused(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(1, {"project": project}) for project in stats().paused]

    for name, unit, description in _GAUGES:
        meter.create_observable_gauge(f"{SCOPE}.{name}", [observe(name)], unit=unit, description=description)
    meter.create_observable_gauge(f"{SCOPE}.paused", [observe_paused], description="Projects that are paused")
    for name, description in _METRICS.items():
        meter.create_observable_counter(f"{SCOPE}.{name}", [observe(name)], description=description)
    for name, description in _METRICS_BY_REASON.items():
        meter.create_observable_counter(f"{SCOPE}.{name}", [observe_by_reason(name)], description=description)


def request_spans(tracer_provider: Any = None) -> Callable[[RequestReport], None]:
    """
    Return a function for `Hooks.on_request` that makes an OpenTelemetry span of each request to the platform.

    ::

        Exponea(configuration, hooks=Hooks(on_request=request_spans()))

    A request that a caller waits for, such as one for messages, is a child of the caller's span. An upload has records
    of many callers, so its span is a root. The span has no body, no key and no ids of customers.

    Args:
        tracer_provider: An OpenTelemetry tracer provider; by default the global one.

    Raises:
        ImportError: OpenTelemetry is not installed. Install it with ``pip install 'exponea-async[otel]'``.
    """
    try:
        from opentelemetry.context import Context  # noqa: PLC0415 - an extra
        from opentelemetry.trace import SpanKind, Status, StatusCode, get_tracer  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("Spans require OpenTelemetry: pip install 'exponea-async[otel]'") from error
    tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)

    def make_span(report: RequestReport) -> None:
        span = tracer.start_span(
            f"{report.method} {report.path}",
            context=Context() if report.is_upload else None,
            kind=SpanKind.CLIENT,
            attributes=_span_attributes(report),
            start_time=round(report.at * 1e9),
        )
        if report.error:
            span.set_status(Status(StatusCode.ERROR, report.error))
        span.end(round((report.at + report.seconds) * 1e9))

    return make_span


def _span_attributes(report: RequestReport) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": report.method,
        "server.address": report.host,
        "url.path": report.path,
        "exponea_async.records": report.records,
        "http.request.body.size": report.bytes_sent,
    }
    if report.status:
        attributes["http.response.status_code"] = report.status
    if report.error:
        attributes["error.type"] = str(report.status or "no_response")
    return attributes
