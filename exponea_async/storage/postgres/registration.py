"""
The row of an open client: its number, its commits, and the generation of the queue that it has opened.
"""

import asyncio
import random

from exponea_async.errors import WipedFileError
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.schema import ROUTE_SHIFT

#: Numbers of records that a client reserves at once for a route.
BLOCK = 1000
#: A client whose row has not been updated for this time is not running any more, in seconds.
GONE_AFTER = 60.0

CREATE_QUEUE = "INSERT INTO {s}.queue (name, generation) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"
FIND_QUEUE = "SELECT id, generation FROM {s}.queue WHERE name = $1"
REGISTER = """
    INSERT INTO {s}.client (id, queue) SELECT nextval('{s}.client_number'), $1 RETURNING id
"""
FIND_ROUTES = "SELECT id, name FROM {s}.route WHERE queue = $1 ORDER BY id"
CREATE_ROUTE = "INSERT INTO {s}.route (queue, name) VALUES ($1, $2) RETURNING id"
RESERVE_BLOCK = """
    UPDATE {s}.route SET next = next + $2 WHERE id = $1 AND queue = $3 AND name = $4 RETURNING next - $2
"""
GENERATION = "SELECT generation FROM {s}.queue WHERE id = $1"


class Registration:
    """
    What a client has in the database while it is open.

    Args:
        connections: The connections.
        name: The name of the queue.

    Attributes:
        location: The database, the schema and the queue, without secrets.
        queue: The number of the queue.
        generation: The generation of the queue when it was opened.
        client: The number of the client, which no other opening has.
        commit: The number of the client's last commit.
        routes: The names of the queue's routes, by number, as far as they are known.
    """

    def __init__(self, connections: Connections, name: str) -> None:
        self._connections = connections
        self._name = name
        self.location = f"{connections.location} (schema {connections.schema}, queue {name})"
        self.queue = 0
        self.generation = 0
        self.client = 0
        self.commit = 0
        self.routes: dict[int, str] = {}
        # The route that new records of a name get, and the ids that are left in its block.
        self._numbers: dict[str, int] = {}
        self._blocks: dict[int, tuple[int, int]] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Find or create the queue, and register a client."""
        self._lock = asyncio.Lock()
        await self._connections.change(self._open, durable=True)

    async def _open(self, connection: Connection) -> None:
        sql = self._connections.sql
        found = await connection.fetchrow(sql(FIND_QUEUE), self._name)
        if found is None:
            await connection.execute(sql(CREATE_QUEUE), self._name, new_generation())
            found = await connection.fetchrow(sql(FIND_QUEUE), self._name)
        self.queue, self.generation = found["id"], found["generation"]
        await self._register(connection)

    async def _register(self, connection: Connection) -> None:
        sql = self._connections.sql
        self.client = await connection.fetchval(sql(REGISTER), self.queue)
        self.commit = 0
        await self.read_routes(connection)
        self.discard_blocks()

    async def renew(self, since: float | None = None) -> None:
        """
        Register the client anew: its row is gone, since it did not run for a while, or is held by a lost connection.

        Args:
            since: When the call was made for which it is done, in monotonic time.

        Raises:
            WipedFileError: The queue was wiped.
            StorageError: The database refused.
        """
        await self.check_generation(since)
        await self._connections.change(self._register, durable=True, since=since)

    async def check_generation(self, since: float | None = None) -> None:
        """
        Do nothing if the content of the queue is still the one that was opened.

        Raises:
            WipedFileError: The queue was wiped.
        """
        rows = await self._connections.fetch(GENERATION, self.queue, since=since)
        if not rows or rows[0]["generation"] != self.generation:
            raise WipedFileError(self.location)

    # Routes

    async def load_routes(self) -> None:
        """Load the routes again: another process may have created or renamed some."""
        await self._connections.change(self.read_routes)

    async def read_routes(self, connection: Connection) -> None:
        """Do so on a connection within a transaction."""
        rows = await connection.fetch(self._connections.sql(FIND_ROUTES), self.queue)
        self.routes = {row["id"]: row["name"].decode(errors="surrogatepass") for row in rows}
        self._numbers = {name: number for number, name in self.routes.items()}

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of all routes with a name."""
        return [number for number, each in self.routes.items() if each == name]

    # Ids

    def discard_blocks(self) -> None:
        """Reserve all ids anew: a server that has lost its last commits may give reserved ones to others."""
        self._blocks.clear()

    async def reserve_ids(self, name: str, count: int, since: float | None = None) -> list[int]:
        """
        Return ids for new records of a route, in ascending order.

        Args:
            name: The name of the route.
            count: The number of ids.
            since: When the call was made for which it is done, in monotonic time.

        Raises:
            StorageError: The database refused.
        """
        ids: list[int] = []
        while len(ids) < count:
            number = self._numbers.get(name)
            start, end = self._blocks.get(number, (0, 0)) if number is not None else (0, 0)
            if start >= end:
                await self._reserve(name, count - len(ids), since)
                continue
            taken = min(end, start + count - len(ids))
            ids += range(start, taken)
            self._blocks[start >> ROUTE_SHIFT] = (taken, end)
        return ids

    async def _reserve(self, name: str, count: int, since: float | None) -> None:
        async with self._lock:
            number = self._numbers.get(name)
            block = self._blocks.get(number, (0, 0)) if number is not None else (0, 0)
            if block[0] >= block[1]:
                # Durable, whatever the settings say: no other client may get the same ids after the server has crashed.
                created, first, size = await self._connections.change(
                    lambda connection: self._reserve_block(connection, name, count), durable=True, since=since
                )
                # Only now: what is rolled back must not be used, and the records of a route without a row were lost.
                self.routes[created], self._numbers[name] = name, created
                self._blocks[created] = (first, first + size)

    async def _reserve_block(self, connection: Connection, name: str, count: int) -> tuple[int, int, int]:
        """Return the number of a route, which is created if there is none, and the first id and the size of a block."""
        sql, size = self._connections.sql, max(BLOCK, count)
        block = size, self.queue, encode_name(name)
        if name not in self._numbers:
            await self.read_routes(connection)
        number = self._numbers.get(name)
        first = None if number is None else await connection.fetchval(sql(RESERVE_BLOCK), number, *block)
        if number is None or first is None:
            number = int(await connection.fetchval(sql(CREATE_ROUTE), self.queue, encode_name(name)))
            first = await connection.fetchval(sql(RESERVE_BLOCK), number, *block)
        return number, first + (number << ROUTE_SHIFT), size


def encode_name(name: str) -> bytes:
    """Return the name of a route as it is stored."""
    return name.encode(errors="surrogatepass")


def new_generation() -> int:
    """Return a number for the content of a queue, which no other content has."""
    return random.getrandbits(62)
