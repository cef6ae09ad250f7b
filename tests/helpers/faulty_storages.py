"""
Storages in memory with one fault each, which the contract of storages must find.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve

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
    Waiting,
    Watermark,
    Written,
)
from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.storage.memory import MemoryStorage
from exponea_async.testing import storage_contract as contract

States = Sequence[StateChange | StateCheck]
OnCommit = Callable[[Written], None] | None


class ChangedWrites(MemoryStorage):
    """Writes other records or states than it is given."""

    async def write(self, records: Sequence[Record], states: States = (), on_commit: OnCommit = None) -> Written:
        changed = [await self.changed(state) for state in states]
        return await super().write(self.changed_records(records), changed, on_commit)

    def changed_records(self, records: Sequence[Record]) -> Sequence[Record]:
        return records

    async def changed(self, state: StateChange | StateCheck) -> StateChange | StateCheck:
        return state


class WritesText(ChangedWrites):
    """Stores only the bytes that are text."""

    def changed_records(self, records: Sequence[Record]) -> Sequence[Record]:
        return [each._replace(body=each.body.decode(errors="replace").encode()) for each in records]


class LosesRecords(ChangedWrites):
    """Loses what is beyond the first thousand records of a write."""

    def changed_records(self, records: Sequence[Record]) -> Sequence[Record]:
        return records[:1000]


class ComparesNoVersions(ChangedWrites):
    """Takes the stored version of a state for the one that was read."""

    async def changed(self, state: StateChange | StateCheck) -> StateChange | StateCheck:
        stored = await self.load_state(state.key)
        version = stored.version if stored else 0
        # A check is a named tuple; a change is an attrs class, whose repr hides the value.
        return state._replace(version=version) if isinstance(state, StateCheck) else evolve(state, version=version)


class ComparesNoActivity(ChangedWrites):
    """Ends a session although there was activity since it was read."""

    async def changed(self, state: StateChange | StateCheck) -> StateChange | StateCheck:
        return evolve(state, seen=None) if isinstance(state, StateChange) else state


class IgnoresActivity(ChangedWrites):
    """Does not store the activity of a check."""

    async def changed(self, state: StateChange | StateCheck) -> StateChange | StateCheck:
        return state._replace(active=None) if isinstance(state, StateCheck) else state


class IsNotAtomic(MemoryStorage):
    """Writes the records before it compares the states."""

    async def write(self, records: Sequence[Record], states: States = (), on_commit: OnCommit = None) -> Written:
        written = await super().write(records)
        await super().write((), states)
        if on_commit is not None:
            on_commit(written)
        return written


class ReportsNoCommit(MemoryStorage):
    """Does not call `on_commit`."""

    async def write(self, records: Sequence[Record], states: States = (), on_commit: OnCommit = None) -> Written:
        return await super().write(records, states)


class ReportsBeforeTheCommit(MemoryStorage):
    """Calls `on_commit` also where nothing is written."""

    async def write(self, records: Sequence[Record], states: States = (), on_commit: OnCommit = None) -> Written:
        if on_commit is not None:
            on_commit(Written(()))
        return await super().write(records, states)


class HidesDropped(MemoryStorage):
    """Does not return the ids of records that it drops."""

    async def write(self, records: Sequence[Record], states: States = (), on_commit: OnCommit = None) -> Written:
        return (await super().write(records, states, on_commit))._replace(dropped=())


class IgnoresCapacity(MemoryStorage):
    """Holds any number of records."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()


