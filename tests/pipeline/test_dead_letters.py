"""
Dead letters: by which clock a record is too old, how many are kept and for how long, and what the log says.
"""

import logging
import time
from typing import Any

import pytest
from helpers.clients import Connect, DeliveryLog, numbered_events, opened_queue
from helpers.environment import SetConstants
from helpers.waiting import until

from exponea_async import Event, Exponea, FlushResult, GivenUpError, Hooks, QueueSettings, RejectedError
from exponea_async._pipeline import age
from exponea_async._pipeline.age import AgeClock
from exponea_async._pipeline.dead_letters import RejectionLog, dead_letter_error
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.storage.base import Leased
from exponea_async.testing import dead_letters, pending_records

DAY = 86_400.0
MONTH = 30 * DAY


class Clock:
    """The system's clock with an error, in seconds."""

    def __init__(self) -> None:
        self.error = 0.0
        self._time = time.time

    def __call__(self) -> float:
        """Return the wrong time."""
        return self._time() + self.error


@pytest.fixture
def clock(set_constants: SetConstants) -> Clock:
    clock = Clock()
    set_constants(time, time=clock)
    return clock


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def revive(client: Exponea) -> int:
    """Revive all dead letters from outside of the client."""
    async with opened_queue(client) as storage:
        return await storage.revive()


class TestWrongClocks:
    @pytest.mark.parametrize("error", [40 * DAY, -40 * DAY, -1_790_000_000.0])
    async def test_a_clock_that_is_wrong_for_a_moment(
        self, connect: Connect, sandbox: Sandbox, clock: Clock, error: float
    ) -> None:
        """Records are delivered, whichever way the clock jumps and jumps back."""
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(60))
        clock.error = error
        await client.track_many(numbered_events(60, 60))
        first = await client.flush_data(60)
        await client.track_many(numbered_events(60, 120))
        clock.error = 0.0
        second = await client.flush_data(60)

        assert (first.delivered + second.delivered, first.rejected + second.rejected) == (180, 0)
        assert len(sandbox.engine.events()) == 180

    @pytest.mark.parametrize("error", [40 * DAY, -1_790_000_000.0])
    async def test_a_start_with_a_wrong_clock(self, connect: Connect, clock: Clock, error: float) -> None:
        """Records of an earlier run are sent, and records of this one once the clock is right."""
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(3))
        await client.aclose()
        clock.error = error
        again = await connect(flush_mode="MANUAL")
        await again.track_many(numbered_events(3))
        clock.error = 0.0
        await again.track_many(numbered_events(3))

        assert await again.flush_data(60) == FlushResult(9, 0, 0)

    def test_a_jump_that_lasts_counts(self, clock: Clock, set_constants: SetConstants) -> None:
        """After ten minutes, a clock that has jumped is believed."""
        ages = AgeClock()
        written, monotonic = time.time(), time.monotonic()
        set_constants(time, monotonic=lambda: monotonic)
        clock.error = 40 * DAY
        assert not ages.is_older(written, MONTH)
        for minutes in range(1, 10):
            set_constants(time, monotonic=lambda minutes=minutes: monotonic + 60 * minutes)
            clock.error = 40 * DAY + 60 * minutes
            assert not ages.is_older(written, MONTH)
        set_constants(time, monotonic=lambda: monotonic + 601)
        clock.error = 40 * DAY + 601

        assert ages.is_older(written, MONTH)

    def test_a_clock_that_drifts(self, clock: Clock, set_constants: SetConstants) -> None:
        """A small correction of the clock is not a jump."""
        ages = AgeClock()
        written = time.time()
        set_constants(age, MAX_DRIFT=60.0)
        clock.error = 30.0

        assert ages.is_older(written, 20.0)
        assert not ages.is_older(written, 40.0)


class TestTooOld:
    async def test_the_error_is_honest(self, connect: Connect) -> None:
        """The error does not say that Engagement has rejected the event, and can be caught as a RejectedError."""
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_age=0.05))
        receipt = await client.track_event(Event("x"))
        started = time.time()
        await until(lambda: time.time() > started + 0.1)
        await client.flush_data(60)

        with pytest.raises(RejectedError) as raised:
            await receipt.delivered(60)
        assert isinstance(raised.value, GivenUpError)
        assert "not delivered within max_age, 0.05 seconds" in str(raised.value)
        assert "Engagement" not in str(raised.value)

    async def test_a_revived_record_is_sent(
        self, connect: Connect, sandbox: Sandbox, clock: Clock, set_constants: SetConstants
    ) -> None:
        """A record that was too old is sent once it was revived."""
        set_constants(age, MAX_DRIFT=DAY)
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_age=1_000.0))
        await client.track_event(Event("x", {"number": 1}))
        clock.error = 1_001.0
        assert await client.flush_data(60) == FlushResult(0, 1, 0)
        assert await revive(client) == 1

        assert await client.flush_data(60) == FlushResult(1, 0, 0)
        assert len(sandbox.engine.events()) == 1

    @pytest.mark.parametrize(
        ("reason", "kind"),
        [
            ("not delivered within max_age, 5 seconds", GivenUpError),
            ("given up after 10 failures; the last one: HTTP 500", GivenUpError),
            ("HTTP 400: no", RejectedError),
        ],
    )
    def test_the_kind_of_a_stored_reason(self, reason: str, kind: type[RejectedError]) -> None:
        """The verdict of another process leads to the same error."""
        assert type(dead_letter_error(reason)) is kind
        assert dead_letter_error(reason).reason == reason


