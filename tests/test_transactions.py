"""
Events in the transaction of an application: they exist exactly if it commits.
"""

from collections.abc import AsyncIterator

import pytest
from helpers.clients import Connect
from helpers.hosts import HOSTS, AsyncpgHost, Host
from helpers.waiting import until

from exponea_async import DroppedError, Event, Exponea, PostgresSettings
from exponea_async.sandbox import Sandbox


@pytest.fixture(params=HOSTS)
async def host(request: pytest.FixtureRequest, postgres_url: str, client: Exponea) -> AsyncIterator[Host]:
    opened: Host = HOSTS[request.param](postgres_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def asyncpg_host(postgres_url: str, client: Exponea) -> AsyncIterator[Host]:
    opened = AsyncpgHost(postgres_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def client(postgres_url: str, postgres_schema: str, connect: Connect) -> Exponea:
    return await connect(storage=postgres_url, postgres=PostgresSettings(schema=postgres_schema), device=True)


def names(sandbox: Sandbox) -> list[str]:
    return [event.event_type for event in sandbox.engine.events("shop")]


class TestDrivers:
    """The same with each library."""

    async def test_commit(self, host: Host, client: Exponea, sandbox: Sandbox) -> None:
        """An event is delivered once the transaction is committed, and counted then."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            receipt = await tracked.track_event(Event("order", {"text": "50 % :off $1"}))
            assert receipt.status == "queued"
            assert client.stats().tracked == 0
        await receipt.delivered(60)

        assert sorted(names(sandbox)) == ["installation", "order", "session_start"]
        assert sandbox.engine.events("shop", "order")[0].properties["text"] == "50 % :off $1"
        await until(lambda: client.stats().tracked == 3)

    async def test_rollback(self, host: Host, client: Exponea, sandbox: Sandbox) -> None:
        """An event of a transaction that is rolled back does not exist, and its receipt says so."""
        await host.begin()
        async with client.transaction(host.connection) as tracked:
            receipt = await tracked.for_customer({"registered": "ann"}).track_event(Event("order"))
        await host.rollback()
        with pytest.raises(DroppedError, match="rolled back"):
            await receipt.delivered(60)

        await client.flush_data(60)
        assert names(sandbox) == []
        assert client.stats().tracked == 0
        assert client.stats().dropped == {"rolled_back": 1}

    async def test_savepoint(self, host: Host, client: Exponea, sandbox: Sandbox) -> None:
        """What was tracked after a savepoint that is rolled back does not exist, and the rest does."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            ann = tracked.for_customer({"registered": "ann"})
            kept = await ann.track_event(Event("before"))
            await host.execute("SAVEPOINT one")
            lost = await ann.track_event(Event("within"))
            await host.execute("ROLLBACK TO SAVEPOINT one")
            later = await ann.track_event(Event("after"))
        await kept.delivered(60)
        await later.delivered(60)
        with pytest.raises(DroppedError, match="rolled back"):
            await lost.delivered(60)

        assert sorted(names(sandbox)) == ["after", "before"]
        assert client.stats().tracked == 2
