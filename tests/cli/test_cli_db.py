"""
The command ``db``, and the rights of roles.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from attrs import evolve, frozen
from helpers.command_line import Result, run
from helpers.environment import Environment
from helpers.postgres_server import PostgresServer
from psycopg import sql

from exponea_async import Configuration, Event, Exponea, FlushMode, PostgresSettings, StorageError, UploadSettings
from exponea_async.errors import SchemaError
from exponea_async.sandbox import Sandbox
from exponea_async.storage.base import Record, RecordStatus, Settlement, StateChange, StateCheck
from exponea_async.storage.postgres.storage import PostgresStorage
from exponea_async.storage.sqlite.storage import SQLiteStorage

JANE = {"registered": "jane@example.com"}
PASSWORD = "pa55-of-the-role"


@frozen
class Database:
    """A database with a schema that does not exist yet."""

    server: PostgresServer
    schema: str

    def run(self, *args: str | Path) -> Result:
        """Run a command, and check that it does not print a password."""
        result = run("db", *args)
        assert PASSWORD not in result.out + result.err
        return result

    def query(self, statement: str) -> Any:
        """Run a statement as the administrator, and return its first value."""
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            return connection.execute(statement.replace("{s}", self.schema).encode()).fetchone()

    def execute(self, statement: str) -> None:
        """Run a statement as the administrator."""
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(statement.replace("{s}", self.schema).encode())


@pytest.fixture
def database(postgres_server: PostgresServer, postgres_schema: str, environment: Environment) -> Database:
    """A database with a schema that does not exist yet, in the environment's settings."""
    environment(EXPONEA_STORAGE=postgres_server.url, EXPONEA_POSTGRES_SCHEMA=postgres_schema)
    return Database(postgres_server, postgres_schema)


@pytest.fixture
def create_role(database: Database) -> Iterator[Callable[[], tuple[str, str]]]:
    """Creates roles without rights, and returns the name and the URL of each."""
    names: list[str] = []

    def create() -> tuple[str, str]:
        name = f"role {secrets.token_hex(6)}"
        url = database.server.create_role(name, PASSWORD)
        names.append(name)
        return name, url

    yield create
    with psycopg.connect(database.server.url, autocommit=True) as connection:
        for name in names:
            identifier = sql.Identifier(name)
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(identifier))
            connection.execute(sql.SQL("DROP ROLE {}").format(identifier))


def settings(url: str, schema: str, base_url: str = "http://127.0.0.1:9", **postgres: Any) -> Configuration:
    return Configuration(
        project_token="shop",
        authorization_token="key",
        base_url=base_url,
        storage=url,
        postgres=PostgresSettings(schema=schema, **postgres),
        flush_mode=FlushMode.MANUAL,
    )


