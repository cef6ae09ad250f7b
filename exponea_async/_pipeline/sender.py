"""
One batch to the platform and back with a verdict for each record.
"""

import asyncio
import logging
from collections.abc import Sequence

from attrs import define

from exponea_async._pipeline.acknowledger import Acknowledger
from exponea_async._pipeline.circuit_breaker import CircuitBreaker
from exponea_async._pipeline.commands import BatchResult, HttpResponse, read_answer, request_body
from exponea_async._pipeline.credentials import CredentialStore
from exponea_async._pipeline.retry import Backoff, RateLimiter, pause_seconds
from exponea_async._pipeline.transport import Transport
from exponea_async.config import UploadSettings
from exponea_async.errors import ExponeaError, ProjectPausedError, RejectedError, UnavailableError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.observability import Counters
from exponea_async.storage.base import Leased

LOG = logging.getLogger("exponea_async")

#: How much later than its project's next probe a troubled batch is due, in seconds: another one is to be the probe,
#: so that a batch that is at fault itself does not hold up those that are not.
STEP_ASIDE = 0.2


@define(eq=False)
class Batch:
    """
    What goes in one request.

    Attributes:
        records: The records, all of one route; at least one.
        probe: Whether it is the one request that a closed gate lets through.
    """

    records: Sequence[Leased]
    probe: bool = False

    @property
    def route(self) -> str:
        """Where it goes."""
        return self.records[0].route

    @property
    def ids(self) -> tuple[str, ...]:
        """Its records' ids."""
        return tuple(record.id for record in self.records)

    def halves(self) -> "tuple[Batch, Batch]":
        """Split it; to be asked of at least two records."""
        middle = len(self.records) // 2
        return Batch(self.records[:middle], self.probe), Batch(self.records[middle:], self.probe)


class Sender:
    """
    Sends batches, and knows of each project whether it takes requests.

    Args:
        transport: The way to the platform.
        settler: Writes down what becomes of records.
        counters: Count requests.
        hooks: Hear of trouble.
        settings: Tell how to send.
        keys: Tell which key opens which project.
        pace: Spaces requests out.
        max_retries: After how many failures of its own a record is a dead letter.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        settler: Acknowledger,
        counters: Counters,
        hooks: Hooks,
        settings: UploadSettings,
        keys: CredentialStore,
        pace: RateLimiter,
        max_retries: int,
    ) -> None:
        self._transport = transport
        self._settler = settler
        self._counters = counters
        self._hooks = hooks
        self._keys = keys
        self._max_retries = max_retries
        self._pace = pace
        self._backoff = Backoff(settings)
        self.gates: dict[str, CircuitBreaker] = {route: CircuitBreaker() for route in keys.routes}

    def renew(self) -> None:
        """Let projects that have got another key show at once whether they work now."""
        for route in self._keys.take_changed():
            self.gates.setdefault(route, CircuitBreaker()).nudge(_now())

    async def send(self, batch: Batch) -> None:
        """Send a batch, and halves of it where it is refused, until each record has a verdict."""
        gate = self.gates.setdefault(batch.route, CircuitBreaker())
        if not gate.is_open and not batch.probe:
            self._settler.give_back(batch.records)
            return
        await self._pace.turn()
        started = _now()
        try:
            verdict = read_answer(await self._post(batch), batch.records)
        except RejectedError as error:
            self._open(batch.route, gate)
            await self._halve(batch, gate, error.reason)
        except ProjectPausedError as error:
            self._counters.failed_requests += 1
            self._pause(batch, gate, error, started)
        except UnavailableError as error:
            self._counters.failed_requests += 1
            await self._miss(batch, gate, error, started)
        else:
            self._open(batch.route, gate)
            gate.forget(batch.ids)
            self._settle(batch, verdict)

    async def _post(self, batch: Batch) -> HttpResponse:
        key = await self._keys.find(batch.route)
        if key is None:
            raise ProjectPausedError(batch.route, 0, "no key for it is configured")
        body = request_body(batch.records)
        self._counters.requests += 1
        self._counters.bytes_sent += len(body)
        self._counters.in_flight += len(batch.records)
        try:
            return await self._transport.post(batch.route, body, key)
        finally:
            self._counters.in_flight -= len(batch.records)

    def _settle(self, batch: Batch, verdict: BatchResult) -> None:
        if verdict.delivered:
            self._settler.deliver(verdict.delivered)
        for key, reason in verdict.rejected:
            self._settler.bury((key,), reason)
        if verdict.unanswered:
            unanswered = frozenset(verdict.unanswered)
            for record in batch.records:
                if record.id in unanswered:
                    self._fail(record, "the platform's answer says nothing of it")

    # A batch that is refused as a whole

    async def _halve(self, batch: Batch, gate: CircuitBreaker, reason: str) -> None:
        if len(batch.records) == 1:
            gate.forget(batch.ids)
            self._settler.bury(batch.ids, reason)
            return
        for half in batch.halves():
            await self.send(half)

    def _fail(self, record: Leased, reason: str) -> None:
        """A record failed by its own fault; too often, and it is a dead letter."""
        failures = record.failures + 1
        if failures >= self._max_retries:
            self.gates[record.route].forget((record.id,))
            self._settler.bury((record.id,), f"given up after {failures} failures of its own; the last: {reason}")
        else:
            self._settler.put_off([record], self._backoff.seconds(failures), reason, failed=True)

    # A project that does not answer

    async def _miss(self, batch: Batch, gate: CircuitBreaker, error: UnavailableError, started: float) -> None:
        if error.status < 500:
            self._close(batch, gate, error, started)
        elif not gate.blames(batch.ids, started):
            gate.remember(batch.ids)
            self._close(batch, gate, error, started)
        elif len(batch.records) > 1:
            gate.suspect(batch.ids)
            await self._halve(batch, gate, str(error))
        else:
            # Each failure that counts has a success of others beside it, or a long outage would use them up.
            gate.remember(batch.ids)
            self._fail(batch.records[0], str(error))

    def _close(self, batch: Batch, gate: CircuitBreaker, error: UnavailableError, started: float) -> None:
        was_open, now = gate.is_open, _now()
        wait = self._backoff.seconds(gate.close(started, now), error.retry_after)
        gate.wait(now + wait)
        self._settler.put_off(batch.records, max(gate.until - now, 0.0) + STEP_ASIDE, str(error))
        if was_open:
            LOG.warning("%s %s; its events are kept and tried again.", batch.route, error)
            self._hooks.tell(DeliveryEvent("unavailable", project=batch.route, reason=str(error), error=error))

    def _pause(self, batch: Batch, gate: CircuitBreaker, error: ProjectPausedError, started: float) -> None:
        now, was_paused = _now(), gate.paused
        gate.wait(now + pause_seconds(gate.close(started, now)))
        gate.paused = error
        self._settler.give_back(batch.records)
        if not was_paused:
            self._counters.paused[batch.route] = str(error)
            LOG.error("%s", error)
            self._hooks.tell(DeliveryEvent("paused", project=batch.route, reason=str(error), error=error))

    def _open(self, route: str, gate: CircuitBreaker) -> None:
        was_open = gate.is_open
        gate.open(_now())
        if not was_open:
            self._counters.paused.pop(route, None)
            LOG.info("%s takes requests again.", route)
            self._hooks.tell(DeliveryEvent("resumed", project=route))

    def keep_on(self, batch: Batch, error: ExponeaError | Exception) -> None:
        """Keep a batch whose sending broke off."""
        self._settler.put_off(batch.records, self._backoff.seconds(1), f"{type(error).__name__} in the SDK")


def _now() -> float:
    return asyncio.get_running_loop().time()
