"""
What devices remember is part of the application's transaction.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from helpers.clients import Connect
from helpers.hosts import AsyncpgHost, Host, Isolation
from helpers.in_app import message
from helpers.waiting import until

from exponea_async import Event, Exponea, InAppMessage, PostgresSettings, QueueSettings, StorageError
from exponea_async.sandbox import Sandbox
from exponea_async.testing import pending_records

ANN = {"registered": "ann@example.com"}
BOB = {"registered": "bob@example.com"}


@pytest.fixture
async def client(postgres_url: str, postgres_schema: str, connect: Connect) -> Exponea:
    """A client that does not upload by itself."""
    settings = PostgresSettings(schema=postgres_schema)
    return await connect(storage=postgres_url, postgres=settings, device=True, flush_mode="MANUAL")


@pytest.fixture
async def hosts(postgres_url: str) -> AsyncIterator[tuple[Host, Host]]:
    """Two connections of the application."""
    opened = AsyncpgHost(postgres_url), AsyncpgHost(postgres_url)
    for each in opened:
        await each.open()
    yield opened
    for each in opened:
        await each.close()


async def ids_of(client: Exponea, name: str) -> list[dict[str, str]]:
    """Return the ids, without cookies, of the events of a name in the queue."""
    records = [each for each in await pending_records(client) if each.name == name]
    return [{kind: value for kind, value in each.customer_ids.items() if kind != "cookie"} for each in records]


async def track_behind(client: Exponea, first: Host, second: Host) -> None:
    """Track about the phone in a second transaction, which waits for the first one; commit both."""
    await second.begin()
    async with client.transaction(second.connection) as tracked:
        waiting = asyncio.create_task(tracked.device("phone").track_event(Event("second")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.commit()
        await waiting
    await second.commit()


async def names(client: Exponea) -> list[str]:
    return [each.name for each in await pending_records(client)]


async def test_identified_in_a_transaction(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """Others know who the customer is once the transaction is committed, and not before it."""
    device = client.device("phone")
    await device.track_event(Event("before"))
    async with hosts[0].transaction() as connection:
        async with client.transaction(connection) as tracked:
            await tracked.device("phone").identify_customer(ANN)
            await tracked.device("phone").track_event(Event("within"))
        waiting = asyncio.create_task(device.track_event(Event("after")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting

    assert await ids_of(client, "before") == [{}]
    assert await ids_of(client, "within") == await ids_of(client, "after") == [ANN]


async def test_identified_in_a_transaction_that_is_rolled_back(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """After a rollback the device is as it was."""
    device = client.device("phone")
    await device.identify_customer(BOB)
    cookie = await device.get_customer_cookie()
    await hosts[0].begin()
    async with client.transaction(hosts[0].connection) as tracked:
        await tracked.device("phone").anonymize()
        assert await tracked.device("phone").get_customer_cookie() != cookie
        await tracked.device("phone").identify_customer(ANN)
    await hosts[0].rollback()
    await device.track_event(Event("after"))

    assert await ids_of(client, "after") == [BOB]
    assert await device.get_customer_cookie() == cookie


async def test_a_new_device_in_a_transaction(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """A device is created with its transaction, or not at all."""
    await hosts[0].begin()
    async with client.transaction(hosts[0].connection) as tracked:
        await tracked.device("phone").track_event(Event("lost"))
    await hosts[0].rollback()
    async with hosts[0].transaction() as connection, client.transaction(connection) as tracked:
        await tracked.device("phone").track_event(Event("first"))
        await tracked.device("phone").track_event(Event("second"))
    await client.device("phone").track_event(Event("third"))

    assert sorted(await names(client)) == ["first", "installation", "second", "session_start", "third"]
    assert len({each.customer_ids["cookie"] for each in await pending_records(client)}) == 1


async def test_the_client_is_faster(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """A transaction that finds another customer than it has seen before tracks about the present one."""
    async with hosts[0].transaction() as connection, client.transaction(connection) as tracked:
        assert await tracked.device("phone").get_customer_cookie()
    await client.device("phone").identify_customer(BOB)
    async with hosts[0].transaction() as connection, client.transaction(connection) as tracked:
        await client.device("phone").identify_customer(ANN)
        await tracked.device("phone").track_event(Event("within"))

    assert await ids_of(client, "within") == [ANN]


async def test_a_savepoint_does_not_leave_an_identity(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """An identity that was rolled back with a savepoint is not used, also where another one has its version."""
    device = client.device("phone")
    await device.open()
    async with hosts[0].transaction() as connection, client.transaction(connection) as tracked:
        await hosts[0].execute("SAVEPOINT one")
        await tracked.device("phone").identify_customer(ANN)
        await hosts[0].execute("ROLLBACK TO SAVEPOINT one")
        await device.identify_customer(BOB)
        await tracked.device("phone").track_event(Event("within"))

    assert await ids_of(client, "within") == [BOB]


async def test_two_transactions_on_one_device(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """The second transaction waits for the first one, and goes on from what that has left."""
    one, two = hosts
    await client.device("phone").open()
    await one.begin()
    async with client.transaction(one.connection) as tracked:
        await tracked.device("phone").identify_customer(ANN)
    await track_behind(client, one, two)

    assert await ids_of(client, "second") == [ANN]


async def test_two_transactions_on_a_new_device(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """Only one of two transactions creates a device."""
    one, two = hosts
    await one.begin()
    async with client.transaction(one.connection) as tracked:
        await tracked.device("phone").track_event(Event("first"))
    await track_behind(client, one, two)

    assert sorted(await names(client)) == ["first", "installation", "second", "session_start"]


async def test_two_transactions_that_wait_for_each_other(
    postgres_url: str, postgres_schema: str, connect: Connect, hosts: tuple[Host, Host]
) -> None:
    """They get an error within the time limit, and neither transaction is broken by it."""
    settings: dict[str, Any] = {
        "storage": postgres_url,
        "postgres": PostgresSettings(schema=postgres_schema),
        "flush_mode": "MANUAL",
    }
    client = await connect(**settings)
    one, two = hosts
    for key in ("a", "b"):
        await client.device(key).open()
    await one.begin()
    await two.begin()
    async with client.transaction(one.connection) as first, client.transaction(two.connection) as second:
        await first.device("a").track_event(Event("x"))
        await second.device("b").track_event(Event("x"))
    # Only these calls have a short limit, so that a busy machine fails no other.
    hasty = await connect(**settings, queue=QueueSettings(lock_timeout=4.0))
    async with hasty.transaction(one.connection) as first, hasty.transaction(two.connection) as second:
        results = await asyncio.gather(
            first.device("b").track_event(Event("y")),
            second.device("a").track_event(Event("y")),
            return_exceptions=True,
        )
        assert [type(each) for each in results] == [StorageError, StorageError]
        assert "locked by another transaction" in str(results[0])
    await one.commit()
    await two.commit()

    assert (await names(client)).count("x") == 2
    assert "y" not in await names(client)


async def test_others_are_not_kept_waiting(client: Exponea, hosts: tuple[Host, Host]) -> None:
    """While a transaction is open, events of other devices and of customers are recorded at once."""
    for key in ("a", "b"):
        await client.device(key).open()
    async with hosts[0].transaction() as connection, client.transaction(connection) as tracked:
        await tracked.device("a").track_event(Event("within"))
        waiting = asyncio.create_task(client.device("a").track_event(Event("later")))
        async with asyncio.timeout(60):
            await client.device("b").track_event(Event("other"))
            await client.device("c").track_event(Event("other"))
            await client.for_customer(ANN).track_event(Event("other"))
        assert not waiting.done()
    await waiting

    assert (await names(client)).count("other") == 3


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_isolation(client: Exponea, hosts: tuple[Host, Host], isolation: Isolation) -> None:
    """A device that others have changed since the transaction began is a serialization failure, as for any row."""
    await client.device("phone").open()
    host = hosts[0]
    await host.begin(isolation)
    async with client.transaction(host.connection) as tracked:
        await client.device("phone").identify_customer(BOB)
        with pytest.raises(StorageError, match="run it again") as caught:
            await tracked.device("phone").track_event(Event("within"))
    assert isinstance(caught.value.__cause__, asyncpg.SerializationError)
    await host.rollback()
    async with host.transaction(isolation) as connection, client.transaction(connection) as tracked:
        await tracked.device("phone").track_event(Event("within"))
        await tracked.device("phone").identify_customer(ANN)
        await tracked.device("phone").track_event(Event("within"))
        await tracked.device("new").track_event(Event("within"))

    assert await ids_of(client, "within") == [BOB, ANN, {}]


async def test_subscribers_are_notified_of_what_is_committed(
    client: Exponea, hosts: tuple[Host, Host], sandbox: Sandbox
) -> None:
    """An event triggers an in-app message once it is committed, and not if it is rolled back."""
    sandbox.messages.in_app_messages.put(message(event="trigger"))
    shown: list[InAppMessage] = []

    async def show() -> None:
        async for each in client.in_app_messages():
            shown.append(each)  # noqa: PERF401 - it is looked at meanwhile

    task = asyncio.create_task(show())
    await asyncio.sleep(0)
    await client.track_event(Event("other"))
    await hosts[0].begin()
    async with client.transaction(hosts[0].connection) as tracked:
        await tracked.track_event(Event("trigger"))
    await hosts[0].rollback()
    await until(lambda: client.stats().dropped.get("rolled_back") == 1)
    await asyncio.sleep(0.2)
    assert shown == []
    async with hosts[0].transaction() as connection, client.transaction(connection) as tracked:
        await tracked.track_event(Event("trigger"))
        await asyncio.sleep(0.2)
        assert shown == []
    await until(lambda: len(shown) == 1)
    task.cancel()
