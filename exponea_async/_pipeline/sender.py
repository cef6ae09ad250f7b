"""
Sends one batch at a time, and states a verdict on each of its records.
"""

import asyncio
import logging

from exponea_async._internal.log_fields import log_fields
from exponea_async._pipeline.acknowledger import Acknowledger
from exponea_async._pipeline.circuit_breaker import CircuitBreaker
from exponea_async._pipeline.commands import project_of
from exponea_async._pipeline.dead_letters import GIVEN_UP
from exponea_async._pipeline.exchange import Batch, Exchange
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.refusals import RefusalHistory
from exponea_async._pipeline.responses import BatchResult, HeldError, NoVerdictError
from exponea_async._pipeline.retry import Backoff, pause_seconds
from exponea_async.config import UploadSettings
from exponea_async.errors import ProjectPausedError, RejectedError, UnavailableError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.observability import Counters
from exponea_async.storage.base import MAX_DUE_AHEAD, Leased

LOG = logging.getLogger("exponea_async")

#: How long after the next probe of its route a batch that failed falls due, in seconds; at most half the longest
#: back-off. So the probe is made with another batch, and one that is at fault itself does not block the others.
AFTER_PROBE = 0.2
#: How many records are refused one after the other, each alone and nothing accepted in between, until their project is
#: paused: the trouble is not in the records.
MAX_REFUSALS = 3
REFUSALS_HINT = (
    "They are kept. Check base_url, the permissions of the key, and what is between this machine and Engagement, such"
    " as a proxy or a firewall."
)


