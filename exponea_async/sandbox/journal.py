"""
The log of all commands with their verdicts, which also holds the data of the stored events. No I/O.
"""

import logging
import secrets
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

from attrs import define

from exponea_async.sandbox.bounded_log import BoundedLog
from exponea_async.sandbox.encoding import encode, loads
from exponea_async.sandbox.models import StoredEvent
from exponea_async.sandbox.timeline import Timeline

LOG = logging.getLogger("exponea_async.sandbox")

#: The defaults of the limits.
MAX_ENTRIES = 200_000
MAX_BYTES = 256 * 1024 * 1024
#: What an entry and its indexes take beside its data, in bytes; measured, and a little more than that.
ENTRY_BYTES = 500
#: The length of event types in lists and filters.
MAX_LABEL_LENGTH = 256

K = TypeVar("K")
Verdict = Literal["accepted", "rejected", "duplicate", "merged"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Kind = Literal["event", "customer", "click", "other"]


@define(eq=False)
class Entry:
    """
    A command that reached the engine.

    The data stays encoded: decoded it takes several times as much memory.

    Attributes:
        id: The number of the entry, from 1 in order of arrival.
        received: The time of arrival, UNIX seconds.
        project: The token of the project.
        kind: What the command is about.
        name: The event type; ``customer`` for an update of a customer; the name of any other command.
        request: The number of the request with the command; None for a command without a request.
        raw: The data as sent, as JSON; None for data that can't be encoded.
        timestamp: The time in the command, UNIX seconds, or None.
        customer: The key of the customer on arrival, who may have been merged since; 0 without a customer.
        verdict: What became of the command.
        errors: The error messages.
        paths: The keys that lead to each invalid value.
        merged: The keys of the customers that the command merged into its own.
        digest: The digest of a stored event; None if no event is stored for the entry.
        stored: The event, if it was asked for.
        brief: The ids and the preview of large data, if they were asked for.
    """

    id: int
    received: float
    project: str
    kind: Kind
    name: str
    request: int | None
    raw: bytes | None = None
    timestamp: float | None = None
    customer: int = 0
    verdict: Verdict = "accepted"
    errors: tuple[str, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()
    merged: tuple[int, ...] = ()
    digest: bytes | None = None
    stored: StoredEvent | None = None
    brief: tuple[dict[str, str], str] | None = None

    @property
    def size(self) -> int:
        """The memory that the entry takes, about, in bytes."""
        size = ENTRY_BYTES + (len(self.raw) if self.raw is not None else 0)
        # Errors quote what was given, so they may be as long as the data.
        return size + sum(map(len, self.errors)) if self.errors else size

    @property
    def data(self) -> Any:
        """The decoded data; None for data that can't be encoded."""
        return None if self.raw is None else loads(self.raw)

    @property
    def label(self) -> str:
        """The beginning of the name, for lists and filters."""
        return self.name[:MAX_LABEL_LENGTH]


class Journal:
    """
    The newest entries, and counts of them.

    Args:
        max_entries: The number of entries that are kept.
        max_bytes: The bytes that they may take.
        on_forget: Called with each forgotten entry.

    Attributes:
        run: A random string that is another one after a reset or a restart, since numbers start again from 1.
        log: The entries.
        names: The number of kept entries by project and label.
        verdicts: The number of kept entries by verdict.
        timeline: The counts by second.

    Raises:
        ValueError: A limit is less than 1.
    """

    def __init__(self, max_entries: int, max_bytes: int, on_forget: Callable[[Entry], object]) -> None:
        for name, value in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if value < 1:
                raise ValueError(f"{name}: must be at least 1, got {value}")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._on_forget = on_forget
        self._is_reported = False
        self.reset()

    def reset(self) -> None:
        """Delete all entries and counts; numbers start again from 1."""
        self.run = secrets.token_hex(4)
        self.log: BoundedLog[Entry] = BoundedLog(self._max_entries, self._max_bytes, self._forget)
        self.names: dict[tuple[str, str], int] = {}
        self.verdicts: dict[str, int] = {}
        self.timeline = Timeline()

    def append(self, entry: Entry) -> None:
        """Add an entry, whose number has to be the next one."""
        key = entry.project, entry.label
        # Twice as fast as the += of a Counter.
        self.names[key] = self.names.get(key, 0) + 1
        self.verdicts[entry.verdict] = self.verdicts.get(entry.verdict, 0) + 1
        self.timeline.count(entry.received, entry.project, "rejected" if entry.verdict == "rejected" else "accepted")
        self.log.append(entry)

    def _forget(self, entry: Entry) -> None:
        if not self._is_reported:
            self._is_reported = True
            LOG.warning(
                "The sandbox keeps %d commands and %d bytes; from now on it forgets the oldest commands and their "
                "events. Raise max_entries or max_bytes to keep more.",
                self._max_entries,
                self._max_bytes,
            )
        _decrement(self.names, (entry.project, entry.label))
        _decrement(self.verdicts, entry.verdict)
        self._on_forget(entry)


def encode_data(data: object) -> bytes | None:
    """Return any data as JSON, in the order of its keys; None if it is nested too deeply or is not JSON."""
    try:
        # Nested as deep as any response nests it, so that whatever is kept can be returned.
        return encode([[[[data]]]])[4:-4]
    except ValueError:
        return None


def _decrement(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
