"""
What happened to push notifications, for whoever wants to listen.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

#: What is held for a listener who has not come yet, or does not keep up; the oldest leave first. As the Android SDK
#: holds notifications.
HELD = 100


class Stream(Generic[T]):
    """
    Values that happen, for any number of listeners. The first one also gets what happened before anybody listened.
    """

    def __init__(self) -> None:
        self._early: deque[T] = deque(maxlen=HELD)
        self._listeners: list[_Listener[T]] = []

    def tell(self, value: T) -> None:
        """Let all listeners know."""
        if not self._listeners:
            self._early.append(value)
        for listener in self._listeners:
            listener.hear(value)

    def listen(self) -> AsyncIterator[T]:
        """Begin to listen, at once; iterate over what comes, and close it with ``aclose()`` or the end of the loop."""
        listener = _Listener(self._early)
        self._early.clear()
        self._listeners.append(listener)
        return self._values(listener)

    async def _values(self, listener: "_Listener[T]") -> AsyncIterator[T]:
        try:
            while True:
                yield await listener.next()
        finally:
            self._listeners.remove(listener)


class _Listener(Generic[T]):
    def __init__(self, early: deque[T]) -> None:
        self._held: deque[T] = deque(early, maxlen=HELD)
        self._news = asyncio.Event()
        if self._held:
            self._news.set()

    def hear(self, value: T) -> None:
        self._held.append(value)
        self._news.set()

    async def next(self) -> T:
        await self._news.wait()
        value = self._held.popleft()
        if not self._held:
            self._news.clear()
        return value
