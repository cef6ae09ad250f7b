"""
What happened to push notifications, for whoever wants to listen.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, Self, TypeVar
from weakref import WeakSet

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
        # Whoever breaks out of a loop and goes away need not say so.
        self._listeners: WeakSet[Listener[T]] = WeakSet()
        self._is_over = False

    def tell(self, value: T) -> None:
        """Let all listeners know."""
        listeners = [listener for listener in self._listeners if not listener.is_closed]
        if not listeners:
            self._early.append(value)
        for listener in listeners:
            listener.hear(value)

    def listen(self) -> "Listener[T]":
        """Begin to listen, at once."""
        listener = Listener(self._early)
        self._early.clear()
        self._listeners.add(listener)
        if self._is_over:
            listener.end()
        return listener

    def end(self) -> None:
        """Nothing more will happen: all listeners come to their end, also those still to come."""
        self._is_over = True
        for listener in self._listeners:
            listener.end()


class Listener(AsyncIterator[T]):
    """
    What one listener gets: an async iterator, which ends with ``aclose()`` or the client.

    Args:
        early: What happened before.
    """

    def __init__(self, early: deque[T]) -> None:
        self.is_closed = False
        self._held: deque[T] = deque(early, maxlen=HELD)
        self._news = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._held:
            if self.is_closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._held.popleft()

    def hear(self, value: T) -> None:
        """Take a value in."""
        self._held.append(value)
        self._news.set()

    async def aclose(self) -> None:
        """Hear nothing more: what was heard is told still, and then it ends."""
        self.end()

    def end(self) -> None:
        """Come to the end."""
        self.is_closed = True
        self._news.set()