class TestSchema:
    """Creating and showing the schema."""

    def test_init(self, database: Database) -> None:
        """``init`` creates the schema, and does nothing where it is current."""
        assert database.run("init", "--json").json == {
            "schema": database.schema,
            "version": 1,
            "migrations": 1,
            "granted": [],
        }
        again = database.run("init")
        assert (again.code, again.err) == (0, "")
        assert "migrations" in again.out
        assert database.run("init", "--json").json["migrations"] == 0

    def test_status(self, database: Database) -> None:
        """``status`` fails without a schema, and lists the queues with their sizes and clients."""
        missing = database.run("status")
        assert missing.code == 1
        assert "Run 'exponea-async db init' once." in missing.err
        database.run("init")
        empty = database.run("status", "--json")
        assert (empty.code, empty.json["current"], empty.json["queues"]) == (0, True, [])

        async def track() -> Result:
            async with Exponea(settings(database.server.url, database.schema)) as exponea:
                await exponea.for_customer(JANE).track_event(Event("a"))
                result = await asyncio.to_thread(database.run, "status", "--json")
                await exponea.aclose(0)
                return result

        (queue,) = asyncio.run(track()).json["queues"]
        assert queue.pop("size") > 80
        assert queue == {"name": "shop", "waiting": 1, "leased": 0, "dead": 0, "clients": 1}
        assert "shop" in database.run("status").out

    @pytest.mark.parametrize(("version", "advice"), [(0, "Run 'exponea-async db migrate'."), (99, "Update exponea")])
    def test_other_versions(self, database: Database, version: int, advice: str) -> None:
        """``status`` fails for a schema of another version, and says what to do."""
        database.run("init")
        database.execute(f"UPDATE {{s}}.meta SET version = {version}")
        result = database.run("status")
        assert result.code == 1
        assert advice in result.err

    def test_migrate(self, database: Database) -> None:
        """``migrate`` needs a schema, and does nothing where it is current."""
        assert database.run("migrate").code == 1
        database.run("init")
        assert database.run("migrate", "--json").json["migrations"] == 0
        assert database.run("migrate", "--sql").out == "BEGIN;\nCOMMIT;\n"

    def test_sql(self, database: Database) -> None:
        """``--sql`` prints what an administrator can apply, and changes nothing."""
        script = database.run("init", "--sql", "--grant", "postgres").out
        assert database.run("status").code == 1
        database.execute(script)
        assert database.run("status").code == 0

    def test_not_a_database(self, environment: Environment, tmp_path: Path) -> None:
        """Without a database there is a clear error."""
        environment(EXPONEA_STORAGE=tmp_path / "queue.sqlite")
        for action in ("init", "migrate", "status"):
            result = run("db", action)
            assert result.code == 2
            assert "must be the URL of a PostgreSQL database" in result.err
        assert not list(tmp_path.iterdir())

    def test_options(self, database: Database, environment: Environment) -> None:
        """The database and the schema can be given; a password can't, and is not repeated."""
        environment(EXPONEA_STORAGE="", EXPONEA_POSTGRES_SCHEMA="")
        given = ("--storage", database.server.url, "--schema", database.schema)
        assert database.run("init", *given).code == 0
        assert database.run("status", *given).code == 0
        for url in (f"postgresql://me:{PASSWORD}@127.0.0.1/x", f"postgresql://127.0.0.1/x?password={PASSWORD}"):
            refused = database.run("status", "--storage", url)
            assert refused.code == 2
            assert "visible to other users" in refused.err

    def test_unreachable(self, environment: Environment) -> None:
        """A database that can't be reached is an error within the limit, without the password."""
        environment(
            EXPONEA_STORAGE=f"postgresql://me:{PASSWORD}@127.0.0.1:9/x",
            EXPONEA_QUEUE_LOCK_TIMEOUT="0.2",
        )
        result = run("db", "status")
        assert result.code == 1
        assert "can't be reached" in result.err
        assert PASSWORD not in result.err


