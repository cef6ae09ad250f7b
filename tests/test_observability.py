"""
The numbers of a client, and their export to OpenTelemetry.
"""

from typing import Any

import attrs
import pytest
from helpers.modules import uninstalled
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from exponea_async.models import Stats
from exponea_async.observability import Counters, export_metrics


def collected(reader: InMemoryMetricReader) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    """Return the value and the attributes of each data point, by metric."""
    data = reader.get_metrics_data()
    return {
        metric.name: [(point.value, dict(point.attributes or {})) for point in metric.data.data_points]  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_a_snapshot_has_every_number() -> None:
    """Each counter is in the field of the same name."""
    counters = Counters()
    for number, name in enumerate(attrs.fields_dict(Stats)):
        if name not in ("dropped", "paused", "commits", "not_shown"):
            setattr(counters, name, number + 1)
    counters.dropped["queue full"] += 2
    counters.paused["https://p.example"] = "wrong key"
    counters.not_shown["late"] += 3

    stats = counters.snapshot(commits=77)

    for number, name in enumerate(attrs.fields_dict(Stats)):
        if name not in ("dropped", "paused", "commits", "not_shown"):
            assert getattr(stats, name) == number + 1
    assert stats.not_shown == {"late": 3}
    assert (stats.dropped, stats.paused, stats.commits) == (
        {"queue full": 2},
        {"https://p.example": "wrong key"},
        77,
    )


def test_a_snapshot_does_not_change() -> None:
    """Later increments do not affect it."""
    counters = Counters()
    before = counters.snapshot(0)

    counters.tracked += 1
    counters.dropped["hook"] += 1
    counters.paused["p"] = "r"

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
