"""
Chunks of lines: read from the file in a thread, and tracked together.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice

from attrs import frozen

from exponea_async.cli.importer.mapping import ColumnMapping, CustomerEvent
from exponea_async.cli.importer.observations import Observations
from exponea_async.cli.importer.reader import Line, LineReader
from exponea_async.client import Exponea
from exponea_async.errors import InvalidEventError
from exponea_async.models import Customer, Receipt

#: What a line becomes.
Entry = CustomerEvent | Customer
InvalidLines = Sequence[tuple[Line, str]]


@frozen
class Chunk:
    """
    Lines that are tracked together.

    Attributes:
        entries: The valid lines with what they become.
        invalid: The invalid lines with the reasons.
        offset: How many bytes of the file were read up to its end.
        line_number: How many lines of the file that makes.
    """

    entries: Sequence[tuple[Line, Entry]]
    invalid: InvalidLines
    offset: int
    line_number: int


class ChunkReader:
    """
    Reads a file chunk by chunk.

    Args:
        reader: The lines of the file.
        mapping: The meaning of the columns.
        size: How many lines a chunk has.

    Attributes:
        observations: What looks like a mistake in the lines that were read.
    """

    def __init__(self, reader: LineReader, mapping: ColumnMapping, size: int) -> None:
        self._reader = reader
        self._mapping = mapping
        self._size = size
        self.observations = Observations()

    def read(self) -> Chunk | None:
        """Return the next chunk, or None at the end of the file."""
        entries: list[tuple[Line, Entry]] = []
        invalid: list[tuple[Line, str]] = []
        for line in islice(self._reader, self._size):
            try:
                entry = self._mapping.read(line)
            except ValueError as error:
                invalid.append((line, str(error)))
                continue
            entries.append((line, entry))
            if isinstance(entry, Customer):
                self.observations.add_customer(line.number, entry)
            else:
                self.observations.add_event(line.number, *entry)
        return Chunk(entries, invalid, self._reader.offset, self._reader.line_number) if entries or invalid else None


async def track(exponea: Exponea, chunk: Chunk) -> tuple[list[Receipt], InvalidLines]:
    """Track a chunk; return the receipts, and all invalid lines in the order of the file."""
    events = [entry for _, entry in chunk.entries if not isinstance(entry, Customer)]
    if events:
        try:
            # In one commit; if an event is invalid, each by itself.
            return await exponea.track_many(events), chunk.invalid
        except InvalidEventError:
            pass
    # They are started in the order of the file, and so get ascending timestamps: the last update of a customer counts.
    results = await asyncio.gather(*(_track_one(exponea, entry) for _, entry in chunk.entries))
    receipts = [result for result in results if isinstance(result, Receipt)]
    invalid = [
        (line, result) for (line, _), result in zip(chunk.entries, results, strict=True) if isinstance(result, str)
    ]
    return receipts, sorted([*chunk.invalid, *invalid], key=lambda each: each[0].number)


async def _track_one(exponea: Exponea, entry: Entry) -> Receipt | str:
    try:
        if isinstance(entry, Customer):
            return await exponea.for_customer(entry.ids).identify_customer(entry)
        return (await exponea.track_many([entry]))[0]
    except InvalidEventError as error:
        return str(error).removeprefix("events[0].")
