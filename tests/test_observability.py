"""
The numbers of a client, and their export to OpenTelemetry.
"""

import time
from threading import Thread
from typing import Any

import attrs
import pytest
from helpers.modules import uninstalled
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from exponea_async.observability import Counters, QueueSize, Stats, export_metrics

#: The fields about the queue.
QUEUE = ("waiting", "leased", "dead", "oldest_age", "bytes_on_disk")


def collected(reader: InMemoryMetricReader) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    """Return the value and the attributes of each data point, by metric."""
    data = reader.get_metrics_data()
    return {
        metric.name: [(point.value, dict(point.attributes or {})) for point in metric.data.data_points]  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


#: The fields that are not a number of the counters' own.
OTHERS = {"dropped", "paused", "paused_since", "commits", "not_shown", "last_error", *QUEUE}


def test_a_snapshot_has_every_number() -> None:
    """Each counter is in the field of the same name."""
    counters = Counters()
    for number, name in enumerate(attrs.fields_dict(Stats)):
        if name not in OTHERS:
            setattr(counters, name, number + 1)
    counters.dropped["queue full"] += 2
    counters.not_shown["late"] += 3

    stats = counters.snapshot(commits=77)

    for number, name in enumerate(attrs.fields_dict(Stats)):
        if name not in OTHERS:
            assert getattr(stats, name) == number + 1
    assert (stats.dropped, stats.not_shown, stats.commits) == ({"queue full": 2}, {"late": 3}, 77)


def test_a_snapshot_has_the_size_of_the_queue() -> None:
    """The numbers of the queue are those of the last measurement; the age of the oldest record goes on."""
    counters = Counters()
    assert counters.snapshot(0).oldest_age == 0.0

    counters.queue = QueueSize(5, 2, 1, time.time() - 100, 4096)
    stats = counters.snapshot(0)

    assert (stats.waiting, stats.leased, stats.dead, stats.bytes_on_disk) == (5, 2, 1, 4096)
    assert 100 <= stats.oldest_age < 160


def test_a_pause_has_its_beginning() -> None:
    """A project is paused since the first reason; the last one is shown."""
    counters = Counters()
    before = time.time()
    counters.pause("shop", "HTTP 401")
    began = counters.snapshot(0).paused_since["shop"]
    counters.pause("shop", "HTTP 403")

    stats = counters.snapshot(0)

    assert stats.paused == {"shop": "HTTP 403"}
    assert before <= began == stats.paused_since["shop"]


def test_a_snapshot_in_another_thread() -> None:
    """A snapshot may be taken in any thread, while projects are paused and resumed."""
    counters = Counters()
    running = True

    def change() -> None:
        while running:
            for number in range(200):
                counters.pause(str(number), "busy")
            counters.paused.clear()

    thread = Thread(target=change)
    thread.start()
    try:
        for _ in range(2000):
            stats = counters.snapshot(0)
            assert stats.paused.keys() == stats.paused_since.keys()
    finally:
        running = False
        thread.join()


def test_a_snapshot_does_not_change() -> None:
    """Later increments do not affect it."""
    counters = Counters()
    before = counters.snapshot(0)

    counters.tracked += 1
    counters.dropped["hook"] += 1
    counters.pause("p", "r")
    counters.note_error("r", "p")

    assert before == Counters().snapshot(0)


def test_metrics_have_the_present_numbers() -> None:
    """OpenTelemetry collects the numbers at that time; dropped records are counted by reason."""
    counters, reader = Counters(), InMemoryMetricReader()
    export_metrics(lambda: counters.snapshot(0), MeterProvider([reader]))
    counters.tracked, counters.delivered, counters.bytes_sent = 5, 3, 1234
    assert collected(reader)["exponea_async.tracked"] == [(5, {})]

    counters.tracked += 1
    counters.dropped.update({"hook": 1, "queue full": 2})

    metrics = collected(reader)
    assert metrics["exponea_async.tracked"] == [(6, {})]
    assert metrics["exponea_async.delivered"] == [(3, {})]
    assert metrics["exponea_async.bytes_sent"] == [(1234, {})]
    assert metrics["exponea_async.dropped"] == [(1, {"reason": "hook"}), (2, {"reason": "queue full"})]


def test_every_counter_is_exported_under_its_own_name() -> None:
    """Each number that only grows is a metric."""
    counters, reader = Counters(), InMemoryMetricReader()
    names = ["tracked", "delivered", "rejected", "lost", "retried", "requests", "failed_requests", "bytes_sent"]
    for number, name in enumerate(names):
        setattr(counters, name, number + 10)

    export_metrics(lambda: counters.snapshot(0), MeterProvider([reader]))

    metrics = collected(reader)
    assert {name: metrics[f"exponea_async.{name}"][0][0] for name in names} == {n: i + 10 for i, n in enumerate(names)}


def test_a_missing_extra_is_named() -> None:
    """Without OpenTelemetry, the error has the command that installs it."""
    with uninstalled("opentelemetry.metrics"), pytest.raises(ImportError, match=r"'exponea-async\[otel\]'"):
        export_metrics(lambda: Counters().snapshot(0))
