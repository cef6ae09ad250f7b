"""
A dry run: checks every line of a file as an import does, and writes nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

from attrs import evolve

from exponea_async.cli.importer.chunks import ChunkReader, track
from exponea_async.cli.importer.job import CHUNK_LINES, Job, open_reader
from exponea_async.cli.importer.observations import Observations, day
from exponea_async.cli.terminal import ProgressLine, number
from exponea_async.client import Exponea
from exponea_async.models import FlushMode
from exponea_async.storage import MEMORY

#: How many invalid lines are shown.
MAX_SHOWN = 10


class DryRun:
    """
    The check of a file.

    Args:
        job: What would be imported.
        file: The file, open for reading bytes.

    Attributes:
        lines: How many lines contained data.
        invalid: How many of them were invalid.
        shown: The numbers of the first invalid lines, with the reasons.

    Raises:
        UsageError: The file can't be used.
    """

    def __init__(self, job: Job, file: BinaryIO) -> None:
        self._job = job
        self._reader = open_reader(job, file)
        self._chunks = ChunkReader(self._reader, job.mapping, CHUNK_LINES)
        self.lines = self.invalid = 0
        self.shown: list[tuple[int, str]] = []

    @property
    def observations(self) -> Observations:
        """What looks like a mistake."""
        return self._chunks.observations

    async def run(self) -> None:
        """Check all lines."""
        async with self._open_client() as exponea:
            while chunk := await asyncio.to_thread(self._chunks.read):
                _, invalid = await track(exponea, chunk)
                self.lines += len(chunk.entries) + len(chunk.invalid)
                self.invalid += len(invalid)
                self.shown += [(line.number, reason) for line, reason in invalid][: MAX_SHOWN - len(self.shown)]

    @asynccontextmanager
    async def _open_client(self) -> AsyncIterator[Exponea]:
        """Open a client that forgets what it has tracked, chunk by chunk, and sends nothing."""
        settings = self._job.configuration
        queue = evolve(settings.queue, max_records=CHUNK_LINES * len(self._job.projects), when_full="drop_oldest")
        configuration = evolve(
            settings, storage=MEMORY, app_group=None, queue=queue, flush_mode=FlushMode.MANUAL, on_invalid="raise"
        )
        exponea = Exponea(configuration)
        await exponea.start()
        try:
            yield exponea
        finally:
            await exponea.aclose(0)

    def summary(self) -> dict[str, Any]:
        """Return what is printed."""
        seen = self.observations
        counts: dict[str, Any] = {"lines": self.lines, "valid": self.lines - self.invalid, "bad": self.invalid}
        if seen.earliest is not None and seen.latest is not None:
            counts |= {"first timestamp": day(seen.earliest), "last timestamp": day(seen.latest)}
        return counts

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        seen = self.observations
        return {
            "lines": self.lines,
            "valid": self.lines - self.invalid,
            "bad": self.invalid,
            "earliest": seen.earliest,
            "latest": seen.latest,
            "errors": [{"line": line, "reason": reason} for line, reason in self.shown],
            "warnings": seen.as_json(),
        }

    def describe(self) -> ProgressLine:
        """Return the progress."""
        return ProgressLine(
            f"{number(self.lines)} lines checked", self._reader.offset / max(1, self._job.path.stat().st_size)
        )
