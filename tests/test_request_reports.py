"""
Reports of requests, and the OpenTelemetry spans that are made of them.
"""

import time

import pytest
from helpers.clients import PROJECT, SOMEONE, Connect
from helpers.modules import uninstalled
from helpers.waiting import until
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from exponea_async import ConfigurationError, Event, Hooks, RequestReport, UnavailableError, request_spans
from exponea_async.sandbox import Fault, Sandbox

BATCH = f"/track/v2/projects/{PROJECT}/batch"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


class TestReports:
    async def test_an_upload_is_reported(self, connect: Connect, sandbox: Sandbox) -> None:
        """The report has the records, the size and the time of an upload, and nothing of its content."""
        reports: list[RequestReport] = []
        client = await connect(hooks=Hooks(on_request=reports.append), flush_mode="MANUAL")
        before = time.time()
        await client.track_many([(SOMEONE, Event("purchase", {"n": n})) for n in range(3)])
        await client.flush_data(60)

        (report,) = reports
        assert (report.method, report.path, report.is_upload) == ("POST", BATCH, True)
        assert (report.records, report.status, report.error) == (3, 200, "")
        assert report.host == sandbox.url.removeprefix("http://")
        assert report.bytes_sent > 200
        assert before <= report.at <= report.at + report.seconds <= time.time() + 1
        assert not any(secret in repr(report) for secret in ("key", "purchase", *SOMEONE.values()))

    async def test_a_failure_is_reported(self, connect: Connect, sandbox: Sandbox) -> None:
        """A refused request has its status, one without a response has the reason."""
        reports: list[RequestReport] = []
        client = await connect(hooks=Hooks(on_request=reports.append))
        sandbox.faults.add(Fault("status", status=429, times=1), Fault("drop", times=1))
        receipt = await client.track_event(Event("purchase"))
        await receipt.delivered(60)

        assert [report.status for report in reports] == [429, 0, 200]
        assert reports[0].error == "HTTP 429"
        assert "Disconnected" in reports[1].error
        assert reports[2].error == ""

    async def test_a_request_that_a_caller_waits_for(self, connect: Connect) -> None:
        """A request for data is reported, too, and is not an upload."""
        reports: list[RequestReport] = []
        client = await connect(hooks=Hooks(on_request=reports.append))
        await client.fetch_consents()

        (report,) = reports
        assert (report.is_upload, report.records, report.status) == (False, 0, 200)
        assert report.path.endswith("/consent/categories")

    async def test_a_function_that_fails(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        """What the function raises is logged, and the events are delivered."""

        def fail(_report: RequestReport) -> None:
            raise ValueError("no")

        client = await connect(hooks=Hooks(on_request=fail))
        receipt = await client.track_event(Event("purchase"))
        await receipt.delivered(60)

        assert "The function on_request failed." in caplog.text

    def test_a_coroutine_function_is_refused(self) -> None:
        """The function must be a plain one."""

        async def report(_report: RequestReport) -> None: ...

        with pytest.raises(ConfigurationError, match="on_request: expected a plain function"):
            Hooks(on_request=report)  # type: ignore[arg-type]


class TestSpans:
    async def test_an_upload_is_a_root_span(
        self, connect: Connect, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        """An upload belongs to no caller, not even to the span in which the client was started."""
        with provider.get_tracer("test").start_as_current_span("start-up"):
            client = await connect(hooks=Hooks(on_request=request_spans(provider)), flush_mode="MANUAL")
            await client.track_event(Event("purchase"))
            await client.flush_data(60)

        upload, _ = exporter.get_finished_spans()
        assert (upload.name, upload.kind, upload.parent) == (f"POST {BATCH}", SpanKind.CLIENT, None)
        assert upload.status.status_code is StatusCode.UNSET
        attributes = dict(upload.attributes or {})
        assert attributes["http.response.status_code"] == 200
        assert attributes["exponea_async.records"] == 1
        assert attributes["url.path"] == BATCH
        assert upload.start_time is not None
        assert upload.end_time is not None
        assert 0 < upload.end_time - upload.start_time < 60e9

    async def test_a_request_is_a_child_of_its_caller(
        self, connect: Connect, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        """A request that a caller waits for belongs to the caller's span."""
        client = await connect(hooks=Hooks(on_request=request_spans(provider)))
        with provider.get_tracer("test").start_as_current_span("view") as view:
            await client.fetch_consents()

        request, _ = exporter.get_finished_spans()
        assert request.parent is not None
        assert request.parent.span_id == view.get_span_context().span_id

    async def test_a_failure_is_an_error(
        self, connect: Connect, sandbox: Sandbox, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        """A request that failed has the status of an error, and its kind."""
        client = await connect(hooks=Hooks(on_request=request_spans(provider)))
        for fault in (Fault("status", status=503), Fault("drop")):
            sandbox.faults.clear()
            sandbox.faults.add(fault)
            with pytest.raises(UnavailableError):
                await client.fetch_consents()

        spans = exporter.get_finished_spans()
        assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
        kinds = {dict(span.attributes or {})["error.type"] for span in spans}
        assert kinds == {"503", "no_response"}

    def test_a_missing_extra_is_named(self) -> None:
        """Without OpenTelemetry, the error has the command that installs it."""
        with uninstalled("opentelemetry.trace"), pytest.raises(ImportError, match=r"'exponea-async\[otel\]'"):
            request_spans()


async def test_metrics_of_a_client_that_works(connect: Connect, sandbox: Sandbox) -> None:
    """The numbers of a real client reach a real reader."""
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
    from test_observability import collected  # noqa: PLC0415

    from exponea_async import export_metrics  # noqa: PLC0415

    client, reader = await connect(flush_mode="MANUAL"), InMemoryMetricReader()
    export_metrics(client.stats, MeterProvider([reader]))
    await client.track_event(Event("purchase"))
    await client.health()
    metrics = collected(reader)
    assert metrics["exponea_async.waiting"] == [(1, {})]
    assert metrics["exponea_async.bytes_on_disk"][0][0] > 10_000

    sandbox.faults.add(Fault("status", status=401))
    await client.set_flush_mode("IMMEDIATE")
    await until(lambda: bool(client.stats().paused))
    assert collected(reader)["exponea_async.paused"] == [(1, {"project": PROJECT})]
