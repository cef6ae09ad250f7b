"""
Whether a project takes requests now.
"""

import pytest

from exponea_async._pipeline.circuit_breaker import CircuitBreaker
from exponea_async.errors import ProjectPausedError


@pytest.fixture
def gate() -> CircuitBreaker:
    return CircuitBreaker()


def closed(until: float = 10.0) -> CircuitBreaker:
    gate = CircuitBreaker()
    gate.close(started=1.0, now=2.0)
    gate.wait(until)
    return gate


def test_a_new_gate_is_open(gate: CircuitBreaker) -> None:
    """All requests go through, and there is nothing to probe."""
    assert gate.is_open
    assert not gate.may_probe(1e9)


def test_a_closed_gate_lets_one_probe_through_in_time() -> None:
    """Before its moment nothing goes, then one request, and no second while that is under way."""
    gate = closed(until=10.0)

    assert (gate.is_open, gate.may_probe(9.9), gate.may_probe(10.0)) == (False, False, True)
    gate.probing = True
    assert not gate.may_probe(11.0)


def test_an_answer_opens_it() -> None:
    """One answered request makes all well, and the moment is remembered."""
    gate = closed()
    gate.paused = ProjectPausedError("p", 401, "r")

    gate.open(20.0)

    assert gate.is_open
    assert gate.paused is None
    assert (gate.passes, gate.passed_at) == (1, 20.0)


def test_an_old_wait_does_not_outlive_its_trouble() -> None:
    """After it was open, a gate that closes again waits for what is asked now, not for what was asked before."""
    gate = closed(until=1800.0)
    gate.open(20.0)

    gate.close(started=21.0, now=22.0)
    gate.wait(23.0)

    assert gate.may_probe(23.0)


def test_failures_under_way_together_count_as_one(gate: CircuitBreaker) -> None:
    """Four requests that meet the same outage are one failure; the probe after it is the next."""
    assert [gate.close(started=1.0, now=now) for now in (2.0, 2.1, 2.2, 2.3)] == [1, 1, 1, 1]
    assert gate.close(started=3.0, now=4.0) == 2
    assert gate.close(started=5.0, now=6.0) == 3


def test_the_count_starts_anew_after_an_answer(gate: CircuitBreaker) -> None:
    """Only failures in a row make the wait longer."""
    gate.close(started=1.0, now=2.0)
    gate.close(started=3.0, now=4.0)
    gate.open(5.0)

    assert gate.close(started=1.0, now=6.0) == 1


def test_the_longest_wait_counts() -> None:
    """A shorter wish does not cut a longer one."""
    gate = closed(until=10.0)

    gate.wait(5.0)

    assert gate.until == 10.0


def test_a_nudge_ends_our_own_patience_only() -> None:
    """A paused project may be asked at once; one that is overloaded is left in peace."""
    paused, busy = closed(until=100.0), closed(until=100.0)
    paused.paused = ProjectPausedError("p", 401, "r")

    paused.nudge(3.0)
    busy.nudge(3.0)

    assert (paused.may_probe(3.0), busy.may_probe(3.0)) == (True, False)


class TestBlame:
    def test_an_outage_is_nobodys_fault(self, gate: CircuitBreaker) -> None:
        """Where nothing passes, no record is to blame, however often it fails."""
        for moment in range(5):
            assert not gate.blames(("a",), started=float(moment))
            gate.remember(("a",))

    def test_who_fails_while_others_pass_is_to_blame(self, gate: CircuitBreaker) -> None:
        """A request of the project that passed while this one was under way shows that the platform works."""
        gate.open(5.0)

        assert gate.blames(("a",), started=4.0)
        assert not gate.blames(("a",), started=6.0)

    def test_who_fails_again_after_others_passed_is_to_blame(self, gate: CircuitBreaker) -> None:
        """Failures before and after an answer to others are the record's own."""
        gate.remember(("a", "b"))
        gate.open(5.0)

        assert gate.blames(("a", "z"), started=6.0)
        assert not gate.blames(("z",), started=6.0)

    def test_each_blame_needs_a_success_of_its_own(self, gate: CircuitBreaker) -> None:
        """A failure that counted is not held against its record again until others have passed once more."""
        gate.remember(("a",))
        gate.open(5.0)
        gate.remember(("a",))
        assert not gate.blames(("a",), started=6.0)

        gate.open(7.0)
        assert gate.blames(("a",), started=8.0)

    def test_a_part_of_those_to_blame_is_to_blame(self, gate: CircuitBreaker) -> None:
        """While a batch is searched for the guilty one, nobody else has to pass meanwhile."""
        gate.open(5.0)
        gate.suspect(("a", "b"))

        assert gate.blames(("a",), started=6.0)
        assert gate.blames(("b",), started=6.0)

    def test_who_has_left_is_forgotten(self, gate: CircuitBreaker) -> None:
        """The memory holds only records that are still here."""
        gate.forget(("a",))
        gate.remember(("a", "b"))

        gate.forget(("a", "unknown"))

        assert set(gate.stumbled) == {"b"}
