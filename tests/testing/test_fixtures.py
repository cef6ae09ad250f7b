"""
The fixtures of the pytest plugin, in the process of these tests.
"""

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from exponea_async import Configuration, Event, Exponea, FlushMode
from exponea_async.portal import Portal
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import Clock

JANE = {"registered": "jane@example.com"}


async def test_client(
    exponea: Exponea,
    exponea_sandbox: Sandbox,
    exponea_clock: Clock,
    assert_tracked: Callable[..., list[Any]],
    assert_not_tracked: Callable[..., None],
) -> None:
    """The client sends to the sandbox on demand, with the times of the clock."""
    exponea_clock.set(1000)
    await exponea.for_customer(JANE).track_event(Event("purchase"))
    assert exponea_sandbox.request_count == 0
    assert_tracked("purchase", customer=JANE, timestamp=1000)
    assert_not_tracked("refund")

    assert (await exponea.flush_data()).delivered == 1
    assert len(exponea_sandbox.engine.events()) == 1


def test_portal(exponea_portal: Portal, exponea_clock: Clock, assert_tracked: Callable[..., list[Any]]) -> None:
    """The client of the portal has the same clock, and needs no event loop of the test."""
    exponea_clock.set(1000)
    exponea_portal.call(exponea_portal.exponea.for_customer(JANE).track_event, Event("purchase"))

    assert_tracked("purchase", customer=JANE, timestamp=1000)


class TestOverrides:
    @pytest.fixture
    def exponea_configuration(self, exponea_configuration: Configuration) -> Configuration:
        return evolve(exponea_configuration, flush_mode="PERIOD")

    async def test_other_settings(self, exponea: Exponea) -> None:
        """The client has the settings that the test gives."""
        assert exponea.flush_mode is FlushMode.PERIOD


@pytest.mark.exponea(faults=Fault("status", status=401), rate_limit=5)
async def test_marker(exponea: Exponea, exponea_sandbox: Sandbox) -> None:
    """The sandbox does what the marker says."""
    await exponea.for_customer(JANE).track_event(Event("purchase"))
    await exponea.flush_data(timeout=60)

    assert {request.status for request in exponea_sandbox.requests} == {401}
