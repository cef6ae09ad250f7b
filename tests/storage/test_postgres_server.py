"""
The PostgreSQL of the tests: it can be reached, stopped and killed, and keeps what was committed.
"""

from typing import Any

import asyncpg
import pytest
from helpers.postgres_server import PostgresServer, StartPostgres, StopMode


async def fetch(url: str, query: str, *arguments: object) -> object:
    """Return the only value of a query, on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


async def test_the_shared_server_is_reached(postgres_server: PostgresServer, postgres_url: str) -> None:
    """The URL is that of the shared server, which is a version that is supported."""
    assert postgres_url == postgres_server.url
    version = await fetch(postgres_url, "SELECT current_setting('server_version_num')::int")
    assert isinstance(version, int)
    assert version >= 140_000


async def test_a_schema_does_not_exist_before_its_test(postgres_url: str, postgres_schema: str) -> None:
    """The name of the schema is free, and the test may create it."""
    exists = "SELECT count(*) FROM pg_namespace WHERE nspname = $1"
    assert await fetch(postgres_url, exists, postgres_schema) == 0
    await fetch(postgres_url, f"CREATE SCHEMA {postgres_schema}")
    await fetch(postgres_url, f"CREATE TABLE {postgres_schema}.numbers (number int)")
    assert await fetch(postgres_url, exists, postgres_schema) == 1


async def test_schemas_are_dropped_after_their_tests(postgres_url: str) -> None:
    """Nothing is left of the test before this one."""
    assert await fetch(postgres_url, "SELECT count(*) FROM pg_tables WHERE tablename = 'numbers'") == 0


async def insert_again_and_again(connection: Any) -> None:
    """Use a connection of a killed server, whose process answers until it notices that the server is gone."""
    while True:
        await connection.execute("INSERT INTO numbers VALUES (3)")


async def test_a_killed_server_recovers_what_was_committed(own_postgres: StartPostgres) -> None:
    """A kill breaks the connections, and the server starts again with the committed data only."""
    server = own_postgres()
    await fetch(server.url, "CREATE TABLE numbers (number int)")
    await fetch(server.url, "INSERT INTO numbers VALUES (1)")
    connection = await asyncpg.connect(server.url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO numbers VALUES (2)")

    server.kill()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await insert_again_and_again(connection)
    with pytest.raises(OSError):  # noqa: PT011 - each system has another message
        await fetch(server.url, "SELECT 1")

    server.start()
    assert await fetch(server.url, "SELECT array_agg(number) FROM numbers") == [1]
    connection.terminate()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_stopped_server_starts_again(own_postgres: StartPostgres, mode: StopMode) -> None:
    """A server that was stopped has the same URL and the same data when it starts again."""
    server = own_postgres()
    await fetch(server.url, "CREATE TABLE numbers AS SELECT 1 AS number")
    server.stop(mode)
    with pytest.raises(OSError):  # noqa: PT011 - each system has another message
        await fetch(server.url, "SELECT 1")
    server.start()
    assert await fetch(server.url, "SELECT number FROM numbers") == 1


async def test_a_role_needs_its_password(own_postgres: StartPostgres) -> None:
    """A created role connects with its password, and not with another one."""
    server = own_postgres()
    url = server.create_role("shop", "long-secret")
    assert await fetch(url, "SELECT current_user") == "shop"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetch(url.replace("long-secret", "guess"), "SELECT 1")


def test_each_server_is_separate(own_postgres: StartPostgres) -> None:
    """Each server has a folder and a port of its own."""
    first, second = own_postgres(), own_postgres()
    assert first.folder != second.folder
    assert first.url != second.url


async def test_pgbouncer_shares_connections_by_transactions(pgbouncer_url: str) -> None:
    """A client has a connection of the server for one transaction, and another one for the next."""
    first = await asyncpg.connect(pgbouncer_url, statement_cache_size=0)
    second = await asyncpg.connect(pgbouncer_url, statement_cache_size=0)
    async with first.transaction():
        used = await first.fetchval("SELECT pg_backend_pid()")
        other = await second.fetchval("SELECT pg_backend_pid()")
    assert used != other
    assert len({await first.fetchval("SELECT pg_backend_pid()") for _ in range(4)}) > 1
    await first.close()
    await second.close()
