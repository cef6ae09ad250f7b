"""
Sends one batch at a time, and states a verdict on each of its records.
"""

import asyncio
import logging
from collections.abc import Sequence

from attrs import define

from exponea_async._pipeline.acknowledger import Acknowledger
from exponea_async._pipeline.circuit_breaker import CircuitBreaker
from exponea_async._pipeline.commands import project_of, request_body, url_of
from exponea_async._pipeline.projects import UNKNOWN_PROJECT_HINT, ProjectStore
from exponea_async._pipeline.responses import BatchResult, HttpResponse, read_batch_result
from exponea_async._pipeline.retry import Backoff, RateLimiter, pause_seconds
from exponea_async._pipeline.transport import Transport
from exponea_async.config import UploadSettings
from exponea_async.errors import ProjectPausedError, RejectedError, UnavailableError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.observability import Counters
from exponea_async.storage.base import Leased

LOG = logging.getLogger("exponea_async")

#: How long after the next probe of its route a batch that failed falls due, in seconds; at most half the longest
#: back-off. So the probe is made with another batch, and one that is at fault itself does not block the others.
AFTER_PROBE = 0.2


@define(eq=False)
class Batch:
    """
    The records of one request.

    Attributes:
        records: The records, all of one route; at least one.
        is_probe: Whether it is the probe of an open circuit.
        address: The URL that it was sent to, once it was sent.
    """

    records: Sequence[Leased]
    is_probe: bool = False
    address: str = ""

    @property
    def route(self) -> str:
        """The route of all records."""
        return self.records[0].route

    @property
    def project(self) -> str:
        """The token of the project of all records."""
        return project_of(self.route)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the records."""
        return tuple(record.id for record in self.records)

    def halves(self) -> "tuple[Batch, Batch]":
        """Split a batch of at least two records."""
        middle = len(self.records) // 2
        return Batch(self.records[:middle], self.is_probe), Batch(self.records[middle:], self.is_probe)


class Sender:
    """
    Sends batches, and keeps a circuit breaker for each route.

    Args:
        transport: Makes the requests.
        acknowledger: Gets the verdicts.
        counters: Count requests.
        hooks: Notified when a route becomes unavailable, is paused or resumes.
        settings: The waits between attempts.
        projects: The addresses and credentials of projects.
        rate_limiter: Spaces the requests.
        max_failures: Number of failures of its own after which a record is a dead letter.

    Attributes:
        breakers: The circuit breakers by route.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        acknowledger: Acknowledger,
        counters: Counters,
        hooks: Hooks,
        settings: UploadSettings,
        projects: ProjectStore,
        rate_limiter: RateLimiter,
        max_failures: int,
    ) -> None:
        self._transport = transport
        self._acknowledger = acknowledger
        self._counters = counters
        self._hooks = hooks
        self._projects = projects
        self._max_failures = max_failures
        self._rate_limiter = rate_limiter
        self._backoff = Backoff(settings)
        self._after_probe = min(AFTER_PROBE, settings.backoff_max / 2)
        self.breakers: dict[str, CircuitBreaker] = {}

    def probe_changed_projects(self) -> None:
        """Probe the projects whose key or address has changed without further delay."""
        changed = self._projects.pop_changed()
        for route, breaker in self.breakers.items():
            if project_of(route) in changed:
                breaker.expedite_probe(_now())

    async def send(self, batch: Batch) -> None:
        """Send a batch. If it is refused as a whole, send its halves, until each record has a verdict."""
        breaker = self._breaker(batch.route)
        if not breaker.is_closed and not batch.is_probe:
            self._acknowledger.give_back(batch.records)
            return
        await self._rate_limiter.acquire()
        started = _now()
        try:
            result = read_batch_result(await self._post(batch), batch.records, batch.address)
        except RejectedError as error:
            self._record_success(batch.route, breaker)
            await self._split(batch, breaker, error.reason)
        except ProjectPausedError as error:
            self._counters.failed_requests += 1
            self._pause(batch, breaker, error, started)
        except UnavailableError as error:
            self._counters.failed_requests += 1
            await self._handle_unavailable(batch, breaker, error, started)
        else:
            self._record_success(batch.route, breaker)
            breaker.discard(batch.ids)
            self._acknowledge(batch, result)

    def recover(self, batch: Batch, error: Exception) -> None:
        """Keep the records of a batch whose sending failed with an unexpected error."""
        undecided = self._acknowledger.undecided(batch.records)
        self._acknowledger.retry_later(undecided, self._backoff.seconds(1), f"{type(error).__name__} in the SDK")

    def _breaker(self, route: str) -> CircuitBreaker:
        return self.breakers.setdefault(route, CircuitBreaker())

    async def _post(self, batch: Batch) -> HttpResponse:
        access = await self._projects.find(batch.project)
        if access is None:
            reason = "it is neither in the configuration nor one that anonymize() switched a device to"
            raise ProjectPausedError(batch.project, 0, reason, hint=UNKNOWN_PROJECT_HINT)
        batch.address = url_of(access.base_url, batch.route)
        body = request_body(batch.records)
        self._counters.requests += 1
        self._counters.bytes_sent += len(body)
        self._counters.in_flight += len(batch.records)
        try:
            return await self._transport.post(batch.address, body, access.authorization)
        finally:
            self._counters.in_flight -= len(batch.records)

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

    def _record_success(self, route: str, breaker: CircuitBreaker) -> None:
        was_closed = breaker.is_closed
        breaker.record_success(_now())
        if not was_closed:
            self._count_paused(project_of(route))
            LOG.info("Project %s is available again.", project_of(route))
            self._hooks.notify(DeliveryEvent("resumed", project=project_of(route)))

    # Failures of records

    async def _split(self, batch: Batch, breaker: CircuitBreaker, reason: str) -> None:
        """Send the halves of a refused batch, until the records at fault stand alone; those are dead letters."""
        if len(batch.records) == 1:
            breaker.discard(batch.ids)
            self._acknowledger.dead_letter(batch.ids, reason)
            return
        for half in batch.halves():
            await self.send(half)

    def _count_failure(self, record: Leased, reason: str) -> None:
        """Retry a record that failed by its own fault, or give it up after too many failures."""
        failures = record.failures + 1
        if failures >= self._max_failures:
            self._breaker(record.route).discard((record.id,))
            self._acknowledger.dead_letter((record.id,), f"given up after {failures} failures; the last one: {reason}")
        else:
            self._acknowledger.retry_later([record], self._backoff.seconds(failures), reason, is_fault=True)

    # Failures of a route

    async def _handle_unavailable(
        self, batch: Batch, breaker: CircuitBreaker, error: UnavailableError, started: float
    ) -> None:
        if error.status < 500:
            self._open_circuit(batch, breaker, error, started)
        elif not breaker.is_at_fault(batch.ids, started):
            breaker.note_server_error(batch.ids)
            self._open_circuit(batch, breaker, error, started)
        elif len(batch.records) > 1:
            breaker.note_fault(batch.ids)
            await self._split(batch, breaker, str(error))
        else:
            # The next failure counts only after another success of the route; a long outage must not count.
            breaker.note_server_error(batch.ids)
            self._count_failure(batch.records[0], str(error))

    def _open_circuit(self, batch: Batch, breaker: CircuitBreaker, error: UnavailableError, started: float) -> None:
        was_closed, now = breaker.is_closed, _now()
        wait = self._backoff.seconds(breaker.record_failure(started, now), error.retry_after)
        breaker.delay_probe(now + wait)
        delay = max(breaker.probe_at - now, 0.0) + self._after_probe
        self._acknowledger.retry_later(batch.records, delay, str(error))
        breaker.reason = str(error)
        if was_closed:
            LOG.warning("%s; the events for %s are kept and sent again.", error, batch.address)
            self._hooks.notify(DeliveryEvent("unavailable", project=batch.project, reason=str(error), error=error))

    def _pause(self, batch: Batch, breaker: CircuitBreaker, error: ProjectPausedError, started: float) -> None:
        now, was_paused = _now(), breaker.paused
        breaker.delay_probe(now + pause_seconds(breaker.record_failure(started, now)))
        breaker.paused, breaker.reason = error, str(error)
        self._acknowledger.give_back(batch.records)
        if not was_paused:
            self._count_paused(batch.project)
            LOG.error("%s", error)
            self._hooks.notify(DeliveryEvent("paused", project=batch.project, reason=str(error), error=error))

    def _count_paused(self, project: str) -> None:
        """Let the statistics name a project while any of its routes is paused."""
        routes = [breaker for route, breaker in self.breakers.items() if project_of(route) == project]
        reason = next((breaker.reason for breaker in routes if breaker.paused), None)
        if reason is None:
            self._counters.paused.pop(project, None)
        else:
            self._counters.paused[project] = reason


def _now() -> float:
    return asyncio.get_running_loop().time()
