"""
What can go wrong with events in the application's own transaction, and what is refused.
"""

import asyncio
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
from attrs import evolve
from helpers.clients import Connect, DeliveryLog, numbered_events
from helpers.environment import SetConstants
from helpers.hosts import HOSTS, AsyncpgHost, Host, Isolation, PsycopgSessionHost, SessionHost, SyncPsycopgHost
from helpers.postgres_server import PostgresServer, StartPostgres
from helpers.waiting import until
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine

from exponea_async import (
    ClosedError,
    Configuration,
    ConfigurationError,
    DroppedError,
    Event,
    Exponea,
    Hooks,
    InvalidEventError,
    LifecycleError,
    PostgresSettings,
    QueueFullError,
    QueueSettings,
    StorageError,
    WipedFileError,
)
from exponea_async.sandbox import Sandbox
from exponea_async.storage.postgres import undecided
from exponea_async.testing import pending_records

ANN = {"registered": "ann@example.com"}


@pytest.fixture
def in_postgres(postgres_url: str, postgres_schema: str) -> dict[str, Any]:
    """The settings of a client that does not upload by itself."""
    return {"storage": postgres_url, "postgres": PostgresSettings(schema=postgres_schema), "flush_mode": "MANUAL"}


@pytest.fixture
async def client(in_postgres: dict[str, Any], connect: Connect) -> Exponea:
    return await connect(**in_postgres)


@pytest.fixture
async def host(postgres_url: str) -> AsyncIterator[Host]:
    opened = AsyncpgHost(postgres_url)
    await opened.open()
    yield opened
    if not opened.connection.is_closed():
        await opened.close()


async def names(client: Exponea) -> list[str]:
    return sorted(each.name for each in await pending_records(client))


async def client_there(configuration: Configuration) -> None:
    """Start a client once, so that the schema and the queue exist."""
    async with Exponea(configuration):
        pass


async def enter(client: Exponea, connection: object) -> None:
    async with client.transaction(connection):
        pass


