"""
The metrics of a worker in the text format of Prometheus, version 0.0.4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import frozen

from exponea_async._version import __version__
from exponea_async.cli.worker.service import Worker
from exponea_async.observability import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Value = int | float

#: The counters of each queue: what has happened since the worker started. The suffix ``_total`` is added.
COUNTERS: Mapping[str, tuple[str, Callable[[Stats], Value]]] = {
    "delivered": ("Records that Engagement accepted.", lambda stats: stats.delivered),
    "rejected": ("Records that became dead letters.", lambda stats: stats.rejected),
    "retried": ("How often a record was put back to be sent again.", lambda stats: stats.retried),
    "revived": ("Dead letters that were put back, since the records were not at fault.", lambda stats: stats.revived),
    "purged": ("Dead letters that were deleted for their number or age.", lambda stats: stats.purged),
    "requests": ("Requests made to upload records.", lambda stats: stats.requests),
    "failed_requests": ("Requests without a usable response.", lambda stats: stats.failed_requests),
    "sent_bytes": ("Bytes of request bodies.", lambda stats: stats.bytes_sent),
    "restarts": ("How often a task ended unexpectedly and was started again.", lambda stats: stats.restarts),
}
#: What is in each queue, measured every few seconds. All workers of a queue report the same numbers.
GAUGES: Mapping[str, tuple[str, Callable[[Stats], Value]]] = {
    "waiting": ("Records in the queue that are not delivered yet.", lambda stats: stats.waiting),
    "leased": ("Records that are being sent, or are to be sent again later.", lambda stats: stats.leased),
    "dead": ("Dead letters in the queue.", lambda stats: stats.dead),
    "oldest_age_seconds": ("How long the oldest waiting record has been in the queue.", lambda stats: stats.oldest_age),
    "in_flight": ("Records in requests of this worker that are in flight.", lambda stats: stats.in_flight),
}


@frozen
class Metric:
    """
    A metric and its samples.

    Attributes:
        name: Its full name.
        kind: ``counter`` or ``gauge``.
        help: What it is.
        samples: The values, each with its labels.
    """

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, Value], ...]

    def lines(self) -> Iterator[str]:
        """Yield the lines of the metric."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            pairs = ",".join(f'{name}="{escape(text)}"' for name, text in labels.items())
            yield f"{self.name}{{{pairs}}} {value}" if pairs else f"{self.name} {value}"


def escape(text: str) -> str:
    """Return the value of a label as it is written between its quotes."""
    # A lone surrogate, which a key of the application may have, can't be encoded.
    text = text.encode(errors="replace").decode()
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def render(worker: Worker) -> str:
    """Return the metrics of a worker."""
    return "".join(f"{line}\n" for metric in _metrics(worker) for line in metric.lines())


def _metrics(worker: Worker) -> Iterator[Metric]:
    stats = worker.stats()
    yield _gauge("worker_info", "The version of the worker.", [({"version": __version__}, 1)])
    yield _gauge("worker_ready", "Whether the database answers and the queues are served.", [({}, _flag(worker))])
    yield _gauge("worker_queues", "The number of queues that the worker serves.", [({}, len(stats))])
    yield _gauge(
        "worker_unserved",
        "Records in a queue that is not served: its project is not configured, or its name is invalid.",
        [({"queue": name}, count) for name, count in worker.unserved.items()],
    )
    yield _gauge("paused", "Whether a project is paused, because it refuses the key.", _paused(worker, stats))
    for name, (text, read) in COUNTERS.items():
        yield Metric(f"exponea_async_{name}_total", "counter", text, _by_queue(stats, read))
    for name, (text, read) in GAUGES.items():
        yield _gauge(name, text, _by_queue(stats, read))


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, Value]]) -> Metric:
    return Metric(f"exponea_async_{name}", "gauge", text, tuple(samples))


def _flag(worker: Worker) -> int:
    return int(not worker.problems)


def _by_queue(stats: Mapping[str, Stats], read: Callable[[Stats], Value]) -> tuple[tuple[Labels, Value], ...]:
    return tuple(({"queue": name}, read(each)) for name, each in stats.items())


def _paused(worker: Worker, stats: Mapping[str, Stats]) -> Iterator[tuple[Labels, Value]]:
    """Yield a sample for each project of each queue: a series that is always there can be compared over time."""
    for name, client in worker.queues.items():
        configured = [each.project_token for each in client.configuration.projects]
        for project in dict.fromkeys([*configured, *stats[name].paused]):
            yield {"queue": name, "project": project}, int(project in stats[name].paused)
