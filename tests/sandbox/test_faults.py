"""
Which fault fires when, without any server.
"""

import random
from typing import Any

import pytest

from exponea_async.sandbox import Fault, Faults
from exponea_async.sandbox.faults import ActiveFault, FaultPlan, combine

EVENTS = "/track/v2/projects/shop/customers/events"


def fired(fault: Fault, requests: int) -> list[int]:
    """Tells at which of so many requests a fault fires, from 1."""
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
def test_a_fault_fires_when_its_fields_say(fields: dict[str, Any], expected: list[int]) -> None:
    """Each field narrows the requests at which a fault fires, and they combine."""
    assert fired(Fault("status", **fields), 8) == expected


def test_due_is_pure() -> None:
    """Whether a fault is due depends on the counts and the roll only."""
    fault = Fault("drop", after=1, times=3, probability=0.5)

    assert not fault.is_due(1, 0, 0.0)
    assert fault.is_due(2, 0, 0.49)
    assert not fault.is_due(2, 0, 0.5)
    assert not fault.is_due(9, 3, 0.0)


def test_the_same_seed_gives_the_same_chances() -> None:
    """A probability repeats itself exactly, and hits about its share."""
    first = fired(Fault("drop", probability=0.25), 400)

    assert first == fired(Fault("drop", probability=0.25), 400)
    assert 70 < len(first) < 130


def test_the_first_due_fault_wins() -> None:
    """Of several faults the first that is due fires, and only its times are used up."""
    faults = Faults()
    faults.add(Fault("status", status=429, times=1), Fault("drop", times=1))

    kinds = [plan.fault.kind if plan.fault else None for plan in (faults.plan(EVENTS, "shop") for _ in range(3))]

    assert kinds == ["status", "drop", None]
    assert faults.active == ()


def test_latencies_add_up_beside_another_fault() -> None:
    """All latencies that are due delay the request, whatever else happens to it."""
    slow, slower, cut = Fault("latency", seconds=0.5), Fault("latency", seconds=1.5), Fault("drop")

    assert combine([ActiveFault(slow), ActiveFault(cut), ActiveFault(slower)]) == FaultPlan(2.0, cut)


def test_rejection_counts_commands_over_requests() -> None:
    """Every n-th command fails, counted on from one request to the next, as often as it was told."""
    faults = Faults()
    faults.add(Fault("reject", every_command=3, times=2))

    first = faults.command_rejecter(EVENTS, "shop")
    second = faults.command_rejecter(EVENTS, "shop")
    third = faults.command_rejecter(EVENTS, "shop")

    assert [first() for _ in range(4)] == [False, False, True, False]
    assert [second() for _ in range(4)] == [False, True, False, False]
    assert not any(third() for _ in range(4))


def test_rejections_all_count_each_command() -> None:
    """A command that one fault refuses is still counted by the next."""
    faults = Faults()
    faults.add(Fault("reject", every_command=2), Fault("reject", every_command=3))

    refuses = faults.command_rejecter(EVENTS, "shop")

    assert [refuses() for _ in range(6)] == [False, True, True, True, False, True]


def test_a_rejection_is_no_plan() -> None:
    """A rejecting fault leaves the request itself in peace."""
    faults = Faults()
    faults.add(Fault("reject"))

    assert faults.plan(EVENTS, "shop") == FaultPlan()


def test_active_tells_what_is_left() -> None:
    """The active faults show how often they still fire; a spent one is gone."""
    faults = Faults()
    faults.add(Fault("status", times=2), Fault("latency"))
    faults.plan(EVENTS, "shop")

    assert faults.active == (Fault("status", times=1), Fault("latency"))


def test_clearing_takes_all_away() -> None:
    """After clear() nothing goes wrong any more."""
    faults = Faults()
    faults.add(Fault("drop"))
    faults.clear()

    assert faults.active == ()
    assert faults.plan(EVENTS, "shop") == FaultPlan()


def test_a_spent_fault_draws_no_more_than_it_did() -> None:
    """Chance is only drawn for faults with a probability."""
    armed = ActiveFault(Fault("drop"))
    chance = random.Random(3)
    before = chance.getstate()

    assert armed.count_request(chance)
    assert chance.getstate() == before


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
def test_a_wrong_field_is_refused(kind: Any, fields: dict[str, Any]) -> None:
    """A fault that could never be meant is refused where it is made."""
    with pytest.raises((ValueError, TypeError)):
        Fault(kind, **fields)
