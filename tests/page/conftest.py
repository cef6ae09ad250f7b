"""
The fixtures of the page: one browser for all tests of a process, which therefore share one event loop.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from helpers.browser import Visitor, chromium
from playwright.async_api import Browser

from exponea_async.sandbox import Sandbox

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the coroutines of this folder in the event loop of the browser."""
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, sandbox: Sandbox) -> AsyncIterator[Visitor]:
    """A visitor who must not have had any problem at the end of the test."""
    visiting = Visitor(browser, sandbox)
    yield visiting
    for context in visiting.contexts:
        await context.close()
    assert visiting.watch.unexpected == []