class TestRoles:
    """Clients under roles with the least rights."""

    async def test_uploader(self, database: Database, create_role: Callable[[], tuple[str, str]]) -> None:
        """An uploader records, sends, and maintains the queue; it neither creates nor changes a schema."""
        role, url = create_role()
        await asyncio.to_thread(database.run, "init", "--grant", role)
        async with Sandbox() as sandbox:
            async with Exponea(settings(url, database.schema, sandbox.url)) as exponea:
                await exponea.track_event(Event("a"))
                await exponea.identify_customer(JANE)
                assert (await exponea.flush_data(60)).remaining == 0
                await exponea.for_customer(JANE).track_event(Event("b"))
                await exponea.stop_integration()
            assert "a" in {event.event_type for event in sandbox.engine.events("shop")}
        with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(url) as connection:
            connection.execute(f"CREATE TABLE {database.schema}.x ()".encode())

    async def test_without_rights(
        self, database: Database, create_role: Callable[[], tuple[str, str]], environment: Environment
    ) -> None:
        """A role that may not create the schema is told which right is missing."""
        _, url = create_role()
        environment(EXPONEA_STORAGE=url)
        result = await asyncio.to_thread(database.run, "init")
        assert (result.code, "needs CREATE on the database" in result.err) == (1, True), result.err

    async def test_producer(self, database: Database, create_role: Callable[[], tuple[str, str]]) -> None:
        """A producer records and remembers devices, but can neither read nor delete the events that wait."""
        role, url = create_role()
        await asyncio.to_thread(database.run, "init", "--grant-producer", role)
        configuration = evolve(settings(url, database.schema), upload=UploadSettings(enabled=False))
        async with Exponea(configuration) as exponea:
            await exponea.track_event(Event("a"))
            await exponea.identify_customer(JANE)
            assert (await exponea.health()).is_ready
        async with Exponea(configuration) as exponea:
            await exponea.track_event(Event("b"))
        storage = PostgresStorage(url, "shop", settings=PostgresSettings(schema=database.schema), lock_timeout=60.0)
        await storage.open()
        try:
            await self._record(storage)
            with pytest.raises(StorageError, match="permission denied"):
                await storage.lease(1, 60, time.time())
            with pytest.raises(StorageError, match="permission denied"):
                await storage.wipe()
        finally:
            await storage.aclose()
        assert len(database.query("SELECT count(*) FROM {s}.record")) == 1
        for statement in ("SELECT body FROM {s}.record", "DELETE FROM {s}.record", "TRUNCATE {s}.state"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(url) as connection:
                connection.execute(statement.replace("{s}", database.schema).encode())

    async def test_commands(
        self, database: Database, create_role: Callable[[], tuple[str, str]], environment: Environment, tmp_path: Path
    ) -> None:
        """An uploader may move a file, and maintain the queue by commands."""
        role, url = create_role()
        await asyncio.to_thread(database.run, "init", "--grant", role)
        storage = SQLiteStorage(tmp_path / "queue.sqlite")
        await storage.open()
        await storage.write([Record("shop", b"{}", time.time())], [StateChange("k", b"1", 0)])
        (leased,) = await storage.lease(1, 60, time.time())
        await storage.settle([Settlement((leased.id,), "dead", reason="refused")])
        await storage.write([Record("shop", b"{}", time.time())])
        await storage.aclose()
        environment(EXPONEA_STORAGE=url, EXPONEA_PROJECT_TOKEN="shop")
        for command in (
            ("move", str(tmp_path / "queue.sqlite")),
            ("revive", "--all"),
            ("stats",),
            ("purge", "--all", "--yes"),
            ("retarget", "shop", "mall", "--yes"),
            ("drop-project", "mall", "--yes"),
        ):
            result = await asyncio.to_thread(run, "queue", *command)
            assert (result.code, PASSWORD in result.err) == (0, False), (command, result.err)

    async def test_transaction(self, database: Database, create_role: Callable[[], tuple[str, str]]) -> None:
        """A producer may record within a transaction of the application."""
        role, url = create_role()
        await asyncio.to_thread(database.run, "init", "--grant-producer", role)
        configuration = evolve(settings(url, database.schema), upload=UploadSettings(enabled=False))
        async with Exponea(configuration) as exponea:
            connection = await asyncpg.connect(url)
            try:
                async with connection.transaction(), exponea.transaction(connection) as tracked:
                    await tracked.track_event(Event("in a transaction"))
            finally:
                await connection.close()
        assert database.query("SELECT count(*) > 0 FROM {s}.record") == (True,)

    async def _record(self, storage: PostgresStorage) -> None:
        """Call everything that a client which only records may need."""
        (key,) = (await storage.write([Record("shop", b"x", time.time())], [StateChange("k", b"1", 0, active=1.0)])).ids
        await storage.write([], [StateChange("k", b"2", 1, active=1.0)])
        await storage.write([], [StateCheck("k", 2, active=2.0)])
        assert await storage.expired_sessions(3.0, 10)
        await storage.write([], [StateChange("k", None, 2)])
        await storage.write([], [StateChange("k", b"3", 0)])
        assert await storage.load_state("k")
        assert (await storage.pending()).oldest_at
        assert await storage.find([key, "1"]) == {key: RecordStatus("queued")}
        assert await storage.remaining(await storage.watermark())
        assert await storage.generation()

    async def test_no_schema(self, database: Database, create_role: Callable[[], tuple[str, str]]) -> None:
        """A role that may not create the schema gets an error that says who has to."""
        _, url = create_role()
        with pytest.raises(StorageError, match="db init"):
            await Exponea(settings(url, database.schema)).start()
        with pytest.raises(SchemaError, match="db init"):
            await Exponea(settings(url, database.schema, migrate=False)).start()

    async def test_no_rights(self, database: Database, create_role: Callable[[], tuple[str, str]]) -> None:
        """A role without rights on the schema gets an error that says so."""
        _, url = create_role()
        await asyncio.to_thread(database.run, "init")
        with pytest.raises(StorageError, match="permission denied") as caught:
            await Exponea(settings(url, database.schema)).start()
        assert "--grant" in caught.value.hint

    async def test_owner(self, database: Database, create_role: Callable[[], tuple[str, str]]) -> None:
        """A role that owns an empty schema needs no right to create schemas."""
        role, url = create_role()
        await asyncio.to_thread(database.execute, f'CREATE SCHEMA {{s}} AUTHORIZATION "{role}"')
        async with Exponea(settings(url, database.schema)) as exponea:
            await exponea.for_customer(JANE).track_event(Event("a"))
            await exponea.aclose(0)
        assert database.query("SELECT count(*) FROM {s}.record") == (1,)

    def test_unknown_role(self, database: Database) -> None:
        """A role that does not exist is an error, and the schema can be created again."""
        result = database.run("init", "--grant", "nobody here")
        assert result.code == 1
        assert 'role "nobody here" does not exist' in result.err
