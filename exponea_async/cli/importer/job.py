"""
An import: reads a file chunk by chunk, tracks each chunk in one commit and writes a checkpoint after it.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from attrs import asdict, evolve, frozen

from exponea_async.cli.importer.checkpoint import Checkpoint, Journal, fingerprint
from exponea_async.cli.importer.chunks import Chunk, ChunkReader, InvalidLines, track
from exponea_async.cli.importer.mapping import ColumnMapping
from exponea_async.cli.importer.observations import Observations
from exponea_async.cli.importer.reader import Layout, LineReader
from exponea_async.cli.importer.rejects import REJECTS, RejectsFile, RejectsReader
from exponea_async.cli.options import waiting_by_project, with_uploads
from exponea_async.cli.terminal import ProgressLine, UsageError, duration, number
from exponea_async.client import Exponea
from exponea_async.config import Configuration
from exponea_async.errors import ExponeaError
from exponea_async.models import EventType, FlushMode, Receipt

#: How many lines are tracked in one commit.
CHUNK_LINES = 500
#: How many records may wait. The file is read no faster than events are uploaded, so neither memory nor disk fills up.
MAX_RECORDS = 10_000
#: With more open receipts than this, another process probably uploads the queue, and ours are not resolved.
MAX_OPEN_RECEIPTS = 20_000
#: How long to wait for receipts that poll the queue themselves, which they do every second, in seconds.
POLL_TIMEOUT = 2.5


@frozen(kw_only=True)
class Job:
    """
    What is to be imported, and how.

    Attributes:
        path: The file.
        layout: Its layout.
        mapping: The meaning of its columns.
        journal: The journal.
        rejects: The file for invalid lines.
        configuration: The settings of the client.
        again: Whether to start over, even if the journal contains a checkpoint.
    """

    path: Path
    layout: Layout
    mapping: ColumnMapping
    journal: Path
    rejects: Path
    configuration: Configuration
    again: bool

    @property
    def projects(self) -> frozenset[str]:
        """The tokens of the projects that get the events."""
        return frozenset(each.project_token for each in self.configuration.projects_for(EventType.TRACK_EVENT))

    async def client_configuration(self) -> Configuration:
        """
        Return settings that keep the queue short, upload at once, and lose nothing that the journal counts.

        Raises:
            StorageError: The queue can't be read.
        """
        queue = evolve(
            self.configuration.queue,
            when_full="wait",
            max_records=await self._left_over() + max(MAX_RECORDS, CHUNK_LINES * len(self.projects)),
            # The journal survives a loss of power, so the events that it counts as tracked must survive it too.
            durability="power",
        )
        # Invalid lines are collected, whatever the application does with its own invalid events.
        return evolve(with_uploads(self.configuration), queue=queue, flush_mode=FlushMode.IMMEDIATE, on_invalid="raise")

    async def _left_over(self) -> int:
        """Return how many records of other projects are in the queue, where they may stay."""
        waiting = await waiting_by_project(self.configuration)
        return sum(count for project, count in waiting.items() if project not in self.projects)

    def identity(self, file: BinaryIO) -> dict[str, Any]:
        """Return what distinguishes this import from others. The keys are part of the format of the journal."""
        mapping = self.mapping
        return {
            "file": fingerprint(file),
            "project": self.configuration.project_token,
            "mapping": {
                "format": self.layout.format,
                "columns": self.layout.columns,
                "delimiter": self.layout.delimiter,
                "skip": self.layout.skip_lines,
                "event": mapping.event,
                "event_column": mapping.event_column,
                "ids": mapping.ids,
                "timestamp": mapping.timestamp,
                "moments": self._timestamps(),
                "properties": [asdict(each) for each in mapping.properties],
                "line_number": mapping.line_number,
                # They are in each event too: with other values, the platform would not recognise an event sent twice.
                "stamps": [dict(self.configuration.default_properties), self.configuration.application_id],
            },
        }

    def _timestamps(self) -> list[str]:
        mapping = self.mapping
        column = [mapping.format_column] if mapping.format_column else []
        return [mapping.timestamp_format.pattern, str(mapping.timestamp_format.zone), *column]


class Deliveries:
    """
    Counts the results of receipts; only receipts without a result are kept.

    Attributes:
        delivered: How many events Engagement has accepted.
        rejected: How many events Engagement has rejected.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self.rejected = 0
        self._open: list[Receipt] = []

    @property
    def open(self) -> int:
        """How many receipts have no result yet."""
        return len(self._open)

    async def add(self, receipts: Iterable[Receipt]) -> None:
        """Add receipts."""
        self._open += receipts
        self._count()
        if len(self._open) > MAX_OPEN_RECEIPTS:
            await self.poll()

    async def poll(self) -> None:
        """Let receipts without a result look it up in the queue."""
        self._count()
        await asyncio.gather(*map(_poll, self._open))
        self._count()

    def _count(self) -> None:
        still_open: list[Receipt] = []
        for receipt in self._open:
            if receipt.status == "queued":
                still_open.append(receipt)
            elif receipt.status == "delivered":
                self.delivered += 1
            else:
                self.rejected += 1
        self._open = still_open


