"""
The fixtures that most tests use: a sandbox, and clients of it.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from attrs import evolve
from helpers.app import App
from helpers.clients import PROJECT, SOMEONE, Configure, Connect, DeliveryLog
from helpers.environment import Environment, SetConstants
from hypothesis import HealthCheck, settings

from exponea_async import Configuration, Exponea, Hooks, UploadSettings
from exponea_async._pipeline import transport
from exponea_async.devices import expirer
from exponea_async.features._shared import consent
from exponea_async.features._shared.html import rules
from exponea_async.sandbox import Sandbox

# A slow machine must not fail a test.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

#: The fixtures of the storages' tests, and of those of in-app messages.
pytest_plugins = ("helpers.storages", "helpers.in_app")

#: Short waits, and an early timeout for a server that hangs.
QUICK = UploadSettings(
    backoff_initial=0.01, backoff_max=0.05, linger=0.002, requests_per_second=100_000, request_timeout=5.0
)


@pytest.fixture(autouse=True)
def reset_logged_once() -> None:
    # Warnings that are logged once are logged once in each test.
    consent.warn_once.cache_clear()
    rules.log_removed.cache_clear()
    transport.warn_of_clear_text.cache_clear()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def configure(sandbox: Sandbox, tmp_path: Path) -> Configure:
    def make(**settings: Any) -> Configuration:
        upload = evolve(QUICK, **settings.pop("upload", {}))
        usual: dict[str, Any] = {
            "project_token": PROJECT,
            "authorization_token": "key",
            "base_url": sandbox.url,
            "storage": tmp_path / "queue.sqlite",
            "upload": upload,
            # The requests of preloading would be counted, too.
            "preload_messages": False,
        }
        return Configuration(**(usual | settings))

    return make


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


def pytest_collection_finish() -> None:
    """Exempt what exists now, thousands of tests, from garbage collections, many of which are tests' own."""
    gc.collect()
    gc.freeze()
