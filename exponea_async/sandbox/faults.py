"""
The bad days of a network and a platform, on order.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from attrs import Attribute, define, evolve, field, frozen
from attrs.validators import and_, ge, in_, instance_of, le, optional

Check = Callable[[Any, "Attribute[Any]", Any], Any]
FaultKind = Literal["latency", "status", "drop", "drop_after", "timeout", "reject"]

_count: Check = and_(instance_of(int), ge(1))
_whole: Check = and_(instance_of(int), ge(0))
_seconds: Check = and_(instance_of((int, float)), ge(0))
_text: Check = optional(instance_of(str))


def _pattern(fault: Any, attribute: "Attribute[Any]", value: Any) -> None:
    _text(fault, attribute, value)
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"paths should be a regular expression: {error}") from None


@frozen
class Fault:
    """
    One thing that goes wrong, and how often.

    Attributes:
        kind: ``latency`` delays the request by ``seconds``. ``status`` answers with ``status`` instead of
            processing it. ``drop`` cuts the connection before processing, ``drop_after`` after it, both
            without an answer. ``timeout`` holds the request for ``seconds``, then cuts, without processing.
            ``reject`` makes every ``every_command``-th command fail.
        status: The HTTP status.
        retry_after: The ``Retry-After`` of the answer, in seconds.
        seconds: How long to delay or to hold.
        body: The body of the answer; an error in the platform's shape where None.
        times: How often it still fires, in requests, for ``reject`` in commands; without end where None.
        every: Fires at each n-th request only.
        probability: Fires at this share of requests, from 0 to 1.
        after: Leaves the first requests in peace.
        path: Only for paths that end with it.
        paths: Only for paths in which this regular expression is found, such as ``/webxp/``.
        project: Only for this project.
        every_command: Which commands fail, counted over all requests.

    Raises:
        ValueError: A field is out of range.
        TypeError: A field is of a wrong type.
    """

    kind: FaultKind = field(validator=in_(get_args(FaultKind)))
    status: int = field(default=503, kw_only=True, validator=and_(instance_of(int), ge(200), le(599)))
    retry_after: float | None = field(default=None, kw_only=True, validator=optional(_seconds))
    seconds: float = field(default=1.0, kw_only=True, validator=_seconds)
    body: str | None = field(default=None, kw_only=True, validator=_text)
    times: int | None = field(default=None, kw_only=True, validator=optional(_whole))
    every: int | None = field(default=None, kw_only=True, validator=optional(_count))
    probability: float | None = field(
        default=None, kw_only=True, validator=optional(and_(instance_of((int, float)), ge(0), le(1)))
    )
    after: int = field(default=0, kw_only=True, validator=_whole)
    path: str | None = field(default=None, kw_only=True, validator=_text)
    paths: str | None = field(default=None, kw_only=True, validator=_pattern)
    project: str | None = field(default=None, kw_only=True, validator=_text)
    every_command: int = field(default=1, kw_only=True, validator=_count)

    def fits(self, path: str, project: str | None) -> bool:
        """Whether it is about such requests at all."""
        return (
            (self.path is None or path.endswith(self.path))
            and (self.paths is None or re.search(self.paths, path) is not None)
            and self.project in (None, project)
        )

    def due(self, seen: int, fired: int, roll: float) -> bool:
        """
        Whether it fires now.

        Args:
            seen: How many fitting requests there were, this one included.
            fired: How often it has fired.
            roll: A number from 0 up to, but without, 1.
        """
        return (
            seen > self.after
            and (self.times is None or fired < self.times)
            and (self.every is None or (seen - self.after) % self.every == 0)
            and (self.probability is None or roll < self.probability)
        )


@define(eq=False)
class Armed:
    """A fault on duty, and what it has done so far."""

    fault: Fault
    seen: int = 0
    fired: int = 0
    commands: int = 0

    @property
    def spent(self) -> bool:
        """Whether it never fires again."""
        return self.fault.times is not None and self.fired >= self.fault.times

    def left(self) -> Fault:
        """Tells the fault as it still is."""
        times = self.fault.times
        return self.fault if times is None else evolve(self.fault, times=times - self.fired)

    def sees(self, chance: random.Random) -> bool:
        """Counts a fitting request, and decides whether the fault fires at it."""
        self.seen += 1
        roll = 0.0 if self.fault.probability is None else chance.random()
        return self.fault.due(self.seen, self.fired, roll)

    def refuses(self) -> bool:
        """Whether the next command fails."""
        if self.spent:
            return False
        self.commands += 1
        hit = self.commands % self.fault.every_command == 0
        self.fired += hit
        return hit


@frozen
class Plan:
    """
    What happens to one request.

    Attributes:
        latency: How long it is delayed, in seconds.
        fault: What happens instead of, or after, its processing.
    """

    latency: float = 0.0
    fault: Fault | None = None


class Faults:
    """
    The faults of a sandbox, in the order in which they were added.

    Args:
        seed: Of the chances of faults with a ``probability``.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.clear()

    def add(self, *faults: Fault) -> None:
        """Adds faults after those that are there."""
        self._armed.extend(Armed(fault) for fault in faults)

    def clear(self) -> None:
        """Takes all faults away; chances begin anew."""
        self._random = random.Random(self._seed)  # noqa: S311
        self._armed: list[Armed] = []

    @property
    def active(self) -> tuple[Fault, ...]:
        """Those that can still fire, their ``times`` being how often they still do."""
        return tuple(armed.left() for armed in self._armed if not armed.spent)

    def plan(self, path: str, project: str | None) -> Plan:
        """
        Decides what happens to a request, and counts it.

        All latencies that are due add up; of the other faults the first that is due fires.
        """
        due = self._due(path, project, rejecting=False)
        return choose(due) if due else Plan()

    def refuser(self, path: str, project: str | None) -> Callable[[], bool]:
        """Counts a request that is to be processed; the answer, asked once per command, tells whether it fails."""
        due = self._due(path, project, rejecting=True)
        # Each has to count the command, also when another one has already refused it.
        return lambda: sum(armed.refuses() for armed in due) > 0

    def _due(self, path: str, project: str | None, *, rejecting: bool) -> list[Armed]:
        return [
            armed
            for armed in self._armed
            if (armed.fault.kind == "reject") is rejecting
            and armed.fault.fits(path, project)
            and armed.sees(self._random)
        ]


def choose(due: Sequence[Armed]) -> Plan:
    """Combines the faults that are due into one plan, and counts those that fire."""
    slow = [armed for armed in due if armed.fault.kind == "latency"]
    first = next((armed for armed in due if armed.fault.kind != "latency"), None)
    for armed in [*slow, *([first] if first else [])]:
        armed.fired += 1
    return Plan(sum(armed.fault.seconds for armed in slow), first.fault if first else None)
