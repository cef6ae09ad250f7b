"""
The upload: from the storage to the platform and back.

One task leases records and splits them into batches, a few tasks send the batches, and one task stores the verdicts.
A record is handed over twice on its way: from the leasing task to a sending task through a bounded queue, and, as a
verdict, from the sending task to the `Acknowledger`, which wakes the storing task. Nothing is copied or decoded.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf

from exponea_async._internal.closing import wait_until_done
from exponea_async._internal.concurrency import Supervisor
from exponea_async._internal.log_fields import log_fields
from exponea_async._pipeline.acknowledger import LEASE, Acknowledger
from exponea_async._pipeline.commands import pack
from exponea_async._pipeline.dead_letters import TOO_OLD, DeadLetterLimits
from exponea_async._pipeline.exchange import Batch
from exponea_async._pipeline.linger import Linger
from exponea_async._pipeline.sender import Sender
from exponea_async.config import QueueSettings, UploadSettings
from exponea_async.errors import StorageError
from exponea_async.storage.base import Leased, Storage

LOG = logging.getLogger("exponea_async")

#: How often an idle upload looks at the queue, in seconds: another process may have written records, or died while it
#: held leases.
IDLE_INTERVAL = 1.0
#: The shortest time between two looks at the queue without new records, in seconds; at most the longest back-off.
MIN_INTERVAL = 0.02


class Uploader:
    """
    Leases records and sends them while it is active.

    Args:
        storage: Where the records are.
        sender: Sends batches.
        acknowledger: Holds leased records until their verdict is stored.
        queue: The maximum age of records.
        upload: The size of batches, and the number of concurrent requests.
        linger: Decides how long to wait for more records.
        supervisor: Runs the tasks of the upload.
        limits: The limits of dead letters, which are enforced now and then; the age of records is counted by their
            clock.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        sender: Sender,
        acknowledger: Acknowledger,
        queue: QueueSettings,
        upload: UploadSettings,
        linger: Linger,
        supervisor: Supervisor,
        limits: DeadLetterLimits,
    ) -> None:
        self._clock = limits.clock
        self._limits = limits
        self._storage = storage
        self._supervisor = supervisor
        self._sender = sender
        self._acknowledger = acknowledger
        self._max_age = queue.max_age
        self._settings = upload
        self._min_interval = min(MIN_INTERVAL, upload.backoff_max)
        # Records of one round of all senders.
        self._round = upload.concurrency * upload.batch_size
        # Two rounds: while one is being sent, the next one is being leased.
        self._ready: asyncio.Queue[Batch] = asyncio.Queue(2 * upload.concurrency)
        self._active = asyncio.Event()
        self._linger = linger

    # Control

    @property
    def is_running(self) -> bool:
        """Whether all tasks of the upload are running. One that has failed is started again after a while."""
        return self._supervisor.is_running

    @property
    def is_finishing(self) -> bool:
        """Whether `stop_leasing` was called."""
        return self._sender.is_finishing

    def start(self) -> None:
        """Start all tasks of the upload."""
        self._supervisor.start(self._acknowledger.run, name="exponea_async: verdicts")
        self._supervisor.start(self._acknowledger.renew_leases, name="exponea_async: leases")
        self._supervisor.start(self._lease_forever, name="exponea_async: leasing")
        for number in range(1, self._settings.concurrency + 1):
            self._supervisor.start(self._send_forever, name=f"exponea_async: sender {number}")

    def activate(self) -> None:
        """Lease records from now on, unless `stop_leasing` was called."""
        if self.is_finishing:
            return
        self._active.set()
        self._linger.expedite()

    def deactivate(self) -> None:
        """Lease no more records; those that are leased already are still sent."""
        self._active.clear()

    def stop_leasing(self) -> None:
        """Lease no more records for good, and give back those that no request has been made for."""
        self._sender.is_finishing = True
        self._active.clear()
        while not self._ready.empty():
            self._acknowledger.give_back(self._ready.get_nowait().records)

    async def finish_started(self) -> None:
        """Wait until the requests under way have ended, and their verdicts are stored, after `stop_leasing`."""
        while self._acknowledger.outstanding and self.is_running:
            # What was being leased may have been queued meanwhile.
            self.stop_leasing()
            await self._acknowledger.wait_stored()

    def expedite_probes(self) -> None:
        """Try paused projects again at once."""
        for breaker in self._sender.breakers.values():
            breaker.expedite_probe(_now())
        self._linger.expedite()

    def shorten_linger(self) -> None:
        """State that a caller waits for the records that were written."""
        self._linger.shorten()

    def expedite_all(self) -> None:
        """Try everything again at once, whatever it waits for."""
        self._sender.ignore_waits()
        for breaker in self._sender.breakers.values():
            breaker.probe_at = min(breaker.probe_at, _now())
        self._acknowledger.expedite()
        self._linger.expedite()

    def blocked_routes(self, since: float, *, paused_only: bool) -> frozenset[str]:
        """
        Return the routes whose records need not be waited for, because they were tried in vain.

        Args:
            since: When the caller began to wait, in event-loop time.
            paused_only: Whether routes in an outage do not count, only paused ones.
        """
        now, breakers = _now(), self._sender.breakers
        return frozenset(
            route for route, breaker in breakers.items() if breaker.is_blocked(since, now, paused_only=paused_only)
        )

    def open_circuits(self) -> dict[str, str]:
        """Return why routes are not sent to now, by route."""
        return {route: breaker.reason for route, breaker in self._sender.breakers.items() if not breaker.is_closed}

    # Leasing

    async def _lease_forever(self) -> None:
        while True:
            await self._active.wait()
            try:
                may_be_more = await self._lease_round()
            except StorageError as error:
                LOG.warning("The queue can't be read: %s", error, extra=log_fields("queue_error", reason=str(error)))
                self._sender.counters.note_error(str(error))
                await asyncio.sleep(IDLE_INTERVAL)
            except Exception:
                LOG.exception("Unexpected error in the upload loop; continuing.")
                await asyncio.sleep(IDLE_INTERVAL)
            else:
                await (self._wait_for_room() if may_be_more else self._wait_for_work())

    async def _lease_round(self) -> bool:
        """Lease what may be sent now, and queue it for the senders. Return whether there may be more."""
        most = 2 * self._round
        limit = self._linger.begin_look(most)
        self._acknowledger.begin_look()
        self._sender.probe_changed_projects()
        self._clock.observe()
        await self._limits.enforce_now_and_then()
        now, breakers = _now(), self._sender.breakers
        for route in [route for route, breaker in breakers.items() if breaker.may_probe(now)]:
            await self._lease_probe(route)
        # Other routes may have records, too, even if all those in `breakers` are blocked.
        blocked = [route for route, breaker in breakers.items() if not breaker.is_closed]
        records = await self._lease(limit, skip=blocked)
        self._linger.end_look(len(records), limit)
        await self._enqueue([Batch(batch) for batch in self._pack(records)])
        return len(records) == most

    async def _enqueue(self, batches: Sequence[Batch]) -> None:
        """Queue batches for the senders, or give back their records if that is cancelled."""
        left = deque(batches)
        try:
            while left and not self.is_finishing:
                await self._ready.put(left[0])
                left.popleft()
        finally:
            for batch in left:
                self._acknowledger.give_back(batch.records)
                if batch.is_probe:
                    self._sender.breakers[batch.route].is_probing = False

    async def _lease_probe(self, route: str) -> None:
        """
        Lease the probe of an open circuit, and queue it.

        It is smaller after each failure: an outage is probed with few records, and records that only share a batch with
        one on which the platform fails are separated from it. A paused project is probed in turns with records that it
        has refused and with records that it has not seen: those may be accepted.
        """
        breaker = self._sender.breakers[route]
        limit = max(1, self._settings.batch_size >> breaker.failures)
        untouched_first = breaker.paused is not None and breaker.failures % 2 == 0
        while records := await self._lease(limit, only=route, untouched_first=untouched_first):
            batches = self._pack(records)
            for batch in batches[:-1]:
                self._acknowledger.give_back(batch)
            if batches:
                breaker.is_probing = True
                await self._enqueue([Batch(batches[-1], is_probe=True)])
                return
            # All of these were too old, and many more may be.
            limit = self._settings.batch_size
        # Nothing is due yet.
        breaker.delay_probe(min(_now() + IDLE_INTERVAL, self._acknowledger.next_due()))

    async def _lease(
        self, limit: int, *, skip: Iterable[str] = (), only: str | None = None, untouched_first: bool = False
    ) -> list[Leased]:
        async def lease_now() -> list[Leased]:
            # The time is read here, in the step that uses it: the system's clock may be set in between.
            return await self._storage.lease(
                limit, LEASE, time.time(), skip=skip, only=only, untouched_first=untouched_first
            )

        lease = asyncio.ensure_future(lease_now())
        try:
            await wait_until_done(lease)
        except asyncio.CancelledError:
            # Records that are leased all the same must be given back, or no process could lease them until the leases
            # run out.
            if not lease.cancelled() and lease.exception() is None:
                self._acknowledger.give_back(lease.result())
            raise
        return lease.result()

    def _pack(self, records: Sequence[Leased]) -> list[tuple[Leased, ...]]:
        """Split leased records into batches; those that are too old become dead letters instead."""
        records = self._acknowledger.add(records)
        expired = self._clock.older(records, self._max_age)
        if expired:
            self._acknowledger.dead_letter(tuple(expired), f"{TOO_OLD}, {self._max_age:g} seconds")
            records = [record for record in records if record.id not in expired]
        return list(pack(records, self._settings.batch_size, self._settings.max_batch_bytes))

    async def _wait_for_room(self) -> None:
        """Wait while too many verdicts are not stored yet."""
        while self._acknowledger.outstanding > 8 * self._round:
            await self._acknowledger.wait_stored()

    async def _wait_for_work(self) -> None:
        """Wait until records are written or fall due, or a probe does."""
        now, breakers = _now(), self._sender.breakers.values()
        earliest = now + self._min_interval

        def next_due() -> float:
            probes = [breaker.probe_at for breaker in breakers if not breaker.is_closed and not breaker.is_probing]
            return max(earliest, min(self._acknowledger.next_due(), *probes, inf))

        await self._linger.wait(next_due, max(earliest, now + IDLE_INTERVAL))

    # Sending

    async def _send_forever(self) -> None:
        while True:
            batch = await self._ready.get()
            due = self._acknowledger.next_due()
            try:
                await self._sender.send(batch)
            except Exception as error:
                LOG.exception("Unexpected error while sending a batch; its events are kept.")
                self._sender.recover(batch, error)
            except asyncio.CancelledError:
                self._acknowledger.give_back(self._acknowledger.undecided(batch.records))
                raise
            finally:
                if batch.is_probe:
                    self._sender.breakers[batch.route].is_probing = False
            if batch.is_probe:
                # If it succeeded, other records of its route may be sent.
                self._linger.expedite()
            elif self._acknowledger.next_due() < due:
                self._linger.recheck()


def _now() -> float:
    return asyncio.get_running_loop().time()
