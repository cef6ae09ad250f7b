"""
Streams of values, such as push notifications and messages, with any number of subscriptions.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import WeakSet

T = TypeVar("T")

#: Maximum number of values that wait for a subscription, the oldest being discarded first; the same number of
#: notifications as in the Android SDK.
MAX_PENDING = 100


class Stream(Generic[T]):
    """
    Publishes values to its subscriptions. The first subscription also gets what was published before it.

    Args:
        max_early: Maximum number of values kept for the first subscription.
        max_pending: Maximum number of values kept for a subscription that does not keep up.
    """

    def __init__(self, max_early: int = MAX_PENDING, max_pending: int = MAX_PENDING) -> None:
        self.max_pending = max_pending
        self._early: deque[T] = deque(maxlen=max_early)
        # Weak, so that a caller may break out of its loop without closing the subscription.
        self._subscriptions: WeakSet[Subscription[T]] = WeakSet()
        self._is_closed = False

    @property
    def has_subscribers(self) -> bool:
        """Whether there is a subscription."""
        return len(self._subscriptions) > 0

    def publish(self, value: T) -> None:
        """Deliver a value to all subscriptions, or keep it for the first one."""
        if not self._subscriptions:
            self._early.append(value)
        for subscription in self._subscriptions:
            subscription.deliver(value)

    def subscribe(self) -> "Subscription[T]":
        """Return a new subscription, which has ended already if the stream is closed."""
        subscription = Subscription(self, self._early)
        self._early.clear()
        if self._is_closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: "Subscription[T]") -> None:
        """Deliver nothing more to a subscription; called by its `Subscription.close`."""
        self._subscriptions.discard(subscription)

    def retract(self, value: T) -> None:
        """Take back a value that was published, from the subscriptions that have not yielded it yet."""
        for subscription in self._subscriptions:
            subscription.retract(value)

    def clear(self) -> None:
        """Discard what is kept for the first subscription."""
        self._early.clear()

    def close(self) -> None:
        """End all subscriptions, later ones included."""
        self._is_closed = True
        for subscription in list(self._subscriptions):
            subscription.close()


class Subscription(AsyncIterator[T]):
    """
    An async iterator over the values of a stream. It ends after its ``aclose()`` or that of the client.

    It may be iterated in another event loop than that of the client.

    ::

        await exponea.handle_push_notification_opened({"source": "xnpe_platform"})
        async for opened in exponea.opened_push_stream():
            print(opened.action)  # app
            break

    Args:
        stream: The stream, which lives at least as long as the subscription.
        early: Values that were published before.
    """

    def __init__(self, stream: Stream[T], early: deque[T]) -> None:
        self._stream: Stream[T] | None = stream
        self._pending: deque[T] = deque(early, maxlen=stream.max_pending)
        # The event loop that iterates, and its event.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether it receives nothing more."""
        return self._stream is None

    def __aiter__(self) -> Self:
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        # Some of the vendor's SDKs return a stream asynchronously; awaiting a subscription returns it.
        return self
        yield

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __anext__(self) -> T:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._wake = loop, asyncio.Event()
        while not self._pending:
            if self.is_closed:
                raise StopAsyncIteration
            self._wake.clear()
            # A value may have come from another thread just before.
            if not self._pending and not self.is_closed:
                await self._wake.wait()
        return self._pending.popleft()

    async def aclose(self) -> None:
        """Receive nothing more. What was received before is still yielded."""
        self.close()

    def deliver(self, value: T) -> None:
        """Receive a value; called by the stream."""
        self._pending.append(value)
        self._notify()

    def retract(self, value: T) -> None:
        """Discard a value that was not yielded yet; called by the stream."""
        with suppress(ValueError):
            self._pending.remove(value)

    def close(self) -> None:
        """Receive nothing more, like `aclose`; called by the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.unsubscribe(self)
        self._notify()

    def _notify(self) -> None:
        """Let the iteration go on, which may run in another event loop than the client."""
        loop = self._loop
        if loop is None:
            return
        # An event loop that is closed iterates no more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._wake.set)
