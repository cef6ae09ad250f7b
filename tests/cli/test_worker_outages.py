"""
The command ``worker`` while the database is away, and behind a pooler.
"""

import psycopg
from helpers.postgres_server import PostgresServer, StartPostgres
from helpers.waiting import until
from helpers.workers import WorkerProcess, Workers, numbers, record

from exponea_async.sandbox import Sandbox

PASSWORD = "p4ss:word/of@the worker"


def create_worker_role(server: PostgresServer) -> str:
    """Create a role with a password that may create a schema; return its URL."""
    url = server.create_role("worker", PASSWORD)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("GRANT CREATE ON DATABASE postgres TO worker")
    return url


def assert_secret(worker: WorkerProcess, *texts: str) -> None:
    """Check that the password is nowhere, as it is or as it is written in a URL."""
    for text in (worker.log, *texts):
        assert "p4ss" not in text


async def test_a_database_that_is_away_at_the_start(
    workers: Workers, sandbox: Sandbox, own_postgres: StartPostgres
) -> None:
    """The worker waits for a database that is not running yet, says so, and never shows its password."""
    server = own_postgres()
    workers.environment["EXPONEA_STORAGE"] = create_worker_role(server)
    server.stop()
    worker = await workers.start()
    await until(lambda: "can't be looked up" in worker.log)
    reason = await worker.wait_ready(ready=False)
    assert "can't be reached" in reason
    assert (await worker.get("/healthz"))[0] == 200
    assert await worker.metric("worker_ready") == 0
    server.start()
    await worker.wait_ready()
    await record(await workers.producer(), 2)
    await until(lambda: numbers(sandbox) == [0, 1])
    assert await worker.stop() == 0
    assert_secret(worker, reason)


async def test_a_database_that_crashes_and_comes_back(
    workers: Workers, sandbox: Sandbox, own_postgres: StartPostgres
) -> None:
    """The worker goes on when the database is back, with the queues it had and with new ones."""
    server = own_postgres()
    workers.environment["EXPONEA_STORAGE"] = create_worker_role(server)
    client = await workers.producer(queue={"durability": "power"})
    await record(client, 2)
    worker = await workers.start_ready()
    await until(lambda: numbers(sandbox) == [0, 1])
    server.kill()
    reason = await worker.wait_ready(ready=False)
    assert (await worker.get("/healthz"))[0] == 200
    server.start()
    await worker.wait_ready()
    await record(client, 2, 2)
    await record(await workers.producer(app_group="eu"), 2, 4)
    await until(lambda: set(numbers(sandbox)) == set(range(6)))
    assert await worker.stop() == 0
    assert "are served again" in worker.log
    assert_secret(worker, reason)


async def test_a_stop_while_the_database_is_away(workers: Workers, own_postgres: StartPostgres) -> None:
    """SIGTERM ends the worker in time, whatever the database does."""
    server = own_postgres()
    workers.environment["EXPONEA_STORAGE"] = server.url
    await record(await workers.producer(), 1)
    worker = await workers.start_ready()
    server.stop("immediate")
    await worker.wait_ready(ready=False)
    assert await worker.stop() == 0
    assert "The worker has ended" in worker.log


async def test_a_wrong_password(workers: Workers, own_postgres: StartPostgres) -> None:
    """A database that refuses the worker is named, without the password, and tried again."""
    server = own_postgres()
    url = create_worker_role(server)
    workers.environment["EXPONEA_STORAGE"] = url.replace("p4ss", "p4ssx")
    worker = await workers.start()
    reason = await worker.wait_ready(ready=False)
    await until(lambda: "password authentication failed" in worker.log)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("ALTER ROLE worker PASSWORD 'p4ssx:word/of@the worker'")
    await worker.wait_ready()
    assert_secret(worker, reason)


async def test_a_schema_that_is_created_later(workers: Workers, sandbox: Sandbox) -> None:
    """Without the right to create the schema, the worker waits until somebody else has done it."""
    worker = await workers.start(POSTGRES_MIGRATE="false")
    await until(lambda: "db init" in worker.log)
    assert "has no schema" in await worker.wait_ready(ready=False)
    await record(await workers.producer(), 1)
    await until(lambda: numbers(sandbox) == [0])
    await worker.wait_ready()


async def test_a_pooler(workers: Workers, sandbox: Sandbox, pgbouncer_url: str) -> None:
    """The worker works through a pooler that shares connections by transactions."""
    client = await workers.producer()
    workers.environment["EXPONEA_STORAGE"] = pgbouncer_url
    await workers.start_ready(POSTGRES_TRANSACTION_POOLING="true")
    await record(client, 20)
    await until(lambda: numbers(sandbox) == list(range(20)))
