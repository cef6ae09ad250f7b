"""
Which of several messages is shown, and in which order content blocks are.
"""

from collections import Counter
from random import Random

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.devices.impressions import Impression
from exponea_async.features._shared.targeting.priority import (
    choose_by_priority,
    highest_priority,
    order_for_carousel,
    order_for_placeholder,
)
from exponea_async.features._shared.targeting.schedule import may_show


@frozen
class Message:
    name: str
    priority: int | None = None


def priority_of(message: Message) -> int | None:
    return message.priority


def messages(**priorities: int | None) -> list[Message]:
    """Make messages by name and priority."""
    return [Message(name, priority) for name, priority in priorities.items()]


def names(found: list[Message]) -> str:
    """Tell the names of messages in their order."""
    return "".join(each.name for each in found)


PRIORITIES = st.none() | st.integers(-3, 3)
MESSAGES = st.lists(st.builds(Message, st.sampled_from("aAbBc"), PRIORITIES), max_size=5)


class TestBest:
    @pytest.mark.parametrize(
        ("candidates", "expected"),
        [
            pytest.param([], "", id="R01"),
            pytest.param(messages(A=None, B=None, C=None), "ABC", id="R02"),
            pytest.param(messages(A=0, B=None, C=-4), "AB", id="R03"),
            pytest.param(messages(A=3, B=3, C=1), "AB", id="R04"),
            pytest.param(messages(A=-1, B=-7), "A", id="R05"),
            pytest.param(messages(A=-1, B=None), "AB", id="R06"),
            pytest.param(messages(A=1, B=None), "A", id="none-below"),
        ],
    )
    def test_who_is_best(self, candidates: list[Message], expected: str) -> None:
        """The highest priority is kept; none counts as 0, but does not raise the bar."""
        assert names(highest_priority(candidates, priority_of)) == expected

    @pytest.mark.parametrize("expected", [pytest.param("B", id="R07")])
    def test_who_may_not_be_shown_does_not_count(self, expected: str) -> None:
        """A message of a high priority that was shown often enough is in nobody's way."""
        displays = {"A": Impression(displayed=10.0)}
        free = [each for each in messages(A=5, B=1) if may_show("only_once", displays.get(each.name), 5000.0)]
        assert names(highest_priority(free, priority_of)) == expected

    @given(MESSAGES)
    def test_the_best_of_the_best(self, candidates: list[Message]) -> None:
        """Who is kept once is kept again, and where there is somebody, somebody is kept."""
        found = highest_priority(candidates, priority_of)
        assert highest_priority(found, priority_of) == found
        assert bool(found) is bool(candidates)


class TestPick:
    @pytest.mark.parametrize("seed", [pytest.param(seed, id=f"R08-{seed}") for seed in range(5)])
    def test_the_highest_over_all_events(self, seed: int) -> None:
        """Of what several events wait for, the highest priority is shown."""
        low, high = messages(A=1, B=9)
        assert choose_by_priority([("x", [low]), ("y", [high])], priority_of, Random(seed)) == ("y", high)

    @pytest.mark.parametrize("expected", [pytest.param({"x", "y"}, id="R09")])
    def test_chance_over_events(self, expected: set[str]) -> None:
        """Events without a difference in priority are shown by chance, however many candidates each has."""
        chance = Random(1)
        requests = [("x", messages(A=None)), ("y", messages(B=None, C=None, D=None))]
        picks = Counter(found[0] for _ in range(1000) if (found := choose_by_priority(requests, priority_of, chance)))
        assert set(picks) == expected
        assert min(picks.values()) > 400

    @pytest.mark.parametrize("expected", [pytest.param({"A", "B", "C"}, id="R10")])
    def test_chance_over_candidates(self, expected: set[str]) -> None:
        """Every candidate of the same priority is shown to somebody."""
        chance = Random(1)
        requests = [("x", messages(A=None, B=None, C=None))]
        picks = Counter(
            found[1].name for _ in range(1000) if (found := choose_by_priority(requests, priority_of, chance))
        )
        assert set(picks) == expected
        assert min(picks.values()) > 250

    @pytest.mark.parametrize("requests", [[], [("x", [])], [("x", []), ("y", [])]])
    def test_nothing_to_show(self, requests: list[tuple[str, list[Message]]]) -> None:
        """Where no event has a candidate, nothing is shown."""
        assert choose_by_priority(requests, priority_of, Random(1)) is None

    @pytest.mark.parametrize("seed", range(5))
    def test_none_over_negative(self, seed: int) -> None:
        """Between events, one without a priority is above a negative one."""
        negative, none = messages(A=-1, B=None)
        assert choose_by_priority([("x", [negative]), ("y", [none])], priority_of, Random(seed)) == ("y", none)

    @given(st.lists(st.tuples(st.integers(), MESSAGES), max_size=4), st.randoms(use_true_random=False))
    def test_what_is_picked_was_there(self, requests: list[tuple[int, list[Message]]], chance: Random) -> None:
        """What is shown is one of the best of its event."""
        found = choose_by_priority(requests, priority_of, chance)
        assert (found is None) is not any(candidates for _, candidates in requests)
        if found is not None:
            assert any(
                found[0] == event and found[1] in highest_priority(all_, priority_of) for event, all_ in requests
            )


class TestBlocks:
    def test_the_order_of_a_placeholder(self) -> None:
        """Content blocks come by priority, where none is 0, and equal ones by chance."""
        blocks = messages(A=-1, B=None, C=0, D=7)
        chance = Random(1)
        assert {names(order_for_placeholder(blocks, priority_of, chance)) for _ in range(50)} == {"DBCA", "DCBA"}

    def test_the_order_of_a_carousel(self) -> None:
        """Content blocks come by priority, where none is 0, and equal ones by name in whatever case."""
        blocks = messages(b=None, C=0, a=None, A=-1, D=7)
        assert names(order_for_carousel(blocks, priority_of, lambda block: block.name)) == "DabCA"

    @given(MESSAGES, st.randoms(use_true_random=False))
    def test_nobody_is_lost(self, blocks: list[Message], chance: Random) -> None:
        """Both orders have the same blocks in them, the higher priority first."""
        for found in (
            order_for_placeholder(blocks, priority_of, chance),
            order_for_carousel(blocks, priority_of, lambda block: block.name),
        ):
            rated = [block.priority or 0 for block in found]
            assert Counter(found) == Counter(blocks)
            assert rated == sorted(rated, reverse=True)
