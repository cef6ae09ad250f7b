"""
Clients whose queue is in PostgreSQL: their connections, passwords, projects, and processes that only record.
"""

import asyncio
import copy
import logging
import pickle
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import psycopg
import pytest
import trustme
from attrs import evolve
from helpers.clients import Configure, Connect, DeliveryLog, numbered_events, opened_queue
from helpers.frames import locals_of_error
from helpers.postgres_server import PostgresServer, StartPostgres
from helpers.programs import run_program
from helpers.server_process import account, free_port
from helpers.waiting import running, until, until_succeeds

from exponea_async import (
    Configuration,
    Customer,
    DroppedError,
    Event,
    Exponea,
    FlushResult,
    Hooks,
    LifecycleError,
    PostgresSettings,
    StorageError,
    WipedFileError,
)
from exponea_async.sandbox import Project, Sandbox
from exponea_async.testing import idle, pending_records

PASSWORD = "s3cret/p@ss word"
ONLY_RECORDS = {"enabled": False}


@pytest.fixture
def queue_settings(postgres_url: str, postgres_schema: str) -> dict[str, Any]:
    return {"storage": postgres_url, "postgres": PostgresSettings(schema=postgres_schema)}


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=3) as opened:
        yield opened


class TestPools:
    async def test_a_pool_of_the_application(self, configure: Configure, sandbox: Sandbox, pool: Any) -> None:
        """Clients use the application's own connections, and leave them open and as they were."""
        async with Exponea(configure(storage=pool)) as one, Exponea(configure(storage=pool)) as two:
            with one.bind(one.for_customer({"registered": "jane"})):
                receipts = await one.track_many(numbered_events(20))
            with two.bind(two.for_customer({"registered": "joe"})):
                receipts += await two.track_many(numbered_events(20))
            await asyncio.gather(*(receipt.delivered(60) for receipt in receipts))

        await until(lambda: running() == [])
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
            assert not connection.is_in_transaction()

    async def test_a_pool_that_is_closed(self, configure: Configure, pool: Any) -> None:
        """Calls raise a StorageError once the application has closed its pool, and the client can be closed."""
        settings = configure(storage=pool, flush_mode="MANUAL")
        client = Exponea(evolve(settings, queue=evolve(settings.queue, lock_timeout=0.3)))
        await until_succeeds(client.start, StorageError)
        await asyncio.wait_for(pool.close(), 60)
        with pytest.raises(StorageError):
            await client.for_customer({"registered": "jane"}).track_event(Event("ping"))
        await client.aclose()
        await until(lambda: running() == [])


