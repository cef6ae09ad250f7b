"""
Reading streams without waiting.
"""

from typing import TypeVar

from exponea_async._internal.streams import Subscription

T = TypeVar("T")


def received(subscription: Subscription[T]) -> list[T]:
    """Take the values that a subscription has received, without waiting for more."""
    values: list[T] = []
    while True:
        step = subscription.__anext__()
        try:
            step.send(None)
        except StopIteration as result:
            values.append(result.value)
        except StopAsyncIteration:
            return values
        else:
            # It waits for a value.
            step.close()
            return values