class TestTheConnection:
    async def test_unknown_objects(self, client: Exponea) -> None:
        """The error about an unknown object names what is accepted, and not the object, which may have a password."""
        for given in ("postgresql://u:hunter2@db", None, object()):
            with pytest.raises(TypeError, match="connection: expected an asyncpg Connection") as caught:
                await enter(client, given)
            assert "hunter2" not in str(caught.value)

    async def test_a_pool(self, client: Exponea, postgres_url: str) -> None:
        """A pool is not a connection."""
        async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
            with pytest.raises(TypeError, match=r"asyncpg\.pool\.Pool"):
                await enter(client, pool)

    async def test_another_kind_of_database(self, client: Exponea) -> None:
        """A connection of SQLAlchemy to another kind of database is refused."""
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            with pytest.raises(TypeError, match=r"sqlite\+aiosqlite"):
                await enter(client, connection)
        await engine.dispose()

    @pytest.mark.parametrize("kind", [AsyncpgHost, SyncPsycopgHost])
    async def test_no_transaction(self, client: Exponea, postgres_url: str, kind: Any) -> None:
        """A connection that commits each statement by itself is refused."""
        host = kind(postgres_url)
        await host.open()
        if kind is SyncPsycopgHost:
            host.connection.autocommit = True
        with pytest.raises(LifecycleError, match="not in the transaction"):
            await enter(client, host.connection)
        await host.close()

    @pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
    async def test_automatic_commits_of_sqlalchemy(self, client: Exponea, postgres_url: str, driver: str) -> None:
        """SQLAlchemy's level AUTOCOMMIT is refused, although it has the methods of a transaction."""
        engine = create_async_engine(postgres_url.replace(":", f"+{driver}:", 1), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            with pytest.raises(LifecycleError, match="not in the transaction"):
                await enter(client, connection)
        await engine.dispose()

    async def test_the_transaction_ends_within_the_block(self, client: Exponea, postgres_url: str) -> None:
        """After a commit within the block nothing more is tracked; with psycopg that would be another transaction."""
        host = SyncPsycopgHost(postgres_url)
        await host.open()
        async with client.transaction(host.connection) as tracked:
            await tracked.track_event(Event("kept"))
            await host.commit()
            with pytest.raises(LifecycleError, match="a block for each transaction"):
                await tracked.track_event(Event("refused"))
            with pytest.raises(LifecycleError, match="a block for each transaction"):
                await tracked.device("phone").track_event(Event("refused"))
        await host.commit()
        await host.close()

        assert await names(client) == ["kept"]

    async def test_after_the_block(self, client: Exponea, host: Host) -> None:
        """What was in the block is refused after it, though the transaction is still open."""
        async with host.transaction() as connection:
            async with client.transaction(connection) as tracked:
                device, ann = tracked.device("phone"), tracked.for_customer(ANN)
            for each in (tracked, device, ann):
                with pytest.raises(LifecycleError, match="has ended"):
                    await each.track_event(Event("x"))
            with pytest.raises(LifecycleError, match="has ended"):
                await tracked.identify_customer(ANN)

        assert await names(client) == []

    async def test_a_call_that_is_not_awaited(self, client: Exponea, host: Host) -> None:
        """A call that is under way at the end of the block does not go on."""
        async with host.transaction() as connection:
            async with client.transaction(connection) as tracked:
                task = asyncio.create_task(tracked.device("phone").track_event(Event("x")))
                await asyncio.sleep(0)
            with pytest.raises(LifecycleError, match=r"exponea\.transaction\(connection\)"):
                await task

        assert await names(client) == []

    async def test_a_scoped_session(self, client: Exponea, postgres_url: str) -> None:
        """A session of SQLAlchemy that is kept for each task is accepted."""
        engine = create_async_engine(postgres_url.replace(":", "+asyncpg:", 1))
        sessions = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        async with client.transaction(sessions) as tracked:
            await tracked.track_event(Event("x"))
        await sessions.commit()
        await sessions.remove()
        await engine.dispose()

        assert await names(client) == ["x"]

    async def test_two_blocks_in_one_transaction(self, client: Exponea, host: Host) -> None:
        """A transaction may have several blocks, also one in another."""
        async with host.transaction() as connection:
            async with client.transaction(connection) as outer, client.transaction(connection) as inner:
                await inner.track_event(Event("a"))
                await outer.track_event(Event("b"))
            async with client.transaction(connection) as tracked:
                await tracked.track_event(Event("c"))

        assert await names(client) == ["a", "b", "c"]
        assert (await client.health()).problems == ()

    async def test_a_closed_connection(self, client: Exponea, host: Host) -> None:
        """A connection that is closed is an error, before the block and within it."""
        await host.begin()
        async with client.transaction(host.connection) as tracked:
            host.connection.terminate()
            with pytest.raises(StorageError, match="connection is closed"):
                await tracked.track_event(Event("x"))
        with pytest.raises(StorageError, match="connection is closed"):
            await enter(client, host.connection)

    async def test_a_transaction_that_has_failed(self, client: Exponea, host: Host) -> None:
        """Within a transaction that has failed already, the error is that of the database."""
        await host.begin()
        with pytest.raises(asyncpg.DivisionByZeroError):
            await host.execute("SELECT 1/0")
        with pytest.raises(StorageError, match="current transaction is aborted"):
            await enter(client, host.connection)

    async def test_settings_of_the_transaction_stay(self, client: Exponea, host: Host) -> None:
        """No setting of the application's transaction is changed."""
        settings = "SELECT string_agg(name || setting, ',' ORDER BY name) FROM pg_settings"
        async with host.transaction() as connection:
            before = await connection.fetchval(settings)
            async with client.transaction(connection) as tracked:
                await tracked.device("phone").track_event(Event("x"))
            assert await connection.fetchval(settings) == before

    async def test_many_events_at_once(self, client: Exponea, host: Host) -> None:
        """Concurrent calls in one block are recorded one after the other."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            await asyncio.gather(*(tracked.device("phone").track_event(each) for each in numbered_events(20)))
            await tracked.track_many(numbered_events(2000))

        assert (await client.health()).problems == ()
        assert len(await pending_records(client)) == 2022


class TestTheDatabase:
    async def test_another_database(
        self, client: Exponea, postgres_server: PostgresServer, postgres_schema: str
    ) -> None:
        """A connection to another database is refused, whether that has a queue of the same name or not."""
        name = f"other_{postgres_schema}"
        with psycopg.connect(postgres_server.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        url = urlsplit(postgres_server.url)._replace(path=f"/{name}").geturl()
        other = AsyncpgHost(url)
        await other.open()
        async with other.transaction() as connection:
            with pytest.raises(StorageError, match=f"has no schema {postgres_schema}.* the same database"):
                await enter(client, connection)
        await client_there(evolve(client.configuration, storage=url))
        async with other.transaction() as connection, client.transaction(connection) as tracked:
            with pytest.raises(StorageError, match="another queue there"):
                await tracked.track_event(Event("x"))
        await other.close()
        with psycopg.connect(postgres_server.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    async def test_no_rights(self, client: Exponea, postgres_server: PostgresServer, postgres_schema: str) -> None:
        """A role without rights gets an error that says so, and no password."""
        host = AsyncpgHost(postgres_server.create_role(f"role_{postgres_schema}", "hunter2"))
        await host.open()
        await host.begin()
        with pytest.raises(StorageError, match="permission denied") as caught:
            await enter(client, host.connection)
        assert "hunter2" not in str(caught.value)
        await host.close()
        with psycopg.connect(postgres_server.url, autocommit=True) as connection:
            connection.execute(f"DROP ROLE role_{postgres_schema}".encode())

    async def test_a_transaction_that_only_reads(self, client: Exponea, host: Host) -> None:
        """Nothing can be tracked in a transaction that only reads."""
        async with host.connection.transaction(readonly=True), client.transaction(host.connection) as tracked:
            with pytest.raises(StorageError, match="read-only transaction"):
                await tracked.track_event(Event("x"))

    @pytest.mark.parametrize("kind", HOSTS.values(), ids=HOSTS)
    async def test_rows_are_not_shown(
        self, client: Exponea, postgres_url: str, postgres_schema: str, kind: Callable[[str], Host]
    ) -> None:
        """The details of an error about a row have its values, and are not shown."""
        host = kind(postgres_url)
        await host.open()
        await host.begin()
        await host.execute(f"ALTER TABLE {postgres_schema}.record ADD CONSTRAINT short CHECK (length(body) < 10)")
        async with client.transaction(host.connection) as tracked:
            with pytest.raises(StorageError, match="violates check constraint") as caught:
                await tracked.track_event(Event("x", {"card": "4111-1111"}))
        await host.rollback()
        await host.close()

        shown = "".join(traceback.format_exception(caught.value))
        assert "Failing row" not in shown
        assert b"4111-1111".hex() not in shown

    @pytest.mark.parametrize("kind", [SessionHost, PsycopgSessionHost])
    async def test_errors_have_no_values(self, client: Exponea, postgres_url: str, kind: type[Host]) -> None:
        """The errors of SQLAlchemy have the values of a statement; those of this package have not."""
        host = kind(postgres_url)
        await host.open()
        await host.begin()
        await host.execute("SET TRANSACTION READ ONLY")
        async with client.transaction(host.connection) as tracked:
            with pytest.raises(StorageError, match="read-only transaction") as caught:
                await tracked.track_event(Event("x", {"card": "4111-1111"}))
        assert "4111-1111" not in f"{caught.value}{caught.value.__cause__}"
        assert "parameters" not in f"{caught.value}{caught.value.__cause__}"
        await host.close()

    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
    async def test_the_queue_is_wiped_meanwhile(
        self, client: Exponea, connect: Connect, in_postgres: dict[str, Any], host: Host, level: Isolation
    ) -> None:
        """What is tracked after another client has wiped the queue is an error, in every isolation level."""
        other = await connect(**in_postgres)
        await host.begin(level)
        async with client.transaction(host.connection) as tracked:
            await other.stop_integration(everyone=True)
            with pytest.raises(WipedFileError):
                await tracked.track_event(Event("x"))
        await host.rollback()

    async def test_the_server_is_killed(
        self, own_postgres: StartPostgres, connect: Connect, deliveries: DeliveryLog
    ) -> None:
        """What was committed before a crash is found out after it, and what was open is rolled back."""
        server = own_postgres()
        client = await connect(storage=server.url, flush_mode="MANUAL", queue=QueueSettings(durability="power"))
        open_one, committed = AsyncpgHost(server.url), AsyncpgHost(server.url)
        await open_one.open()
        await committed.open()
        await open_one.begin()
        async with client.transaction(open_one.connection) as tracked:
            lost = await tracked.track_event(Event("lost"))
        await committed.begin()
        async with client.transaction(committed.connection) as tracked:
            kept = await tracked.track_event(Event("kept"))
        await committed.commit()
        server.kill()
        server.start()
        await until(lambda: client.stats().tracked == 1)

        with pytest.raises(DroppedError, match="rolled back"):
            await lost.delivered(60)
        assert kept.status == "queued"
        await client.flush_data(60)
        await kept.delivered(60)
        open_one.connection.terminate()
        committed.connection.terminate()


async def test_through_pgbouncer(postgres_schema: str, pgbouncer_url: str, connect: Connect, sandbox: Sandbox) -> None:
    """The client and the application may both connect through PgBouncer in transaction mode."""
    settings = PostgresSettings(schema=postgres_schema, transaction_pooling=True)
    client = await connect(storage=pgbouncer_url, postgres=settings)
    connection = await asyncpg.connect(pgbouncer_url, statement_cache_size=0)
    for name in ("lost", "kept"):
        transaction = connection.transaction()
        await transaction.start()
        async with client.transaction(connection) as tracked:
            receipt = await tracked.for_customer(ANN).track_event(Event(name))
        await (transaction.rollback() if name == "lost" else transaction.commit())
    await receipt.delivered(60)
    await connection.close()

    assert [event.event_type for event in sandbox.engine.events("shop")] == ["kept"]
    assert client.stats().dropped == {"rolled_back": 1}


#: Tracks in two transactions, commits one of them, and is killed.
KILLED = """
import asyncio, os, signal, sys
import asyncpg
from exponea_async import Configuration, Event, Exponea, PostgresSettings

async def main(url, schema):
    settings = PostgresSettings(schema=schema)
    client = Exponea(Configuration(project_token="shop", authorization_token="key", storage=url, postgres=settings))
    await client.start()
    for name in ("committed", "open"):
        connection = await asyncpg.connect(url)
        transaction = connection.transaction()
        await transaction.start()
        async with client.transaction(connection) as tracked:
            await tracked.for_customer({"registered": "ann"}).track_event(Event(name))
            await tracked.device(name).track_event(Event(name))
        if name == "committed":
            await transaction.commit()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_process(in_postgres: dict[str, Any], connect: Connect, sandbox: Sandbox) -> None:
    """What a killed process has committed is sent by the next one, and what it has not committed does not exist."""
    command = [sys.executable, "-c", KILLED, in_postgres["storage"], in_postgres["postgres"].schema]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == -signal.SIGKILL
    client = await connect(**in_postgres)
    # The server rolls the transaction back when it notices that its client is gone.
    await client.device("open").track_event(Event("later"))
    await client.flush_data(60)

    sent = Counter(event.event_type for event in sandbox.engine.events("shop"))
    assert sent == {"committed": 2, "installation": 2, "session_start": 2, "later": 1}
    assert (await client.health()).problems == ()


class TestCapacity:
    @pytest.mark.parametrize("when_full", ["raise", "wait"])
    async def test_a_full_queue(
        self, in_postgres: dict[str, Any], connect: Connect, host: Host, when_full: Any
    ) -> None:
        """A full queue is an error, after which the transaction can be committed."""
        queue = QueueSettings(max_records=3, when_full=when_full)
        client = await connect(queue=queue, **in_postgres)
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            await tracked.track_many(numbered_events(2))
            await connection.execute("CREATE TEMP TABLE orders (id int)")
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            with pytest.raises(QueueFullError):
                await tracked.track_many(numbered_events(2))
            await tracked.track_event(Event("fits"))
            await connection.execute("INSERT INTO orders VALUES (1)")

        assert len(await pending_records(client)) == 3
        assert await host.connection.fetchval("SELECT count(*) FROM orders") == 1

    async def test_a_transaction_that_would_exceed_the_capacity(
        self, in_postgres: dict[str, Any], connect: Connect, host: Host
    ) -> None:
        """What was written before in the same transaction counts, in whichever block that was."""
        client = await connect(queue=QueueSettings(max_records=20), **in_postgres)
        async with host.transaction() as connection:
            for number in range(20):
                async with client.transaction(connection) as tracked:
                    await tracked.track_event(Event("x", {"number": number}))
            async with client.transaction(connection) as tracked:
                with pytest.raises(QueueFullError):
                    await tracked.track_event(Event("x"))
        await until(lambda: client.stats().tracked == 20)

        assert len(await pending_records(client)) == 20

    async def test_the_oldest_are_dropped(self, in_postgres: dict[str, Any], connect: Connect, host: Host) -> None:
        """Where the oldest records are dropped, that is done after the commit, and their receipts are told."""
        client = await connect(queue=QueueSettings(max_records=3, when_full="drop_oldest"), **in_postgres)
        first = await client.track_event(Event("first"))
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            await tracked.track_many(numbered_events(3))
            assert first.status == "queued"
        with pytest.raises(DroppedError, match="queue was full"):
            await first.delivered(60)
        await until(lambda: client.stats().tracked == 4)

        assert len(await pending_records(client)) == 3
        assert client.stats().dropped == {"queue_full": 1}


class TestReceipts:
    async def test_another_process_delivers(
        self, in_postgres: dict[str, Any], connect: Connect, host: Host, set_constants: SetConstants, sandbox: Sandbox
    ) -> None:
        """What another process has delivered before this one asks for the outcome is committed, not lost."""
        set_constants(undecided, FIRST_WAIT=0.5)
        client = await connect(**in_postgres)
        other = await connect(**in_postgres)
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            receipt = await tracked.for_customer(ANN).track_event(Event("x"))
        assert (await other.flush_data(60)).delivered == 1
        await receipt.delivered(60)
        await until(lambda: client.stats().tracked == 1)

        assert client.stats().dropped == {}
        assert client.stats().lost == 0

    async def test_an_awaited_receipt_of_a_long_transaction(self, client: Exponea, host: Host) -> None:
        """A receipt that is awaited while the transaction is open is not lost."""
        await host.begin()
        async with client.transaction(host.connection) as tracked:
            receipt = await tracked.track_event(Event("x"))
        waiting = asyncio.create_task(receipt.delivered(60))
        await asyncio.sleep(2.5)
        assert receipt.status == "queued"
        await host.commit()
        await client.flush_data(60)
        await waiting

    async def test_a_receipt_that_is_awaited_within_the_block(self, client: Exponea, host: Host) -> None:
        """It is an error, since the transaction would never end; another task may wait."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            receipt = await tracked.track_event(Event("x"))
            many = await tracked.track_many(numbered_events(200))
            for each in (receipt, many[-1]):
                for wait in (each.delivered, each.decided):
                    with pytest.raises(LifecycleError, match="after the commit"):
                        await wait()
            waiting = asyncio.create_task(receipt.delivered(60))
            await asyncio.sleep(0)
        await client.flush_data(60)
        await waiting
        await many[-1].delivered(60)

    async def test_the_client_closes_first(self, in_postgres: dict[str, Any], connect: Connect, host: Host) -> None:
        """A client that is closed while the transaction is open does not lose its events."""
        client = await connect(**in_postgres)
        await host.begin()
        async with client.transaction(host.connection) as tracked:
            receipt = await tracked.track_event(Event("x"))
        waiting = asyncio.create_task(receipt.delivered(60))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(ClosedError):
            await waiting
        await host.commit()

        later = await connect(**in_postgres)
        assert await names(later) == ["x"]
        assert (await later.flush_data(60)).delivered == 1

    async def test_closing_after_the_commit(self, in_postgres: dict[str, Any], connect: Connect, host: Host) -> None:
        """A client that is closed right after the commit uploads and counts the events."""
        client = await connect(**{**in_postgres, "flush_mode": "IMMEDIATE"})
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            receipt = await tracked.track_event(Event("x"))
        await client.aclose()

        assert receipt.status == "delivered"
        assert client.stats().tracked == 1

    async def test_listeners(
        self, in_postgres: dict[str, Any], connect: Connect, host: Host, deliveries: DeliveryLog
    ) -> None:
        """Listeners are notified of events that were rolled back."""
        client = await connect(hooks=Hooks(listeners=[deliveries]), **in_postgres)
        await host.begin()
        async with client.transaction(host.connection) as tracked:
            receipt = await tracked.track_event(Event("x"))
        await host.rollback()
        await until(lambda: receipt.status == "dropped")

        assert [(each.kind, each.ids, each.reason) for each in deliveries] == [
            ("dropped", receipt.ids, "the transaction was rolled back")
        ]

    async def test_other_processes_are_notified(
        self, in_postgres: dict[str, Any], connect: Connect, host: Host, sandbox: Sandbox
    ) -> None:
        """Another process uploads what was committed in a transaction."""
        client = await connect(**in_postgres)
        await connect(**{**in_postgres, "flush_mode": "IMMEDIATE"})
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            receipt = await tracked.track_event(Event("x"))
        await receipt.delivered(60)


class TestAsOutside:
    """What holds for all events holds in a transaction, too."""

    async def test_the_current_subject(self, client: Exponea, host: Host) -> None:
        """The subject that is bound to the client is the current one, with its properties."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            with client.bind(client.for_customer(ANN), properties={"path": "/"}):
                await tracked.track_event(Event("bound"))
            with client.bind(client.device("phone")):
                await tracked.identify_customer({"registered": "bob"})
                await tracked.track_event(Event("phone"))
            with client.bind(client.nobody()):
                dropped = await tracked.track_event(Event("nobody"))

        records = {each.name: each for each in await pending_records(client)}
        assert dropped.status == "dropped"
        assert "nobody" not in records
        assert (records["bound"].customer_ids, records["bound"].properties["path"]) == (ANN, "/")
        assert records["phone"].customer_ids["registered"] == "bob"

    async def test_no_subject(self, in_postgres: dict[str, Any], connect: Connect, host: Host) -> None:
        """Without a default device, a subject must be named."""
        client = await connect(default_device=False, device=True, **in_postgres)
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            with pytest.raises(RuntimeError, match="No subject is bound"):
                await tracked.track_event(Event("x"))
            await tracked.track_many([(ANN, Event("many"))])

        assert await names(client) == ["many"]

    async def test_hooks_and_defaults(self, in_postgres: dict[str, Any], connect: Connect, host: Host) -> None:
        """The hook changes and drops events, and the default properties are merged into them."""

        def change(event: Event) -> Event | None:
            return None if event.name == "drop" else evolve(event, properties={**event.properties, "hook": 1})

        client = await connect(hooks=Hooks(before_track=change), default_properties={"default": 2}, **in_postgres)
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            await tracked.track_event(Event("keep"))
            assert (await tracked.track_event(Event("drop"))).status == "dropped"

        (record,) = await pending_records(client)
        assert (record.properties["hook"], record.properties["default"]) == (1, 2)
        assert client.stats().dropped == {"before_track": 1}

    async def test_invalid_events(self, in_postgres: dict[str, Any], connect: Connect, host: Host) -> None:
        """Something invalid is raised or dropped, and the transaction goes on."""
        raising, logging = await connect(**in_postgres), await connect(on_invalid="log", **in_postgres)
        async with host.transaction() as connection:
            async with raising.transaction(connection) as tracked:
                with pytest.raises(InvalidEventError):
                    await tracked.track_event(Event("x", {"price": float("nan")}))
            async with logging.transaction(connection) as tracked:
                assert (await tracked.track_event(Event("x", {"price": float("nan")}))).status == "dropped"
                assert (await tracked.for_customer({}).track_event(Event("x"))).status == "dropped"
                await tracked.track_event(Event("valid"))

        assert await names(raising) == ["valid"]

    async def test_withdrawn_consent(self, client: Exponea, host: Host) -> None:
        """Nothing is tracked of those who have withdrawn their consent, and nobody can do so in a transaction."""
        await client.for_customer(ANN).forget()
        await client.device("phone").forget()
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            assert (await tracked.for_customer(ANN).track_event(Event("x"))).status == "dropped"
            assert (await tracked.device("phone").track_event(Event("x"))).status == "dropped"
            for subject in (tracked.for_customer(ANN), tracked.device("other")):
                with pytest.raises(LifecycleError, match="can't be erased in a transaction"):
                    await subject.forget()

        assert await names(client) == []
        assert client.stats().dropped == {"withdrawn": 2}

    async def test_a_stopped_integration(self, client: Exponea, host: Host) -> None:
        """After the integration was stopped everything is dropped."""
        await client.stop_integration(everyone=True)
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            assert (await tracked.track_event(Event("x"))).status == "dropped"
            assert (await tracked.device("phone").track_event(Event("x"))).status == "dropped"

    async def test_stopped_within_the_block(self, client: Exponea, host: Host) -> None:
        """Everything is dropped from the moment at which the integration is stopped."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            await client.stop_integration(everyone=True)
            assert (await tracked.track_event(Event("x"))).status == "dropped"
            assert (await tracked.device("phone").identify_customer(ANN)).status == "dropped"

    async def test_not_started(self, in_postgres: dict[str, Any], configure: Any, host: Host) -> None:
        """A client that is not started, or closed, is an error."""
        client = Exponea(configure(**in_postgres))
        async with host.transaction() as connection:
            with pytest.raises(LifecycleError, match="not started"):
                await enter(client, connection)

    async def test_messages_are_not_loaded(self, client: Exponea, host: Host) -> None:
        """What would wait for the platform is refused."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            with pytest.raises(LifecycleError, match="not available in a transaction"):
                await tracked.fetch_app_inbox()
            with pytest.raises(LifecycleError, match="not available in a transaction"):
                tracked.device("phone").in_app_messages()

    async def test_another_storage(self, connect: Connect, host: Host) -> None:
        """A client whose queue is a file has no part in a transaction."""
        client = await connect()
        async with host.transaction() as connection:
            with pytest.raises(ConfigurationError, match="storage: must be in PostgreSQL"):
                await enter(client, connection)

    async def test_a_reserved_key(self, client: Exponea, host: Host) -> None:
        """The client's own device has no key that could be used."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            with pytest.raises(InvalidEventError, match="belongs to the client"):
                tracked.device("@default")

    async def test_a_switch_to_other_projects(self, client: Exponea, host: Host) -> None:
        """Sessions, tokens, campaigns and identities are recorded as outside."""
        async with host.transaction() as connection, client.transaction(connection) as tracked:
            phone = tracked.device("phone")
            await phone.track_push_token("token")
            await phone.handle_campaign_click("https://shop.example/?xnpe_cmp=1&utm_source=mail")
            await phone.identify_customer(ANN)
            await phone.anonymize()
            await phone.resume()
            await phone.pause()

        assert {"installation", "session_start", "session_end", "customer", "click"} <= set(await names(client))


def test_libraries_are_not_imported() -> None:
    """The storage imports neither SQLAlchemy nor psycopg."""
    program = (
        "import sys, exponea_async, exponea_async.storage.postgres.storage\n"
        "print([name for name in ('sqlalchemy', 'psycopg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "[]\n"


async def test_cancelled_calls(client: Exponea, host: Host) -> None:
    """A call that is cancelled leaves an event with its session, or nothing."""
    assert isinstance(client.configuration, Configuration)
    for delay in range(12):
        await host.begin()
        async with client.transaction(host.connection) as tracked:
            task = asyncio.create_task(tracked.device(f"phone {delay}").track_event(Event("x")))
            await asyncio.sleep(delay * 0.0005)
            task.cancel()
            await asyncio.wait([task])
        try:
            await host.commit()
        except asyncpg.PostgresError:
            await host.rollback()

    found = await names(client)
    assert found.count("x") == found.count("installation") == found.count("session_start")
