"""
Whether a project takes requests now.
"""

from attrs import define, field

from exponea_async.errors import ProjectPausedError


@define
class CircuitBreaker:
    """
    One project's health. Moments are the event loop's.

    An open gate lets all requests through. A closed one lets none through until a moment has come, and then a single
    one, the probe; its answer opens the gate, or closes it for longer.

    Attributes:
        attempts: Failures in a row, 0 while open.
        until: When a closed gate lets the probe through.
        probing: Whether the probe is under way.
        paused: The refusal that closed the gate, where it was one and not an outage.
        passes: Requests that were answered.
        passed_at: When the last one was.
        closed_at: When the gate was last closed.
        stumbled: The passes at the time when a record last failed with a server error.
    """

    attempts: int = 0
    until: float = 0.0
    probing: bool = False
    paused: ProjectPausedError | None = None
    passes: int = 0
    passed_at: float = float("-inf")
    closed_at: float = float("-inf")
    stumbled: dict[str, int] = field(factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether requests go through."""
        return not self.attempts

    def may_probe(self, now: float) -> bool:
        """Tell whether a closed gate lets one request through now."""
        return not self.is_open and not self.probing and now >= self.until

    def open(self, now: float) -> None:
        """A request was answered."""
        self.attempts = 0
        self.paused = None
        # What was asked for in one trouble must not prolong the next.
        self.until = 0.0
        self.passes += 1
        self.passed_at = now

    def close(self, started: float, now: float) -> int:
        """
        A request that started at `started` was not answered.

        Returns:
            How many failures in a row that makes. Requests that were under way together count as one.
        """
        if self.is_open or started >= self.closed_at:
            self.attempts += 1
            self.closed_at = now
        return self.attempts

    def wait(self, until: float) -> None:
        """Let no probe through before a moment."""
        self.until = max(self.until, until)

    def nudge(self, now: float) -> None:
        """Let a probe through at once, where only our own patience holds it back."""
        if self.paused:
            self.until = min(self.until, now)

    def blames(self, ids: tuple[str, ...], started: float) -> bool:
        """
        Tell whether a server error is these records' own fault: others of the project passed meanwhile.

        Args:
            ids: The records of the request.
            started: When it started.
        """
        since = [self.stumbled[key] for key in ids if key in self.stumbled]
        return self.passed_at > started or any(passes < self.passes for passes in since)

    def remember(self, ids: tuple[str, ...]) -> None:
        """Keep in mind that these records met a server error; to be blamed again, others have to pass from now on."""
        self.stumbled.update(dict.fromkeys(ids, self.passes))

    def suspect(self, ids: tuple[str, ...]) -> None:
        """Keep in mind that others passed while these records failed: a part of them that fails is to blame too."""
        self.stumbled.update(dict.fromkeys(ids, self.passes - 1))

    def forget(self, ids: tuple[str, ...]) -> None:
        """These records have left."""
        if self.stumbled:
            for key in ids:
                self.stumbled.pop(key, None)