async def _poll(receipt: Receipt) -> None:
    with suppress(ExponeaError):
        await receipt.decided(POLL_TIMEOUT)


class Importer:
    """
    A running import.

    Args:
        job: What is to be imported.
        file: The file, open for reading bytes.

    Attributes:
        start: The checkpoint at which this run started.
        checkpoint: The latest checkpoint.
        deliveries: The results of the events of this run.

    Raises:
        UsageError: The file, the journal or the rejects file can't be used.
    """

    def __init__(self, job: Job, file: BinaryIO) -> None:
        self._path = job.path
        self._projects = job.projects
        identity = job.identity(file)
        self._size = identity["file"]["size"]
        self._reader = open_reader(job, file)
        self._chunks = ChunkReader(self._reader, job.mapping, CHUNK_LINES)
        self._journal = Journal(job.journal, identity)
        if job.again:
            self._journal.check_replaceable()
        stored = None if job.again else self._journal.load()
        self.start = self.checkpoint = stored or Checkpoint()
        self.deliveries = Deliveries()
        self._started_at = time.monotonic()
        self._is_reading = True
        self._unsent = 0
        if not self.is_finished:
            self._rejects = self._open_rejects(job)
        if self.checkpoint.offset:
            self._reader.seek(self.checkpoint.offset, self.checkpoint.line_number)

    def _open_rejects(self, job: Job) -> RejectsFile:
        """Open the rejects file and write the journal once, so that a file that can't be written is found now."""
        try:
            self._journal.save(self.checkpoint)
            return RejectsFile(job.rejects, self.checkpoint.rejects_size)
        except OSError as error:
            raise UsageError(
                error.filename, f"can't be written: {error.strerror}", "Choose other files with --journal and --bad."
            ) from None

    async def run(self, exponea: Exponea) -> None:
        """
        Track all lines, then upload all events.

        Raises:
            UsageError: The file has changed while it was read.
        """
        while chunk := await asyncio.to_thread(self._chunks.read):
            receipts, invalid = await track(exponea, chunk)
            await self.deliveries.add(receipts)
            await asyncio.to_thread(self._save_checkpoint, chunk, len(receipts), invalid)
        if self._reader.offset != self._size:
            raise UsageError(self._path, "has changed while it was read", "Pass --again to start over.")
        self._is_reading = False
        self._unsent = (await exponea.flush_data(projects=self._projects)).remaining
        if not self._unsent:
            await self.deliveries.poll()
            self.checkpoint = self.checkpoint.finished()
            await asyncio.to_thread(self._journal.save, self.checkpoint)

    def close(self) -> None:
        """Close the rejects file."""
        self._rejects.close()

    def _save_checkpoint(self, chunk: Chunk, tracked: int, invalid: InvalidLines) -> None:
        """Store how far the import has come; all lines up to there are in the queue or in the rejects file."""
        for line, reason in invalid:
            self._rejects.add(line, reason)
        self._rejects.sync()
        self.checkpoint = Checkpoint(
            offset=chunk.offset,
            line_number=chunk.line_number,
            lines=self.checkpoint.lines + len(chunk.entries) + len(chunk.invalid),
            tracked=self.checkpoint.tracked + tracked,
            invalid=self.checkpoint.invalid + len(invalid),
            rejects_size=self._rejects.size,
        )
        self._journal.save(self.checkpoint)

    # Progress

    @property
    def is_finished(self) -> bool:
        """Whether every event was delivered or rejected."""
        return self.checkpoint.finished_at is not None

    @property
    def remaining(self) -> int:
        """How many events were neither delivered nor rejected yet."""
        return max(self.deliveries.open, self._unsent)

    @property
    def tracked(self) -> int:
        """How many events this run has tracked."""
        return self.checkpoint.tracked - self.start.tracked

    @property
    def invalid(self) -> int:
        """How many lines of this run were invalid."""
        return self.checkpoint.invalid - self.start.invalid

    @property
    def lines(self) -> int:
        """How many lines with data this run has read."""
        return self.checkpoint.lines - self.start.lines

    @property
    def seconds(self) -> float:
        """The duration of this run so far, in seconds."""
        return max(time.monotonic() - self._started_at, 1e-3)

    @property
    def observations(self) -> Observations:
        """What looks like a mistake in the lines of this run."""
        return self._chunks.observations

    def describe(self) -> ProgressLine:
        """Return the progress."""
        if not self._is_reading:
            delivered = number(self.deliveries.delivered)
            return ProgressLine(f"all lines are read; {delivered} delivered, uploading the rest")
        share = self.checkpoint.offset / max(1, self._size)
        done = self.checkpoint.offset - self.start.offset
        left = duration((self._size - self.checkpoint.offset) * self.seconds / done) if done else "?"
        rate = self.lines / self.seconds
        return ProgressLine(f"{number(self.checkpoint.lines)} lines  {rate:,.0f}/s  {left} left", share)


def open_reader(job: Job, file: BinaryIO) -> LineReader:
    """
    Return the lines of a job's file.

    Raises:
        UsageError: The first line does not name the columns, or a column does not exist.
    """
    reader = RejectsReader(file) if job.layout.format == REJECTS else LineReader(file, job.layout)
    if reader.columns:
        job.mapping.check_columns(reader.columns)
    return reader
