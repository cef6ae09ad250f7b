"""
What happens to push notifications and messages, for whoever wants to listen.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import WeakSet

T = TypeVar("T")

#: What is held for a listener who has not come yet, or does not keep up; the oldest leave first. As the Android SDK
#: holds notifications.
HELD = 100


class Stream(Generic[T]):
    """
    Values that happen, for any number of listeners. The first one also gets what happened before anybody listened.

    Args:
        held: How much is held for a listener who has not come yet.
        most: How much is held for one who does not keep up.
    """

    def __init__(self, held: int = HELD, most: int = HELD) -> None:
        self.most = most
        self._early: deque[T] = deque(maxlen=held)
        # Whoever breaks out of a loop and goes away need not say so.
        self._listeners: WeakSet[Subscription[T]] = WeakSet()
        self._is_over = False

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody listens."""
        return len(self._listeners) > 0

    def tell(self, value: T) -> None:
        """Let all listeners know."""
        if not self._listeners:
            self._early.append(value)
        for listener in self._listeners:
            listener.hear(value)

    def listen(self) -> "Subscription[T]":
        """Begin to listen, at once."""
        listener = Subscription(self, self._early)
        self._early.clear()
        if self._is_over:
            listener.end()
        else:
            self._listeners.add(listener)
        return listener

    def leave(self, listener: "Subscription[T]") -> None:
        """Tell a listener nothing more."""
        self._listeners.discard(listener)

    def forget(self) -> None:
        """Hold nothing any more of what happened before anybody listened."""
        self._early.clear()

    def withdraw(self, value: T) -> None:
        """Take a value back from those who have not taken it yet."""
        for listener in self._listeners:
            listener.unhear(value)

    def end(self) -> None:
        """Nothing more will happen: all listeners come to their end, also those still to come."""
        self._is_over = True
        for listener in list(self._listeners):
            listener.end()


class Subscription(AsyncIterator[T]):
    """
    What one listener gets: an async iterator, which ends with ``aclose()`` or the client.

    Args:
        stream: What it listens to, which lives as long as anybody does.
        early: What happened before.
    """

    def __init__(self, stream: Stream[T], early: deque[T]) -> None:
        self._stream: Stream[T] | None = stream
        self._held: deque[T] = deque(early, maxlen=stream.most)
        self._news = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether it hears nothing more."""
        return self._stream is None

    def __aiter__(self) -> Self:
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        # Where the vendor's SDK has a stream in the future, awaiting it gives itself.
        return self
        yield

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

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

    def unhear(self, value: T) -> None:
        """Give a value back that nobody has taken yet."""
        with suppress(ValueError):
            self._held.remove(value)

    async def aclose(self) -> None:
        """Hear nothing more: what was heard is told still, and then it ends."""
        self.end()

    def end(self) -> None:
        """Come to the end."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.leave(self)
        self._news.set()
