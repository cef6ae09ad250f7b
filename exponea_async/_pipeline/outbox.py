"""
The recording of events in a transaction of the application.
"""

import asyncio
from collections.abc import Callable, Sequence

from exponea_async._pipeline.recorder import Drafts, EventRecorder
from exponea_async.errors import ExponeaError, LifecycleError
from exponea_async.models import Draft, Identity, Receipt
from exponea_async.storage.base import StateChange, StateCheck, TransactionStorage, Written

#: Why events of a transaction are dropped, and the name under which they are counted.
ROLLED_BACK = "the transaction was rolled back"
ROLLED_BACK_COUNT = "rolled_back"


class OutboxRecorder(EventRecorder):
    """
    Records events in a transaction of the application.

    They are counted, and the uploader is woken, once the transaction is known to be committed.

    Args:
        recorder: The recorder of the client.
        storage: Writes in the transaction.
        on_commit: Called once events are known to be committed.
    """

    def __init__(self, recorder: EventRecorder, storage: TransactionStorage, on_commit: Callable[[], None]) -> None:
        # It has the parts of the other one: hooks, default properties, receipts.
        self.__dict__.update(recorder.__dict__)
        self._storage = storage
        # The other one is asked each time whether the client is running.
        self._loop, self._refusal, self._stopped = None, None, False
        self._recorder = recorder
        self._on_commit = on_commit
        self._has_ended = False
        # What was written, and the task that must not wait for it before it leaves the block.
        self._ids: set[str] = set()
        self._task = asyncio.current_task()
        self._receipts.add_check(self._check_waiting)

    def end(self) -> None:
        """Refuse everything from now on."""
        self._has_ended = True
        self._receipts.remove_check(self._check_waiting)

    def _check_waiting(self, receipt: Receipt) -> None:
        if asyncio.current_task() is self._task and not self._ids.isdisjoint(receipt.ids):
            raise LifecycleError(
                "An event is sent after the commit of its transaction, so its receipt can't be awaited before.",
                hint="Await the receipt after the block and the commit, or in another task.",
            )

    def check_running(self) -> bool:
        """
        Return whether events are accepted, as the recorder of the client does.

        Raises:
            LifecycleError: The client is not running, or the block has ended.
        """
        if self._has_ended:
            raise LifecycleError(
                "The block of 'async with exponea.transaction(connection)' has ended.",
                hint="Track within the block, or with the client itself.",
            )
        return self._recorder.check_running()

    async def record(
        self,
        identity: Identity,
        draft: Draft,
        states: Sequence[StateChange | StateCheck] = (),
        now: float | None = None,
    ) -> Receipt:
        """Write one draft."""
        if not self.check_running():
            return self.dropped()
        receipt = await super().record(identity, draft, states, now)
        self._ids.update(receipt.ids)
        return receipt

    async def record_many(
        self, identity: Identity, drafts: Drafts, states: Sequence[StateChange | StateCheck] = ()
    ) -> list[Receipt]:
        """Write drafts in one statement."""
        if not self.check_running():
            return [self.dropped()] * len(drafts)
        receipts = await super().record_many(identity, drafts, states)
        self._ids.update(key for receipt in receipts for key in receipt.ids)
        return receipts

    def dropped(
        self,
        reason: str = "before_track returned None or failed",
        *,
        count: str = "",
        cause: ExponeaError | None = None,
    ) -> Receipt:
        """Return the receipt of an event that is not recorded, and count it."""
        return self._recorder.dropped(reason, count=count, cause=cause)

    def _account(self, written: Written) -> None:
        super()._account(written)
        self._on_commit()
