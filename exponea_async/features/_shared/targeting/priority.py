"""
Which of several messages is shown, and the order of content blocks. Pure.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import TypeVar

_Request = TypeVar("_Request")
_Candidate = TypeVar("_Candidate")
#: Returns the priority of a candidate, or None.
_PriorityOf = Callable[[_Candidate], float | None]


def highest_priority(candidates: Iterable[_Candidate], priority_of: _PriorityOf[_Candidate]) -> list[_Candidate]:
    """
    Return the candidates of the highest priority.

    As in the Android SDK, a candidate without a priority counts as 0 but does not raise the threshold: among candidates
    of negative priorities it is returned together with the highest of them.

    Args:
        candidates: The messages that could be shown.
        priority_of: Returns the priority of a candidate, or None.
    """
    among = list(candidates)
    priorities = list(map(priority_of, among))
    threshold = max([priority for priority in priorities if priority is not None], default=0)
    return [each for each, priority in zip(among, priorities, strict=True) if (priority or 0) >= threshold]


def choose_by_priority(
    requests: Iterable[tuple[_Request, Iterable[_Candidate]]], priority_of: _PriorityOf[_Candidate], random: Random
) -> tuple[_Request, _Candidate] | None:
    """
    Choose what is shown for several events that wait for a message.

    Each event gets one of its candidates of the highest priority, at random. Of these, one of the highest priority is
    chosen at random.

    Args:
        requests: The events, each with the messages that could be shown for it.
        priority_of: Returns the priority of a candidate, or None.
        random: The source of randomness.

    Returns:
        The event and the message, or None if there are no candidates.
    """
    finalists = [(request, highest_priority(candidates, priority_of)) for request, candidates in requests]
    chosen = [(request, random.choice(found)) for request, found in finalists if found]
    if not chosen:
        return None
    # Unlike above, no priority counts as 0 here in every respect: it is above a negative one.
    threshold = max(priority_of(candidate) or 0 for _, candidate in chosen)
    return random.choice([each for each in chosen if (priority_of(each[1]) or 0) >= threshold])


def order_for_placeholder(
    blocks: Iterable[_Candidate], priority_of: _PriorityOf[_Candidate], random: Random
) -> list[_Candidate]:
    """
    Return content blocks in the order in which a placeholder tries them: by priority, equal ones at random.

    Args:
        blocks: The blocks.
        priority_of: Returns the priority of a block, or None, which counts as 0.
        random: The source of randomness.
    """
    shuffled = list(blocks)
    random.shuffle(shuffled)
    return sorted(shuffled, key=lambda block: -(priority_of(block) or 0))


def order_for_carousel(
    blocks: Iterable[_Candidate], priority_of: _PriorityOf[_Candidate], name_of: Callable[[_Candidate], str]
) -> list[_Candidate]:
    """
    Return content blocks in the order in which a carousel shows them: by priority, equal ones by name.

    Args:
        blocks: The blocks.
        priority_of: Returns the priority of a block, or None, which counts as 0.
        name_of: Returns the name of a block, which is compared case-insensitively, as in the Android SDK.
    """
    return sorted(blocks, key=lambda block: (-(priority_of(block) or 0), name_of(block).lower()))
