"""
The assertions about what was tracked: what they find, and what they say where it is not there.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import numpy as np
import pytest
from helpers.clients import Configure, Connect

from exponea_async import Customer, Event, Exponea
from exponea_async.portal import Portal
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import (
    SandboxThread,
    assert_not_tracked,
    assert_tracked,
    idle,
    pending_records,
    sandbox_configuration,
)

JANE = {"registered": "jane@example.com"}
JOE = {"registered": "joe@example.com"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Color(Enum):
    RED = "red"


def receive(sandbox: Sandbox, name: str, properties: dict[str, Any], ids: dict[str, str] | None = None) -> None:
    """Let an event arrive in a sandbox, at noon."""
    data = {
        "customer_ids": ids or JANE,
        "event_type": name,
        "timestamp": NOON.timestamp(),
        "properties": properties,
    }
    assert sandbox.engine.execute("shop", "customers/events", data) == ()


def message(function: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """Return the message of an assertion that fails."""
    with pytest.raises(AssertionError) as caught:
        function(*arguments, **options)
    return str(caught.value)


class TestWhere:
    async def test_waiting_and_arrived(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event is found while it waits in a queue file, and when it has arrived, each time once."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("purchase", {"price": 5}))
        (waiting,) = assert_tracked(sandbox, "purchase", count=1)
        await client.flush_data()
        (arrived,) = assert_tracked(sandbox, "purchase", count=1)

        assert (waiting.status, arrived.status) == ("waiting", "arrived")
        assert (waiting.properties, waiting.customer_ids) == (arrived.properties, arrived.customer_ids)
        assert (waiting.timestamp, waiting.project) == (arrived.timestamp, arrived.project)

    async def test_an_answer_that_is_lost(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event that has arrived, but is still in the queue, counts once."""
        sandbox.faults.add(Fault("drop_after"))
        client = await connect(upload={"backoff_initial": 30, "backoff_max": 30})
        await client.track_event(Event("purchase", {"price": 5}))
        await idle(client)
        assert len(sandbox.engine.events()) == len(await pending_records(client)) == 1

        assert_tracked(sandbox, "purchase", count=1)

    async def test_clients_in_memory_and_in_files(self, configure: Configure, sandbox: Sandbox) -> None:
        """The queues of all open clients that send to the sandbox are looked into, and no others."""
        async with Sandbox() as other:
            clients = [
                Exponea(configure(flush_mode="MANUAL", storage="memory:")),
                Exponea(configure(flush_mode="MANUAL", base_url=sandbox.url.replace("127.0.0.1", "localhost"))),
                Exponea(sandbox_configuration(other)),
            ]
            for client in clients:
                await client.start()
                await client.for_customer(JANE).track_event(Event("purchase"))

            assert_tracked(sandbox, "purchase", count=2)
            assert_tracked(other, "purchase", count=1)
            for client in clients:
                assert_tracked(client, "purchase", count=1)
                await client.aclose(timeout=0)
        assert_not_tracked(sandbox, "purchase")

    def test_portal(self) -> None:
        """From a thread without an event loop, the queue of a portal is read, in memory and in a file."""
        with SandboxThread() as sandbox, Portal(Exponea(sandbox_configuration(sandbox))) as portal:
            portal.call(portal.exponea.track_event, Event("purchase"))

            assert_tracked(portal, "purchase", count=1)
            assert_tracked(sandbox, "purchase", count=1)
            assert_not_tracked(portal, "refund")

    def test_client_of_an_event_loop_that_waits(self, tmp_path: Path) -> None:
        """Between two runs of an event loop, the queue of a client is read in a file as well."""
        with SandboxThread() as sandbox, asyncio.Runner() as runner:
            client = Exponea(sandbox_configuration(sandbox, storage=tmp_path / "queue.sqlite"))
            runner.run(client.start())
            runner.run(client.track_event(Event("purchase")))

            assert_tracked(sandbox, "purchase", count=1)
            runner.run(client.aclose())

    async def test_customers(self, connect: Connect, sandbox: Sandbox) -> None:
        """Properties of customers are found under the name "customer", waiting and arrived."""
        client = await connect(flush_mode="MANUAL")
        await client.identify_customer(Customer(JANE, {"vip": True}))
        assert_tracked(client, "customer", {"vip": True}, customer=JANE)
        await client.flush_data()

        assert_tracked(sandbox, "customer", {"vip": True}, customer=JANE)
        assert_not_tracked(sandbox, "customer", {"vip": False})

    async def test_clicks(self, connect: Connect, sandbox: Sandbox) -> None:
        """A campaign click has the name and the properties that Engagement gives it, waiting and arrived."""
        client = await connect(flush_mode="MANUAL")
        await client.handle_campaign_click("https://shop.example/?xnpe_cmp=spring")
        expected = {"url": "https://shop.example/?xnpe_cmp=spring"}
        assert_tracked(sandbox, "campaign_click", expected, count=1)
        await client.flush_data()

        assert_tracked(sandbox, "campaign_click", expected, count=1)

    async def test_something_else(self, sandbox: Sandbox) -> None:
        """What is neither a sandbox nor a client is refused, and so are arguments of other types."""
        with pytest.raises(TypeError, match=r"source: expected a Sandbox, an Exponea or a Portal, got str\."):
            assert_tracked("purchase", {})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"name: expected the type of an event, got \{\}\."):
            assert_tracked(sandbox, {})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"customer: expected a mapping, got 'jane'\. Pass a dict such as \{'regi"):
            assert_tracked(sandbox, "purchase", customer="jane")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"properties: expected a mapping, got \[\]\. Pass a dict such as"):
            assert_not_tracked(sandbox, "purchase", [])  # type: ignore[arg-type]


