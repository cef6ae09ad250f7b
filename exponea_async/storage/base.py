"""
The door of the storage: the protocol that every backend keeps, and the values that pass.

The storage knows bytes and keys; what they mean is the business of those who bring them.
A record goes through three states. It *waits* from the moment it is written. It is *taken* once leased, and falls due
again at a moment that is stored with it: the end of its lease, or of the delay that a settlement gave it. It leaves
when it is settled as delivered, or moves to the dead letters, from where it can be revived.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from attrs import frozen

from exponea_async.errors import StateConflictError

#: A due moment further ahead than this, in seconds, comes from a clock that was set back, and counts as due.
MAX_DUE_AHEAD = 3600.0


@frozen
class Record:
    """
    One upload-ready command.

    Attributes:
        route: Where it goes; records of one route can share a request.
        body: The encoded command.
        at: When it was written, UNIX seconds by the system's clock.
    """

    route: str
    body: bytes
    at: float


@frozen
class Leased:
    """
    A record in somebody's hands.

    Attributes:
        id: Its id, unique in its storage.
        route: Where it goes.
        body: The encoded command.
        at: When it was written, UNIX seconds.
        failures: How often it was refused by itself, as the last settlement said.
    """

    id: str
    route: str
    body: bytes
    at: float
    failures: int


@frozen
class Settlement:
    """
    What becomes of leased records.

    Attributes:
        ids: The records.
        verdict: ``"delivered"`` removes them, ``"later"`` keeps them until `due`, ``"dead"`` moves them to the dead
            letters with `reason`.
        due: When they fall due again, UNIX seconds, no more than `MAX_DUE_AHEAD` ahead; for ``"later"`` only.
        failures: What `Leased.failures` says next time; for ``"later"`` only.
        reason: Why, in words.
    """

    ids: tuple[str, ...]
    verdict: Literal["delivered", "later", "dead"]
    due: float = 0.0
    failures: int = 0
    reason: str = ""


@frozen
class DeadLetter:
    """
    A record that was refused for good.

    Attributes:
        id: Its id, the one it had in the queue.
        route: Where it was to go.
        body: The encoded command.
        at: When it was written, UNIX seconds.
        died_at: When it was given up, UNIX seconds.
        reason: Why, in words.
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
    A remembered value.

    Attributes:
        value: The bytes.
        version: Rises by 1 with each change. The first is 1, or more where a state was deleted before, so that what
            was known of an old state never fits a new one.
        active: When there was last activity under it, UNIX seconds, or None. It is not part of the value: it moves
            without the version.
    """

    value: bytes
    version: int
    active: float | None = None


@frozen
class StateChange:
    """
    A change of a remembered value, made only if nobody was faster.

    Attributes:
        key: Its key.
        value: The new bytes, or None to forget it.
        version: The version it was loaded with; 0 if there was none.
        active: The moment of last activity to store beside it, UNIX seconds, be it earlier than the stored one; None
            stores none.
        seen: Where given, the change is refused if the stored activity is later: somebody was active meanwhile.
    """

    key: str
    value: bytes | None
    version: int
    active: float | None = None
    seen: float | None = None


@frozen
class StateCheck:
    """
    A condition of a write: a remembered value still has the version that it was loaded with.

    Attributes:
        key: Its key.
        version: The version it was loaded with; 0 if there was none.
        active: A moment of activity, UNIX seconds: the stored one is raised to it, never lowered, and set where there
            is none; the version stays. None, or a state that is not there, leaves things as they are.
    """

    key: str
    version: int
    active: float | None = None


@frozen
class Written:
    """
    What a write did.

    Attributes:
        ids: The ids of the records, in their order.
        dropped: The ids of older records that made room, with ``when_full="drop_oldest"``.
    """

    ids: tuple[str, ...]
    dropped: tuple[str, ...] = ()


@frozen
class Pending:
    """
    How much is in the storage.

    Attributes:
        waiting: Records not yet delivered, in whatever state.
        taken: Those of them that are leased or put off.
        dead: Dead letters.
        routes: `waiting` by route.
    """

    waiting: int
    taken: int
    dead: int
    routes: Mapping[str, int]


#: The last ids given out when the mark was made, by route: what was written before is at or below it.
Watermark = Mapping[str, str]


class Storage(Protocol):
    """
    Where records wait and state is remembered.

    Every coroutine raises `StorageError` where the storage refuses; nothing is half-written then. It may be opened
    again after it was closed.
    """

    @property
    def commits(self) -> int:
        """How many transactions wrote records, states or verdicts so far."""
        ...

    async def open(self) -> None:
        """Make ready; to be called once, before all else."""
        ...

    async def write(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck] = ()) -> Written:
        """
        Keep records and states in one atomic commit; returns once it is durable.

        A caller that is cancelled meanwhile may find them written all the same.

        Args:
            records: What is to be sent.
            states: What is to be remembered, and what must not have changed. Each version, and each
                `StateChange.seen`, is held against the storage as it was before this call, what others wrote
                earlier in the same commit included; then they act in their order.

        Raises:
            QueueFullError: No room, and the storage was told to raise.
            StateConflictError: A state's version is not the stored one, or its activity is later than was seen;
                nothing was written.
        """
        ...

    async def lease(
        self, limit: int, seconds: float, now: float, *, skip: Iterable[str] = (), only: str | None = None
    ) -> list[Leased]:
        """
        Take records that are due, oldest first within a route, and keep others off them for a while.

        Args:
            limit: How many at the most.
            seconds: How long they are ours, at most `MAX_DUE_AHEAD`.
            now: UNIX seconds.
            skip: Routes to leave alone.
            only: The one route to take from.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Act on verdicts, durably; returns how many records left the queue. Ids never leased are passed over."""
        ...

    async def find(self, ids: Iterable[str]) -> dict[str, str]:
        """Tell the fate of records: ``"queued"`` or the reason of their death; those gone are left out."""
        ...

    async def mark(self) -> Watermark:
        """Draw a line: `remaining` tells how much from before it is left."""
        ...

    async def remaining(self, mark: Watermark, *, skip: Iterable[str] = ()) -> int:
        """Count the records at or below a mark that still wait, routes in `skip` left out."""
        ...

    async def pending(self) -> Pending:
        """Count what is here, in a time that does not grow with the queue."""
        ...

    async def waiting(self, limit: int) -> list[Leased]:
        """Look at the oldest waiting records without taking them."""
        ...

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Look at the newest dead letters."""
        ...

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters, all of them by default, back into the queue under their old ids; returns how many."""
        ...

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters, all of them by default; returns how many."""
        ...

    async def load_state(self, key: str) -> State | None:
        """Look a remembered value up."""
        ...

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """
        Look at the states, with their keys, whose last activity is earlier than a moment, earliest first.

        It takes no longer where there are more states. States without activity are left out.

        Args:
            before: UNIX seconds.
            limit: How many at the most.
        """
        ...

    async def wipe(self) -> None:
        """Delete all records, dead letters and states."""
        ...

    async def aclose(self) -> None:
        """Finish what was asked for and let go; idempotent."""
        ...


async def replace_state(storage: Storage, key: str, value: bytes | None) -> None:
    """
    Store a value under a key, whatever is stored there; the last caller wins.

    Nothing is written where the value is already stored.

    Args:
        storage: The storage, open.
        key: The key of the state.
        value: The new value, or None to delete the state.

    Raises:
        StorageError: The storage refused the write.
    """
    while True:
        stored = await storage.load_state(key)
        if (stored.value if stored else None) == value:
            return
        try:
            await storage.write((), (StateChange(key, value, stored.version if stored else 0),))
        except StateConflictError:
            # Another caller wrote between the read and the write: compare again with what it stored.
            continue
        return
