"""
Notifications of new records between processes.

A notification is sent after a commit, in a transaction of its own and not for each commit: in PostgreSQL,
notifications make all transactions that send one wait for each other. One that is lost does no harm, since the upload
looks at the queue every second anyway.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import asyncpg

from exponea_async.errors import StorageError
from exponea_async.storage.postgres.connection import (
    FIRST_WAIT,
    RETRYABLE,
    Connection,
    Connections,
    abandon_connection,
    close_when_made,
)
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.tasks import BackgroundTask

LOG = logging.getLogger("exponea_async")

#: The least time between two notifications of one client, in seconds.
MIN_INTERVAL = 0.05
#: The longest wait until a lost connection is opened again, in seconds.
LONGEST_WAIT = 30.0
#: How often it is checked that the connection is alive, in seconds.
CHECK_INTERVAL = 30.0
#: How long an answer of the server is waited for, in seconds.
ANSWER_TIMEOUT = 10.0
#: How long closing waits for a connection that is just being made, in seconds.
CONNECT_GRACE = 1.0

#: The length of the longest name in PostgreSQL.
MAX_NAME = 63

NOTIFY = "SELECT pg_notify($1, $2)"


class Notifier:
    """
    Tells other processes that this one has written records.

    Args:
        connections: The connections.
        registration: The client.
    """

    def __init__(self, connections: Connections, registration: Registration) -> None:
        self._connections = connections
        self._registration = registration
        self._has_news = asyncio.Event()
        self._task = BackgroundTask(self._run, "exponea_async: notifications")
        self._is_sending = self._is_closing = False

    def start(self) -> None:
        """Start the task."""
        self._has_news = asyncio.Event()
        self._is_sending = self._is_closing = False
        self._task.start()

    def notify(self) -> None:
        """Send a notification soon, unless one is about to be sent."""
        self._has_news.set()

    async def _run(self) -> None:
        # One task, not one for each notification: the end of the event loop cancels only those that it finds.
        while not self._is_closing:
            await self._has_news.wait()
            self._has_news.clear()
            await self._send()
            await asyncio.sleep(0 if self._is_closing else MIN_INTERVAL)

    async def _send(self) -> None:
        self._is_sending = True
        try:
            await self._connections.fetch(NOTIFY, channel(self._connections.schema), self._payload())
        except StorageError as error:
            LOG.debug("A notification could not be sent: %s", error)
        finally:
            self._is_sending = False

    def _payload(self) -> str:
        return f"{self._registration.queue} {self._registration.client}"

    async def aclose(self) -> None:
        """Send nothing more, once what is being sent is sent."""
        self._is_closing = True
        await self._task.aclose(cancel=not self._is_sending)

    def abandon(self) -> None:
        """Forget everything: the event loop has ended."""
        self._task.abandon()


class Listener:
    """
    Calls a function when another process has written records to the queue.

    Args:
        url: The URL of a direct connection to the database.
        connections: The connections, for the name of the schema.
        registration: The client.
        callback: The function.
    """

    def __init__(
        self, url: str, connections: Connections, registration: Registration, callback: Callable[[], None]
    ) -> None:
        self._url = url
        self._channel = channel(connections.schema)
        self._location = connections.location
        self._registration = registration
        self._callback = callback
        self._task = BackgroundTask(self._run, "exponea_async: listening")
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the task."""
        self._task.start()

    async def aclose(self) -> None:
        """End the task, and close its connection."""
        await self._task.aclose()

    def abandon(self) -> None:
        """Let go of the connection without waiting: its event loop has ended."""
        self._task.abandon()
        connection, self._connection = self._connection, None
        if connection is not None:
            abandon_connection(connection)

    async def _run(self) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                self._connection = await self._connect()
                try:
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        await self._connection.add_listener(self._channel, self._receive)
                    # Something may have been written while there was no connection.
                    self._callback()
                    wait = FIRST_WAIT
                    await self._watch(self._connection)
                finally:
                    self._connection.terminate()
            except (asyncpg.PostgresError, *RETRYABLE) as error:
                LOG.debug("Notifications of %s are not received now: %s", self._location, error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _connect(self) -> Connection:
        connecting = asyncio.ensure_future(asyncpg.connect(self._url, timeout=ANSWER_TIMEOUT, statement_cache_size=0))
        try:
            await asyncio.wait([connecting])
        except asyncio.CancelledError:
            try:
                # asyncpg does not close a connection whose making is cancelled.
                await asyncio.wait([connecting], timeout=CONNECT_GRACE)
            finally:
                close_when_made(connecting)
            raise
        if connecting.cancelled():
            raise asyncpg.InterfaceError("The making of a connection was cancelled.")
        return connecting.result()

    async def _watch(self, connection: Connection) -> None:
        """Return when the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        while not lost.is_set():
            try:
                async with asyncio.timeout(CHECK_INTERVAL):
                    await lost.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=ANSWER_TIMEOUT)

    def _receive(self, *values: Any) -> None:
        queue, _, client = str(values[-1]).partition(" ")
        if queue == str(self._registration.queue) and client != str(self._registration.client):
            self._callback()


def channel(schema: str) -> str:
    """Return the name of the channel of a schema, which has at most 63 characters, as the name of the schema has."""
    name = f"{schema}:records"
    return name if len(name) <= MAX_NAME else f"{hashlib.sha256(schema.encode()).hexdigest()[:32]}:records"
