"""
The search in the log of commands. No I/O.
"""

import asyncio
import math
from collections.abc import Callable, Iterator

from attrs import frozen

from exponea_async.sandbox.encoding import encode
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.entry_views import ids_of
from exponea_async.sandbox.journal import MAX_LABEL_LENGTH, Entry
from exponea_async.sandbox.queries import parse_number

#: The bytes of data after which a search lets other tasks run.
PAUSE_BYTES = 2_000_000


@frozen
class Filter:
    """
    What to search for; empty values select everything.

    Attributes:
        projects: The tokens of the projects.
        types: The names of the entries.
        verdicts: The verdicts.
        customer: The key of a customer, or any of its ids.
        text: A part of the data or of an error, in lower or upper case.
        since: The time of arrival from which on, UNIX seconds.
        until: The time of arrival before which, UNIX seconds.
    """

    projects: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    verdicts: frozenset[str] = frozenset()
    customer: str = ""
    text: str = ""
    since: int | None = None
    until: int | None = None

    def matcher(self, engine: Engine) -> Callable[[Entry], bool]:
        """Return a function that says whether an entry is selected."""
        checks = [*self._plain_checks()]
        if self.customer:
            checks.append(_customer_check(engine, self.customer))
        if self.text:
            checks.append(_text_check(self.text))
        return lambda entry: all(check(entry) for check in checks)

    def _plain_checks(self) -> Iterator[Callable[[Entry], bool]]:
        if self.projects:
            yield lambda entry: entry.project in self.projects
        if self.types:
            labels = frozenset(name[:MAX_LABEL_LENGTH] for name in self.types)
            yield lambda entry: entry.label in labels
        if self.verdicts:
            yield lambda entry: entry.verdict in self.verdicts
        if self.since is not None or self.until is not None:
            since, until = self.since or 0, math.inf if self.until is None else self.until
            yield lambda entry: since <= entry.received < until


async def search(
    engine: Engine, wanted: Filter, limit: int, *, before: int | None = None, after: int = 0
) -> tuple[list[Entry], int | None]:
    """
    Return the newest entries that match, newest first, and the number before which older ones are found.

    Other tasks run in between, since the log may have hundreds of megabytes.

    Args:
        engine: The engine with the log.
        wanted: What to search for.
        limit: The number of entries.
        before: Only entries with smaller numbers; all where None.
        after: Only entries with larger numbers.
    """
    found: list[Entry] = []
    matches, read = wanted.matcher(engine), 0
    for _, entry in engine.journal.log.newest_first(before=before, after=after):
        read += entry.size
        if read > PAUSE_BYTES:
            read = 0
            await asyncio.sleep(0)
        if matches(entry):
            if len(found) == limit:
                return found, found[-1].id if found else before
            found.append(entry)
    return found, None


def _customer_check(engine: Engine, customer: str) -> Callable[[Entry], bool]:
    keys = engine.customer_keys(customer, parse_number(customer))
    # Most entries are not decoded, since they don't contain the value as JSON writes it.
    part = encode(customer)[1:-1]

    def check(entry: Entry) -> bool:
        if entry.customer and (entry.project, engine.current_customer(entry)) in keys:
            return True
        if entry.raw is None or part not in entry.raw:
            return False
        return any(value.strip() == customer for value in ids_of(entry.data).values())

    return check


def _text_check(text: str) -> Callable[[Entry], bool]:
    folded = text.casefold()
    # As it stands, for a piece of JSON, and as JSON writes it, for a string with quotes or line breaks.
    parts = {folded, encode(folded)[1:-1].decode()}
    if folded.isascii():
        # Only bytes: decoding and folding the whole log takes several times as long.
        encoded = [part.encode() for part in parts]
        return lambda entry: _has_any(encoded, (entry.raw or b"").lower()) or _in_errors(folded, entry)
    return lambda entry: (
        any(part in (entry.raw or b"").decode().casefold() for part in parts) or _in_errors(folded, entry)
    )


def _has_any(parts: list[bytes], data: bytes) -> bool:
    return any(part in data for part in parts)


def _in_errors(folded: str, entry: Entry) -> bool:
    return any(folded in error.casefold() for error in entry.errors)
