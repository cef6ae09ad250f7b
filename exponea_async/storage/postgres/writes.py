"""
The writes of one commit: each of them is written whole or not at all.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from attrs import define, field

from exponea_async.errors import StateConflictError
from exponea_async.storage.base import Record, StateChange, StateCheck, Written

#: What a record takes in the tables besides its body, in bytes.
ROW_SIZE = 80


class PendingWrite:
    """
    The write of one caller and its result: `written`, or `error`, or neither while it has to wait.

    Attributes:
        records: The records to write.
        states: The states to change or to check.
        keys: The keys of the states as they are stored, in the same order.
        future: The caller waits for it.
        on_commit: Called with the result, whether the caller still waits or not; or None.
        since: When the caller made the call, in monotonic time.
        size: What the records take, in bytes.
        new_states: The number of states that are not stored yet.
        is_locked: Whether another transaction had locked one of the states when the database answered last.
    """

    __slots__ = (
        "error",
        "future",
        "is_locked",
        "keys",
        "new_states",
        "on_commit",
        "records",
        "since",
        "size",
        "states",
        "written",
    )

    def __init__(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck],
        future: "asyncio.Future[Written]",
        on_commit: Callable[[Written], None] | None = None,
    ) -> None:
        self.records = records
        self.states = states
        self.keys = [state.key.encode() for state in states]
        self.future = future
        self.on_commit = on_commit
        self.since = time.monotonic()
        self.size = sum(len(record.body) + ROW_SIZE for record in records)
        self.new_states = sum(not state.version for state in states)
        self.is_locked = False
        self.written: Written | None = None
        self.error: Exception | None = None


@define(eq=False)
class StoredState:
    """
    A state as it is in the database, or as earlier writes of the same commit have changed it.

    Attributes:
        version: Its version; 0 if there is none.
        active: Its last activity, UNIX seconds, or None.
        value: The new value, where `change` is ``"value"``.
        change: What is to be stored: nothing, only the activity, the value, or that it is deleted.
        is_stored: Whether there is a row for it.
        stored_version: The version in the database.
    """

    version: int = 0
    active: float | None = None
    value: bytes = field(default=b"", repr=False)
    change: Literal["", "activity", "value", "deleted"] = ""
    is_stored: bool = False
    stored_version: int = 0


class StateTable:
    """
    The states that the writes of one commit are about.

    Args:
        stored: Those that are stored, by key.
        floor: No new state gets this version or a lower one.
    """

    def __init__(self, stored: dict[bytes, StoredState], floor: int) -> None:
        self.states = stored
        self.floor = floor

    def _get(self, key: bytes) -> StoredState:
        state = self.states.get(key)
        if state is None:
            state = self.states[key] = StoredState()
        return state

    def conflict(self, write: PendingWrite) -> StateConflictError | None:
        """Return the error for a write, one of whose states has changed since it was read; None if none has."""
        for key, state in zip(write.keys, write.states, strict=True):
            stored = self._get(key)
            if stored.version != state.version:
                return StateConflictError(state.key)
            seen = state.seen if isinstance(state, StateChange) else None
            if seen is not None and stored.active is not None and stored.active > seen:
                return StateConflictError(state.key)
        return None

    def apply(self, write: PendingWrite) -> None:
        """Make the changes of a write."""
        for key, state in zip(write.keys, write.states, strict=True):
            if isinstance(state, StateChange):
                self._change(self._get(key), state)
            elif state.active is not None:
                self._raise_activity(self._get(key), state.active)

    def _change(self, stored: StoredState, change: StateChange) -> None:
        if change.value is None:
            # The versions of new states are higher, so that none of them is mistaken for the deleted one.
            self.floor = max(self.floor, change.version)
            stored.version, stored.active, stored.change = 0, None, "deleted"
            return
        stored.version = (change.version or self.floor) + 1
        stored.value, stored.active, stored.change = change.value, change.active, "value"

    def _raise_activity(self, stored: StoredState, active: float) -> None:
        if stored.version and (stored.active is None or stored.active < active):
            stored.active = active
            stored.change = stored.change or "activity"

    def changed(self, kind: str) -> list[tuple[bytes, StoredState]]:
        """Return the states of one kind of change, in the order of their keys."""
        return sorted(((key, state) for key, state in self.states.items() if state.change == kind), key=_key)


def _key(item: tuple[bytes, StoredState]) -> bytes:
    return item[0]


def merge_checks(writes: Iterable[PendingWrite]) -> dict[bytes, StateCheck] | None:
    """Return the check of each state, with its latest activity; None if a write changes a state, or two contradict."""
    merged: dict[bytes, StateCheck] = {}
    for write in writes:
        for key, state in zip(write.keys, write.states, strict=True):
            if not isinstance(state, StateCheck) or not state.version:
                return None
            known = merged.setdefault(key, state)
            if known.version != state.version:
                return None
            if state.active is not None and (known.active is None or known.active < state.active):
                merged[key] = state
    return merged
