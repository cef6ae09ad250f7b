"""
Futures whose callers go on without a further turn of the event loop.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

# One of these is made for each event, and ``super()`` would take as long as the rest.
_init, _set_result = asyncio.Future.__init__, asyncio.Future.set_result


class PromptFuture(asyncio.Future[T]):
    """
    A future that can run the task that waits for it at once.

    asyncio makes a handle for each callback of a future and runs it in the next turn of the event loop. For hundreds of
    callers that get their results together, these handles cost as much as the rest of the call. `resolve_now` runs the
    first callback itself, which is that of the task that awaits the future. In all else this is a plain future.
    """

    __slots__ = ("_callback", "_context")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        _init(self, loop=loop)
        self._callback: Callable[[PromptFuture[T]], object] | None = None

    def resolve_now(self, result: T) -> None:
        """Set the result and run the first callback; only from a callback of the event loop, outside of any task."""
        _set_result(self, result)
        callback = self._callback
        if callback is not None:
            self._callback = None
            self._context.run(callback, self)

    # What asyncio does to a future

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        """Call a function once there is an outcome."""
        if self._callback is None and context is not None and not self.done():
            self._callback = fn
            self._context = context
        else:
            super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Call a function no longer; return how often it was to be called."""
        count = super().remove_done_callback(fn)
        if self._callback == fn:
            self._callback = None
            count += 1
        return count

    def set_result(self, result: T, /) -> None:
        """Set the result."""
        super().set_result(result)
        self._schedule_callback()

    def set_exception(self, exception: type[BaseException] | BaseException, /) -> None:
        """Set an error."""
        super().set_exception(exception)
        self._schedule_callback()

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the call, and return whether it was waiting."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._schedule_callback()
        return is_cancelled

    def _schedule_callback(self) -> None:
        callback = self._callback
        if callback is not None:
            self._callback = None
            self.get_loop().call_soon(callback, self, context=self._context)
