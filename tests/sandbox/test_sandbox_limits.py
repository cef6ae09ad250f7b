"""
What the sandbox forgets when it is full, and what it still knows then.
"""

import logging
from typing import Any

import aiohttp
import pytest
from helpers.sandbox_engine import PROJECT, engine_at_now, event, event_types, identify, track
from helpers.sandbox_page import Page
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.sandbox import Engine, Sandbox

ENTRY = 1_000
IDS = st.fixed_dictionaries({}, optional={"cookie": st.sampled_from("ab"), "registered": st.sampled_from("xy")})
COMMANDS = st.lists(st.tuples(IDS.filter(bool), st.booleans()), max_size=40)


class TestEvents:
    def test_the_oldest_are_forgotten(self) -> None:
        """Only the newest events are kept; counts and customers stay."""
        engine = Engine(max_entries=10)
        for number in range(25):
            track(engine, {"cookie": f"c{number % 2}"}, f"e{number}", timestamp=number)

        assert [each.event_type for each in engine.events()] == [f"e{number}" for number in range(15, 25)]
        assert (engine.summary()[PROJECT].events, engine.summary()[PROJECT].customers) == (25, 2)
        assert [each.events for each in engine.customers()] == [13, 12]
        assert (len(engine.journal.log), engine.forgotten) == (10, 15)

    def test_all_commands_count(self) -> None:
        """Updates and rejected commands take places, too; the properties of customers stay."""
        engine = Engine(max_entries=3)
        identify(engine, {"cookie": "c"}, properties={"a": 1})
        for _ in range(3):
            track(engine, {})

        assert engine.customers()[0].properties == {"a": 1}
        assert [entry.verdict for entry in engine.journal.log] == ["rejected"] * 3

    def test_a_forgotten_event_is_not_a_duplicate(self) -> None:
        """An event that is sent again is a duplicate as long as it is kept."""
        engine = Engine(max_entries=2)
        for event_type in ("a", "a", "b", "a"):
            track(engine, {"cookie": "c"}, event_type)

        assert engine.duplicates == 1
        assert event_types(engine, cookie="c") == ["b", "a"]
        assert engine.customers()[0].events == 3

    def test_bytes(self) -> None:
        """The limit of bytes holds for the data; the newest entry is kept whatever its size."""
        engine = Engine(max_bytes=10 * ENTRY)
        for number in range(100):
            track(engine, {"cookie": "c"}, timestamp=number, properties={"text": "x" * ENTRY})
        assert 4 <= len(engine.events()) <= 10
        assert engine.journal.log.bytes <= 10 * ENTRY

        track(engine, {"cookie": "c"}, "large", properties={str(number): "x" * ENTRY for number in range(20)})
        assert [each.event_type for each in engine.events()] == ["large"]

    def test_many_forgotten_commands(self) -> None:
        """However many commands were forgotten, each of the others is found by its number."""
        engine = Engine(max_entries=700)
        for number in range(1, 6_001):
            track(engine, {"cookie": "c"}, f"e{number}")
            if number % 997 == 0:
                log, kept = engine.journal.log, range(max(1, number - 699), number + 1)
                assert [entry.name for entry in log] == [f"e{each}" for each in kept]
                found = [log.get(each) for each in (kept[0] - 1, kept[0], kept[-1], kept[-1] + 1)]
                assert [each and each.id for each in found] == [None, kept[0], kept[-1], None]
                assert [each.id for each in log.following(number - 3, 2)] == [number - 2, number - 1]
                assert [each for each, _ in log.newest_first(before=number, after=number - 3)] == [
                    number - 1,
                    number - 2,
                ]

    @pytest.mark.parametrize("limits", [{"max_entries": 0}, {"max_bytes": 0}, {"max_entries": -5}])
    def test_invalid_limits(self, limits: dict[str, int]) -> None:
        """A limit below 1 is an error that names it."""
        with pytest.raises(ValueError, match=next(iter(limits))):
            Sandbox(**limits)  # type: ignore[arg-type]

    def test_a_reset(self) -> None:
        """After a reset everything is empty, and numbers start again."""
        engine = Engine(max_entries=2)
        for number in range(5):
            track(engine, {"cookie": "c"}, timestamp=number)
        engine.reset()
        track(engine, {"cookie": "c"})

        assert [entry.id for entry in engine.journal.log] == [1]
        assert (engine.journal.log.forgotten, dict(engine.journal.names)) == (0, {(PROJECT, "ping"): 1})

    @given(commands=COMMANDS, limit=st.integers(1, 10))
    def test_the_rest_is_as_if_nothing_was_forgotten(self, commands: list[Any], limit: int) -> None:
        """The kept events and all customers are those of a sandbox that keeps everything."""
        small, large = Engine(max_entries=limit, clock=lambda: 5.0), engine_at_now()
        for engine in (small, large):
            for number, (ids, is_event) in enumerate(commands):
                if is_event:
                    engine.execute(PROJECT, "customers/events", event(ids, timestamp=number))
                else:
                    identify(engine, ids, properties={"n": number}, update_timestamp=number)

        kept = {entry.id for entry in small.journal.log}
        expected = [entry for entry in large.event_entries() if entry.id in kept]
        assert [each.timestamp for each in small.events()] == [large.event(entry).timestamp for entry in expected]
        assert [each.customer for each in small.events()] == [large.event(entry).customer for entry in expected]
        assert small.customers() == large.customers()
        assert small.summary() == large.summary()
        assert sum(small.journal.names.values()) == sum(small.journal.verdicts.values()) == len(kept)


class TestReports:
    async def test_it_is_said(self, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
        """That commands are forgotten is logged once, and is in the responses."""
        with caplog.at_level(logging.WARNING):
            async with Sandbox(max_entries=3) as sandbox:
                page = Page(session, sandbox.url)
                for number in range(3):
                    track(sandbox.engine, {"cookie": "c"}, timestamp=number)
                assert caplog.messages == []
                for number in range(3, 8):
                    track(sandbox.engine, {"cookie": "c"}, timestamp=number)

                log, summary = await page.get("log"), await page.get("summary")

        (message,) = caplog.messages
        assert "forgets the oldest" in message
        assert "max_entries" in message
        assert (log["oldest"], log["newest"], log["forgotten"], log["limit"]["entries"]) == (6, 8, 5, 3)
        assert (summary["log"]["entries"], summary["log"]["forgotten"]) == (3, 5)
        assert [entry["id"] for entry in log["entries"]] == [8, 7, 6]

    async def test_facets(self, session: aiohttp.ClientSession) -> None:
        """The facets count only what is kept."""
        async with Sandbox(max_entries=2) as sandbox:
            for name in ("a", "b", "b", "c"):
                track(sandbox.engine, {"cookie": "c"}, name, timestamp=len(name))

            facets = await Page(session, sandbox.url).get("facets")

        assert facets["types"] == {"b": 1, "c": 1}
        assert facets["verdicts"] == {"accepted": 1, "rejected": 0, "duplicate": 1, "merged": 0}
