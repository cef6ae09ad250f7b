"""
Dead letters: how many are kept, for how long, and what is said about them.
"""

import logging
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from exponea_async._internal.log_fields import log_fields
from exponea_async._internal.throttle import Throttle
from exponea_async._pipeline.age import AgeClock
from exponea_async._pipeline.commands import project_of, read_command
from exponea_async.config import QueueSettings
from exponea_async.errors import GivenUpError, InvalidEventError, RejectedError, StorageError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.observability import Counters
from exponea_async.storage.base import Leased, Storage

LOG = logging.getLogger("exponea_async")

#: How the reasons of dead letters begin that Engagement did not reject.
TOO_OLD = "not delivered within max_age"
GIVEN_UP = "given up after"
#: How often the age of dead letters is checked, in seconds.
CHECK_INTERVAL = 3600.0
#: Reasons that are logged independently of each other.
MAX_REASONS = 20
#: Larger commands are not decoded for the log, in bytes.
MAX_LOGGED_COMMAND = 65_536
#: Names of ids that are also words of a reason, and count as a name only in quotes.
_WORDS = frozenset({"id", "ids", "customer", "event", "type", "name", "value", "error", "registered"})


def dead_letter_error(reason: str) -> RejectedError:
    """Return the error for a dead letter, by its stored reason."""
    return GivenUpError(reason) if reason.startswith((TOO_OLD, GIVEN_UP)) else RejectedError(reason)


class DeadLetterLimits:
    """
    Deletes dead letters beyond the number and the age that the settings allow, and says so.

    Args:
        storage: Where they are.
        queue: The number and the age.
        counters: Count what is deleted.
        hooks: Notified of what is deleted.

    Attributes:
        clock: Ages are counted by it.
    """

    def __init__(self, storage: Storage, queue: QueueSettings, counters: Counters, hooks: Hooks) -> None:
        self.clock = AgeClock()
        self._storage = storage
        self._queue = queue
        self._counters = counters
        self._hooks = hooks
        self._next_check = float("-inf")
        self._throttle = Throttle()

    async def enforce_now_and_then(self) -> None:
        """Enforce both limits if that was not done for an hour."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK_INTERVAL
            await self.enforce()

    async def enforce(self) -> None:
        """Delete what exceeds the limits. If the storage fails, it is deleted the next time."""
        with suppress(StorageError):
            max_age = self._queue.dead_letter_max_age
            oldest = time.time() - max_age
            if self.clock.is_older(math.nextafter(oldest, 0.0), max_age):
                reason = f"they were older than dead_letter_max_age, {max_age:g} seconds"
                self._report(await self._storage.prune(before=oldest), reason)
            number = f"max_dead_letters, {self._queue.max_dead_letters}"
            pruned = await self._storage.prune(max_count=self._queue.max_dead_letters)
            self._report(pruned, f"there were more than {number}; the oldest are deleted")

    def _report(self, ids: tuple[str, ...], reason: str) -> None:
        if not ids:
            return
        self._counters.purged += len(ids)
        suffix = self._throttle.admit()
        if suffix is not None:
            fields = log_fields("purged", count=len(ids), reason=reason)
            LOG.warning("%d dead letters were deleted: %s.%s", len(ids), reason, suffix, extra=fields)
        self._hooks.notify(DeliveryEvent("purged", ids, reason=reason))


class RejectionLog:
    """Logs which events become dead letters, at most one line a minute for each reason."""

    def __init__(self) -> None:
        self._throttles: dict[str, Throttle] = {}

    def note(self, record: Leased, reason: str) -> None:
        """Log that a record becomes a dead letter, or leave it out and count it for the next line."""
        key = reason if reason in self._throttles or len(self._throttles) < MAX_REASONS else ""
        suffix = self._throttles.setdefault(key, Throttle()).admit()
        if suffix is None:
            return
        data = _data(record)
        name = str(data.get("event_type", ""))[:100]
        LOG.warning(
            "%s of project %s is a dead letter: %s.%s%s",
            _description(data),
            project_of(record.route),
            str(dead_letter_error(reason)).removesuffix("."),
            _advice(data, reason),
            suffix,
            extra=log_fields("rejected", project=project_of(record.route), name=name, reason=reason),
        )


def _data(record: Leased) -> Mapping[str, Any]:
    if len(record.body) <= MAX_LOGGED_COMMAND:
        with suppress(ValueError, InvalidEventError):
            data = read_command(record.body).get("data")
            if isinstance(data, dict):
                return data
    return {}


def _description(data: Mapping[str, Any]) -> str:
    if "event_type" in data:
        return f"An event {str(data['event_type'])[:100]!r}"
    if "url" in data:
        return "A campaign click"
    return "A customer update" if "update_timestamp" in data else "An event"


def _advice(data: Mapping[str, Any], reason: str) -> str:
    """Return what to do if a reason names one of the customer's ids."""
    ids = data.get("customer_ids")
    for kind in ids if isinstance(ids, dict) else ():
        quotes = r"['\"`]" if kind.lower() in _WORDS else r"\b"
        if kind != "cookie" and re.search(rf"{quotes}{re.escape(kind)}{quotes}", reason):
            return (
                f" The id {kind!r} is the trouble: on a device, identify_customer({{{kind!r}: None}}) takes it back;"
                " for_customer() must be called without it."
            )
    return ""
