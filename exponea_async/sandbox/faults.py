"""
Fault injection: failures of the network and of the platform on demand.
"""

import random
import re
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Literal, get_args

from attrs import Attribute, define, evolve, field, frozen
from attrs.validators import and_, ge, in_, instance_of, le, optional

Validator = Callable[[Any, "Attribute[Any]", Any], Any]
FaultKind = Literal["latency", "status", "drop", "drop_after", "timeout", "reject"]

_positive_int: Validator = and_(instance_of(int), ge(1))
_int: Validator = and_(instance_of(int), ge(0))
_seconds: Validator = and_(instance_of((int, float)), ge(0))
_string: Validator = optional(instance_of(str))


def _pattern(fault: Any, attribute: "Attribute[Any]", value: Any) -> None:
    _string(fault, attribute, value)
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"paths: must be a regular expression, got {value!r}: {error}") from None


@frozen
class Fault:
    """
    A failure to inject, and the requests that it affects.

    Attributes:
        kind: ``latency`` delays the request by ``seconds``. ``status`` responds with ``status`` instead of
            processing the request. ``drop`` closes the connection without a response before the request is
            processed, ``drop_after`` after it was processed. ``timeout`` waits for ``seconds``, then closes the
            connection; the request is not processed. ``reject`` makes every ``every_command``-th command fail.
        status: The HTTP status of the response.
        retry_after: The ``Retry-After`` header of the response, in seconds.
        seconds: The duration of a delay or timeout.
        body: The body of the response; an error in the platform's format where None.
        times: The number of requests that are affected, for ``reject`` of commands; no limit where None.
        every: Affects only every n-th request.
        probability: The share of requests that are affected, from 0 to 1.
        after: The number of requests at the beginning that are not affected.
        path: Affects only paths that end with this string.
        paths: Affects only paths in which this regular expression is found, such as ``/webxp/``.
        project: Affects only this project.
        every_command: Rejects every n-th command, counted over all requests.

    Raises:
        ValueError: A field is out of range.
        TypeError: A field has the wrong type.
    """

    kind: FaultKind = field(validator=in_(get_args(FaultKind)))
    status: int = field(default=503, kw_only=True, validator=and_(instance_of(int), ge(200), le(599)))
    retry_after: float | None = field(default=None, kw_only=True, validator=optional(_seconds))
    seconds: float = field(default=1.0, kw_only=True, validator=_seconds)
    body: str | None = field(default=None, kw_only=True, validator=_string)
    times: int | None = field(default=None, kw_only=True, validator=optional(_int))
    every: int | None = field(default=None, kw_only=True, validator=optional(_positive_int))
    probability: float | None = field(
        default=None, kw_only=True, validator=optional(and_(instance_of((int, float)), ge(0), le(1)))
    )
    after: int = field(default=0, kw_only=True, validator=_int)
    path: str | None = field(default=None, kw_only=True, validator=_string)
    paths: str | None = field(default=None, kw_only=True, validator=_pattern)
    project: str | None = field(default=None, kw_only=True, validator=_string)
    every_command: int = field(default=1, kw_only=True, validator=_positive_int)

    def matches(self, path: str, project: str | None) -> bool:
        """Return whether requests with this path and project can be affected."""
        return (
            (self.path is None or path.endswith(self.path))
            and (self.paths is None or re.search(self.paths, path) is not None)
            and self.project in (None, project)
        )

    def is_due(self, requests: int, fired: int, sample: float) -> bool:
        """
        Return whether the current request is affected.

        Args:
            requests: The number of matching requests so far, including the current one.
            fired: The number of requests that were affected so far.
            sample: A random number from 0 (inclusive) to 1 (exclusive).
        """
        return (
            requests > self.after
            and (self.times is None or fired < self.times)
            and (self.every is None or (requests - self.after) % self.every == 0)
            and (self.probability is None or sample < self.probability)
        )