class TestConfigurations:
    def test_a_copy(self, configure: Configure, postgres_url: str) -> None:
        """Copies, also those of another process, select the same database, and show nothing of the password."""
        storage = postgres_url.replace("//postgres@", f"//postgres:{quote(PASSWORD, safe='')}@")
        settings = configure(storage=storage)
        for each in (settings, copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
            assert (each, str(each.storage)) == (settings, storage)
            assert "s3cret" not in repr(each)

    async def test_the_environment(self, sandbox: Sandbox, postgres_url: str, postgres_schema: str) -> None:
        """All of it can come from variables."""
        variables = {
            "EXPONEA_PROJECT_TOKEN": "shop",
            "EXPONEA_AUTHORIZATION_TOKEN": "key",
            "EXPONEA_BASE_URL": sandbox.url,
            "EXPONEA_STORAGE": postgres_url,
            "EXPONEA_POSTGRES_SCHEMA": postgres_schema,
        }
        async with Exponea(Configuration.from_env(variables)) as client:
            receipt = await client.for_customer({"registered": "jane"}).track_event(Event("ping"))
            await receipt.delivered(60)


class TestSecrets:
    @pytest.mark.parametrize(
        "wrong",
        ["password", "host", "database", "sslmode=never", "sslmode=require", "sslmode=verify-full&sslrootcert=/x"],
    )
    async def test_a_database_that_cannot_be_used(
        self, configure: Configure, own_postgres: StartPostgres, caplog: pytest.LogCaptureFixture, wrong: str
    ) -> None:
        """The error of the start says what is wrong, and has the password nowhere, nor have its frames and the log."""
        caplog.set_level(logging.DEBUG)
        storage = own_postgres().create_role("client", PASSWORD)
        encoded = quote(PASSWORD, safe="")
        if wrong == "password":
            storage = storage.replace(encoded, f"{encoded}2")
        elif wrong == "host":
            storage = f"postgresql://client:{encoded}@127.0.0.1:{free_port()}/postgres"
        elif wrong == "database":
            storage = storage.replace("/postgres", "/missing")
        else:
            storage += f"?{wrong}"
        settings = configure(storage=storage)
        client = Exponea(evolve(settings, queue=evolve(settings.queue, lock_timeout=0.5)))
        with pytest.raises(StorageError, match=r"The database postgresql://127\.0\.0\.1:\d+/") as caught:
            await client.start()

        shown = [str(caught.value), repr(caught.value), caplog.text, repr(client), *locals_of_error(caught.value)]
        assert [each for each in shown if "s3cret" in each] == []
        await until(lambda: running() == [])


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def server(self, own_postgres: StartPostgres, authority: trustme.CA) -> PostgresServer:
        """A server with a certificate for its address."""
        server = own_postgres()
        data = server.folder / "data"
        issued = authority.issue_cert("127.0.0.1")
        for name, content in (
            ("server.crt", issued.cert_chain_pems[0].bytes()),
            ("server.key", issued.private_key_pem.bytes()),
        ):
            (data / name).write_bytes(content)
            (data / name).chmod(0o600)
            if account().name:
                shutil.chown(data / name, account().name)
        with psycopg.connect(server.url, autocommit=True) as connection:
            try:
                connection.execute("ALTER SYSTEM SET ssl = on")
            except psycopg.errors.FeatureNotSupported:
                pytest.skip("This PostgreSQL was built without TLS.")
        server.stop()
        server.start()
        return server

    @pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
    async def test_an_encrypted_connection(
        self, configure: Configure, server: PostgresServer, authority: trustme.CA, tmp_path: Path, mode: str
    ) -> None:
        """The mode and the authority of the URL apply to all connections."""
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        storage = f"{server.url}?sslmode={mode}"
        storage += f"&sslrootcert={tmp_path / 'ca.pem'}" if mode != "require" else ""
        async with Exponea(configure(storage=storage, flush_mode="MANUAL")) as client:
            await client.for_customer({"registered": "jane"}).track_event(Event("ping"))
            with psycopg.connect(server.url, autocommit=True) as connection:

                def encrypted() -> list[bool]:
                    rows = connection.execute(
                        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                        " WHERE client_port > 0 AND pid <> pg_backend_pid()"
                    ).fetchall()
                    return [ssl for (ssl,) in rows]

                # The one that listens is made in the background.
                await until(lambda: len(encrypted()) >= 2)
                assert set(encrypted()) == {True}

    async def test_another_authority(self, configure: Configure, server: PostgresServer, tmp_path: Path) -> None:
        """A server whose certificate was issued by another authority is refused at once, and the error says so."""
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        client = Exponea(configure(storage=f"{server.url}?sslmode=verify-full&sslrootcert={tmp_path / 'ca.pem'}"))
        with pytest.raises(StorageError, match="certificate verify failed"):
            await client.start()


class TestWipes:
    async def test_clearing_while_another_client_runs(self, configure: Configure) -> None:
        """The data is not cleared while any client has the queue open, also one of another process."""
        client = Exponea(configure(flush_mode="MANUAL"))
        await client.start()
        await client.for_customer({"registered": "jane"}).track_event(Event("ping"))
        await client.aclose()
        async with opened_queue(client) as queue:
            with pytest.raises(LifecycleError, match="A client is running"):
                await Exponea.clear_local_customer_data(client.configuration)
            assert (await queue.pending()).waiting == 1
        await Exponea.clear_local_customer_data(client.configuration)
        async with opened_queue(client) as queue:
            assert (await queue.pending()).waiting == 0

    async def test_clearing_where_nothing_is_stored(self, configure: Configure, postgres_url: str) -> None:
        """A schema that does not exist is not created."""
        settings = configure()
        await Exponea.clear_local_customer_data(settings)
        with psycopg.connect(postgres_url) as connection:
            found = connection.execute("SELECT to_regnamespace(%s)", [settings.postgres.schema]).fetchone()
        assert found == (None,)

    async def test_a_stop_elsewhere(self, connect: Connect, deliveries: DeliveryLog) -> None:
        """A client whose data another one has deleted stops, says so, and can be started again."""
        one = await connect(flush_mode="MANUAL", hooks=Hooks(listeners=[deliveries]))
        two = await connect(flush_mode="MANUAL")
        receipt = await one.track_event(Event("ping"))
        assert (await two.stop_integration(everyone=True)).remaining == 1
        # Unless the client has noticed it already, by looking up the receipt.
        with suppress(WipedFileError):
            assert (await one.track_event(Event("late"))).status == "dropped"
        await until(lambda: one.is_stopped and running("exponea_async: end after a wipe") == [])

        assert "wiped" in deliveries.kinds()
        assert receipt.status == "lost"
        assert (await one.track_event(Event("dropped"))).status == "dropped"
        await one.start()
        assert (await one.track_event(Event("again"))).status == "queued"

    async def test_what_waits_is_dropped(self, connect: Connect) -> None:
        """The client that deletes the data tells its own receipts."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("ping"))
        await client.stop_integration(everyone=True)
        with pytest.raises(DroppedError, match="stopped"):
            await receipt.delivered()


class TestQueues:
    async def test_queues_of_one_schema(self, configure: Configure, connect: Connect) -> None:
        """Projects and app groups keep records, devices, statistics and their end apart."""
        settings: list[dict[str, Any]] = [{}, {"app_group": "app"}, {"project_token": "other"}]
        clients = [await connect(device=True, flush_mode="MANUAL", **each) for each in settings]
        cookies = set()
        for number, client in enumerate(clients):
            device = client.device("same")
            await device.identify_customer(Customer({"registered": f"customer {number}"}))
            for _ in range(number + 1):
                await device.track_event(Event("ping"))
            cookies.add(await device.get_customer_cookie())

        assert len(cookies) == 3
        for number, client in enumerate(clients):
            records = await pending_records(client, "ping")
            assert {each.customer_ids["registered"] for each in records} == {f"customer {number}"}
            assert len(records) == number + 1
            async with opened_queue(client) as queue:
                assert (await queue.pending()).waiting == len(await pending_records(client))
        await clients[0].stop_integration(everyone=True)
        assert [client.is_stopped for client in clients] == [True, False, False]
        assert [len(await pending_records(client, "ping")) for client in clients[1:]] == [2, 3]
        assert (await clients[1].device("same").track_event(Event("ping"))).status == "queued"


#: A process that only records, until its events are delivered by another one.
PRODUCER = """
async def main():
    exponea = client(upload=UploadSettings(enabled=False))
    await exponea.start()
    phone = exponea.device("phone")
    await phone.identify_customer(Customer({"registered": "jane"}))
    await (await phone.track_event(Event("first"))).delivered(60)
    await phone.anonymize(ConfigurationChange(ExponeaProject("other", "other-key")))
    receipts = await asyncio.gather(*[phone.track_event(Event("second", {"number": each})) for each in range(50)])
    print(len({receipt.ids for receipt in receipts}))
    await asyncio.gather(*[receipt.delivered(60) for receipt in receipts])
    result = await exponea.flush_data(1)
    print(result.remaining)
    await exponea.aclose()

asyncio.run(main())
"""


class TestProducers:
    @pytest.fixture
    async def sandbox(self) -> AsyncIterator[Sandbox]:
        async with Sandbox(projects=[Project("shop", ["key"]), Project("other", ["other-key"])]) as running:
            yield running

    async def test_another_process_uploads(self, connect: Connect, configure: Configure, sandbox: Sandbox) -> None:
        """
        Receipts of a process that only records are resolved by the uploads of another one, which finds the keys of
        projects to which devices were switched in the queue.
        """
        uploader = await connect()
        ended = await run_program(PRODUCER, sandbox.url, configure())

        assert (ended.code, ended.err, ended.out) == (0, "", "50\n0\n")
        assert len(sandbox.engine.events("other", event_type="second")) == 50
        assert len(sandbox.engine.events("shop", event_type="first")) == 1
        await idle(uploader)
        assert await uploader.flush_data(60) == FlushResult(0, 0, 0)

    async def test_the_uploader_is_woken(self, connect: Connect, sandbox: Sandbox) -> None:
        """What one client records is sent by another one soon, though the first one uploads nothing itself."""
        producer = await connect(upload=ONLY_RECORDS)
        await connect()
        receipt = await producer.track_event(Event("ping"))
        await receipt.delivered(60)
        assert len(sandbox.engine.events(event_type="ping")) == 1
