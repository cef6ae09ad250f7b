"""
The same calls with ``exponea-python-sdk``, the vendor's SDK, and with this one leave the same data in the sandbox.
"""

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exponea_async import BasicAuth, Customer, Event, Exponea, InvalidEventError, RejectedError
from exponea_async.sandbox import Project, Sandbox
from exponea_async.testing import SandboxThread, sandbox_configuration

JANE = {"registered": "jane@example.com"}
VISITOR = {"cookie": "4f1c"}
#: The ids of events, of which the last one names two customers that can't be merged.
CONFLICT = [JANE, {"internal": "7"}, {"internal": "8"}, {**JANE, "internal": "7"}, {**JANE, "internal": "8"}]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
PROJECT = Project("shop", basic=[("key-id", "secret")])
#: This SDK adds it to each event, as those for phones do.
ADDED = "application_id"


@pytest.fixture
def server() -> Iterator[Sandbox]:
    """The sandbox of the vendor's SDK, with one key of private access."""
    with SandboxThread(Sandbox(projects=[PROJECT])) as sandbox:
        yield sandbox


@pytest.fixture
def vendor(server: Sandbox) -> Any:
    # Imported only here: on import it configures the root logger, unless that has handlers, as in a test.
    module = importlib.import_module("exponea_python_sdk")
    return module.Exponea("shop", username="key-id", password="secret", url=server.url)


def run(function: Callable[[Exponea], Awaitable[object]]) -> Sandbox:
    """Run calls of this SDK with a sandbox of their own, upload everything, and return the sandbox."""

    async def call(sandbox: Sandbox) -> None:
        settings = {"project_token": "shop", "authorization_token": BasicAuth("key-id", "secret")}
        async with Exponea(sandbox_configuration(sandbox, **settings)) as client:
            await function(client)
            await client.flush_data()

    with SandboxThread(Sandbox(projects=[PROJECT])) as sandbox:
        asyncio.run(call(sandbox))
    return sandbox


def data(sandbox: Sandbox) -> dict[str, list[Any]]:
    """Return the events and customers of a sandbox, independent of the order in which they arrived."""
    owners = {customer.key: sorted(customer.ids.items()) for customer in sandbox.engine.customers()}
    events = [
        {
            "type": event.event_type,
            "owner": owners[event.customer],
            "ids": dict(event.customer_ids),
            "timestamp": event.timestamp,
            "properties": {name: value for name, value in event.properties.items() if name != ADDED},
        }
        for event in sandbox.engine.events("shop")
    ]
    customers = [
        {"ids": sorted(each.ids.items()), "properties": each.properties, "events": each.events}
        for each in sandbox.engine.customers("shop")
    ]
    return {"events": sorted(events, key=repr), "customers": sorted(customers, key=repr)}


def test_events(vendor: Any, server: Sandbox) -> None:
    """Events with values of all types of JSON, in any script, arrive as the same events of the same customers."""
    properties = {
        "text": "Žluťoučký 🐎",
        "price": 7.99,
        "n": 3,
        "yes": True,
        "list": [1, "a"],
        "object": {"a": {"b": 1}},
    }
    for number, ids in enumerate((JANE, VISITOR, {**VISITOR, "internal": "7"})):
        assert vendor.tracking.add_event(ids, "purchase", properties, timestamp=NOON + number)
    vendor.tracking.add_event(JANE, "visit", timestamp=NOON)

    async def ours(client: Exponea) -> None:
        for number, ids in enumerate((JANE, VISITOR, {**VISITOR, "internal": "7"})):
            await client.for_customer(ids).track_event(Event("purchase", properties, NOON + number))
        await client.for_customer(JANE).track_event(Event("visit", timestamp=NOON))

    assert data(run(ours)) == data(server)
    assert len(server.engine.events()) == 4


def test_properties_of_customers(vendor: Any, server: Sandbox) -> None:
    """Updates of customers leave the same properties, of several updates the last ones."""
    for properties in ({"first_name": "Jan", "age": 41}, {"first_name": "Jane", "tags": ["a", "b"]}):
        assert vendor.tracking.update_customer_properties(JANE, properties)

    async def ours(client: Exponea) -> None:
        for properties in ({"first_name": "Jan", "age": 41}, {"first_name": "Jane", "tags": ["a", "b"]}):
            await client.for_customer(JANE).identify_customer(Customer(JANE, properties))

    assert data(run(ours)) == data(server)
    (jane,) = server.engine.customers()
    assert jane.properties == {"first_name": "Jane", "age": 41, "tags": ["a", "b"]}


def test_visitors_who_sign_in(vendor: Any, server: Sandbox) -> None:
    """A visitor and a customer become one when both ids are sent, with the events of both."""
    vendor.tracking.add_event(VISITOR, "visit", {"page": 1}, timestamp=NOON)
    vendor.tracking.add_event(JANE, "purchase", {"total_price": 7.99}, timestamp=NOON + 1)
    vendor.tracking.update_customer_properties({**VISITOR, **JANE}, {"signed_in": True})
    vendor.tracking.add_event(VISITOR, "visit", {"page": 2}, timestamp=NOON + 2)

    async def ours(client: Exponea) -> None:
        await client.for_customer(VISITOR).track_event(Event("visit", {"page": 1}, NOON))
        await client.for_customer(JANE).track_event(Event("purchase", {"total_price": 7.99}, NOON + 1))
        both = {**VISITOR, **JANE}
        await client.for_customer(both).identify_customer(Customer(both, {"signed_in": True}))
        await client.for_customer(VISITOR).track_event(Event("visit", {"page": 2}, NOON + 2))

    assert data(run(ours)) == data(server)
    assert [customer.events for customer in server.engine.customers()] == [3]


