"""
Producers, workers and a PostgreSQL that are killed at random: no event is lost, and none is recorded twice.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import asyncpg
from attrs import define, field
from helpers.postgres_server import PostgresServer, StartPostgres
from helpers.waiting import until

from exponea_async.sandbox import Sandbox

LOG = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
#: How often something is killed, and the seed of what happens.
KILLS = int(os.environ.get("EXPONEA_TEST_KILLS", "8"))
SEED = int(os.environ.get("EXPONEA_TEST_SEED", "1"))
PRODUCERS, WORKERS = 3, 2

#: Starts a client that only records, once the database accepts it.
START = """
import asyncio, os, random, sys
from exponea_async import Configuration, Event, Exponea, QueueSettings, StorageError, UploadSettings

async def start(url, base_url):
    queue = QueueSettings(durability="power", lock_timeout=3.0)
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url=base_url, storage=url,
                                   session_timeout=1.0, queue=queue, upload=UploadSettings(enabled=False)))
    while True:
        try:
            await client.start()
            return client
        except StorageError:
            await asyncio.sleep(0.05)
"""

PRODUCER = (
    START
    + """

async def main(url, base_url, first):
    chance, number = random.Random(first), int(first)
    client = await start(url, base_url)

    async def work():
        nonlocal number
        while True:
            number += 1
            mine, about = number, chance.randrange(12)
            subject = client.device(f"tg:{about}") if about < 8 else client.for_customer({"registered": f"c{about}"})
            try:
                await subject.track_event(Event("ping", {"number": mine}))
            except StorageError:
                await asyncio.sleep(0.05)
            else:
                os.write(1, f"{mine}\\n".encode())
            await asyncio.sleep(chance.random() * 0.02)

    await asyncio.gather(*(work() for _ in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""
)

APPLICATION = (
    START
    + """
import asyncpg

class Rollback(Exception):
    pass

async def main(url, base_url, first):
    chance, number = random.Random(first), int(first)
    client = await start(url, base_url)
    pool = asyncpg.create_pool(url, min_size=0, max_size=8)
    async with pool:

        async def order(mine, subject):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO orders VALUES ($1)", mine)
                async with client.transaction(connection) as tracked:
                    about = tracked.device("tg:1") if subject == 0 else tracked.for_customer({"registered": "c1"})
                    await about.track_event(Event("order", {"number": mine}))
                if chance.random() < 0.5:
                    raise Rollback

        async def work():
            nonlocal number
            while True:
                number += 1
                try:
                    await order(number, chance.randrange(10))
                except (Rollback, StorageError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError,
                        asyncpg.InternalClientError):
                    pass
                os.write(1, b"tried\\n")
                await asyncio.sleep(chance.random() * 0.02)

        await asyncio.gather(*(work() for _ in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""
)


@define
class Machine:
    """A process that is started again when it was killed, and the numbers that it has acknowledged."""

    command: Callable[[int], list[str]]
    environment: dict[str, str]
    folder: Path
    lives: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    files: list[Path] = field(factory=list)

    def start(self) -> None:
        self.files.append(self.folder / f"{id(self)}-{self.lives}.out")
        with self.files[-1].open("wb") as output, self.files[-1].with_suffix(".err").open("wb") as errors:
            command = [sys.executable, *self.command(self.lives)]
            self.process = subprocess.Popen(command, env=self.environment, stdout=output, stderr=errors)
        self.lives += 1

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def lines(self) -> list[bytes]:
        """Return all complete lines that the processes have written."""
        return [line for file in self.files for line in file.read_bytes().split(b"\n")[:-1]]

    def errors(self) -> str:
        """Return the end of what the processes have written to standard error."""
        return "".join(file.with_suffix(".err").read_text()[-2000:] for file in self.files[-2:])


@asynccontextmanager
async def machines(*all_of_them: Machine) -> AsyncIterator[None]:
    """Run processes, and end them all."""
    for machine in all_of_them:
        machine.start()
    try:
        yield
    finally:
        for machine in all_of_them:
            machine.kill()


def worker(server: PostgresServer, sandbox: Sandbox, folder: Path) -> Machine:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "EXPONEA_PROJECT_TOKEN": "shop",
        "EXPONEA_AUTHORIZATION_TOKEN": "key",
        "EXPONEA_BASE_URL": sandbox.url,
        "EXPONEA_STORAGE": server.url,
        "EXPONEA_SESSION_TIMEOUT": "1",
        "EXPONEA_QUEUE_DURABILITY": "power",
        "EXPONEA_UPLOAD_BACKOFF_MAX": "1",
    }
    return Machine(lambda _: ["-m", "exponea_async", "worker", "--drain", "5"], environment, folder)


def program(source: str, index: int, server: PostgresServer, sandbox: Sandbox, folder: Path) -> Machine:
    def command(life: int) -> list[str]:
        return ["-c", source, server.url, sandbox.url, str((index * 1000 + life + 1) * 1_000_000)]

    return Machine(command, {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, folder)


async def kill_at_random(server: PostgresServer, everything: list[Machine], chance: Random) -> Counter[str]:
    """Kill processes and the server, one after the other, and start each again; return how often."""
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        if chance.random() < 0.15:
            killed["server"] += 1
            await asyncio.to_thread(server.kill if chance.random() < 0.5 else lambda: server.stop("immediate"))
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            await asyncio.to_thread(server.start)
        else:
            killed["process"] += 1
            machine = chance.choice(everything)
            await asyncio.to_thread(machine.kill)
            machine.start()
    return killed


async def waiting(server: PostgresServer) -> int:
    """Return the number of records in the queue."""
    connection = await asyncpg.connect(server.url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM exponea_async.record"))
    finally:
        await connection.close()


async def is_empty(server: PostgresServer) -> bool:
    return not await waiting(server)


def sessions(sandbox: Sandbox) -> Counter[str]:
    """Return how many sessions of each device have started and not ended."""
    balance: Counter[str] = Counter()
    for event in sandbox.engine.events():
        if event.event_type in ("session_start", "session_end"):
            balance[event.properties["device_id"]] += 1 if event.event_type == "session_start" else -1
    return balance


async def test_everything_is_killed(own_postgres: StartPostgres, sandbox: Sandbox, tmp_path: Path) -> None:
    """Each acknowledged event arrives once, and each session has an end."""
    server, chance = await asyncio.to_thread(own_postgres), Random(SEED)
    producers = [program(PRODUCER, index, server, sandbox, tmp_path) for index in range(PRODUCERS)]
    workers = [worker(server, sandbox, tmp_path) for _ in range(WORKERS)]
    async with machines(*workers):
        async with machines(*producers):
            await until(lambda: all(machine.lines() for machine in producers))
            killed = await kill_at_random(server, [*producers, *workers], chance)
        acknowledged = {int(line) for machine in producers for line in machine.lines()}
        end = asyncio.get_running_loop().time() + 300
        while not await is_empty(server) or any(sessions(sandbox).values()):
            assert asyncio.get_running_loop().time() < end, workers[0].errors()
            await asyncio.sleep(0.2)
    numbers = Counter(event.properties["number"] for event in sandbox.engine.events(event_type="ping"))

    assert not [number for number, count in numbers.items() if count > 1]
    assert acknowledged <= numbers.keys()
    assert sum(killed.values()) == KILLS
    LOG.info("%d acknowledged, %d delivered, killed: %s", len(acknowledged), len(numbers), dict(killed))


async def test_the_transactions_of_applications(own_postgres: StartPostgres, sandbox: Sandbox, tmp_path: Path) -> None:
    """An event arrives once if the transaction in which it was tracked is committed, and otherwise not at all."""
    server, chance = await asyncio.to_thread(own_postgres), Random(SEED)
    connection = await asyncpg.connect(server.url)
    await connection.execute("CREATE TABLE orders (number integer PRIMARY KEY)")
    await connection.close()
    applications = [program(APPLICATION, index, server, sandbox, tmp_path) for index in range(2)]
    workers = [worker(server, sandbox, tmp_path) for _ in range(WORKERS)]
    async with machines(*workers):
        async with machines(*applications):
            await until(lambda: all(machine.lines() for machine in applications))
            killed = await kill_at_random(server, [*applications, *workers], chance)
        end = asyncio.get_running_loop().time() + 300
        while not await is_empty(server):
            assert asyncio.get_running_loop().time() < end, workers[0].errors()
            await asyncio.sleep(0.2)
    connection = await asyncpg.connect(server.url)
    orders = {row["number"] for row in await connection.fetch("SELECT number FROM orders")}
    await connection.close()
    numbers = Counter(event.properties["number"] for event in sandbox.engine.events(event_type="order"))
    tried = sum(len(machine.lines()) for machine in applications)

    assert numbers == dict.fromkeys(orders, 1)
    assert 0 < len(orders) < tried
    LOG.info("%d transactions, %d committed, %d delivered, killed: %s", tried, len(orders), len(numbers), dict(killed))