class RaisesWhereItShouldWait(MemoryStorage):
    """Refuses a write that exceeds the capacity, whatever the setting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"when_full": "raise"})


class ChangedLeases(MemoryStorage):
    """Leases with other arguments than it is given."""

    async def lease(self, limit: int, seconds: float, now: float, **options: Any) -> list[Leased]:
        return await super().lease(limit, **self.changed({"seconds": seconds, "now": now} | options))

    def changed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class LeasesTwice(ChangedLeases):
    """Leases a record again while it is leased."""

    def changed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"seconds": 0.0}


class LeasesSkippedRoutes(ChangedLeases):
    """Leases from routes that are to be left out."""

    def changed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"skip": ()}


class LeasesInOneOrder(ChangedLeases):
    """Always leases records that were leased before first."""

    def changed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"untouched_first": False}


class TrustsTheClock(ChangedLeases):
    """Leases nothing before the latest time that it was ever given."""

    latest = 0.0

    def changed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.latest = max(self.latest, arguments["now"])
        return arguments | {"now": self.latest}


class StarvesRoutes(MemoryStorage):
    """Leases from the first route as long as that has records."""

    async def lease(self, limit: int, seconds: float, now: float, **options: Any) -> list[Leased]:
        if options.get("only") is not None:
            return await super().lease(limit, seconds, now, **options)
        leased: list[Leased] = []
        for route in sorted((await self.pending()).routes):
            leased += await super().lease(limit - len(leased), seconds, now, **options | {"only": route})
        return leased


class ForgetsFailures(MemoryStorage):
    """Does not store how often a record failed."""

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        return await super().settle([each._replace(failures=0) for each in settlements])


class SettlesUntouchedRecords(MemoryStorage):
    """Settles records that nobody has leased."""

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        await self.lease(10**6, 0.0, 0.0)
        return await super().settle(settlements)


class CountsEachVerdict(MemoryStorage):
    """Counts what was settled, also what stays in the queue."""

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        await super().settle(settlements)
        return sum(len(each.ids) for each in settlements)


class ForgetsMarks(MemoryStorage):
    """Does not know what became of records that have left the queue."""

    async def find(self, ids: Iterable[str]) -> dict[str, RecordStatus]:
        return {key: status for key, status in (await super().find(ids)).items() if status.kind == "queued"}


class CountsWrong(MemoryStorage):
    """Does not count leased records."""

    async def pending(self) -> Pending:
        count = await super().pending()
        return count._replace(waiting=count.waiting - count.leased)


class CountsLaterRecords(MemoryStorage):
    """Counts records that were written after the watermark."""

    async def remaining(self, watermark: Watermark, **options: Any) -> int:
        return await super().remaining(await self.watermark(), **options)


class CountsEverything(MemoryStorage):
    """Counts on where the caller needs no more."""

    async def remaining(self, watermark: Watermark, **options: Any) -> int:
        return await super().remaining(watermark, **options | {"at_most": None})


class SharesNoRateLimit(MemoryStorage):
    """Lets each caller send at once."""

    async def reserve(self, name: str, count: int, rate: float) -> float:
        return 0.0


class HasOneRateLimit(MemoryStorage):
    """Has one rate limit for all names."""

    async def reserve(self, name: str, count: int, rate: float) -> float:
        return await super().reserve("", count, rate)


class ShowsTheOrderOfWrites(MemoryStorage):
    """Shows records in the order in which they were written, not by their age."""

    async def waiting(self, limit: int) -> list[Waiting]:
        return sorted(await super().waiting(limit), key=lambda each: each.id)


class ShowsTheOldestLetters(MemoryStorage):
    """Shows the oldest dead letters first."""

    async def dead(self, limit: int) -> list[DeadLetter]:
        return list(reversed(await super().dead(10**6)))[:limit]


class RevivesUnderNewIds(MemoryStorage):
    """Gives records that are revived new ids."""

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        wanted = None if ids is None else set(ids)
        letters = [each for each in await self.dead(10**6) if wanted is None or each.id in wanted]
        await super().purge([each.id for each in letters])
        await self.write([Record(each.route, each.body, each.at) for each in letters])
        return len(letters)


class TakesNoneForAll(MemoryStorage):
    """Deletes all dead letters where no ids are given."""

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        return await super().purge(list(ids or ()) or None)


class ForgetsOldNames(MemoryStorage):
    """Loses the records of a route that it renames to one that has records."""

    async def rename_route(self, old: str, new: str) -> None:
        await self.drop_waiting([new])
        await super().rename_route(old, new)


class ErasesWithoutALook(MemoryStorage):
    """Erases whatever contains a trace."""

    async def erase(self, erasure: Erasure) -> Erased:
        return await super().erase(erasure._replace(is_record=lambda _: True))


class KeepsStates(MemoryStorage):
    """Keeps the states in a wipe."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.keys: set[str] = set()

    async def write(self, records: Sequence[Record], states: States = (), on_commit: OnCommit = None) -> Written:
        self.keys |= {each.key for each in states}
        return await super().write(records, states, on_commit)

    async def wipe(self) -> None:
        await self.open()
        kept: Mapping[str, State | None] = {key: await self.load_state(key) for key in self.keys}
        await super().wipe()
        await super().write((), [StateChange(key, each.value, 0) for key, each in kept.items() if each])


