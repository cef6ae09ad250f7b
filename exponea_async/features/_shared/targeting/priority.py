"""
Which of several messages is shown, and in which order content blocks are. Pure.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import TypeVar

_Request = TypeVar("_Request")
_Candidate = TypeVar("_Candidate")


def highest_priority(
    candidates: Iterable[_Candidate], priority_of: Callable[[_Candidate], float | None]
) -> list[_Candidate]:
    """
    Keep those of the highest priority.

    As in the Android SDK one without a priority counts as 0, but does not raise the bar: among negative ones it is kept
    beside the highest of them.

    Args:
        candidates: Which could be shown.
        priority_of: Tells a candidate's priority, or None.
    """
    among = list(candidates)
    priorities = list(map(priority_of, among))
    bar = max([priority for priority in priorities if priority is not None], default=0)
    return [each for each, priority in zip(among, priorities, strict=True) if (priority or 0) >= bar]


def choose_by_priority(
    requests: Iterable[tuple[_Request, Iterable[_Candidate]]],
    priority_of: Callable[[_Candidate], float | None],
    chance: Random,
) -> tuple[_Request, _Candidate] | None:
    """
    Choose what is shown upon several events that wait for it.

    Each gets one of the best of its candidates by chance; of what they got, one of the best is chosen by chance.

    Args:
        requests: The events, and what could be shown upon each.
        priority_of: Tells a candidate's priority, or None.
        chance: Where chance comes from.

    Returns:
        The event and what is shown upon it, or None where there is nothing to show.
    """
    finals = [(request, highest_priority(candidates, priority_of)) for request, candidates in requests]
    chosen = [(request, chance.choice(found)) for request, found in finals if found]
    if not chosen:
        return None
    # Other than above, all count: nobody without a priority is beside one of a negative one.
    bar = max(priority_of(candidate) or 0 for _, candidate in chosen)
    return chance.choice([each for each in chosen if (priority_of(each[1]) or 0) >= bar])


def order_for_placeholder(
    blocks: Iterable[_Candidate], priority_of: Callable[[_Candidate], float | None], chance: Random
) -> list[_Candidate]:
    """
    Put content blocks into the order in which a placeholder tries them: by priority, equal ones by chance.

    Args:
        blocks: The blocks.
        priority_of: Tells a block's priority, or None, which counts as 0.
        chance: Where chance comes from.
    """
    shuffled = list(blocks)
    chance.shuffle(shuffled)
    return sorted(shuffled, key=lambda block: -(priority_of(block) or 0))


def order_for_carousel(
    blocks: Iterable[_Candidate],
    priority_of: Callable[[_Candidate], float | None],
    name_of: Callable[[_Candidate], str],
) -> list[_Candidate]:
    """
    Put content blocks into the order in which a carousel shows them: by priority, equal ones by name.

    Args:
        blocks: The blocks.
        priority_of: Tells a block's priority, or None, which counts as 0.
        name_of: Tells a block's name, which is compared without regard to case, as in the Android SDK.
    """
    return sorted(blocks, key=lambda block: (-(priority_of(block) or 0), name_of(block).lower()))
