"""
The fixtures that most tests use: a sandbox, and clients of it.
"""

import gc
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import aiohttp
import pytest
from attrs import evolve, fields
from helpers.app import App
from helpers.clients import PROJECT, SOMEONE, Configure, Connect, DeliveryLog
from helpers.environment import Environment, SetConstants
from hypothesis import HealthCheck, settings

from exponea_async import (
    Configuration,
    Exponea,
    Hooks,
    PostgresSettings,
    QueueSettings,
    RequestLimits,
    UploadSettings,
)
from exponea_async._pipeline import transport
from exponea_async.devices import expirer
from exponea_async.features._shared import consent
from exponea_async.features._shared.html import rules
from exponea_async.sandbox import Sandbox

# A slow machine must not fail a test.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

#: The package's own fixtures for applications, and those of the tests of storages, of in-app messages, of task queues,
#: and of PostgreSQL. Where the package is installed, the first one is loaded already, under the same name. It comes
#: first since it has the assertions of `exponea_async.testing.storage_contract` rewritten, which the next one imports.
pytest_plugins = (
    "pytest_exponea_async",
    "helpers.storages",
    "helpers.in_app",
    "helpers.redis_server",
    "helpers.postgres_server",
    "helpers.postgres_storage",
    "helpers.pgbouncer",
    "helpers.workers",
)

#: Where the queues of the clients of tests are: in a "file", or in "postgresql". Tests with the mark ``both_storages``
#: run on both, those with ``file_only`` on the first only.
STORAGE = os.environ.get("EXPONEA_TEST_STORAGE", "file")
#: The time limits that a test does not set itself, in seconds: no test depends on the speed of the machine.
PATIENCE = 60.0
#: Short waits between requests.
QUICK = UploadSettings(
    backoff_initial=0.01,
    backoff_max=0.05,
    linger=0.002,
    linger_max=0.0,
    requests_per_second=100_000,
    request_timeout=PATIENCE,
)
Limits = TypeVar("Limits", QueueSettings, RequestLimits)


@pytest.fixture(autouse=True)
def reset_logged_once() -> None:
    # Warnings that are logged once are logged once in each test.
    consent.warn_once.cache_clear()
    rules.log_removed.cache_clear()
    transport.warn_of_clear_text.cache_clear()


@pytest.fixture(autouse=True)
def restore_root_logger() -> Iterator[None]:
    # Litestar configures it, and the next test of the same process would see records of another level.
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers).difference(handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def queue_settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The settings of the queue that the clients of a test share: in a file, or in PostgreSQL."""
    if request.param == "postgresql":
        schema = request.getfixturevalue("postgres_schema")
        return {"storage": request.getfixturevalue("postgres_url"), "postgres": PostgresSettings(schema=schema)}
    return {"storage": tmp_path / "queue.sqlite"}


@pytest.fixture
def configure(sandbox: Sandbox, queue_settings: dict[str, Any]) -> Configure:
    def make(**settings: Any) -> Configuration:
        upload = evolve(QUICK, **settings.pop("upload", {}))
        usual: dict[str, Any] = {
            "project_token": PROJECT,
            "authorization_token": "key",
            "base_url": sandbox.url,
            "upload": upload,
            # The requests of preloading would be counted, too.
            "preload_messages": False,
        }
        patient = {
            "queue": with_patience(settings.pop("queue", QueueSettings())),
            "limits": with_patience(settings.pop("limits", RequestLimits())),
        }
        return Configuration(**(usual | queue_settings | patient | settings))

    return make


def with_patience(limits: Limits) -> Limits:
    """Replace the time limits that have their defaults."""
    times = [each for each in fields(type(limits)) if each.name.endswith(("_timeout", "_wait"))]
    usual: dict[str, Any] = {each.name: PATIENCE for each in times if getattr(limits, each.name) == each.default}
    return evolve(limits, **usual)


@pytest.fixture
async def connect(configure: Configure) -> AsyncIterator[Connect]:
    clients: list[Exponea] = []
    bindings: list[AbstractContextManager[None]] = []

    async def start(*, hooks: Hooks | None = None, device: bool = False, **settings: Any) -> Exponea:
        client = Exponea(configure(**settings), hooks=hooks)
        if not device:
            # Entered in the test's own context, which is gone before the fixture ends.
            bindings.append(client.bind(client.for_customer(SOMEONE)))
            bindings[-1].__enter__()
        clients.append(client)
        await client.start()
        return client

    yield start
    for client in clients:
        await client.aclose(timeout=0)
    for binding in bindings:
        with suppress(ValueError):
            binding.__exit__(None, None, None)


@pytest.fixture
def no_periodic_expiry(set_constants: SetConstants) -> None:
    # Idle sessions are ended at the start of a client, and then only on demand.
    set_constants(expirer, PERIOD=3600.0)


@pytest.fixture
async def app(configure: Configure, no_periodic_expiry: None) -> AsyncIterator[App]:
    running = App(configure)
    yield running
    await running.aclose()


@pytest.fixture
def deliveries() -> DeliveryLog:
    return DeliveryLog()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    def change(**variables: str | Path | None) -> None:
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, str(value))

    return change


@pytest.fixture
def set_constants(monkeypatch: pytest.MonkeyPatch) -> SetConstants:
    def change(module: ModuleType, **constants: Any) -> None:
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)

    return change


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of clients on the storages that their marks name."""
    if "queue_settings" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    storages = [STORAGE]
    if "file_only" in marks:
        storages = ["file"]
    elif "both_storages" in marks:
        storages = ["file", "postgresql"]
    metafunc.parametrize(
        "queue_settings", storages, indirect=True, ids=None if len(storages) > 1 else [pytest.HIDDEN_PARAM]
    )


def pytest_collection_finish() -> None:
    """Exempt what exists now, thousands of tests, from garbage collections, many of which are tests' own."""
    gc.collect()
    gc.freeze()
