"""
From the queue to the platform.

One claimer leases records and makes batches of them; a few senders carry the batches; the settler writes down what
became of them.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from exponea_async._pipeline.acknowledger import LEASE, Acknowledger
from exponea_async._pipeline.commands import pack
from exponea_async._pipeline.sender import Batch, Sender
from exponea_async.config import QueueSettings, UploadSettings
from exponea_async.errors import StorageError
from exponea_async.storage.base import Leased, Storage

LOG = logging.getLogger("exponea_async")

#: How long an idle claimer sleeps, in seconds: another process may have written records, or died with some in hand.
IDLE = 1.0
#: How soon at the earliest it looks again by itself, in seconds.
SOONEST = 0.02


class Uploader:
    """
    The background flush.

    Args:
        storage: Where the records are.
        sender: Sends batches.
        settler: Writes down what becomes of records.
        queue: Tells how old records may become.
        upload: Tells how to send.
        written: Set by whoever has written records.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        sender: Sender,
        settler: Acknowledger,
        queue: QueueSettings,
        upload: UploadSettings,
        written: asyncio.Event,
    ) -> None:
        self._storage = storage
        self._sender = sender
        self._settler = settler
        self._max_age = queue.max_age
        self._settings = upload
        self._ahead = upload.concurrency * upload.batch_size
        # Twice: while the senders empty one half, the other is being leased.
        self._ready: asyncio.Queue[Batch] = asyncio.Queue(2 * upload.concurrency)
        self._wanted = asyncio.Event()
        self._wake = written
        self._hurry = asyncio.Event()
        #: Whether there is any use in waiting for it.
        self.is_running = True

    # What drives it

    def want(self, wanted: bool) -> None:  # noqa: FBT001 - it is what is said
        """Start or stop taking records from the queue."""
        if wanted:
            self._wanted.set()
            self._hurry.set()
            self._wake.set()
        else:
            self._wanted.clear()

    def nudge(self) -> None:
        """Let a paused project show at once whether it works again."""
        for gate in self._sender.gates.values():
            gate.nudge(_now())
        self._hurry.set()
        self._wake.set()

    def stuck(self, since: float, *, paused_only: bool) -> frozenset[str]:
        """
        Tell the routes that were tried in vain since a moment of the event loop.

        Args:
            since: The moment.
            paused_only: Leave out those that are only unavailable.
        """
        now = _now()
        return frozenset(
            route
            for route, gate in self._sender.gates.items()
            if not gate.is_open
            and (
                (gate.closed_at >= since and (gate.paused or not paused_only))
                # It did not answer before either, and will not be asked again for a while.
                or (gate.until > now and not paused_only)
            )
        )

    async def run(self) -> None:
        """Upload while it is wanted; never ends by itself."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._settler.run(), name="exponea_async: settler")
                group.create_task(self._settler.prolong(), name="exponea_async: leases")
                group.create_task(self._claim_for_ever(), name="exponea_async: claimer")
                for number in range(1, self._settings.concurrency + 1):
                    group.create_task(self._send_for_ever(), name=f"exponea_async: sender {number}")
        finally:
            self.is_running = False

    # Claiming

    async def _claim_for_ever(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                more = await self._claim()
            except StorageError as error:
                LOG.warning("The queue can't be read: %s", error)
                await asyncio.sleep(IDLE)
            except Exception:
                LOG.exception("The upload stumbled in a way it should not; it goes on.")
                await asyncio.sleep(IDLE)
            else:
                await (self._until_room() if more else self._rest())

    async def _claim(self) -> bool:
        """Lease what may be sent now; tells whether there may be more."""
        self._wake.clear()
        self._hurry.clear()
        self._sender.renew()
        now, gates = _now(), self._sender.gates
        for route in [route for route, gate in gates.items() if gate.may_probe(now)]:
            await self._probe(route)
        closed = [route for route, gate in gates.items() if not gate.is_open]
        if len(closed) == len(gates):
            return False
        limit = 2 * self._ahead
        records = await self._lease(limit, skip=closed)
        for batch in self._packed(records):
            await self._ready.put(Batch(batch))
        return len(records) == limit

    async def _lease(self, limit: int, *, skip: Iterable[str] = (), only: str | None = None) -> list[Leased]:
        claim = asyncio.ensure_future(self._storage.lease(limit, LEASE, time.time(), skip=skip, only=only))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            # Closing breaks us off: what we get all the same is to be given back, or it is nobody's for a while.
            with suppress(StorageError):
                self._settler.take(await claim)
            raise

    async def _probe(self, route: str) -> None:
        """
        Lease one batch for a closed gate.

        It is smaller with each attempt: an outage is asked about with little, and those that only share a batch with
        a record at which the platform stumbles get away from it.
        """
        gate = self._sender.gates[route]
        limit = max(1, self._settings.batch_size >> gate.attempts)
        while records := await self._lease(limit, only=route):
            batches = self._packed(records)
            for batch in batches[1:]:
                self._settler.give_back(batch)
            if batches:
                gate.probing = True
                await self._ready.put(Batch(batches[0], probe=True))
                return
            # All of them were too old, and so may be many more.
            limit = self._settings.batch_size
        # Nothing is due yet.
        gate.wait(min(_now() + IDLE, self._settler.next_due()))

    def _packed(self, records: Sequence[Leased]) -> list[tuple[Leased, ...]]:
        """Make batches, and put those that are too old where dead letters go."""
        self._settler.take(records)
        oldest = time.time() - self._max_age
        aged = tuple(record.id for record in records if record.at < oldest)
        if aged:
            self._settler.bury(aged, f"not delivered within max_age, {self._max_age:g} seconds")
            records = [record for record in records if record.at >= oldest]
        return list(pack(records, self._settings.batch_size, self._settings.max_batch_bytes))

    async def _until_room(self) -> None:
        """Wait until verdicts are written down, where too many are not."""
        while self._settler.load > 8 * self._ahead:
            await self._settler.news()

    async def _rest(self) -> None:
        """Wait for something to do."""
        now = _now()
        gates = [gate.until for gate in self._sender.gates.values() if not gate.is_open and not gate.probing]
        moment = min(now + IDLE, self._settler.next_due(), *gates)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(max(moment, now + SOONEST)):
                await self._wake.wait()
            # Others may come: a burst is to become one request. Many are to become one claim, so even they wait.
            async with asyncio.timeout(self._settings.linger):
                await self._hurry.wait()

    # Sending

    async def _send_for_ever(self) -> None:
        while True:
            batch = await self._ready.get()
            due = self._settler.next_due()
            try:
                await self._sender.send(batch)
            except Exception as error:
                LOG.exception("An upload broke off in a way it should not; its events are kept.")
                self._sender.keep_on(batch, error)
            if batch.probe:
                self._sender.gates[batch.route].probing = False
            if batch.probe or self._settler.next_due() < due:
                # The claimer has something to do earlier than it thinks.
                self._wake.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