class Sender:
    """
    Sends batches, and keeps a circuit breaker for each route.

    Args:
        exchange: Makes the requests.
        acknowledger: Gets the verdicts.
        counters: Count requests.
        hooks: Notified when a route becomes unavailable, is paused or resumes.
        settings: The waits between attempts.
        projects: The projects whose key or address may change.
        history: The refusals of earlier processes.
        max_failures: Number of failures of its own after which a record is a dead letter.

    Attributes:
        breakers: The circuit breakers by route.
        counters: The statistics.
        is_finishing: Whether no further request is made: what was not sent is given back.
    """

    def __init__(
        self,
        *,
        exchange: Exchange,
        acknowledger: Acknowledger,
        counters: Counters,
        hooks: Hooks,
        settings: UploadSettings,
        projects: ProjectStore,
        history: RefusalHistory,
        max_failures: int,
    ) -> None:
        self._exchange = exchange
        self._acknowledger = acknowledger
        self.counters = counters
        self._hooks = hooks
        self._projects = projects
        self._history = history
        self._max_failures = max_failures
        self._backoff = Backoff(settings)
        self._max_wait = settings.backoff_max
        self._after_probe = min(AFTER_PROBE, settings.backoff_max / 2)
        self.breakers: dict[str, CircuitBreaker] = {}
        self.is_finishing = False

    def probe_changed_projects(self) -> None:
        """Probe the projects whose key or address has changed without further delay."""
        changed = self._projects.pop_changed()
        for route, breaker in self.breakers.items():
            if project_of(route) in changed:
                breaker.expedite_probe(_now())

    def ignore_waits(self) -> None:
        """Do not wait any longer where the platform has asked to."""
        self._exchange.ignore_waits()

    async def send(self, batch: Batch) -> None:
        """Send a batch. If it is refused as a whole, send its halves, until each record has a verdict."""
        breaker, started = self._breaker(batch.route), _now()
        parts, descend = [batch], True
        while parts:
            # Down to one record, by the newer halves, since the older ones may be those that were refused before; then
            # on with the largest part. So the first records that are refused alone come from all over the batch, and a
            # part that is accepted soon shows that the trouble is in the records.
            index = -1 if descend else max(range(len(parts)), key=lambda each: len(parts[each].records))
            part, descend = parts.pop(index), False
            is_blocked = not breaker.is_closed and (not part.is_probe or breaker.failed_at > started)
            if is_blocked or self.is_finishing:
                self._acknowledger.give_back(part.records)
            elif await self._send_part(part, breaker):
                descend = True
                parts += part.halves()

    async def _send_part(self, batch: Batch, breaker: CircuitBreaker) -> bool:
        """Send a part of a batch; return whether its halves are to be sent instead."""
        started = _now()
        try:
            result = await self._exchange.send(batch)
        except RejectedError as error:
            breaker.refused[:0] = await self._history.load(batch.route)
            is_split = self._handle_refusal(batch, breaker, error, started)
            await self._history.store(batch.route, breaker.refused)
            return is_split
        except ProjectPausedError as error:
            self.counters.failed_requests += 1
            self._pause(batch, breaker, error, started)
        except UnavailableError as error:
            self.counters.failed_requests += not isinstance(error, HeldError)
            return await self._handle_unavailable(batch, breaker, error, started)
        else:
            self._accept(batch, breaker, result)
            await self._history.store(batch.route, breaker.refused)
        return False

    def recover(self, batch: Batch, error: Exception) -> None:
        """Keep the records of a batch whose sending failed with an unexpected error."""
        undecided = self._acknowledger.undecided(batch.records)
        self._acknowledger.retry_later(undecided, self._backoff.seconds(1), f"{type(error).__name__} in the SDK")

    def _breaker(self, route: str) -> CircuitBreaker:
        return self.breakers.setdefault(route, CircuitBreaker())

    def _accept(self, batch: Batch, breaker: CircuitBreaker, result: BatchResult) -> None:
        was_closed = breaker.is_closed
        breaker.record_success(_now())
        if breaker.suspects:
            breaker.discard(batch.ids)
        self._report_resumed(batch, was_closed=was_closed)
        self._acknowledge(batch, result)

    def _acknowledge(self, batch: Batch, result: BatchResult) -> None:
        if result.delivered:
            self._acknowledger.mark_delivered(result.delivered)
        for key, reason in result.rejected:
            self._acknowledger.dead_letter((key,), reason)
        if result.unanswered:
            unanswered = frozenset(result.unanswered)
            for record in batch.records:
                if record.id in unanswered:
                    self._count_failure(record, "the platform's response has no result for it")

    def _report_resumed(self, batch: Batch, *, was_closed: bool) -> None:
        if not was_closed:
            self._acknowledger.resume(batch.route)
            self._count_paused(batch.project)
            LOG.info(
                "Project %s is available again.", batch.project, extra=log_fields("resumed", project=batch.project)
            )
            self._hooks.notify(DeliveryEvent("resumed", project=batch.project))

    # Failures of records

    def _handle_refusal(self, batch: Batch, breaker: CircuitBreaker, error: RejectedError, started: float) -> bool:
        """Handle the refusal of a request as a whole; return whether its halves are to be sent."""
        was_closed = breaker.is_closed
        breaker.record_response()
        if breaker.is_closed:
            self._report_resumed(batch, was_closed=was_closed)
        if len(batch.records) > 1:
            breaker.note_refusal(batch.ids)
            return True
        (record,) = batch.records
        if breaker.is_at_fault(batch.ids, started):
            breaker.discard(batch.ids)
            self._acknowledger.dead_letter(batch.ids, error.reason)
            return False
        breaker.note_refusal(batch.ids)
        breaker.refused.append(record.id)
        if breaker.paused or len(breaker.refused) >= MAX_REFUSALS:
            self._pause_after_refusals(batch, breaker, error, started)
        else:
            self._acknowledger.dead_letter(batch.ids, error.reason)
        return False

    def _pause_after_refusals(
        self, batch: Batch, breaker: CircuitBreaker, error: RejectedError, started: float
    ) -> None:
        """Pause a project that refuses one record after the other, and revive those that are dead letters already."""
        revived = tuple(breaker.refused[:-1])
        breaker.refused.clear()
        reason = f"it refuses every event, each sent alone, so the events are not at fault ({error.reason})"
        paused = ProjectPausedError(batch.project, error.status, reason, address=batch.address, hint=REFUSALS_HINT)
        self._pause(batch, breaker, paused, started)
        if revived:
            fields = log_fields("revived", project=batch.project, count=len(revived))
            LOG.info(
                "%d events that became dead letters shortly before are back in the queue.", len(revived), extra=fields
            )
            self._acknowledger.revive(revived, reason)

    def _count_failure(self, record: Leased, reason: str) -> None:
        """Retry a record that failed by its own fault, or give it up after too many failures."""
        failures = record.failures + 1
        if failures >= self._max_failures:
            self._breaker(record.route).discard((record.id,))
            self._acknowledger.dead_letter((record.id,), f"{GIVEN_UP} {failures} failures; the last one: {reason}")
        else:
            self._acknowledger.retry_later([record], self._backoff.seconds(failures), reason, is_fault=True)

    # Failures of a route

    async def _handle_unavailable(
        self, batch: Batch, breaker: CircuitBreaker, error: UnavailableError, started: float
    ) -> bool:
        """Handle a request without a usable response; return whether its halves are to be sent."""
        if error.status < 500 and not isinstance(error, NoVerdictError):
            self._open_circuit(batch, breaker, error, started)
        elif not breaker.is_at_fault(batch.ids, started):
            breaker.note_failure(batch.ids)
            await self._handle_suspects(batch, breaker, error, started)
        elif len(batch.records) > 1:
            breaker.note_fault(batch.ids)
            return True
        else:
            # The next failure counts only after another success of the route; a long outage must not count.
            breaker.note_failure(batch.ids)
            self._count_failure(batch.records[0], str(error))
        return False

    async def _handle_suspects(
        self, batch: Batch, breaker: CircuitBreaker, error: UnavailableError, started: float
    ) -> None:
        """Handle a failure that may be that of a record: open the circuit, unless the record is known to be alone."""
        (first, *others) = batch.records
        # A platform that asks to wait says that the record is not at fault.
        is_asked = not others and error.status >= 500 and error.retry_after is None
        if not is_asked or not breaker.is_only_suspect(first.id) or not await self._exchange.is_platform_up(batch):
            self._open_circuit(batch, breaker, error, started)
            return
        result = await self._exchange.send_uncompressed(batch)
        if result is not None:
            self._accept(batch, breaker, result)
            return
        was_closed = breaker.is_closed
        breaker.record_response()
        if breaker.is_closed:
            self._report_resumed(batch, was_closed=was_closed)
        self._count_failure(first, f"{error}, while the platform answers other requests")

    def _open_circuit(self, batch: Batch, breaker: CircuitBreaker, error: UnavailableError, started: float) -> None:
        was_closed, now = breaker.is_closed, _now()
        wait = self._backoff.seconds(breaker.record_failure(started, now), error.retry_after)
        breaker.delay_probe(now + wait)
        # The next probe may be far off, after a pause or where the platform has asked to wait. The open circuit waits
        # for it, but not the records: another client, or this one once it is corrected, may have a better address.
        probe_in = wait if breaker.paused else max(breaker.probe_at - now, 0.0)
        delay = min(min(probe_in, self._max_wait) + self._after_probe, MAX_DUE_AHEAD)
        self._acknowledger.retry_later(batch.records, delay, str(error))
        breaker.reason = str(error)
        self.counters.note_error(breaker.reason, batch.project)
        if was_closed:
            fields = log_fields("unavailable", project=batch.project, status=error.status, reason=breaker.reason)
            LOG.warning(
                "%s; the events for %s are kept and sent again.", error, batch.address or batch.project, extra=fields
            )
            self._hooks.notify(DeliveryEvent("unavailable", project=batch.project, reason=str(error), error=error))

    def _pause(self, batch: Batch, breaker: CircuitBreaker, error: ProjectPausedError, started: float) -> None:
        now, was_paused = _now(), breaker.paused
        breaker.delay_probe(now + pause_seconds(breaker.record_failure(started, now)))
        breaker.paused, breaker.reason = error, str(error)
        self.counters.note_error(breaker.reason, batch.project)
        self._acknowledger.give_back(batch.records)
        if not was_paused:
            self._acknowledger.pause(batch.route, error)
            self._count_paused(batch.project)
            fields = log_fields("paused", project=batch.project, status=error.status, reason=breaker.reason)
            LOG.error("%s", error, extra=fields)
            self._hooks.notify(DeliveryEvent("paused", project=batch.project, reason=str(error), error=error))

    def _count_paused(self, project: str) -> None:
        """Let the statistics name a project while any of its routes is paused."""
        routes = [breaker for route, breaker in self.breakers.items() if project_of(route) == project]
        reason = next((breaker.reason for breaker in routes if breaker.paused), None)
        if reason is None:
            self.counters.paused.pop(project, None)
        else:
            self.counters.pause(project, reason)


def _now() -> float:
    return asyncio.get_running_loop().time()
