"""
When faults fire, without a server.
"""

import random
from typing import Any

import pytest

from exponea_async.sandbox import Fault, Faults
from exponea_async.sandbox.faults import ActiveFault, FaultPlan, combine

EVENTS = "/track/v2/projects/shop/customers/events"


def affected_requests(fault: Fault, requests: int) -> list[int]:
    """Return the numbers of the requests, from 1, that a fault affects."""
    faults = Faults(seed=7)
    faults.add(fault)
    return [number for number in range(1, requests + 1) if faults.plan(EVENTS, "shop").fault is not None]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"times": 2}, [1, 2]),
        ({"times": 0}, []),
        ({"after": 5}, [6, 7, 8]),
        ({"every": 3}, [3, 6]),
        ({"every": 3, "after": 2}, [5, 8]),
        ({"every": 2, "times": 2, "after": 1}, [3, 5]),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"path": "/customers/events", "times": 1}, [1]),
        ({"path": "/batch"}, []),
        ({"paths": "/track/.*/events$", "times": 1}, [1]),
        ({"paths": "shop", "path": "/events", "times": 1}, [1]),
        ({"paths": "^/webxp"}, []),
        ({"project": "shop", "times": 1}, [1]),
        ({"project": "other"}, []),
    ],
)
def test_the_affected_requests(fields: dict[str, Any], expected: list[int]) -> None:
    """Each field restricts the requests that a fault affects, and the fields can be combined."""
    assert affected_requests(Fault("status", **fields), 8) == expected


def test_is_due() -> None:
    """Whether a fault is due depends only on the counts and the random sample."""
    fault = Fault("drop", after=1, times=3, probability=0.5)

    assert not fault.is_due(1, 0, 0.0)
    assert fault.is_due(2, 0, 0.49)
    assert not fault.is_due(2, 0, 0.5)
    assert not fault.is_due(9, 3, 0.0)


def test_probabilities_are_reproducible() -> None:
    """With the same seed a fault affects the same requests, and about its share of them."""
    first = affected_requests(Fault("drop", probability=0.25), 400)

    assert first == affected_requests(Fault("drop", probability=0.25), 400)
    assert 70 < len(first) < 130


def test_the_first_fault_that_is_due() -> None:
    """Of several faults the first that is due fires, and only its times are counted down."""
    faults = Faults()
    faults.add(Fault("status", status=429, times=1), Fault("drop", times=1))

    kinds = [plan.fault.kind if plan.fault else None for plan in (faults.plan(EVENTS, "shop") for _ in range(3))]

    assert kinds == ["status", "drop", None]
    assert faults.active == ()


def test_latencies_are_added() -> None:
    """All latencies that are due delay the request, in addition to another fault."""
    slow, slower, drop = Fault("latency", seconds=0.5), Fault("latency", seconds=1.5), Fault("drop")

    assert combine([ActiveFault(slow), ActiveFault(drop), ActiveFault(slower)]) == FaultPlan(2.0, drop)


def test_commands_are_counted_over_requests() -> None:
    """Every n-th command is rejected, counted over all requests, until its times are exhausted."""
    faults = Faults()
    faults.add(Fault("reject", every_command=3, times=2))

    first = faults.command_rejecter(EVENTS, "shop")
    second = faults.command_rejecter(EVENTS, "shop")
    third = faults.command_rejecter(EVENTS, "shop")

    assert [first() for _ in range(4)] == [False, False, True, False]
    assert [second() for _ in range(4)] == [False, True, False, False]
    assert not any(third() for _ in range(4))


def test_each_fault_counts_all_commands() -> None:
    """A command that one fault rejects is still counted by the next."""
    faults = Faults()
    faults.add(Fault("reject", every_command=2), Fault("reject", every_command=3))

    is_rejected = faults.command_rejecter(EVENTS, "shop")

    assert [is_rejected() for _ in range(6)] == [False, True, True, True, False, True]


def test_rejections_are_not_planned() -> None:
    """A fault that rejects commands doesn't affect the request itself."""
    faults = Faults()
    faults.add(Fault("reject"))

    assert faults.plan(EVENTS, "shop") == FaultPlan()


def test_active_faults() -> None:
    """The active faults have their remaining times; an exhausted fault is not active."""
    faults = Faults()
    faults.add(Fault("status", times=2), Fault("latency"))
    faults.plan(EVENTS, "shop")

    assert faults.active == (Fault("status", times=1), Fault("latency"))


def test_clear() -> None:
    """After clear() no fault fires."""
    faults = Faults()
    faults.add(Fault("drop"))
    faults.clear()

    assert faults.active == ()
    assert faults.plan(EVENTS, "shop") == FaultPlan()


def test_random_numbers_are_only_used_for_probabilities() -> None:
    """A fault without a probability takes no random number."""
    active = ActiveFault(Fault("drop"))
    rng = random.Random(3)
    before = rng.getstate()

    assert active.count_request(rng)
    assert rng.getstate() == before


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("explode", {}),
        ("status", {"status": 199}),
        ("status", {"status": "503"}),
        ("status", {"retry_after": -1}),
        ("latency", {"seconds": float("nan")}),
        ("drop", {"probability": 1.5}),
        ("drop", {"every": 0}),
        ("drop", {"times": -1}),
        ("drop", {"path": 5}),
        ("drop", {"paths": 5}),
        ("drop", {"paths": "("}),
        ("reject", {"every_command": 0}),
    ],
)
def test_invalid_faults(kind: Any, fields: dict[str, Any]) -> None:
    """A fault with an invalid field can't be created."""
    with pytest.raises((ValueError, TypeError)):
        Fault(kind, **fields)