class TestLimits:
    async def test_the_number_is_limited(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The oldest dead letters are deleted, which is logged once, counted and reported to listeners."""
        sandbox.faults.add(Fault("reject"))
        client = await connect(
            hooks=Hooks(listeners=[deliveries]), queue=QueueSettings(max_dead_letters=20), upload={"batch_size": 10}
        )
        receipts = await client.track_many(numbered_events(100))
        await client.flush_data(60)
        await until(lambda: client.stats().purged == 80)

        assert len(await dead_letters(client)) == 20
        assert {receipt.status for receipt in receipts} == {"rejected"}
        assert sum(len(event.ids) for event in deliveries if event.kind == "purged") == 80
        assert "max_dead_letters" in next(event.reason for event in deliveries if event.kind == "purged")
        assert len([line for line in warnings(caplog) if "dead letters were deleted" in line]) == 1

    async def test_none_may_be_kept(self, connect: Connect, sandbox: Sandbox) -> None:
        """With a limit of 0, no dead letter is kept."""
        sandbox.faults.add(Fault("reject"))
        client = await connect(queue=QueueSettings(max_dead_letters=0))
        await client.track_event(Event("x"))
        await client.flush_data(60)
        await until(lambda: client.stats().purged == 1)

        assert await dead_letters(client) == []

    @pytest.mark.parametrize("settings", [{"storage": "memory:"}, {}])
    async def test_the_age_is_limited(
        self, connect: Connect, sandbox: Sandbox, settings: dict[str, Any], clock: Clock
    ) -> None:
        """Dead letters that are too old are deleted when others are added; a clock that just jumped deletes none."""
        sandbox.faults.add(Fault("reject"))
        client = await connect(queue=QueueSettings(dead_letter_max_age=0.5), **settings)
        await client.track_event(Event("x", {"number": 1}))
        await client.flush_data(60)
        started = time.time()
        await until(lambda: time.time() > started + 0.6)
        await client.track_event(Event("x", {"number": 2}))
        await client.flush_data(60)
        await until(lambda: client.stats().purged == 1)
        clock.error = 1000.0
        await client.track_event(Event("x", {"number": 3}))
        await client.flush_data(60)

        assert [letter.properties["number"] for letter in await dead_letters(client)] == [3, 2]
        assert await pending_records(client) == []


class TestLog:
    async def test_each_rejection_is_logged(
        self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One line names the type of the event, the project and the reason; more of the same are only counted."""
        sandbox.faults.add(Fault("reject"))
        client = await connect()
        await client.track_many([Event("purchase", {"number": number}) for number in range(100)])
        await client.flush_data(60)

        (line,) = warnings(caplog)
        assert "'purchase'" in line
        assert "project shop" in line
        assert "Engagement rejected the event: " in line

    @pytest.mark.parametrize(
        ("ids", "reason", "named"),
        [
            ('{"registerd":"jane","cookie":"c"}', "The id 'registerd' is not defined.", "registerd"),
            ('{"registered":"jane"}', "customer_ids: 'registered' is too long", "registered"),
            ('{"crm_id":"7"}', "Unknown id crm_id in this project", "crm_id"),
            ('{"registered":"jane"}', "The customer is not registered.", None),
            ('{"cookie":"c"}', "The id 'cookie' is wrong.", None),
            ('{"crm":"7"}', "The crm_id is unknown.", None),
        ],
    )
    def test_an_id_that_is_the_trouble(
        self, caplog: pytest.LogCaptureFixture, ids: str, reason: str, named: str | None
    ) -> None:
        """If the reason names an id of the customer, the line says how to take it back."""
        body = b'"name":"customers/events","data":{"customer_ids":%b,"event_type":"x"}}' % ids.encode()
        RejectionLog().note(Leased("1", "shop/batch", body, 0.0, 0), reason)

        (line,) = warnings(caplog)
        assert ("identify_customer" in line) is (named is not None)
        assert named is None or f"identify_customer({{{named!r}: None}})" in line

    def test_reasons_are_logged_apart_up_to_a_number(self, caplog: pytest.LogCaptureFixture) -> None:
        """A hostile platform that gives each rejection another reason does not flood the log."""
        log = RejectionLog()
        for number in range(1000):
            log.note(Leased("1", "shop/batch", b'"name":"customers","data":{}}', 0.0, 0), f"reason {number}")

        assert len(warnings(caplog)) == 21

    @pytest.mark.parametrize("body", [b"", b"nonsense", b'"data":5}', b'"data":{"customer_ids":[]}}', b"x" * 100_000])
    def test_any_record_can_be_logged(self, caplog: pytest.LogCaptureFixture, body: bytes) -> None:
        """A damaged or a large record is logged without its type; a full stop of the platform's is not repeated."""
        RejectionLog().note(Leased("1", "shop/batch", body, 0.0, 0), "no.")

        assert warnings(caplog) == ["An event of project shop is a dead letter: Engagement rejected the event: no."]
