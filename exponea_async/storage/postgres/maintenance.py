"""
The maintenance that each open client does at intervals: it shows that it is running, and deletes obsolete rows.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from exponea_async.errors import StorageError, WipedFileError
from exponea_async.storage.postgres.clock import ServerClock
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import ADD, MAINTENANCE_LANE
from exponea_async.storage.postgres.registration import GONE_AFTER, Registration
from exponea_async.storage.postgres.tasks import BackgroundTask
from exponea_async.storage.postgres.wiping import delete_orphans

LOG = logging.getLogger("exponea_async")

#: The time between two updates of the client's row, in seconds.
INTERVAL = 5.0
#: After how many of them obsolete rows are deleted.
CLEARING = 12
#: Rows of counters that are added up in one transaction.
FOLDED = 5_000
#: How many marks are kept, and for how long at most, in seconds.
MAX_MARKS = 500_000
MAX_MARK_AGE = 86_400.0

ALIVE = """
    UPDATE {s}.client SET seen_at = clock_timestamp() WHERE id = $1
        RETURNING extract(epoch FROM clock_timestamp())::float8
"""
NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
#: The counters of clients that are gone, and those that belong to the transactions of applications.
GONE_CLIENTS = """
    DELETE FROM {s}.client WHERE queue = $1 AND id <> $2
        AND seen_at < clock_timestamp() - make_interval(secs => 10 * $3::float8)
"""
FOLD = f"""
    WITH gone AS (
        DELETE FROM {{s}}.counter WHERE queue = $1 AND client <> $2 AND (queue, client, lane, route) IN (
            SELECT queue, client, lane, route FROM {{s}}.counter AS t WHERE queue = $1 AND client <> $2
                AND (client < 0 OR NOT EXISTS (SELECT FROM {{s}}.client AS c WHERE c.id = t.client))
                LIMIT $4 FOR UPDATE SKIP LOCKED
        ) RETURNING route, waiting, leased, dead, size
    ), folded AS (
        INSERT INTO {{s}}.counter AS t (queue, client, lane, route, waiting, leased, dead, size)
            SELECT $1, $2, $3, route, sum(waiting), sum(leased), sum(dead), sum(size) FROM gone GROUP BY route
            {ADD}
    )
    SELECT count(*) FROM gone
"""
PRUNE_MARKS = """
    DELETE FROM {s}.mark WHERE marked_at < greatest(
        extract(epoch FROM clock_timestamp()) - $1::float8,
        (SELECT marked_at FROM {s}.mark ORDER BY marked_at DESC OFFSET $2 LIMIT 1)
    )
"""
PRUNE_FLOOR = """
    DELETE FROM {s}.floor WHERE queue = $1 AND version < (SELECT max(version) FROM {s}.floor WHERE queue = $1)
"""
#: Whether this role may delete what is not needed any more: one that only records may not.
MAY_CLEAR = "SELECT has_table_privilege('{s}.record', 'DELETE') AND has_table_privilege('{s}.mark', 'DELETE')"
CLOSE = "DELETE FROM {s}.client WHERE id = $1"


class Maintenance:
    """
    The task of one client that keeps its row up to date and deletes obsolete rows.

    Args:
        connections: The connections.
        registration: The client.
        clock: The clock of the server, which is measured.
        report: Called with a `WipedFileError` when another client has wiped the queue.
    """

    def __init__(
        self,
        connections: Connections,
        registration: Registration,
        clock: ServerClock,
        report: Callable[[StorageError], None],
    ) -> None:
        self._report = report
        self._connections = connections
        self._registration = registration
        self._clock = clock
        self._task = BackgroundTask(self._run, "exponea_async: maintenance")

    def start(self) -> None:
        """Start the task."""
        self._task.start()

    def abandon(self) -> None:
        """Forget the task without waiting: its event loop has ended."""
        self._task.abandon()

    async def aclose(self) -> None:
        """End the task, and remove the client's row."""
        await self._task.aclose()
        await self._connections.change(self._remove)

    async def _remove(self, connection: Connection) -> None:
        sql, registration = self._connections.sql, self._registration
        await connection.execute(sql(CLOSE), registration.client)

    async def measure_clock(self) -> None:
        """Measure the clock of the server."""
        before = time.time()
        rows = await self._connections.fetch(NOW)
        self._clock.measure(rows[0][0], before)

    async def _run(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(INTERVAL)
            count += 1
            try:
                await self._registration.check_generation()
                await self._show_alive()
                # Applications may make thousands of them in the meantime.
                while await self._connections.change(self._fold) >= FOLDED:
                    pass
                if count % CLEARING == 0 and (await self._connections.fetch(MAY_CLEAR))[0][0]:
                    await self._connections.change(self._clear)
                    await delete_orphans(self._connections)
            except WipedFileError as error:
                self._report(error)
                return
            except StorageError as error:
                LOG.debug("The queue can't be maintained now: %s", error)

    async def _show_alive(self) -> None:
        async def work(connection: Connection) -> None:
            before = time.time()
            sql, registration = self._connections.sql, self._registration
            now = await connection.fetchval(sql(ALIVE), registration.client)
            if now is not None:
                self._clock.measure(now, before)

        await self._connections.change(work, durable=False)

    async def _fold(self, connection: Connection) -> int:
        """Add the counters of clients that are gone to the own ones; return how many there were."""
        sql, registration = self._connections.sql, self._registration
        count: int = await connection.fetchval(
            sql(FOLD), registration.queue, registration.client, MAINTENANCE_LANE, FOLDED
        )
        return count

    async def _clear(self, connection: Connection) -> None:
        sql, registration = self._connections.sql, self._registration
        await connection.execute(sql(GONE_CLIENTS), registration.queue, registration.client, GONE_AFTER)
        await connection.execute(sql(PRUNE_MARKS), MAX_MARK_AGE, MAX_MARKS)
        await connection.execute(sql(PRUNE_FLOOR), registration.queue)
