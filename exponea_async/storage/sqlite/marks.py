"""
Marks of the records that have left the queue: the proof of what became of them, for other processes.

A record that is not in the file any more may have been delivered by another process, but it may also have been wiped,
or it was in a file that has been replaced. So each record leaves a mark. The marks are ranges of ids: the records of a
route are delivered almost in their order, so a whole queue leaves few of them.
"""

import sqlite3
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Literal

Outcome = Literal["delivered", "rejected", "dropped"]

#: Maximum number of ranges in a file. Beyond it, half of them are deleted, those that have not grown for longest.
MAX_RANGES = 20_000
_LAST_BEFORE = "SELECT first, last, outcome FROM mark WHERE first <= ? ORDER BY first DESC LIMIT 1"
_INSERT = "INSERT INTO mark VALUES (?, ?, ?, ?)"


def mark(connection: sqlite3.Connection, ids: Sequence[int], outcome: Outcome) -> None:
    """
    Note what became of records; a later outcome of a record replaces an earlier one.

    Args:
        connection: The connection, within a write transaction.
        ids: The ids of the records, in ascending order.
        outcome: What became of them.
    """
    now = time.time()
    for first, last in ranges(ids):
        _mark_range(connection, first, last, outcome, now)


def find_marks(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, str]:
    """Return the outcome of records by id; ids without a mark are left out."""
    if not ids:
        return {}
    sql = "SELECT first, last, outcome FROM mark WHERE first <= ? AND last >= ? ORDER BY first"
    ranges = connection.execute(sql, (max(ids), min(ids))).fetchall()
    found: dict[int, str] = {}
    for key in ids:
        index = bisect_right(ranges, key, key=itemgetter(0)) - 1
        if index >= 0 and ranges[index][1] >= key:
            found[key] = ranges[index][2]
    return found


def trim(connection: sqlite3.Connection, max_ranges: int = MAX_RANGES) -> None:
    """Delete the oldest half of the marks if there are too many; within a write transaction."""
    (count,) = connection.execute("SELECT count(*) FROM mark").fetchone()
    if count > max_ranges:
        oldest = "SELECT first FROM mark ORDER BY marked_at, first LIMIT ?"
        connection.execute(f"DELETE FROM mark WHERE first IN ({oldest})", (count - max_ranges // 2,))


def ranges(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last id of each run of consecutive ids."""
    if ids[-1] - ids[0] == len(ids) - 1:
        # The usual case, a batch that was delivered as a whole.
        yield ids[0], ids[-1]
        return
    first = ids[0]
    for one, following in pairwise(ids):
        if following != one + 1:
            yield first, one
            first = following
    yield first, ids[-1]


def _mark_range(connection: sqlite3.Connection, first: int, last: int, outcome: Outcome, now: float) -> None:
    bound, start, end = last + 1, first, last
    # Ranges that overlap with this one or touch it, from the last to the first.
    while row := connection.execute(_LAST_BEFORE, (bound,)).fetchone():
        known_first, known_last, known_outcome = row
        if known_last < first - 1:
            break
        if known_outcome == outcome and known_first <= first:
            # The usual case: the range grows.
            sql = "UPDATE mark SET last = ?, marked_at = ? WHERE first = ?"
            connection.execute(sql, (max(end, known_last), now, known_first))
            return
        if known_outcome == outcome:
            start, end = min(start, known_first), max(end, known_last)
            connection.execute("DELETE FROM mark WHERE first = ?", (known_first,))
        elif known_first <= last and known_last >= first:
            _cut(connection, row, first, last, now)
        if known_first <= first:
            break
        bound = known_first - 1
    connection.execute(_INSERT, (start, end, outcome, now))


def _cut(connection: sqlite3.Connection, known: tuple[int, int, str], first: int, last: int, now: float) -> None:
    """Keep the parts of a range before and behind another one."""
    known_first, known_last, outcome = known
    connection.execute("DELETE FROM mark WHERE first = ?", (known_first,))
    if known_first < first:
        connection.execute(_INSERT, (known_first, first - 1, outcome, now))
    if known_last > last:
        connection.execute(_INSERT, (last + 1, known_last, outcome, now))
