"""
The fixture of most tests of integrations: a client that sends nothing by itself.
"""

from collections.abc import AsyncIterator

import pytest
from helpers.clients import Configure

from exponea_async import Exponea


@pytest.fixture
async def exponea(configure: Configure) -> AsyncIterator[Exponea]:
    async with Exponea(configure(storage="memory:", flush_mode="MANUAL", default_device=False)) as client:
        yield client