def test_batches(vendor: Any, server: Sandbox) -> None:
    """A batch that the vendor's caller puts together is what this SDK makes by itself."""
    tracking = vendor.tracking
    commands = [tracking.add_event(JANE, "visit", {"page": n}, timestamp=NOON + n, batch=True) for n in range(49)]
    commands.append(tracking.update_customer_properties(JANE, {"vip": True}, batch=True))
    assert tracking.batch_commands(commands) == [True] * 50

    async def ours(client: Exponea) -> None:
        await client.track_many((JANE, Event("visit", {"page": n}, NOON + n)) for n in range(49))
        await client.for_customer(JANE).identify_customer(Customer(JANE, {"vip": True}))

    sandbox = run(ours)
    assert data(sandbox) == data(server)
    assert [request.commands for request in sandbox.requests] == [50]


def test_attributes_and_consents(vendor: Any, server: Sandbox) -> None:
    """Both return the same properties, ids and consents of a customer."""
    definitions = {"attributes": {"consent": [{"id": "newsletter", "value": True}]}}
    server.messages.load(definitions)
    vendor.tracking.update_customer_properties(JANE, {"age": 41})
    theirs = vendor.customer.get_customer_attributes(JANE, properties=["age", "city"], ids=["registered"])
    consents = vendor.customer.get_customer_consents(JANE, ["newsletter"])
    queries = [
        {"type": "property", "property": "age"},
        {"type": "property", "property": "city"},
        {"type": "id", "id": "registered"},
        {"type": "consent", "category": "newsletter"},
    ]

    async def ours() -> list[Any]:
        settings = {"project_token": "shop", "authorization_token": BasicAuth("key-id", "secret")}
        async with Exponea(sandbox_configuration(server, **settings)) as client:
            return [each.value for each in await client.for_customer(JANE).fetch_attributes(queries)]

    age, city, registered, newsletter = asyncio.run(ours())
    assert theirs == {"properties": {"age": age, "city": city}, "ids": {"registered": registered}}
    assert consents == {"newsletter": newsletter}
    assert (age, city, registered, newsletter) == (41, None, JANE["registered"], True)


def test_what_is_refused(vendor: Any, server: Sandbox) -> None:
    """The vendor's calls raise the platform's errors; this SDK finds them before, or its receipts raise them."""
    with pytest.raises(Exception, match="At least one id should be specified"):
        vendor.tracking.add_event({}, "purchase")
    with pytest.raises(Exception, match="be smaller than 16 KB"):
        vendor.tracking.add_event(JANE, "purchase", {"text": "a" * 17_000})
    for ids in CONFLICT[:-1]:
        vendor.tracking.add_event(ids, "visit", timestamp=NOON)
    with pytest.raises(Exception, match="can't be both"):
        vendor.tracking.add_event(CONFLICT[-1], "visit", timestamp=NOON)

    async def ours(client: Exponea) -> None:
        with pytest.raises(InvalidEventError, match=r"ids"):
            client.for_customer({})
        with pytest.raises(InvalidEventError, match=r"properties\.text"):
            await client.for_customer(JANE).track_event(Event("purchase", {"text": "a" * 17_000}))
        for ids in CONFLICT[:-1]:
            await client.for_customer(ids).track_event(Event("visit", timestamp=NOON))
            await client.flush_data()
        receipt = await client.for_customer(CONFLICT[-1]).track_event(Event("visit", timestamp=NOON))
        await client.flush_data()
        with pytest.raises(RejectedError, match="can't be both"):
            await receipt.delivered(timeout=60)

    assert data(run(ours)) == data(server)


def test_values_that_are_none(vendor: Any, server: Sandbox) -> None:
    """The one difference in the data: the vendor's SDK sends None as null, this one leaves the property out."""
    vendor.tracking.add_event(JANE, "visit", {"coupon": None}, timestamp=NOON)

    async def ours(client: Exponea) -> None:
        await client.for_customer(JANE).track_event(Event("visit", {"coupon": None}, NOON))

    (event,) = data(run(ours))["events"]
    assert (event["properties"], data(server)["events"][0]["properties"]) == ({}, {"coupon": None})


def test_the_example_runs_by_itself() -> None:
    """The example of the manual shows the same data for both."""
    path = Path(__file__).parent.parent / "examples" / "from_exponea_python_sdk.py"
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, timeout=60)

    assert done.stderr == ""
    lines = done.stdout.replace(", 'application_id': 'default-application'", "").splitlines()
    assert lines[0] == "exponea-python-sdk: {'properties': {'first_name': 'Jane'}}"
    assert lines[6].startswith("exponea_async: [CustomerAttribute(success=True, value='Jane'")
    assert lines[1:6] == lines[7:12]
    assert lines[1] == "  purchase {'total_price': 7.99}"
    assert lines[5] == "  {'registered': ('jane@example.com',)} {'first_name': 'Jane'}"
