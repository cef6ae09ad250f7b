"""
Whether requests are made to a route, and which records are at fault.
"""

import pytest

from exponea_async._pipeline.circuit_breaker import CircuitBreaker
from exponea_async.errors import ProjectPausedError


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker()


def opened(probe_at: float = 10.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.record_failure(started=1.0, now=2.0)
    breaker.delay_probe(probe_at)
    return breaker


def test_a_new_circuit_is_closed(breaker: CircuitBreaker) -> None:
    """Requests are made, and there is nothing to probe."""
    assert breaker.is_closed
    assert not breaker.may_probe(1e9)


def test_an_open_circuit_lets_one_probe_through() -> None:
    """Before its time there is no probe, and while one is in flight there is no second."""
    breaker = opened(probe_at=10.0)

    assert (breaker.is_closed, breaker.may_probe(9.9), breaker.may_probe(10.0)) == (False, False, True)
    breaker.is_probing = True
    assert not breaker.may_probe(11.0)


def test_a_response_closes_the_circuit() -> None:
    """One request with a response is enough, and its time is remembered."""
    breaker = opened()
    breaker.paused = ProjectPausedError("p", 401, "r")

    breaker.record_success(20.0)

    assert breaker.is_closed
    assert breaker.paused is None
    assert (breaker.successes, breaker.succeeded_at) == (1, 20.0)


def test_a_wait_ends_with_its_outage() -> None:
    """A circuit that opens again waits for what is asked for now, not for what was asked for in the outage before."""
    breaker = opened(probe_at=1800.0)
    breaker.record_success(20.0)

    breaker.record_failure(started=21.0, now=22.0)
    breaker.delay_probe(23.0)

    assert breaker.may_probe(23.0)


def test_failures_in_flight_together_count_as_one(breaker: CircuitBreaker) -> None:
    """Four requests in the same outage are one failure; the probe after it is the next."""
    assert [breaker.record_failure(started=1.0, now=now) for now in (2.0, 2.1, 2.2, 2.3)] == [1, 1, 1, 1]
    assert breaker.record_failure(started=3.0, now=4.0) == 2
    assert breaker.record_failure(started=5.0, now=6.0) == 3


def test_the_count_starts_again_after_a_response(breaker: CircuitBreaker) -> None:
    """Only failures in a row make the wait longer."""
    breaker.record_failure(started=1.0, now=2.0)
    breaker.record_failure(started=3.0, now=4.0)
    breaker.record_success(5.0)

    assert breaker.record_failure(started=1.0, now=6.0) == 1


def test_the_longest_wait_counts() -> None:
    """A shorter wait does not replace a longer one."""
    breaker = opened(probe_at=10.0)

    breaker.delay_probe(5.0)

    assert breaker.probe_at == 10.0


def test_only_probes_of_paused_projects_are_expedited() -> None:
    """A paused project may be tried at once; the waits of an outage are respected."""
    paused, unavailable = opened(probe_at=100.0), opened(probe_at=100.0)
    paused.paused = ProjectPausedError("p", 401, "r")

    paused.expedite_probe(3.0)
    unavailable.expedite_probe(3.0)

    assert (paused.may_probe(3.0), unavailable.may_probe(3.0)) == (True, False)


class TestBlocked:
    def test_a_closed_circuit_is_not_blocked(self, breaker: CircuitBreaker) -> None:
        """Its records are on their way."""
        assert not breaker.is_blocked(0.0, 5.0, paused_only=False)

    @pytest.mark.parametrize(("since", "now", "expected"), [(1.0, 5.0, True), (3.0, 5.0, True), (3.0, 11.0, False)])
    def test_an_outage_blocks_until_its_next_probe(self, since: float, now: float, *, expected: bool) -> None:
        """A route that failed since the caller began to wait is blocked, and one whose probe is not due yet."""
        assert opened(probe_at=10.0).is_blocked(since, now, paused_only=False) is expected

    def test_an_outage_may_be_waited_out(self) -> None:
        """A caller that waits out outages is not told about them."""
        assert not opened().is_blocked(0.0, 5.0, paused_only=True)

    @pytest.mark.parametrize(("since", "expected"), [(1.0, True), (3.0, False)])
    def test_a_pause_blocks_once_it_was_tried(self, since: float, *, expected: bool) -> None:
        """A paused project is tried once more for each caller, and is blocked if it refuses again."""
        breaker = opened(probe_at=100.0)
        breaker.paused = ProjectPausedError("p", 401, "r")

        assert breaker.is_blocked(since, 5.0, paused_only=True) is expected

    def test_a_late_failure_of_an_earlier_request_blocks(self, breaker: CircuitBreaker) -> None:
        """A response that arrives after the caller began to wait postpones the probe, so the route is blocked."""
        breaker.paused = ProjectPausedError("shop", 401, "wrong key")
        breaker.record_failure(started=0.0, now=1.0)
        breaker.delay_probe(61.0)
        breaker.expedite_probe(2.0)
        breaker.record_failure(started=0.0, now=3.0)
        breaker.delay_probe(63.0)

        assert breaker.failures == 1
        assert breaker.is_blocked(since=2.0, now=4.0, paused_only=True)


class TestFaults:
    def test_no_record_is_at_fault_in_an_outage(self, breaker: CircuitBreaker) -> None:
        """While no request has success, no record is at fault, however often it fails."""
        for time in range(5):
            assert not breaker.is_at_fault(("a",), started=float(time))
            breaker.note_failure(("a",))

    def test_records_that_fail_while_others_succeed_are_at_fault(self, breaker: CircuitBreaker) -> None:
        """Another request of the route that had success meanwhile shows that the platform works."""
        breaker.record_success(5.0)

        assert breaker.is_at_fault(("a",), started=4.0)
        assert not breaker.is_at_fault(("a",), started=6.0)

    def test_records_that_fail_again_after_a_success_of_others_are_at_fault(self, breaker: CircuitBreaker) -> None:
        """Failures before and after a success of others are the fault of the record."""
        breaker.note_failure(("a", "b"))
        breaker.record_success(5.0)

        assert breaker.is_at_fault(("a", "z"), started=6.0)
        assert not breaker.is_at_fault(("z",), started=6.0)

    def test_each_fault_needs_a_success_of_its_own(self, breaker: CircuitBreaker) -> None:
        """After a failure that counted, the next one counts only after another success of others."""
        breaker.note_failure(("a",))
        breaker.record_success(5.0)
        breaker.note_failure(("a",))
        assert not breaker.is_at_fault(("a",), started=6.0)

        breaker.record_success(7.0)
        assert breaker.is_at_fault(("a",), started=8.0)

    def test_parts_of_a_batch_at_fault_are_at_fault(self, breaker: CircuitBreaker) -> None:
        """While a batch is split to find the records at fault, no other success is needed."""
        breaker.record_success(5.0)
        breaker.note_fault(("a", "b"))

        assert breaker.is_at_fault(("a",), started=6.0)
        assert breaker.is_at_fault(("b",), started=6.0)

    def test_records_that_have_left_are_not_remembered(self, breaker: CircuitBreaker) -> None:
        """Only records that are still queued take memory."""
        breaker.discard(("a",))
        breaker.note_failure(("a", "b"))

        breaker.discard(("a", "unknown"))

        assert set(breaker.suspects) == {"b"}