class TestValues:
    @pytest.mark.parametrize(
        ("expected", "sent"),
        [
            ("a", "a"),
            (Color.RED, "red"),
            (7.99, 7.99),
            (Decimal("7.99"), 7.99),
            (8, 8.0),
            (True, True),
            (NOON, NOON.timestamp()),
            (date(2026, 1, 1), "2026-01-01"),
            (UUID(int=1), str(UUID(int=1))),
            ((1, "b"), [1, "b"]),
            ({1}, [1]),
            ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3}),
            ([{"a": ANY}], [{"a": 5}]),
            (np.array([1, 2]), [1, 2]),
            (np.float64(0.5), 0.5),
            (ANY, "x"),
            (pytest.approx(8, abs=0.1), 7.99),
            ([pytest.approx(8, abs=0.1)], [7.99]),
        ],
        ids=repr,
    )
    async def test_equal(self, expected: Any, sent: Any, sandbox: Sandbox) -> None:
        """Values are compared as they are sent, nested ones as well; matchers decide by themselves."""
        receive(sandbox, "purchase", {"value": sent})

        assert_tracked(sandbox, "purchase", {"value": expected})

    @pytest.mark.parametrize(
        ("expected", "sent", "difference"),
        [
            (1, True, "value: expected 1, got True"),
            (False, 0, "value: expected False, got 0"),
            ("1", 1, "value: expected '1', got 1"),
            ([1], [1, 2], "value: expected [1], got [1, 2]"),
            ([1, 2], [1, 3], "value[1]: expected 2, got 3"),
            ({"a": {"b": 1}}, {"a": {"b": 2}}, "value.a.b: expected 1, got 2"),
            ({"a": 1}, {}, "value.a: expected 1, is missing"),
            (None, 5, "value: not expected, got 5"),
            (NOON, 0, "value: expected 2026-01-01T12:00:00Z (1767268800.0), got 1970-01-01T00:00:00Z (0)"),
            (np.array([1, 2]), [1, 3], "value: expected array([1, 2]), got [1, 3]"),
            ("a", "\x1b[31m\u202e", r"value: expected 'a', got '\x1b[31m\u202e'"),
            ("a", "b" * 300, f"value: expected 'a', got '{'b' * 198}…"),
            ("a" * 300 + "b", "a" * 300 + "c", f"value: expected …{'a' * 40}b', got …{'a' * 40}c'"),
            ([1] * 99, [1] * 100, f"value: expected …{'1, ' * 12}1, 1], got …{'1, ' * 12}1, 1, 1]"),
            ({"name": 1}, {"nam": 1}, "value.name: expected 1, is missing; did you mean 'nam'?"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    async def test_different(self, expected: Any, sent: Any, difference: str, sandbox: Sandbox) -> None:
        """A difference names the path, what is expected and what is there."""
        receive(sandbox, "purchase", {"value": sent})

        lines = message(assert_tracked, sandbox, "purchase", {"value": expected}).splitlines()
        assert lines[-1].strip() == difference
        assert_not_tracked(sandbox, "purchase", {"value": expected})

    @pytest.mark.parametrize("check", [assert_tracked, assert_not_tracked])
    @pytest.mark.parametrize(
        ("arguments", "trouble"),
        [
            ({"properties": {"at": datetime(2026, 1, 1)}}, "properties.at: must have a time zone"),  # noqa: DTZ001
            ({"properties": {"a": [{"b": float("nan")}]}}, r"properties.a\[0\].b: must be a finite number"),
            ({"properties": {"a": b"text"}}, "properties.a: "),
            ({"customer": {"registered": 5}}, "customer.registered: expected a str, got 5"),
            ({"timestamp": "2026-01-01"}, "timestamp: expected a datetime"),
            ({"timestamp": datetime(2026, 1, 1)}, "timestamp: must have a time zone"),  # noqa: DTZ001
            ({"timestamp": NOON.timestamp() * 1000}, "looks like milliseconds"),
            ({"project": 5}, "project: expected the token of a project, got 5"),
        ],
        ids=repr,
    )
    async def test_what_nothing_equals(
        self, check: Callable[..., object], arguments: Any, trouble: str, sandbox: Sandbox
    ) -> None:
        """A value that can't be tracked is refused: that there is no such event would always be true."""
        receive(sandbox, "purchase", {"at": NOON, "a": 1})

        with pytest.raises(TypeError, match=trouble):
            check(sandbox, "purchase", **arguments)

    async def test_none_is_no_property(self, sandbox: Sandbox) -> None:
        """None is not sent, so it stands for a property that is not there."""
        receive(sandbox, "purchase", {})

        assert_tracked(sandbox, "purchase", {"coupon": None})

    async def test_exact(self, connect: Connect, sandbox: Sandbox) -> None:
        """With exact there may be no other properties, except those that the SDK adds by itself."""
        client = await connect(flush_mode="MANUAL", app_version="1.2")
        device = client.device("phone")
        await device.track_event(Event("visit", {"page": 1, "shop": {"city": "Berlin"}}))

        expected = {"page": 1, "shop": {"city": "Berlin"}}
        assert_tracked(sandbox, "visit", expected, exact=True)
        assert_tracked(sandbox, "session_start", exact=True)
        assert_tracked(sandbox, "visit", {**expected, "application_id": "default-application"}, exact=True)
        assert_not_tracked(sandbox, "visit", {"page": 1}, exact=True)
        assert_not_tracked(sandbox, "visit", {"page": 1, "shop": {}}, exact=True)

    async def test_time_and_project(self, sandbox: Sandbox) -> None:
        """The time may be a datetime, a number or a matcher; times within a millisecond are equal."""
        receive(sandbox, "purchase", {})

        seconds = NOON.timestamp()
        for timestamp in (NOON, seconds, seconds + 0.0009, pytest.approx(seconds + 5, abs=6)):
            assert_tracked(sandbox, "purchase", timestamp=timestamp, project="shop")
        assert_not_tracked(sandbox, "purchase", timestamp=seconds + 0.002)
        assert_not_tracked(sandbox, "purchase", project="other")
        lines = message(assert_tracked, sandbox, "purchase", timestamp=-1e11, project="other").splitlines()
        assert lines[2] == "     project 'other', -100000000000.0"
        assert lines[-2:] == [
            "     project: expected 'other', got 'shop'",
            "     timestamp: expected -100000000000.0, got 2026-01-01T12:00:00Z",
        ]


class TestMessages:
    async def test_differences(self, sandbox: Sandbox) -> None:
        """The events of that name are listed, the closest first, each with its differences and ids."""
        receive(sandbox, "purchase", {"total_price": 5, "items": [{"id": 1}, {"id": 2}]}, JOE)
        receive(sandbox, "purchase", {"total_price": 8.99, "currency": "EUR", "items": [{"id": 1}, {"id": 3}]})
        receive(sandbox, "purchase", {}, {"cookie": "c"})

        expected = {"total_price": 7.99, "currency": "EUR", "items": [{"id": 1}, {"id": 2}]}
        assert message(assert_tracked, sandbox, "purchase", expected, customer=JANE, timestamp=NOON) == (
            "No matching event 'purchase' was tracked.\n"
            "Expected:\n"
            "     customer registered='jane@example.com', 2026-01-01T12:00:00Z\n"
            "     total_price=7.99, currency='EUR', items=[{'id': 1}, {'id': 2}]\n"
            "Tracked under this name, the closest first:\n"
            "  1. arrived, customer registered='jane@example.com', 2026-01-01T12:00:00Z\n"
            "     total_price: expected 7.99, got 8.99\n"
            "     items[1].id: expected 2, got 3\n"
            "  2. arrived, customer registered='joe@example.com', 2026-01-01T12:00:00Z\n"
            "     customer registered: expected 'jane@example.com', got 'joe@example.com'\n"
            "     total_price: expected 7.99, got 5\n"
            "     currency: expected 'EUR', is missing\n"
            "  3. arrived, customer cookie='c', 2026-01-01T12:00:00Z\n"
            "     customer registered: expected 'jane@example.com', is missing\n"
            "     total_price: expected 7.99, is missing\n"
            "     currency: expected 'EUR', is missing\n"
            "     items: expected [{'id': 1}, {'id': 2}], is missing"
        )

    async def test_client_that_is_closed(self, configure: Configure, sandbox: Sandbox) -> None:
        """Where nothing has arrived and no client is open, the message says what may have become of the event."""
        async with Exponea(configure(storage="memory:", flush_mode="MANUAL")) as client:
            await client.track_event(Event("purchase"))
            assert_tracked(sandbox, "purchase")

        lines = message(assert_tracked, sandbox, "purchase").splitlines()
        assert lines[-1].startswith("No client that sends to the sandbox is open.")

    async def test_other_number(self, sandbox: Sandbox) -> None:
        """With a count, the events that match are listed as well."""
        receive(sandbox, "purchase", {"price": 1})
        receive(sandbox, "purchase", {"price": 2})

        assert message(assert_tracked, sandbox, "purchase", {"price": 1}, count=2) == (
            "Expected 2 matching events 'purchase', got 1.\n"
            "Expected:\n"
            "     price=1\n"
            "Tracked under this name, the closest first:\n"
            "  1. arrived, customer registered='jane@example.com', 2026-01-01T12:00:00Z\n"
            "     matches\n"
            "  2. arrived, customer registered='jane@example.com', 2026-01-01T12:00:00Z\n"
            "     price: expected 1, got 2"
        )
        assert message(assert_tracked, sandbox, "purchase", count=1).startswith(
            "Expected 1 matching event 'purchase', got 2"
        )

    async def test_no_event_of_that_name(self, sandbox: Sandbox) -> None:
        """The names that there are are listed, and the one that was probably meant is named."""
        assert message(assert_tracked, sandbox, "purchase") == (
            "No event 'purchase' was tracked.\nNothing was tracked at all.\n"
            "No client that sends to the sandbox is open. What waits in memory is gone when its client is closed."
        )
        receive(sandbox, "purchases", {})
        receive(sandbox, "visit", {"page": 1})
        receive(sandbox, "visit", {"page": 2})

        assert message(assert_tracked, sandbox, "purchase") == (
            "No event 'purchase' was tracked.\nDid you mean 'purchases'?\nTracked: 'visit' (2), 'purchases' (1)."
        )

    async def test_unexpected(self, sandbox: Sandbox) -> None:
        """An event that should not be there is shown with its properties."""
        receive(sandbox, "purchase", {"price": 1, "currency": "EUR"})

        assert message(assert_not_tracked, sandbox, "purchase", {"price": 1}, customer=JANE) == (
            "Expected no such event 'purchase', got 1:\n"
            "  1. arrived, customer registered='jane@example.com', 2026-01-01T12:00:00Z\n"
            "     price=1, currency='EUR'"
        )

    async def test_many(self, sandbox: Sandbox) -> None:
        """A message has a bounded length, however many events and differences there are."""
        for number in range(20):
            receive(sandbox, "purchase", {"number": number})

        lines = message(assert_tracked, sandbox, "purchase", dict.fromkeys("abcdefghijkl", 1)).splitlines()
        assert lines[-1] == "  and 15 more"
        assert lines.count("     and 2 more differences") == 5
        assert message(assert_not_tracked, sandbox, "purchase").splitlines()[-1] == "  and 15 more"

    async def test_rejected(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event that was rejected was not tracked; the message shows it with the reason."""
        sandbox.faults.add(Fault("reject", every_command=1))
        client = await connect()
        await client.track_event(Event("purchase", {"price": 1}))
        await idle(client)

        assert_not_tracked(sandbox, "purchase")
        for source in (sandbox, client):
            text = message(assert_tracked, source, "purchase", {"price": 1})
            assert "  1. rejected (rejected by fault injection), customer registered='someone', 20" in text
        await client.aclose()
        lines = message(assert_tracked, sandbox, "purchase").splitlines()
        assert lines[-1].startswith("The sandbox rejected {")
        assert lines[-1].endswith("}: rejected by fault injection")

    async def test_failed_requests(self, connect: Connect, sandbox: Sandbox) -> None:
        """The message counts the requests that failed, since an event may be missing for that."""
        sandbox.faults.add(Fault("status", status=503, times=1), Fault("drop", times=1))
        client = await connect()
        await client.track_event(Event("visit"))
        await idle(client)
        await client.flush_data()

        last = message(assert_tracked, sandbox, "purchase").splitlines()[-1]
        assert last == "Requests that failed: 503 (1), dropped (1)."
