"""
Moving the content of a queue from a file to PostgreSQL; it may be interrupted at any point and started again.

Each part is stored in the database, with a note of it in the same transaction, and then deleted from the file. After an
interruption, the note says what has to be deleted from the file first. The file has a mark meanwhile, with which no
client opens it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from attrs import define

from exponea_async._internal.closing import run_thread_to_end
from exponea_async.errors import StorageError
from exponea_async.storage.parts import MovedLetter, MovedRecord
from exponea_async.storage.postgres.moving import MoveTarget
from exponea_async.storage.sqlite.moving import MovableFile, is_being_moved
from exponea_async.storage.sqlite.storage import SQLiteStorage

T = TypeVar("T")
Part = TypeVar("Part", MovedRecord, MovedLetter)

#: How many records, and states, a part has at most.
MAX_RECORDS, MAX_STATES = 2_000, 200
#: The size of the records of a part, in bytes, unless it is a single one.
MAX_SIZE = 8_000_000


@define
class Progress:
    """
    How much was moved.

    Attributes:
        total: The number of records, dead letters and states that were in the file.
        records: The number of records that were moved.
        letters: The number of dead letters.
        states: The number of states.
    """

    total: int = 0
    records: int = 0
    letters: int = 0
    states: int = 0


async def open_source(path: Path, report: Callable[[StorageError], None]) -> MovableFile:
    """
    Open the file of a queue so that no other process can open it.

    Args:
        path: The file, which exists.
        report: Called with a `DamagedFileError` when the file was damaged and what could be read was saved.

    Raises:
        LifecycleError: A process has the file open.
        StorageError: What is at the path is not a queue, or can't be used.
    """
    is_moving = await in_thread(is_being_moved, path)
    if not is_moving:
        # As a client does: an older file is brought up to date, and times of an earlier start of the machine end.
        storage = SQLiteStorage(path, report=report)
        await storage.open()
        await storage.aclose()
    source = await in_thread(MovableFile, path)
    if is_moving:
        # A move that an older version has begun; clients can't open such a file.
        await in_thread(source.migrate)
    return source


class Move:
    """
    A move that begins or goes on.

    Args:
        source: The file.
        target: The queue, open.

    Attributes:
        progress: How much was moved so far.
    """

    def __init__(self, source: MovableFile, target: MoveTarget) -> None:
        self._source = source
        self._target = target
        self.progress = Progress()

    async def run(self) -> None:
        """
        Move everything.

        Raises:
            StorageError: The file is a copy of one that was moved, or the queue has other values for some states, and
                nothing was moved; or the database refused, and the rest is still in the file.
        """
        await self.recover()
        self.progress.total = sum(await in_thread(self._source.count))
        await self._check_states()
        await in_thread(self._source.set_target, self._target.generation)
        await self._move_states()
        for route, name in (await in_thread(self._source.routes)).items():
            await self._move_letters(route, name)
            await self._move_records(route, name)
        await self.end()
        await in_thread(self._source.compact)

    async def delete_source(self) -> None:
        """Delete the file, from which everything was moved."""
        await in_thread(self._source.delete)

    async def end(self) -> None:
        """Let clients use the file again."""
        await in_thread(self._source.set_target, 0)

    async def recover(self) -> None:
        """
        Delete from the file what an interrupted move has stored.

        Raises:
            StorageError: The move was one to another queue, or the file is a copy of one that was moved.
        """
        source, marks = self._source, await self._target.marks()
        going_to = await in_thread(lambda: source.target)
        if not going_to:
            await self._check_copy(marks)
            return
        if going_to != self._target.generation:
            raise StorageError(
                f"The content of {source.path} is being moved to another queue, or that queue was wiped since.",
                hint="Run the command with the same project and the same database as before.",
            )
        await in_thread(source.delete_states, await self._target.last_states())
        for route, (record, letter) in marks.items():
            await in_thread(source.delete_letters, route, letter)
            await in_thread(source.delete_records, route, record)

    async def _check_copy(self, marks: dict[int, tuple[int, int]]) -> None:
        """Refuse the file if it has what was moved already: ids are never given again."""
        for route, (record, letter) in marks.items():
            records = await in_thread(self._source.records, route, 1)
            letters = await in_thread(self._source.letters, route, 1)
            if any(each.id <= record for each in records) or any(each.id <= letter for each in letters):
                raise StorageError(
                    f"{self._source.path} is a copy of a file whose content was moved already; nothing was moved.",
                    hint="Delete the copy, or upload what it has with 'exponea-async flush'.",
                )

    # States

    async def _check_states(self) -> None:
        """Refuse to move anything if the queue has other values for some states: neither may be lost."""
        count, after = 0, ""
        while states := await in_thread(self._source.states, MAX_STATES, after):
            count += len(await self._target.other_states([(each.key, each.value) for each in states]))
            after = states[-1].key
        if count:
            raise StorageError(
                f"The queue in the database has other values for {count} states of {self._source.path}, such as those"
                " of devices, projects or withdrawn consent.",
                hint="Move a file before clients use the queue in the database. The events in the file can be uploaded "
                "from there, with 'exponea-async flush'.",
            )

    async def _move_states(self) -> None:
        while states := await in_thread(self._source.states, MAX_STATES):
            await self._target.add_states(states)
            await in_thread(self._source.delete_states, [(each.key, each.version) for each in states])
            self.progress.states += len(states)

    # Records

    async def _move_letters(self, route: int, name: str) -> None:
        while letters := _part(await in_thread(self._source.letters, route, MAX_RECORDS)):
            await self._target.add_letters(route, name, letters)
            await in_thread(self._source.delete_letters, route, letters[-1].id)
            self.progress.letters += len(letters)

    async def _move_records(self, route: int, name: str) -> None:
        while records := _part(await in_thread(self._source.records, route, MAX_RECORDS)):
            await self._target.add_records(route, name, records)
            await in_thread(self._source.delete_records, route, records[-1].id)
            self.progress.records += len(records)


def _part(rows: Sequence[Part]) -> Sequence[Part]:
    """Return the first rows, as many as are not too large together."""
    size = 0
    for index, row in enumerate(rows):
        size += len(row.body)
        if size > MAX_SIZE and index:
            return rows[:index]
    return rows


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Run work in a thread, and wait for it even if the caller is cancelled: the file must not be closed meanwhile."""
    return await run_thread_to_end(partial(work, *args))
