"""
This SDK and its peers behind one interface, for `peers.py`. Each is imported only when its client is opened.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

#: The size of the peers' queues where none of them is to drop an event.
LARGE = 1_000_000
WHO = "jane@example.com"
EVENT = "view_item"
SCHEMA = "iglu:com.example/view_item/jsonschema/1-0-0"


class Client(NamedTuple):
    """How to track an event with these properties, and how to wait until all have been sent."""

    track: Callable[[dict[str, Any]], Awaitable[object]]
    flush: Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Place:
    """Where the events go, the folder for a queue in a file, and whether the limits of the speed are raised."""

    url: str
    folder: Path
    tuned: bool


def synchronous(call: Callable[[dict[str, Any]], object], flush: Callable[[], object]) -> Client:
    """Return a client whose functions are not coroutines."""

    async def track(properties: dict[str, Any]) -> None:
        call(properties)
        # A call that does not wait would otherwise keep the other tasks waiting for as long as its caller goes on.
        await asyncio.sleep(0)

    async def flush_in_thread() -> None:
        await asyncio.to_thread(flush)

    return Client(track, flush_in_thread)


async def driver(_: Place) -> Client:
    """Return a client that does nothing, to measure the load alone."""
    return synchronous(lambda _: None, lambda: None)


def own(durability: str) -> Callable[[Place], Awaitable[Client]]:
    """Return how to open a client of this SDK."""

    async def start(place: Place) -> Client:
        sdk = importlib.import_module("exponea_async")
        settings: dict[str, Any] = {"queue": sdk.QueueSettings(durability=durability)}
        if place.tuned:
            settings["queue"] = sdk.QueueSettings(durability=durability, max_records=LARGE)
            settings["upload"] = sdk.UploadSettings(requests_per_second=1e6)
        exponea = sdk.Exponea(
            sdk.Configuration(
                project_token="bench",
                authorization_token="key",
                base_url=place.url,
                storage=place.folder / "queue.sqlite",
                flush_mode=sdk.FlushMode.IMMEDIATE,
                **settings,
            )
        )
        await exponea.start()
        customer = exponea.for_customer({"registered": WHO})

        async def track(properties: dict[str, Any]) -> None:
            await customer.track_event(sdk.Event(EVENT, properties))

        return Client(track, exponea.flush_data)

    return start


async def segment(place: Place) -> Client:
    """Return a client of segment-analytics-python."""
    sdk = importlib.import_module("segment.analytics.client")
    client = sdk.Client("key", host=place.url, **({"max_queue_size": LARGE} if place.tuned else {}))
    return synchronous(lambda properties: client.track(WHO, EVENT, properties), client.flush)


async def posthog(place: Place) -> Client:
    """Return an AsyncPosthog."""
    importlib.import_module("httpx")
    sdk = importlib.import_module("posthog.async_client")
    client = sdk.AsyncPosthog("key", host=place.url, **({"max_queue_size": LARGE} if place.tuned else {}))

    async def track(properties: dict[str, Any]) -> None:
        client.capture(EVENT, distinct_id=WHO, properties=properties)
        await asyncio.sleep(0)

    async def flush() -> None:
        await client.flush(timeout_seconds=None)

    return Client(track, flush)


async def amplitude(place: Place) -> Client:
    """Return an Amplitude."""
    sdk = importlib.import_module("amplitude")
    client = sdk.Amplitude("key", sdk.Config(server_url=f"{place.url}/2/httpapi"))

    def call(properties: dict[str, Any]) -> None:
        client.track(sdk.BaseEvent(event_type=EVENT, user_id=WHO, event_properties=properties))

    def flush() -> None:
        for future in client.flush():
            if future is not None:
                future.result()

    return synchronous(call, flush)


async def snowplow(place: Place) -> Client:
    """Return a tracker of snowplow-tracker with an AsyncEmitter."""
    sdk = importlib.import_module("snowplow_tracker")
    limit = {"buffer_capacity": LARGE} if place.tuned else {}
    emitter = sdk.AsyncEmitter(place.url.removeprefix("http://"), protocol="http", **limit)
    subject = sdk.Subject()
    subject.set_user_id(WHO)
    tracker = sdk.Tracker(namespace="bench", emitters=[emitter], subject=subject, encode_base64=False)

    def call(properties: dict[str, Any]) -> None:
        tracker.track(sdk.SelfDescribing(sdk.SelfDescribingJson(SCHEMA, properties)))

    return synchronous(call, emitter.sync_flush)


async def opentelemetry(place: Place) -> Client:
    """Return a logger of OpenTelemetry with an exporter of OTLP over HTTP."""
    sdk = importlib.import_module("opentelemetry.sdk._logs")
    export = importlib.import_module("opentelemetry.sdk._logs.export")
    exporter = importlib.import_module("opentelemetry.exporter.otlp.proto.http._log_exporter")
    severity = importlib.import_module("opentelemetry._logs").SeverityNumber.INFO
    limit = {"max_queue_size": LARGE} if place.tuned else {}
    provider = sdk.LoggerProvider()
    sender = exporter.OTLPLogExporter(endpoint=f"{place.url}/v1/logs")
    provider.add_log_record_processor(export.BatchLogRecordProcessor(sender, **limit))
    logger = provider.get_logger("bench")

    def call(properties: dict[str, Any]) -> None:
        logger.emit(event_name=EVENT, severity_number=severity, body=EVENT, attributes={**properties, "user.id": WHO})

    return synchronous(call, lambda: provider.force_flush(60_000))


async def sentry(place: Place) -> Client:
    """Return the logs of sentry-sdk."""
    sdk = importlib.import_module("sentry_sdk")
    limit = {}
    if place.tuned:
        importlib.import_module("sentry_sdk._log_batcher").LogBatcher.MAX_BEFORE_DROP = LARGE
        limit = {"transport_queue_size": LARGE}
    sdk.init(dsn=f"http://key@{place.url.removeprefix('http://')}/1", enable_logs=True, **limit)
    log = importlib.import_module("sentry_sdk.logger").info

    def call(properties: dict[str, Any]) -> None:
        log(EVENT, attributes={**properties, "user.id": WHO})

    return synchronous(call, lambda: sdk.flush(timeout=120))


class Kind(NamedTuple):
    """A row of the tables: its name, the distributions whose versions are printed, and how to open a client."""

    name: str
    distributions: tuple[str, ...]
    start: Callable[[Place], Awaitable[Client]]


OURS = "ours"
KINDS = {
    OURS: Kind("exponea_async, process", (), own("process")),
    "power": Kind("exponea_async, power", (), own("power")),
    "segment": Kind("Segment", ("segment-analytics-python",), segment),
    "posthog": Kind("AsyncPosthog", ("posthog", "httpx"), posthog),
    "amplitude": Kind("Amplitude", ("amplitude-analytics",), amplitude),
    "snowplow": Kind("Snowplow", ("snowplow-tracker",), snowplow),
    "opentelemetry": Kind(
        "OpenTelemetry logs", ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"), opentelemetry
    ),
    "sentry": Kind("Sentry logs", ("sentry-sdk",), sentry),
}
DRIVER = Kind("the driver alone", (), driver)
