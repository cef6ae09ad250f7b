"""
Tests of the shop with pytest, pytest-asyncio in its automatic mode, and the fixtures of exponea_async.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from attrs import evolve
from freezegun import freeze_time
from shop import check_out, check_out_view

from exponea_async import Event, Exponea
from exponea_async.sandbox import Fault
from exponea_async.testing import dead_letters, end_idle_sessions, idle, pending_records, received

JANE = {"registered": "jane@example.com"}
#: The definition of an in-app message.
HELLO = {
    "id": "hello",
    "name": "Hello",
    "message_type": "modal",
    "frequency": "always",
    "payload": {"title": "Hello"},
    "variant_id": 0,
    "variant_name": "A",
    "trigger": {"event_type": "visit", "filter": []},
    "date_filter": {"enabled": False},
}


async def test_check_out(exponea, assert_tracked):
    await check_out(exponea, "jane@example.com", [4.5, 3.49])

    assert_tracked("purchase", {"total_price": 7.99}, customer={"registered": "jane@example.com"})


async def test_more(exponea, assert_tracked, assert_not_tracked):
    await check_out(exponea, "jane@example.com", [4.5, 3.49])

    (purchase,) = assert_tracked("purchase", count=1)
    assert purchase.properties["products"] == 2
    assert_tracked("purchase", {"total_price": pytest.approx(8, abs=0.1), "products": 2}, exact=True)
    assert_tracked("customer", {"has_bought": True}, customer=JANE)
    assert_not_tracked("purchase", customer={"registered": "joe@example.com"})


async def test_delivery(exponea, exponea_sandbox):
    await check_out(exponea, "jane@example.com", [4.5])
    await exponea.flush_data()

    assert len(exponea_sandbox.engine.events(event_type="purchase")) == 1


class TestSettings:
    @pytest.fixture
    def exponea_configuration(self, exponea_configuration):
        return evolve(exponea_configuration, flush_mode="IMMEDIATE", default_properties={"shop": "Berlin"})

    async def test_delivery(self, exponea, assert_tracked):
        receipt = await exponea.for_customer(JANE).track_event(Event("visit"))
        await idle(exponea)

        assert receipt.status == "delivered"
        assert_tracked("visit", {"shop": "Berlin"})


@pytest.mark.exponea(faults=Fault("reject", every_command=1))
async def test_rejection(exponea):
    await check_out(exponea, "jane@example.com", [4.5])
    await exponea.flush_data()

    assert [letter.name for letter in await dead_letters(exponea)] == ["purchase", "customer"]


async def test_outage(exponea, exponea_sandbox):
    exponea_sandbox.faults.add(Fault("status", status=503, times=1))
    await check_out(exponea, "jane@example.com", [4.5])
    assert len(await pending_records(exponea)) == 2
    result = await exponea.flush_data()

    assert result.delivered == 2
    assert [request.status for request in exponea_sandbox.requests] == [503, 200]


@pytest.mark.exponea(definitions={"in_app_messages": [HELLO]})
async def test_message(exponea):
    messages = exponea.in_app_messages()
    await exponea.track_event(Event("visit"))
    await idle(exponea)

    assert [message.name for message in received(messages)] == ["Hello"]


async def test_session(exponea, exponea_clock, assert_tracked):
    exponea_clock.set(datetime(2026, 1, 1, 12, tzinfo=UTC))
    await exponea.track_event(Event("visit"))
    exponea_clock.advance(timedelta(minutes=5))
    await end_idle_sessions(exponea)

    assert_tracked("session_end", timestamp=datetime(2026, 1, 1, 12, tzinfo=UTC))


async def test_frozen(exponea, assert_tracked):
    with freeze_time("2026-01-01 12:00", real_asyncio=True):
        await check_out(exponea, "jane@example.com", [4.5])

    assert_tracked("purchase", timestamp=datetime(2026, 1, 1, 12, tzinfo=UTC))


async def test_travel(exponea, assert_tracked):
    with time_machine.travel(datetime(2026, 1, 1, 12, tzinfo=UTC), tick=False):
        await check_out(exponea, "jane@example.com", [4.5])

    assert_tracked("purchase", timestamp=datetime(2026, 1, 1, 12, tzinfo=UTC))


def test_view(exponea_portal, assert_tracked):
    check_out_view(exponea_portal, "jane@example.com", [4.5, 3.49])

    assert_tracked("purchase", {"total_price": 7.99}, customer={"registered": "jane@example.com"})


def test_client_of_the_application(exponea_configuration, assert_tracked):
    async def application():
        async with Exponea(exponea_configuration) as client:
            await check_out(client, "jane@example.com", [4.5])
            assert_tracked("purchase", customer=JANE)

    asyncio.run(application())