class RepeatsIds(MemoryStorage):
    """Gives ids a second time after a wipe."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        super().__init__(**settings)

    async def wipe(self) -> None:
        MemoryStorage.__init__(self, **self.settings)
        await self.open()


class HasOneGeneration(MemoryStorage):
    """Has one generation for ever."""

    async def generation(self) -> int:
        await super().generation()
        return 1


class ExpiresByName(MemoryStorage):
    """Returns expired sessions in the order of their keys."""

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        return sorted(await super().expired_sessions(before, 10**6), key=lambda each: each[0])[: max(0, limit)]


class ExpiresEarly(MemoryStorage):
    """Returns also sessions whose activity is at the time."""

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        return await super().expired_sessions(before + 0.001, limit)


class NeverCloses(MemoryStorage):
    """Can be used after it was closed."""

    async def aclose(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as the protocol has it
        pass


class HasOneNumber(MemoryStorage):
    """Has the same number in each opening."""

    async def open(self) -> None:
        await super().open()
        self.number = 0


#: Each fault, and the part of the contract that is about its subject and must find it.
FAULTS: Mapping[type[MemoryStorage], type] = {
    WritesText: contract.WritingContract,
    LosesRecords: contract.WritingContract,
    ReportsNoCommit: contract.WritingContract,
    ReportsBeforeTheCommit: contract.WritingContract,
    HasOneNumber: contract.WritingContract,
    ForgetsOldNames: contract.RouteContract,
    LeasesTwice: contract.LeasingContract,
    LeasesSkippedRoutes: contract.LeasingContract,
    TrustsTheClock: contract.LeasingContract,
    StarvesRoutes: contract.LeasingContract,
    LeasesInOneOrder: contract.SettlingContract,
    ForgetsFailures: contract.SettlingContract,
    SettlesUntouchedRecords: contract.SettlingContract,
    CountsEachVerdict: contract.SettlingContract,
    ForgetsMarks: contract.ReadingContract,
    CountsWrong: contract.ReadingContract,
    CountsLaterRecords: contract.ReadingContract,
    CountsEverything: contract.ReadingContract,
    SharesNoRateLimit: contract.SharingContract,
    HasOneRateLimit: contract.SharingContract,
    ShowsTheOrderOfWrites: contract.ReadingContract,
    ShowsTheOldestLetters: contract.ReadingContract,
    HasOneGeneration: contract.ReadingContract,
    ErasesWithoutALook: contract.ErasingContract,
    RevivesUnderNewIds: contract.DeadLetterContract,
    TakesNoneForAll: contract.DeadLetterContract,
    ComparesNoVersions: contract.StateContract,
    IsNotAtomic: contract.StateContract,
    ComparesNoActivity: contract.ActivityContract,
    IgnoresActivity: contract.ActivityContract,
    ExpiresByName: contract.ActivityContract,
    ExpiresEarly: contract.ActivityContract,
    IgnoresCapacity: contract.CapacityContract,
    RaisesWhereItShouldWait: contract.CapacityContract,
    HidesDropped: contract.CapacityContract,
    KeepsStates: contract.LifeCycleContract,
    RepeatsIds: contract.LifeCycleContract,
    NeverCloses: contract.LifeCycleContract,
}
