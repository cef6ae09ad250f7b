"""
The values that storage backends take and return.

A record is *untouched* from its write until it is leased for the first time. From then on it has a due time: the end
of its lease, or of the delay that a settlement gave it. A record that is due can be leased again. A record leaves the
queue when it is settled: as delivered for good, or as dead to the dead letters, from where it can be revived.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from attrs import field, frozen

#: The reason of a record that was rejected, if its dead letter has been deleted.
DELETED_LETTER = "its dead letter, which had the reason, was deleted"
#: The longest delay of a due time, in seconds. A record due later than this counts as due: the clock that its due time
#: was made from has been set back since.
MAX_DUE_AHEAD = 3600.0
#: 2020-01-01. An earlier time of writing comes from a clock that was not set, and says nothing about an age.
FIRST_PLAUSIBLE_TIME = 1_577_836_800.0


class Record(NamedTuple):
    """
    An encoded command, ready for upload.

    A tuple, since one is made for each event, and an instance of a frozen attrs class takes twice as long to make.

    Attributes:
        route: The destination; records of one route can share a request.
        body: The encoded command.
        at: The time of writing, or of the last revival, UNIX seconds by the system's clock.
    """

    route: str
    body: bytes
    at: float


class Leased(NamedTuple):
    """
    A record in the queue, as a lease returns it.

    Attributes:
        id: The record's id, unique in its storage.
        route: The destination.
        body: The encoded command.
        at: The time of writing, UNIX seconds.
        failures: How often the record was refused when sent alone, according to its last settlement.
    """

    id: str
    route: str
    body: bytes
    at: float
    failures: int


class Waiting(NamedTuple):
    """
    A record in the queue, as it is shown.

    Attributes:
        id: The record's id, unique in its storage.
        route: The destination.
        body: The encoded command.
        at: The time of writing, UNIX seconds.
        failures: How often the record was refused when sent alone, according to its last settlement.
        due: When the record can be leased again, UNIX seconds; 0 if it is untouched.
        reason: Why it is delayed until then; empty for a record that is leased or was given back.
    """

    id: str
    route: str
    body: bytes
    at: float
    failures: int
    due: float = 0.0
    reason: str = ""

    def is_leased(self, now: float) -> bool:
        """
        Return whether somebody is sending the record.

        Args:
            now: UNIX seconds.
        """
        return not self.reason and now < self.due <= now + MAX_DUE_AHEAD


class Settlement(NamedTuple):
    """
    The outcome of leased records.

    Attributes:
        ids: The ids of the records.
        verdict: ``"delivered"`` removes the records, ``"later"`` keeps them until `due`, ``"dead"`` moves them to the
            dead letters with `reason`.
        due: The next due time, UNIX seconds, at most `MAX_DUE_AHEAD` ahead; for ``"later"`` only.
        failures: The next value of `Leased.failures`; for ``"later"`` only.
        reason: The reason, in words.
    """

    ids: tuple[str, ...]
    verdict: Literal["delivered", "later", "dead"]
    due: float = 0.0
    failures: int = 0
    reason: str = ""


def postponements(
    records: Iterable[Leased], due: float, reason: str = "", *, failures: int = 0
) -> tuple[Settlement, ...]:
    """Return the settlements that keep records until they fall due, their failures raised by a number."""
    by_failures: dict[int, list[str]] = {}
    for record in records:
        by_failures.setdefault(record.failures + failures, []).append(record.id)
    return tuple(
        Settlement(tuple(ids), "later", due=due, failures=count, reason=reason) for count, ids in by_failures.items()
    )


class RecordStatus(NamedTuple):
    """
    What became of a record.

    Attributes:
        kind: ``"queued"``, ``"delivered"``, ``"rejected"`` (it is a dead letter, or was one until it was deleted) or
            ``"dropped"`` (it was deleted unsent, on purpose).
        reason: Why it was rejected, in words; empty for the others.
    """

    kind: Literal["queued", "delivered", "rejected", "dropped"]
    reason: str = ""


class DeadLetter(NamedTuple):
    """
    A record that was refused for good.

    Attributes:
        id: The record's id, the same as in the queue.
        route: The destination.
        body: The encoded command.
        at: The time of writing, UNIX seconds.
        died_at: The time of the refusal, UNIX seconds.
        reason: The reason, in words.
    """

    id: str
    route: str
    body: bytes
    at: float
    died_at: float
    reason: str


@frozen
class State:
    """
    A stored value.

    Attributes:
        value: The bytes. The repr does not show them: they hold keys and personal data.
        version: Increases by 1 with each change. The first version is 1, or higher where a state was deleted before,
            so that a version read from an old state never matches a new one.
        active: The time of the last activity, UNIX seconds, or None. Activity is not part of the value: it changes
            without the version.
    """

    value: bytes = field(repr=False)
    version: int
    active: float | None = None


@frozen
class StateChange:
    """
    A change of a stored value, made only if the value has not been changed since it was read.

    Attributes:
        key: The key of the state.
        value: The new bytes, or None to delete the state.
        version: The version that was read; 0 if there was no state.
        active: The time of the last activity to store, UNIX seconds, even if it is earlier than the stored one; None
            stores none.
        seen: The last activity that was read, UNIX seconds. The change is refused if the stored one is later, that is
            if there was activity since. None accepts any.
    """

    key: str
    value: bytes | None = field(repr=False)
    version: int
    active: float | None = None
    seen: float | None = None


class StateCheck(NamedTuple):
    """
    A condition of a write: a stored value still has the version that was read.

    Attributes:
        key: The key of the state.
        version: The version that was read; 0 if there was no state.
        active: The time of an activity, UNIX seconds. The stored time is raised to it, never lowered, and set where
            there is none; the version stays. With None, or where there is no state, nothing is changed.
    """

    key: str
    version: int
    active: float | None = None


class Written(NamedTuple):
    """
    The result of a write; a tuple as `Record` is.

    Attributes:
        ids: The ids of the records, in their order.
        dropped: The ids of older records that were deleted to stay within the capacity, with
            ``when_full="drop_oldest"``.
    """

    ids: tuple[str, ...]
    dropped: tuple[str, ...] = ()


class Pending(NamedTuple):
    """
    The number of records in the storage.

    Attributes:
        waiting: Records that are not delivered yet, leased or not.
        leased: Those of them that are leased or delayed.
        dead: Dead letters.
        routes: `waiting` by route.
        oldest_at: When the oldest waiting record was written, UNIX seconds; None if none waits.
        size: The size of the storage in bytes: on the disk, or of what a storage in memory holds.
        is_full: Whether the storage refuses, delays or makes capacity for a new record.
    """

    waiting: int
    leased: int
    dead: int
    routes: Mapping[str, int]
    oldest_at: float | None = None
    size: int = 0
    is_full: bool = False


#: What had been written at some time, for `Storage.remaining` of the same storage.
Watermark = Mapping[str, str]
