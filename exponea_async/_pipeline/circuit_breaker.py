"""
A circuit breaker for each route: whether requests are made, and whether a failure is the fault of single records.
"""

from collections.abc import Iterable

from attrs import define, field

from exponea_async.errors import ProjectPausedError


@define
class CircuitBreaker:
    """
    The health of one route. All times are event-loop times.

    * *Closed*: requests are made. A failure opens the circuit.
    * *Open*: no request is made until `probe_at`, and then a single one, the probe.
    * *Half-open*: the probe is in flight. Its response closes the circuit; its failure keeps it open for longer.

    It also remembers which records have failed. A breaker of the usual kind would take every 5xx for an outage, so that
    one record on which the platform fails would block all others for good. And it remembers how many records were
    refused alone in a row: where nothing is accepted in between, the trouble is not in the records.

    Attributes:
        failures: Failures in a row; 0 while the circuit is closed.
        probe_at: When an open circuit lets the probe through.
        is_probing: Whether the probe is in flight.
        paused: The refusal that opened the circuit, if it was one, and not an outage.
        reason: Why the circuit is open, in words; empty while it is closed.
        successes: Number of requests whose records got verdicts of their own.
        succeeded_at: When the last of them had its response.
        failed_at: When the last request failed.
        counted_at: When the last failure was counted; of requests that were in flight together, the first one is.
        suspects: The value of `successes` when a record last failed, by record id.
        refused: The records that were refused alone, one after the other, while nothing was accepted.
    """

    failures: int = 0
    probe_at: float = 0.0
    is_probing: bool = False
    paused: ProjectPausedError | None = None
    reason: str = ""
    successes: int = 0
    succeeded_at: float = float("-inf")
    failed_at: float = float("-inf")
    counted_at: float = float("-inf")
    suspects: dict[str, int] = field(factory=dict)
    refused: list[str] = field(factory=list)

    @property
    def is_closed(self) -> bool:
        """Whether requests are made."""
        return not self.failures

    def may_probe(self, now: float) -> bool:
        """Return whether the circuit is open and lets the probe through now."""
        return not self.is_closed and not self.is_probing and now >= self.probe_at

    def record_success(self, now: float) -> None:
        """Close the circuit: the records of a request got verdicts of their own."""
        self.paused = None
        self.record_response()
        self.successes += 1
        self.succeeded_at = now
        # The way to the platform works, so these records were refused for what they are.
        self.discard(self.refused)
        self.refused.clear()

    def record_response(self) -> None:
        """Close the circuit of an outage: there was a response, but no verdict. A pause does not end with that."""
        if self.paused is None:
            self.failures = 0
            self.reason = ""
            # A wait that was asked for in one outage must not prolong the next one.
            self.probe_at = 0.0

    def record_failure(self, started: float, now: float) -> int:
        """
        Open the circuit: a request that was started at `started` had no usable response.

        Returns:
            The number of failures in a row. Requests that were in flight together count as one.
        """
        self.failed_at = now
        if self.is_closed or started >= self.counted_at:
            self.failures += 1
            self.counted_at = now
        return self.failures

    def delay_probe(self, until: float) -> None:
        """Let no probe through before a time."""
        self.probe_at = max(self.probe_at, until)

    def expedite_probe(self, now: float) -> None:
        """Let the probe through at once if the project is paused; the waits of an outage are respected."""
        if self.paused:
            self.probe_at = min(self.probe_at, now)

    def is_blocked(self, since: float, now: float, *, paused_only: bool) -> bool:
        """
        Return whether there is no point in waiting for the route's records.

        Args:
            since: When the caller began to wait. A route that was not tried since then is not blocked, except in an
                outage whose next probe is not due yet.
            now: The time.
            paused_only: Whether outages do not count, only a pause.
        """
        if self.is_closed:
            return False
        if paused_only:
            return self.paused is not None and self.failed_at >= since
        return self.failed_at >= since or self.probe_at > now

    # Records at fault

    def is_at_fault(self, ids: tuple[str, ...], started: float) -> bool:
        """
        Return whether a failure is the fault of these records: other requests of the route had success meanwhile.

        Args:
            ids: The records of the request.
            started: When the request was started.
        """
        before = [self.suspects[key] for key in ids if key in self.suspects]
        return self.succeeded_at > started or any(successes < self.successes for successes in before)

    def is_only_suspect(self, key: str) -> bool:
        """Return whether no other record has failed that is still queued."""
        return self.suspects.keys() <= {key}

    def note_failure(self, ids: tuple[str, ...]) -> None:
        """Remember that records have failed. They are at fault next time if others have success from now on."""
        self.suspects.update(dict.fromkeys(ids, self.successes))

    def note_refusal(self, ids: tuple[str, ...]) -> None:
        """Remember that records were refused. They are at fault if others have success from now on."""
        for key in ids:
            self.suspects.setdefault(key, self.successes)

    def note_fault(self, ids: tuple[str, ...]) -> None:
        """Remember that records are at fault: any part of them that fails next is at fault, too."""
        self.suspects.update(dict.fromkeys(ids, self.successes - 1))

    def discard(self, ids: Iterable[str]) -> None:
        """Remember nothing of records that have left the queue."""
        if self.suspects:
            for key in ids:
                self.suspects.pop(key, None)
