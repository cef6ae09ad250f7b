"""
Which of several messages is shown, and the order of content blocks.
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
    """Return messages with these names and priorities."""
    return [Message(name, priority) for name, priority in priorities.items()]


def names(found: list[Message]) -> str:
    """Return the names of messages, in order."""
    return "".join(each.name for each in found)


PRIORITIES = st.none() | st.integers(-3, 3)
MESSAGES = st.lists(st.builds(Message, st.sampled_from("aAbBc"), PRIORITIES), max_size=5)


class TestHighestPriority:
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
    def test_highest_priority(self, candidates: list[Message], expected: str) -> None:
        """The candidates of the highest priority are returned; none counts as 0, but does not raise the threshold."""
        assert names(highest_priority(candidates, priority_of)) == expected

    @pytest.mark.parametrize("expected", [pytest.param("B", id="R07")])
    def test_messages_that_may_not_be_shown(self, expected: str) -> None:
        """A message of a high priority that was shown often enough does not prevent others."""
        displays = {"A": Impression(displayed=10.0)}
        free = [each for each in messages(A=5, B=1) if may_show("only_once", displays.get(each.name), 5000.0)]
        assert names(highest_priority(free, priority_of)) == expected

    @given(MESSAGES)
    def test_it_is_idempotent(self, candidates: list[Message]) -> None:
        """Selecting again changes nothing, and of some candidates some are selected."""
        found = highest_priority(candidates, priority_of)
        assert highest_priority(found, priority_of) == found
        assert bool(found) is bool(candidates)


class TestChoice:
    @pytest.mark.parametrize("seed", [pytest.param(seed, id=f"R08-{seed}") for seed in range(5)])
    def test_the_highest_over_all_events(self, seed: int) -> None:
        """Of the messages for several events, one of the highest priority is chosen."""
        low, high = messages(A=1, B=9)
        assert choose_by_priority([("x", [low]), ("y", [high])], priority_of, Random(seed)) == ("y", high)

    @pytest.mark.parametrize("expected", [pytest.param({"x", "y"}, id="R09")])
    def test_chance_over_events(self, expected: set[str]) -> None:
        """Events whose messages have equal priorities are chosen at random, however many messages each has."""
        rng = Random(1)
        requests = [("x", messages(A=None)), ("y", messages(B=None, C=None, D=None))]
        choices = Counter(found[0] for _ in range(1000) if (found := choose_by_priority(requests, priority_of, rng)))
        assert set(choices) == expected
        assert min(choices.values()) > 400

    @pytest.mark.parametrize("expected", [pytest.param({"A", "B", "C"}, id="R10")])
    def test_chance_over_candidates(self, expected: set[str]) -> None:
        """Every message of the same priority may be chosen."""
        rng = Random(1)
        requests = [("x", messages(A=None, B=None, C=None))]
        choices = Counter(
            found[1].name for _ in range(1000) if (found := choose_by_priority(requests, priority_of, rng))
        )
        assert set(choices) == expected
        assert min(choices.values()) > 250

    @pytest.mark.parametrize("requests", [[], [("x", [])], [("x", []), ("y", [])]])
    def test_no_candidates(self, requests: list[tuple[str, list[Message]]]) -> None:
        """Without candidates nothing is chosen."""
        assert choose_by_priority(requests, priority_of, Random(1)) is None

    @pytest.mark.parametrize("seed", range(5))
    def test_none_over_negative(self, seed: int) -> None:
        """Between events, no priority is above a negative one."""
        negative, none = messages(A=-1, B=None)
        assert choose_by_priority([("x", [negative]), ("y", [none])], priority_of, Random(seed)) == ("y", none)

    @given(st.lists(st.tuples(st.integers(), MESSAGES), max_size=4), st.randoms(use_true_random=False))
    def test_the_choice_is_a_candidate(self, requests: list[tuple[int, list[Message]]], rng: Random) -> None:
        """The choice is one of the candidates of the highest priority of its event."""
        found = choose_by_priority(requests, priority_of, rng)
        assert (found is None) is not any(candidates for _, candidates in requests)
        if found is not None:
            assert any(
                found[0] == event and found[1] in highest_priority(all_, priority_of) for event, all_ in requests
            )


class TestOrder:
    def test_the_order_of_a_placeholder(self) -> None:
        """Content blocks are ordered by priority, of which none counts as 0, and equal ones at random."""
        blocks = messages(A=-1, B=None, C=0, D=7)
        rng = Random(1)
        assert {names(order_for_placeholder(blocks, priority_of, rng)) for _ in range(50)} == {"DBCA", "DCBA"}

    def test_the_order_of_a_carousel(self) -> None:
        """Content blocks are ordered by priority, of which none counts as 0, and equal ones by name in any case."""
        blocks = messages(b=None, C=0, a=None, A=-1, D=7)
        assert names(order_for_carousel(blocks, priority_of, lambda block: block.name)) == "DabCA"

    @given(MESSAGES, st.randoms(use_true_random=False))
    def test_no_block_is_lost(self, blocks: list[Message], rng: Random) -> None:
        """Both orders contain the same blocks, higher priorities first."""
        for found in (
            order_for_placeholder(blocks, priority_of, rng),
            order_for_carousel(blocks, priority_of, lambda block: block.name),
        ):
            rated = [block.priority or 0 for block in found]
            assert Counter(found) == Counter(blocks)
            assert rated == sorted(rated, reverse=True)
