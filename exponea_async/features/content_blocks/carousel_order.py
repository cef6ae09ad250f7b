"""
Which content blocks a carousel shows, and in which order, as far as the host has a say.
"""

import logging
from collections.abc import Callable, Iterable

from exponea_async.features._shared.targeting.priority import order_for_carousel
from exponea_async.messages import InAppContentBlock

LOG = logging.getLogger("exponea_async")

#: Leaves some blocks out, or puts them into an order: a plain function of the host's.
Arrange = Callable[[list[InAppContentBlock]], Iterable[InAppContentBlock]]


def arranged(
    blocks: list[InAppContentBlock], leave_out: Arrange | None, sort: Arrange | None
) -> list[InAppContentBlock]:
    """
    Choose and order blocks.

    As in the vendor's SDKs, a function that raises chooses all, or leaves the order as it came.

    Args:
        blocks: The blocks.
        leave_out: Tells those that are to be shown; None shows all.
        sort: Puts them into another order than that of priorities, and of names where these are equal.
    """
    chosen = blocks if leave_out is None else _asked(leave_out, blocks)
    kept = blocks if chosen is None else chosen
    usual = order_for_carousel(kept, lambda block: block.load_priority, lambda block: block.name)
    if sort is None:
        return usual
    # Who gives back what it got has changed nothing, also where it sorted it.
    wanted = _asked(sort, usual)
    return kept if wanted is None else wanted


def _asked(arrange: Arrange, blocks: list[InAppContentBlock]) -> list[InAppContentBlock] | None:
    """Ask a function of the host's; None where it breaks down. What it makes up itself does not count."""
    try:
        found = list(arrange(list(blocks)))
    except Exception:
        LOG.exception("A function that arranges the blocks of a carousel raised.")
        return None
    own = {id(each) for each in blocks}
    return [each for each in found if id(each) in own]
