"""
An import under way: chunk by chunk from the file into the queue, the journal after each.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from attrs import asdict, evolve, frozen

from exponea_async.cli.exits import Exit, UsageError
from exponea_async.cli.importer.checkpoint import Journal, Place, fingerprint
from exponea_async.cli.importer.deliveries import Deliveries
from exponea_async.cli.importer.mapping import Plan
from exponea_async.cli.importer.reader import Layout, Line, Lines
from exponea_async.cli.importer.rejects import BadLines
from exponea_async.cli.options import opened
from exponea_async.cli.tasks import first_of
from exponea_async.cli.terminal import Progress, complain, duration, number, print_facts, print_json
from exponea_async.client import Exponea
from exponea_async.config import Configuration
from exponea_async.errors import InvalidEventError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Event, FlushMode, Receipt

#: How many lines go into the queue with one commit.
CHUNK = 500
#: How many records may wait: the file is read no faster than it can be sent, so neither memory nor disk fills.
DEPTH = 10_000
BAR = 20

Addressed = tuple[Mapping[str, str], Event]


@frozen(kw_only=True)
class Job:
    """
    What is to be imported, and how.

    Attributes:
        path: The file.
        layout: How it is written.
        plan: What its columns mean.
        journal: Where the place is kept.
        bad: Where bad lines go.
        settings: The client's.
        again: Begin anew, whatever the journal says.
    """

    path: Path
    layout: Layout
    plan: Plan
    journal: Path
    bad: Path
    settings: Configuration
    again: bool

    def client_settings(self) -> Configuration:
        """Make settings that keep the queue short, upload at once, and never lose what the journal counts on."""
        queue = evolve(
            self.settings.queue,
            when_full="wait",
            max_records=max(DEPTH, CHUNK * len(self.settings.projects)),
            # The journal survives a loss of power, so what it says is tracked has to survive it too.
            durability="power",
        )
        return evolve(self.settings, queue=queue, flush_mode=FlushMode.IMMEDIATE)

    def about(self, file: BinaryIO) -> dict[str, Any]:
        """Tell what tells this import from others."""
        plan = asdict(self.plan)
        plan["moments"] = [self.plan.moments.pattern, str(self.plan.moments.zone)]
        # These are on each event too; with others, what was sent would not be recognised as the same.
        plan["stamps"] = [dict(self.settings.default_properties), self.settings.application_id]
        main = self.settings.main
        return {
            "file": fingerprint(file),
            "project": f"{main.base_url}/{main.project_token}",
            "mapping": {**asdict(self.layout), **plan},
        }


@frozen
class Chunk:
    """
    Some lines that belong in one commit.

    Attributes:
        good: Those that became events.
        bad: The others, with the reason.
        end: The place behind them.
    """

    good: Sequence[tuple[Line, Addressed]]
    bad: Sequence[tuple[Line, str]]
    end: tuple[int, int]


class Transfer:
    """
    An import under way.

    Args:
        job: What is to be imported.
        file: The file, open for reading bytes.
    """

    def __init__(self, job: Job, file: BinaryIO) -> None:
        self._path = job.path
        self._plan = job.plan
        about = job.about(file)
        self._size = about["file"]["size"]
        self._lines = Lines(file, job.layout)
        if self._lines.columns:
            job.plan.check(self._lines.columns)
        self._journal = Journal(job.journal, about)
        kept = None if job.again else self._journal.load()
        self.start = self.place = kept or Place()
        self.deliveries = Deliveries()
        self._began = time.monotonic()
        self._reading = True
        self._left = 0
        if not self.finished:
            self._bad = self._prepare(job)

    def _prepare(self, job: Job) -> BadLines:
        """Make ready to go on, and find out now whether the files can be written."""
        try:
            self._journal.save(self.place)
            bad = BadLines(job.bad, self.place.bad_size)
        except OSError as error:
            raise UsageError(
                f"{error.filename} can't be written: {error.strerror}; --journal and --bad name other files"
            ) from None
        if self.place.offset:
            self._lines.go_to(self.place.offset, self.place.number)
        return bad

    async def run(self, exponea: Exponea) -> None:
        """Bring all lines into the queue, then all records to Engagement."""
        while chunk := await asyncio.to_thread(self._read):
            receipts, bad = await self._keep(exponea, chunk)
            await self.deliveries.add(receipts)
            await asyncio.to_thread(self._note, chunk, len(receipts), bad)
        if self._lines.offset != self._size:
            raise UsageError(f"{self._path} has changed while it was read; --again begins anew")
        self._reading = False
        self._left = (await exponea.flush_data()).remaining
        if not self._left:
            await self.deliveries.ask()
            self.place = self.place.finished()
            await asyncio.to_thread(self._journal.save, self.place)

    def close(self) -> None:
        """Let go of the file of bad lines."""
        self._bad.close()

    def _read(self) -> Chunk | None:
        good: list[tuple[Line, Addressed]] = []
        bad: list[tuple[Line, str]] = []
        for line in islice(self._lines, CHUNK):
            try:
                good.append((line, self._plan.carry_out(line)))
            except ValueError as error:
                bad.append((line, str(error)))
        return Chunk(good, bad, (self._lines.offset, self._lines.number)) if good or bad else None

    async def _keep(self, exponea: Exponea, chunk: Chunk) -> tuple[list[Receipt], list[tuple[Line, str]]]:
        """Track a chunk in one commit, or where something in it is wrong, each by itself."""
        try:
            return await exponea.track_many([pair for _, pair in chunk.good]), [*chunk.bad]
        except InvalidEventError:
            results = await asyncio.gather(*(_keep_one(exponea, pair) for _, pair in chunk.good))
        receipts = [result for result in results if isinstance(result, Receipt)]
        refused = [
            (line, result) for (line, _), result in zip(chunk.good, results, strict=True) if isinstance(result, str)
        ]
        return receipts, [*chunk.bad, *refused]

    def _note(self, chunk: Chunk, tracked: int, bad: Sequence[tuple[Line, str]]) -> None:
        """Write down how far it is; the lines up to there are in the queue, or among the bad ones."""
        for line, reason in sorted(bad, key=lambda each: each[0].number):
            self._bad.add(line, reason)
        self._bad.sync()
        offset, reached = chunk.end
        self.place = Place(
            offset=offset,
            number=reached,
            lines=self.place.lines + len(chunk.good) + len(chunk.bad),
            tracked=self.place.tracked + tracked,
            bad=self.place.bad + len(bad),
            bad_size=self._bad.size,
        )
        self._journal.save(self.place)

    # How it goes

    @property
    def finished(self) -> bool:
        """Whether everything has a verdict."""
        return self.place.finished_at is not None

    @property
    def remaining(self) -> int:
        """How many events have no verdict yet."""
        return max(self.deliveries.open, self._left)

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return max(time.monotonic() - self._began, 1e-3)

    def told(self) -> str:
        """Tell how far it is."""
        if not self._reading:
            return f"all lines are read; {number(self.deliveries.delivered)} delivered, uploading the rest"
        share = self.place.offset / max(1, self._size)
        done = self.place.offset - self.start.offset
        left = duration((self._size - self.place.offset) * self.seconds / done) if done else "?"
        rate = (self.place.lines - self.start.lines) / self.seconds
        bar = "#" * round(share * BAR)
        return f"[{bar:.<{BAR}}] {share:4.0%}  {number(self.place.lines)} lines  {rate:,.0f}/s  {left} left"

    def facts(self) -> dict[str, Any]:
        """Tell what this run has done."""
        tracked = self.place.tracked - self.start.tracked
        return {
            "lines": self.place.lines - self.start.lines,
            "tracked": tracked,
            "delivered": self.deliveries.delivered,
            "rejected": self.deliveries.rejected,
            "bad": self.place.bad - self.start.bad,
            "seconds": round(self.seconds, 1),
            "events/s": round(tracked / self.seconds, 1),
        }


async def _keep_one(exponea: Exponea, pair: Addressed) -> Receipt | str:
    try:
        return (await exponea.track_many([pair]))[0]
    except InvalidEventError as error:
        return str(error).removeprefix("events[0].")


async def carry_out(job: Job, progress: Progress, *, as_json: bool) -> int:
    """
    Import a file, or go on with it.

    Raises:
        UsageError: The file or the journal can't be used.
    """
    _check_paths(job)
    with await asyncio.to_thread(_opened, job.path) as file:
        transfer = await asyncio.to_thread(Transfer, job, file)
        if transfer.finished:
            _tell_done(job.path, transfer.place, as_json=as_json)
            return Exit.DONE
        if transfer.start.offset:
            progress.say(f"{job.path} goes on after line {number(transfer.start.number)}.")
        try:
            return await _run(job, transfer, progress, as_json=as_json)
        finally:
            transfer.close()


def _check_paths(job: Job) -> None:
    places = {path.resolve() for path in (job.path, job.journal, job.bad)}
    if len(places) < 3:
        raise UsageError("the file, --journal and --bad have to be three files")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None


async def _run(job: Job, transfer: Transfer, progress: Progress, *, as_json: bool) -> int:
    paused = asyncio.Event()

    def hear(notice: DeliveryEvent) -> None:
        if notice.kind == "paused":
            paused.set()

    try:
        async with opened(job.client_settings(), Hooks(listeners=[hear])) as exponea, progress.telling(transfer.told):
            await first_of(transfer.run(exponea), paused.wait())
    except asyncio.CancelledError:
        complain(f"{job.path} was read up to line {number(transfer.place.number)}; the same command goes on there")
        raise
    facts = transfer.facts()
    if as_json:
        more = {"remaining": transfer.remaining, "resumed_at": transfer.start.number, "finished": transfer.finished}
        print_json({**facts, **more})
    else:
        print_facts(facts)
    return _code(job, transfer)


def _code(job: Job, transfer: Transfer) -> int:
    facts = transfer.facts()
    if facts["bad"]:
        complain(f"{number(facts['bad'])} lines are bad; {job.bad} tells which and why")
    if facts["rejected"]:
        complain(f"Engagement rejected {number(facts['rejected'])} events; 'exponea-async queue dead' tells why")
    if not transfer.finished:
        complain(f"{number(transfer.remaining)} events wait in the queue; the same command goes on where it was")
        return Exit.UNSENT
    return Exit.BAD_INPUT if facts["bad"] or facts["rejected"] else Exit.DONE


def _tell_done(path: Path, place: Place, *, as_json: bool) -> None:
    if as_json:
        print_json({"already": True, **asdict(place)})
        return
    day = datetime.fromtimestamp(place.finished_at or 0.0).astimezone().isoformat(" ", "seconds")
    print(f"{path} was imported on {day}: {number(place.tracked)} events of {number(place.lines)} lines.")
    print("Nothing is done; --again imports it once more.")
