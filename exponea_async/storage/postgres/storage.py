"""
The storage in PostgreSQL: one queue for many machines, with one commit for many callers.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Literal, TypeVar, cast

import asyncpg

from exponea_async.config import PostgresSettings
from exponea_async.errors import StorageError, WipedFileError
from exponea_async.storage.base import (
    DeadLetter,
    Leased,
    Pending,
    Record,
    RecordStatus,
    Settlement,
    State,
    StateChange,
    StateCheck,
    TransactionStorage,
    Waiting,
    Watermark,
    Written,
)
from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.storage.postgres import schema
from exponea_async.storage.postgres.capacity import Capacity
from exponea_async.storage.postgres.clock import ServerClock
from exponea_async.storage.postgres.committer import Committer
from exponea_async.storage.postgres.connection import Connection, Connections, closed_error
from exponea_async.storage.postgres.dead_letters import DeadLetters
from exponea_async.storage.postgres.dropping import drop_excess
from exponea_async.storage.postgres.erasing import erase
from exponea_async.storage.postgres.leases import Leases
from exponea_async.storage.postgres.listening import Listener, Notifier
from exponea_async.storage.postgres.maintenance import Maintenance
from exponea_async.storage.postgres.outbox import HostStorage
from exponea_async.storage.postgres.queries import Queries
from exponea_async.storage.postgres.rate_limits import reserve
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.undecided import UndecidedTransactions
from exponea_async.storage.postgres.wiping import delete_orphans, wipe

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")


class PostgresStorage:
    """
    A queue in a schema of a PostgreSQL database, which other queues may share.

    Concurrent writes of a process share a transaction: each ``write()`` returns when it is committed. Processes on any
    number of machines may open the same queue.

    Args:
        source: The URL of the database, or the application's own pool of connections.
        queue: The name of the queue.
        settings: The name of the schema and the kind of connections.
        durability: ``"process"`` survives the death of this process, ``"power"`` that of the database server, too.
        max_records: The capacity of the queue.
        max_bytes: The same for the size of the records, or None.
        when_full: What happens to a write that exceeds it: ``"raise"``, ``"wait"`` or ``"drop_oldest"``.
        report: Called with a `WipedFileError` when another client has wiped the queue.
        lock_timeout: How long a call waits for the database, in seconds.
    """

    def __init__(
        self,
        source: "str | asyncpg.Pool[Any]",
        queue: str,
        *,
        settings: PostgresSettings | None = None,
        durability: Literal["process", "power"] = "process",
        max_records: int = 1_000_000,
        max_bytes: int | None = None,
        when_full: Literal["raise", "wait", "drop_oldest"] = "raise",
        report: Callable[[StorageError], None] = lambda _: None,
        lock_timeout: float = 5.0,
    ) -> None:
        self._settings = settings or PostgresSettings()
        self._name = queue
        self._report_to = report
        self._is_reported = self._is_open = False
        self._closing: asyncio.Task[None] | None = None
        self._settlements = 0
        self._connections = Connections(source, self._settings, durability=durability, timeout=lock_timeout)
        self._registration = Registration(self._connections, queue)
        self._clock = ServerClock()
        self._capacity = Capacity(
            self._connections,
            self._registration,
            max_records=max_records,
            max_bytes=max_bytes,
            when_full=when_full,
        )
        self._committer = Committer(self._connections, self._registration, self._capacity, self._report)
        self._leases = Leases(self._connections, self._registration, self._clock)
        self._queries = Queries(self._connections, self._registration, self._clock, self._capacity)
        self._undecided = UndecidedTransactions(self._connections, self._queries, self._handle_commits)
        self._dead_letters = DeadLetters(self._connections, self._registration)
        self._maintenance = Maintenance(self._connections, self._registration, self._clock, self._report)
        self._notifier = Notifier(self._connections, self._registration)
        self._subscriber: Callable[[], None] | None = None
        self._listener = self._create_listener(source)

    def _create_listener(self, source: object) -> Listener | None:
        settings = self._settings
        url = settings.listen_url
        if url is None and isinstance(source, str) and not settings.transaction_pooling:
            url = source
        if url is None:
            return None
        return Listener(str(url), self._connections, self._registration, self._publish)

    @property
    def location(self) -> str:
        """The database, the schema and the queue, without secrets."""
        return self._registration.location

    @property
    def commits(self) -> int:
        """The number of transactions committed so far."""
        return self._committer.count + self._settlements

    @property
    def number(self) -> int:
        """The number of this opening."""
        return self._registration.client - 1

    # Life cycle

    async def open(self) -> None:
        """
        Connect, and create or migrate the schema where the settings allow that; opening it again does nothing.

        Raises:
            SchemaError: The schema is missing, or is that of another version.
            StorageError: The database can't be used.
        """
        if self._closing is not None:
            await asyncio.wait([self._closing])
            self._closing = None
        if self._is_open:
            return
        try:
            await self._open()
        except BaseException:
            # A caller whose opening failed or was cancelled does not close.
            await self._abort_opening()
            raise

    async def _abort_opening(self) -> None:
        self._is_open = True
        await self.aclose(0)

    async def _open(self) -> None:
        await self._connections.open()
        await self._connections.attempt(self._prepare_schema)
        await self._registration.open()
        await self._maintenance.measure_clock()
        self._is_reported = False
        self._committer.start()
        self._undecided.start()
        self._maintenance.start()
        self._notifier.start()
        if self._listener is not None:
            self._listener.start()
        self._is_open = True

    async def _prepare_schema(self) -> None:
        name = self._connections.schema
        async with self._connections.acquire() as connection:
            await schema.prepare(connection, name, may_migrate=self._settings.migrate)

    async def aclose(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - see `Storage.aclose`
        """Commit the calls made so far and close the connections; closing it again does nothing."""
        if timeout is not None:
            self._connections.end_within(timeout)
        if self._is_open:
            self._is_open = False
            self._closing = asyncio.create_task(self._close(), name="exponea_async: closing PostgreSQL")
            self._closing.add_done_callback(self._finish_closing)
        if self._closing is not None:
            # Waited for, not awaited: a caller that is cancelled here must not leave connections open.
            await asyncio.wait([self._closing])

    async def _close(self) -> None:
        # The last one is closed first, and the others also where this is cancelled, because the event loop ends.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._connections.aclose)
            stack.push_async_callback(self._end_maintenance)
            if self._listener is not None:
                stack.push_async_callback(self._listener.aclose)
            stack.push_async_callback(self._notifier.aclose)
            stack.push_async_callback(self._undecided.aclose)
            stack.push_async_callback(self._committer.aclose)

    def _finish_closing(self, _: "asyncio.Task[None]") -> None:
        if self._connections.is_open:
            # A task that is cancelled before it has begun does nothing.
            self._committer.refuse()
            self.abandon()

    async def _end_maintenance(self) -> None:
        with suppress(StorageError):
            await self._maintenance.aclose()

    def abandon(self) -> None:
        """Let go of the connections without waiting: the event loop has ended, and the calls with it."""
        self._is_open, self._closing = False, None
        self._committer.abandon()
        self._maintenance.abandon()
        self._undecided.abandon()
        self._notifier.abandon()
        if self._listener is not None:
            self._listener.abandon()
        self._connections.abandon()

    def _publish(self) -> None:
        if self._subscriber is not None:
            self._subscriber()

    def _report(self, error: StorageError) -> None:
        if isinstance(error, WipedFileError) and not self._is_reported:
            self._is_reported = True
            asyncio.get_running_loop().call_soon(self._report_to, error)

    def _check_open(self) -> None:
        if not self._is_open:
            raise closed_error()

    # Transactions of the application

    def within(self, connection: object, on_rollback: Callable[[tuple[str, ...]], None]) -> TransactionStorage:
        """Return a storage that writes in the transaction of the application."""
        self._check_open()
        host = HostStorage(
            self,
            connection,
            connections=self._connections,
            registration=self._registration,
            capacity=self._capacity,
            undecided=self._undecided,
            on_rollback=on_rollback,
        )
        # What it does not have itself it takes from this one.
        return cast("TransactionStorage", host)

    async def _handle_commits(self) -> tuple[str, ...]:
        """Tell other processes that there are new records, and delete what exceeds the capacity."""
        self._notifier.notify()
        if self._capacity.when_full != "drop_oldest":
            return ()

        async def work(connection: Connection) -> tuple[str, ...]:
            return await drop_excess(connection, self._connections, self._registration, self._capacity)

        # Commits write the same row of counters.
        async with self._committer.lock:
            return await self._connections.change(work)

    # The protocol

    async def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck] = (),
        on_commit: Callable[[Written], None] | None = None,
    ) -> Written:
        """Write records and states, in one commit with the writes of other callers."""
        written = await self._committer.write(records, states, on_commit)
        if records:
            self._notifier.notify()
        return written

    async def lease(
        self,
        limit: int,
        seconds: float,
        now: float,
        *,
        skip: Iterable[str] = (),
        only: str | None = None,
        untouched_first: bool = False,
    ) -> list[Leased]:
        """Lease due records."""
        self._check_open()
        return await self._leases.lease(limit, seconds, now, skip=skip, only=only, untouched_first=untouched_first)

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Store the outcome of leased records."""
        self._check_open()
        count = await self._leases.settle(settlements)
        self._settlements += 1
        self._committer.wake()
        return count

    async def find(self, ids: Iterable[str]) -> dict[str, RecordStatus]:
        """Return what became of records, by id."""
        self._check_open()
        # Asked first: a transaction that is decided in between is found in the queue.
        wanted = list(ids)
        undecided = dict.fromkeys(self._undecided.among(wanted), RecordStatus("queued"))
        return {**undecided, **await self._queries.find(wanted)}

    async def watermark(self) -> Watermark:
        """Return the watermark of all records written so far."""
        self._check_open()
        return await self._queries.watermark()

    async def remaining(self, watermark: Watermark, *, skip: Iterable[str] = (), at_most: int | None = None) -> int:
        """Return how many records at or below a watermark are still in the queue."""
        self._check_open()
        return await self._queries.remaining(watermark, frozenset(skip), at_most)

    async def pending(self) -> Pending:
        """Return the number of records."""
        self._check_open()
        try:
            return await self._queries.pending()
        except WipedFileError as error:
            self._report(error)
            raise

    async def waiting(self, limit: int) -> list[Waiting]:
        """Return the oldest records of the queue."""
        self._check_open()
        return await self._queries.waiting(limit)

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        self._check_open()
        return await self._queries.dead(limit)

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters back into the queue."""
        self._check_open()
        return await self._dead_letters.revive(ids)

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters."""
        self._check_open()
        return await self._dead_letters.purge(ids)

    async def prune(self, *, max_count: int | None = None, before: float = 0.0) -> tuple[str, ...]:
        """Delete the oldest dead letters."""
        self._check_open()
        return await self._dead_letters.prune(max_count, before)

    async def rename_route(self, old: str, new: str) -> None:
        """Give the records of a route another one."""
        self._check_open()
        await self._dead_letters.rename_route(old, new)

    async def drop_waiting(self, routes: Iterable[str]) -> int:
        """Delete the records of some routes."""
        self._check_open()
        count = await self._dead_letters.drop_waiting(routes)
        self._committer.wake()
        return count

    async def erase(self, erasure: Erasure) -> Erased:
        """Erase records, dead letters and states."""
        self._check_open()

        async def work(connection: Connection) -> Erased:
            return await erase(connection, self._connections, self._registration, erasure)

        # Behind the writes of calls that were made before, so that the erasure includes them.
        await self._committer.write((), ())
        erased = await self._connections.change(work)
        self._committer.wake()
        return erased

    async def reserve(self, name: str, count: int, rate: float) -> float:
        """Reserve requests of a rate limit that all clients of the schema share."""
        self._check_open()
        return await reserve(self._connections, name, count, rate)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Let a function be called when another process has written records."""
        self._subscriber = callback

    async def load_state(self, key: str) -> State | None:
        """Return a state, or None."""
        self._check_open()
        return await self._queries.load_state(key)

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """Return the states whose last activity is before a time."""
        self._check_open()
        return await self._queries.expired_sessions(before, limit)

    async def generation(self) -> int:
        """Return the number that identifies the content of the queue."""
        self._check_open()
        return await self._queries.generation()

    async def compact(self) -> int:
        """Return 0: the server reuses the space of deleted rows, and gives it back by itself."""
        self._check_open()
        return 0

    async def wipe(self) -> None:
        """Delete everything of the queue; also while the storage is closed."""
        if not self._is_open:
            await self._connections.open()
            try:
                await wipe(self._connections, self._name)
                await delete_orphans(self._connections)
            finally:
                await self._connections.aclose()
            return
        async with self._committer.lock:
            generation = await wipe(self._connections, self._name)
            self._registration.generation = generation or 0
            await self._registration.load_routes()
            self._registration.discard_blocks()
        self._committer.wake()
        # Writers need not wait for it.
        await delete_orphans(self._connections)


async def wipe_unused_queue(
    source: "str | asyncpg.Pool[Any]", queue: str, settings: PostgresSettings, lock_timeout: float
) -> None:
    """
    Delete everything of a queue, unless a client has it open; a schema that does not exist is not created.

    Args:
        source: The URL of the database, or a pool of connections.
        queue: The name of the queue.
        settings: The name of the schema and the kind of connections.
        lock_timeout: How long to wait for the database, in seconds.

    Raises:
        LifecycleError: A client has the queue open; nothing was deleted.
        StorageError: The database refused.
    """
    connections = Connections(source, settings, durability="power", timeout=lock_timeout)
    await connections.open()
    try:
        async with connections.acquire() as connection:
            found = await schema.status(connection, settings.schema)
        if found is not None:
            await wipe(connections, queue, only_if_unused=True)
            await delete_orphans(connections)
    finally:
        await connections.aclose()