@define(eq=False)
class ActiveFault:
    """
    A fault with its counters.

    Attributes:
        fault: The fault.
        requests: The number of matching requests.
        fired: The number of requests, for ``reject`` of commands, that were affected.
        commands: The number of commands that were counted for ``every_command``.
        index: The number of the fault, which no other fault gets.
    """

    fault: Fault
    index: int = 0
    requests: int = 0
    fired: int = 0
    commands: int = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether the fault never fires again."""
        return self.fault.times is not None and self.fired >= self.fault.times

    def remaining(self) -> Fault:
        """Return the fault with the remaining number of ``times``."""
        times = self.fault.times
        return self.fault if times is None else evolve(self.fault, times=times - self.fired)

    def count_request(self, rng: random.Random) -> bool:
        """Count a matching request; return whether it is affected."""
        self.requests += 1
        sample = 0.0 if self.fault.probability is None else rng.random()
        return self.fault.is_due(self.requests, self.fired, sample)

    def count_command(self) -> bool:
        """Count a command; return whether it is rejected."""
        if self.is_exhausted:
            return False
        self.commands += 1
        is_rejected = self.commands % self.fault.every_command == 0
        self.fired += is_rejected
        return is_rejected


@frozen
class FaultPlan:
    """
    What happens to one request.

    Attributes:
        latency: The delay in seconds.
        fault: The fault that replaces or follows the processing of the request.
    """

    latency: float = 0.0
    fault: Fault | None = None


class Faults:
    """
    The active faults of a sandbox, in the order in which they were added.

    Args:
        seed: The seed for faults with a ``probability``.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        # Not reset by clear(): whoever removes a fault by an old index must not remove another one.
        self._indexes = count(1)
        self.clear()

    def add(self, *faults: Fault) -> None:
        """
        Add faults after the present ones.

        Raises:
            TypeError: One of them is not a fault; none is added.
        """
        for fault in faults:
            if not isinstance(fault, Fault):
                kind = f"the class {fault.__name__}" if isinstance(fault, type) else type(fault).__name__
                raise TypeError(f"faults: expected a Fault or several, got {kind}. Use Fault('status'), for example.")
        self._faults.extend(ActiveFault(fault, next(self._indexes)) for fault in faults)

    def clear(self) -> None:
        """Remove all faults and reset the random numbers."""
        self._random = random.Random(self._seed)  # noqa: S311
        self._faults: list[ActiveFault] = []

    def remove(self, index: int) -> bool:
        """Remove the fault with an index; return whether there was one."""
        remaining = [each for each in self._faults if each.index != index]
        is_found = len(remaining) < len(self._faults)
        self._faults = remaining
        return is_found

    @property
    def active(self) -> tuple[Fault, ...]:
        """The faults that can still fire, with their remaining ``times``."""
        return tuple(each.remaining() for each in self.counted)

    @property
    def counted(self) -> tuple[ActiveFault, ...]:
        """The same faults with their indexes and counters."""
        return tuple(each for each in self._faults if not each.is_exhausted)

    def plan(self, path: str, project: str | None) -> FaultPlan:
        """
        Count a request and return what happens to it.

        The delays of all latencies that are due are added; of the other faults the first that is due fires.
        """
        due = self._due(path, project, rejects=False)
        return combine(due) if due else FaultPlan()

    def command_rejecter(self, path: str, project: str | None) -> Callable[[], bool]:
        """Count a request with commands; return a function that, called once per command, says if it is rejected."""
        due = self._due(path, project, rejects=True)
        # Not any(), which stops early: each fault has to count the command, also if another one rejects it.
        return lambda: sum(each.count_command() for each in due) > 0

    def _due(self, path: str, project: str | None, *, rejects: bool) -> list[ActiveFault]:
        return [
            each
            for each in self._faults
            if (each.fault.kind == "reject") is rejects
            and each.fault.matches(path, project)
            and each.count_request(self._random)
        ]


def combine(due: Sequence[ActiveFault]) -> FaultPlan:
    """Combine the faults that are due into one plan, and count those that fire."""
    latencies = [each for each in due if each.fault.kind == "latency"]
    first = next((each for each in due if each.fault.kind != "latency"), None)
    for each in [*latencies, *([first] if first else [])]:
        each.fired += 1
    return FaultPlan(sum(each.fault.seconds for each in latencies), first.fault if first else None)
