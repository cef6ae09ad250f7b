"""
Connections to PostgreSQL: opened again after a loss, each call within a limited time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from ssl import SSLCertVerificationError
from typing import Any, TypeAlias, TypeVar
from weakref import WeakSet

import asyncpg

from exponea_async.config import PostgresSettings, database_address
from exponea_async.errors import StorageError
from exponea_async.storage.postgres.tasks import BackgroundTask

T = TypeVar("T")
#: asyncpg has no types.
Connection: TypeAlias = Any

#: The first and the longest wait between two attempts, in seconds.
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0
#: How long a connection is waited for whose statement was interrupted, in seconds. It is closed if it takes longer.
RECOVERY_TIMEOUT = 2.0
#: The share of the time of a call that its first attempt may take: its connection may be dead without a sign of it.
FIRST_SHARE = 0.5
#: After this time without a statement, the server ends an open transaction, in seconds: its client may be gone.
SET_IDLE_LIMIT = "SET LOCAL idle_in_transaction_session_timeout = '10s'"
#: Errors of the server that end a connection: what was done on it last may be committed or not.
LOSSES = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)
#: Errors that go away by themselves, so that a statement is tried again.
RETRYABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    # Of a connection that the server ends just then.
    asyncpg.InternalClientError,
    *LOSSES,
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # A standby that is about to take over.
    asyncpg.ReadOnlySQLTransactionError,
)
#: Errors among them that do not go away.
MISCONFIGURED = (asyncpg.exceptions.ClientConfigurationError, SSLCertVerificationError)


class Connections:
    """
    The connections of one client: a pool of its own, or that of the application.

    Args:
        source: The URL of the database, or the application's pool.
        settings: The name of the schema and the kind of connections.
        durability: What a commit survives: ``"process"`` or ``"power"``.
        timeout: How long a call waits for the database, in seconds.

    Attributes:
        location: The database, without secrets.
        schema: The name of the schema.
    """

    def __init__(
        self, source: "str | asyncpg.Pool", settings: PostgresSettings, *, durability: str, timeout: float
    ) -> None:
        self._source = source
        self._settings = settings
        self._timeout = timeout
        self._pool: asyncpg.Pool | None = None
        self._closing_at: float | None = None
        # As many calls as the pool has connections. The others wait here, where they can be interrupted.
        self._slots = asyncio.Semaphore(1)
        self._returning: set[asyncio.Task[None]] = set()
        self._limits: set[asyncio.Timeout] = set()
        self._guard = BackgroundTask(self._wait_for_end, "exponea_async: connections")
        self._is_closing = True
        self._open_connections: WeakSet[Connection] = WeakSet()
        self._statements: dict[str, str] = {}
        self.schema = settings.schema
        self.location = database_address(source) if isinstance(source, str) else "PostgreSQL"
        # No sequential scans: statistics of tables that were empty a moment ago would lead to them. Outside
        # transactions, `_avoid_scans` does the same.
        begin = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL enable_seqscan = off; {SET_IDLE_LIMIT}"
        self._begin_statements = {
            False: f"{begin}; SET LOCAL synchronous_commit = off",
            True: f"{begin}; SET LOCAL synchronous_commit = on",
        }
        self.is_synchronous = durability == "power"
        self.keeps_transactions = settings.transaction_pooling

    @property
    def is_own(self) -> bool:
        """Whether the connections are the client's own."""
        return isinstance(self._source, str)

    @property
    def is_open(self) -> bool:
        """Whether there is a pool."""
        return self._pool is not None

    @property
    def pool(self) -> asyncpg.Pool:
        """
        The pool, which others may share.

        Raises:
            StorageError: It is not open.
        """
        if self._pool is None:
            raise closed_error()
        return self._pool

    def sql(self, statement: str) -> str:
        """Return a statement with the name of the schema in place of ``{s}``."""
        known = self._statements.get(statement)
        if known is None:
            known = self._statements[statement] = statement.replace("{s}", self.schema)
        return known

    # Life cycle

    async def open(self) -> None:
        """
        Connect.

        Raises:
            StorageError: The database can't be reached, or refuses the connection.
        """
        self._closing_at = None
        if isinstance(self._source, str):
            await self.attempt(self._create_pool)
            self._slots = asyncio.Semaphore(self._settings.max_connections)
        else:
            self._pool = self._source
            self._slots = asyncio.Semaphore(max(1, self._source.get_max_size()))
        self._is_closing = False
        self._guard.start()

    async def _create_pool(self) -> None:
        pool = asyncpg.create_pool(
            str(self._source),
            # asyncpg would log a traceback for each attempt to restore a minimum.
            min_size=0,
            max_size=self._settings.max_connections,
            reset=_keep_session,
            timeout=self._timeout,
            statement_cache_size=0 if self._settings.transaction_pooling else 200,
            init=self._prepare,
        )
        try:
            self._pool = await pool
        except BaseException:
            pool.terminate()
            raise

    async def _prepare(self, connection: Connection) -> None:
        self._open_connections.add(connection)
        if self._settings.transaction_pooling:
            return
        try:
            # The pool limits only the time for making the connection. It would never get one back that waits here.
            async with self.limit(self._timeout):
                await _avoid_scans(connection)
        except BaseException:
            # asyncpg would wait for a server that does not answer.
            connection.terminate()
            raise

    async def aclose(self) -> None:
        """Close the connections, unless they are the application's."""
        pool, self._pool = self._pool, None
        patience = 1.0 if self._closing_at is None else min(1.0, max(0.0, self._closing_at - time.monotonic()))
        self._is_closing = True
        try:
            await self._guard.aclose()
            if self._returning:
                await asyncio.wait(self._returning, timeout=patience)
            for task in self._returning:
                task.cancel()
            if pool is not None and self.is_own:
                with suppress(*RETRYABLE):
                    async with asyncio.timeout(max(0.01, patience)):
                        await pool.close()
        finally:
            # Also where this is cancelled, because the event loop ends.
            if pool is not None and self.is_own:
                pool.terminate()

    async def _wait_for_end(self) -> None:
        """
        Wait until the event loop cancels all tasks, and then for the statements that this interrupts.

        The loop is closed after the tasks that it has cancelled. Python would complain of those that began meanwhile.
        """
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            if not self._is_closing and self._returning:
                await asyncio.wait(self._returning, timeout=RECOVERY_TIMEOUT)

    def end_within(self, seconds: float) -> None:
        """Let all calls, those that wait already and later ones, together wait no longer than this."""
        self._closing_at = time.monotonic() + seconds
        end = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(min(end, limit.when() or end))

    def abandon(self) -> None:
        """Let go of the connections without waiting: their event loop has ended."""
        pool, self._pool = self._pool, None
        self._guard.abandon()
        self._returning.clear()
        self._limits.clear()
        if pool is not None and self.is_own:
            for connection in list(self._open_connections):
                abandon_connection(connection)

    # Calls

    def deadline(self, since: float | None = None) -> float:
        """Return until when a call made at a time waits for the database, both in monotonic time."""
        end = (time.monotonic() if since is None else since) + self._timeout
        return end if self._closing_at is None else min(end, self._closing_at)

    async def attempt(self, work: Callable[[], Awaitable[T]], since: float | None = None) -> T:
        """
        Do work that may be done twice; try again after errors that go away by themselves, until the call's deadline.

        Args:
            work: The work.
            since: When the call was made, in monotonic time; now by default.

        Raises:
            StorageError: The database refused, or could not be reached in time.
        """
        start, wait, share = time.monotonic() if since is None else since, FIRST_WAIT, FIRST_SHARE
        while True:
            try:
                async with self.limit(share * (self.deadline(start) - time.monotonic())):
                    return await work()
            except StorageError:
                raise
            except (asyncpg.PostgresError, *RETRYABLE) as error:
                if not is_retryable(error) or time.monotonic() + wait >= self.deadline(start):
                    raise self.translated(error) from shown(error)
            await self.pause(wait)
            wait, share = min(2 * wait, LONGEST_WAIT), 1.0

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """Limit the time of what is done within, which closing may limit further; raises TimeoutError."""
        async with asyncio.timeout(max(0.02, seconds)) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    async def pause(self, seconds: float) -> None:
        """Wait, at most until calls may not wait any longer."""
        with suppress(TimeoutError):
            async with self.limit(seconds):
                await asyncio.Event().wait()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """Lend a connection; it is closed where it was left within a transaction."""
        pool, slots = self._pool, self._slots
        if pool is None:
            raise closed_error()
        await slots.acquire()
        acquiring = asyncio.ensure_future(pool.acquire())
        is_interrupted = True
        try:
            # Waited for, not awaited: asyncpg does not close a connection whose making is cancelled with the caller.
            await asyncio.wait([acquiring])
            if acquiring.cancelled():
                # By an application that cancels all tasks that it finds.
                raise asyncpg.InterfaceError("The making of a connection was cancelled.")
            yield acquiring.result()
            is_interrupted = False
        except (asyncpg.PostgresError, StorageError):
            is_interrupted = False
            raise
        finally:
            returning = self._give_back(pool, acquiring, slots, is_interrupted=is_interrupted)
            if not is_interrupted:
                # Waited for, not awaited: neither must the caller be cancelled with it, nor it with the caller.
                await asyncio.wait([returning])

    def _give_back(
        self,
        pool: asyncpg.Pool,
        acquiring: "asyncio.Future[Connection]",
        slots: asyncio.Semaphore,
        *,
        is_interrupted: bool,
    ) -> "asyncio.Task[None]":
        def finish(task: "asyncio.Task[None]") -> None:
            self._returning.discard(task)
            slots.release()
            if task.cancelled():
                # Here, since a task that is cancelled before it has begun does nothing.
                close_when_made(acquiring)

        work = _release(pool, acquiring, is_interrupted=is_interrupted)
        task = asyncio.create_task(work, name="exponea_async: returning a connection")
        self._returning.add(task)
        task.add_done_callback(finish)
        return task

    @asynccontextmanager
    async def transaction(self, *, durable: bool | None = None) -> AsyncIterator[Connection]:
        """
        Lend a connection within a transaction, which is committed at the end and rolled back after an error.

        Args:
            durable: Whether the commit survives the death of the server; by default as the settings say.
        """
        async with self.acquire() as connection:
            await connection.execute(self._begin_statements[self.is_synchronous if durable is None else durable])
            try:
                yield connection
            except (asyncpg.PostgresError, StorageError):
                await _roll_back(connection)
                raise
            await connection.execute("COMMIT")

    async def change(
        self,
        work: Callable[[Connection], Coroutine[Any, Any, T]],
        *,
        durable: bool | None = None,
        since: float | None = None,
    ) -> T:
        """Do work that may be done twice in a transaction; raises as `attempt` does."""

        async def once() -> T:
            async with self.transaction(durable=durable) as connection:
                return await work(connection)

        return await self.attempt(once, since)

    async def fetch(self, statement: str, *values: object, since: float | None = None) -> list[Any]:
        """Run a statement that may be run twice; raises as `attempt` does."""

        async def once() -> list[Any]:
            if self.keeps_transactions:
                async with self.transaction() as connection:
                    return list(await connection.fetch(self.sql(statement), *values))
            async with self.acquire() as connection:
                return list(await connection.fetch(self.sql(statement), *values))

        return await self.attempt(once, since)

    def translated(self, error: BaseException) -> StorageError:
        """Return what is raised for an error of the database or of the connection."""
        if isinstance(error, asyncpg.DataError):
            # Its message may have the value, which may be personal.
            return StorageError(f"The database {self.location} refused a value: {type(error).__name__}.")
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError):
            return StorageError(f"The database {self.location} refused: {error.args[0]}.", hint=_hint(error))
        reason = (
            "there was no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        )
        return StorageError(
            f"The database {self.location} can't be reached: {reason}.",
            hint="Check that the server is running, and the address and the limits of its connections.",
        )


def is_outage(error: BaseException) -> bool:
    """Return whether a call has failed because the database did not answer or accept it in time."""
    return isinstance(error, StorageError) and isinstance(error.__cause__, RETRYABLE)


def abandon_connection(connection: Connection) -> None:
    """
    Close a connection without waiting, also if its event loop is closed.

    The event loop can't be told then, and would leave the socket open. Python would warn of it for each connection, and
    name no client.
    """
    transport = connection._transport  # noqa: SLF001 - asyncpg has no other name for it
    try:
        connection.terminate()
    except RuntimeError:
        # That of asyncio has the socket; that of uvloop has closed it already.
        socket = getattr(transport, "_sock", None)
        if socket is not None:
            socket.close()
            transport._sock = None  # noqa: SLF001 - as asyncio does once it has closed it


def closed_error() -> StorageError:
    """Return the error for a call while the storage is not open."""
    return StorageError("The storage is closed.")


def close_when_made(making: "asyncio.Future[Connection]") -> None:
    """
    Cancel the making of a connection, and close it if there is one all the same: already, or since the cancellation
    comes too late, which `asyncio.wait_for` ignores.
    """
    making.add_done_callback(_terminate)
    making.cancel()


def _terminate(making: "asyncio.Future[Connection]") -> None:
    if not making.cancelled() and making.exception() is None:
        # The pool may have taken it back already, when it was lost.
        with suppress(asyncpg.InterfaceError):
            making.result().terminate()


async def _release(pool: asyncpg.Pool, acquiring: "asyncio.Future[Connection]", *, is_interrupted: bool) -> None:
    """Give a connection back to its pool, once it has one; a server that does not answer is not waited for."""
    await asyncio.wait([acquiring])
    if acquiring.cancelled() or acquiring.exception() is not None:
        return
    connection = acquiring.result()
    try:
        async with asyncio.timeout(RECOVERY_TIMEOUT):
            if is_interrupted and not connection.is_closed():
                # Once the server has cancelled the statement. It would go on with it, were the connection only closed,
                # and each attempt would leave another statement that waits for the same lock.
                with suppress(asyncpg.PostgresError):
                    # Not an empty statement, on which asyncpg fails.
                    await connection.execute("SELECT 1")
            if not connection.is_closed() and (connection.is_in_transaction() or pool.is_closing()):
                connection.terminate()
            await pool.release(connection)
    except (asyncpg.PostgresError, *RETRYABLE):
        _terminate(acquiring)


async def _avoid_scans(connection: Connection) -> None:
    await connection.execute("SET enable_seqscan = off")


async def _keep_session(_: Connection) -> None:
    # The reset of asyncpg is a statement of its own after each use; this package leaves no state in a session.
    return


async def _roll_back(connection: Connection) -> None:
    with suppress(asyncpg.PostgresError, *RETRYABLE):
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")


def _hint(error: asyncpg.PostgresError) -> str:
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        if "for database" in str(error):
            return "The role needs CREATE on the database; let the owner of the database run 'exponea-async db init'."
        return "Let the owner of the schema run 'exponea-async db init --grant ROLE'."
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError):
        return "Run 'exponea-async db init'."
    if isinstance(error, asyncpg.DiskFullError):
        return "Free some space on the disk of the database."
    return ""


def is_retryable(error: BaseException) -> bool:
    """Return whether an error may go away by itself."""
    return isinstance(error, RETRYABLE) and not isinstance(error, MISCONFIGURED)


def shown(error: BaseException) -> BaseException | None:
    """
    Return an error as the cause of another; None where its details are values of a row, which may be personal.

    It has no traceback: tools that report errors show the local variables of its frames, and those of asyncpg have the
    password.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return None if isinstance(error, asyncpg.IntegrityConstraintViolationError | asyncpg.DataError) else error
