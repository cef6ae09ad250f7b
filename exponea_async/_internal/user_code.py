"""
Calls of the application's functions: hooks, clocks, loaders, providers. Their faults must not become those of the SDK.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any

from exponea_async._internal.system_time import is_system_time, system_time
from exponea_async._internal.throttle import Throttle

LOG = logging.getLogger("exponea_async")

#: A plain function that takes longer than this has blocked the event loop noticeably, in seconds.
SLOW = 0.1

# The functions that were reported as slow, by their description.
_slow: set[str] = set()


class FunctionError(Exception):
    """A function of the application raised something that is not an `Exception`, such as a `CancelledError`."""


class calling:  # noqa: N801 - a context manager
    """
    Within the block, a function of the application is called.

    Whatever it raises leaves the block as an `Exception`. A ``CancelledError``, for example from the ``result()`` of a
    cancelled future, would otherwise end the SDK's own task without a word. What ends the program is passed on, and a
    cancellation of the running task, too.

    A plain function that blocks the event loop is logged once::

        with calling("the function", print):
            print("hello")  # hello

    Args:
        what: What the function is, for the log.
        function: The function.
        is_async: Whether the block awaits it.
    """

    __slots__ = ("_function", "_is_async", "_started", "_what")

    def __init__(self, what: str, function: object, *, is_async: bool = False) -> None:
        self._what = what
        self._function = function
        self._is_async = is_async

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_async and time.perf_counter() - self._started > SLOW:
            self._report_slow(time.perf_counter() - self._started)
        if error is None or isinstance(error, Exception | KeyboardInterrupt | SystemExit):
            return
        if self._is_async and (isinstance(error, GeneratorExit) or is_cancelled()):
            return
        raise FunctionError(f"{self._describe()} raised {type(error).__name__}") from error

    def _describe(self) -> str:
        return f"{self._what} {getattr(self._function, '__qualname__', type(self._function).__qualname__)}"

    def _report_slow(self, seconds: float) -> None:
        name = self._describe()
        if name not in _slow:
            _slow.add(name)
            LOG.warning(
                "%s blocked the event loop for %.0f ms. It must be quick; let it start a task or a thread for the rest."
                " This is logged once.",
                name,
                seconds * 1000,
            )


def is_cancelled() -> bool:
    """Return whether the cancellation of the running task has been requested."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def reliable_clock(clock: Callable[[], Any]) -> Callable[[], float]:
    """Return a clock of the application so that it never fails: where it does, the system's clock is read instead."""
    if is_system_time(clock):
        return system_time
    throttle = Throttle()

    @wraps(clock, assigned=(), updated=())
    def read() -> float:
        error: Exception | None = None
        try:
            with calling("the clock", clock):
                now = float(clock())
        except Exception as raised:  # noqa: BLE001 - the application's function may raise anything
            error, now = raised, math.nan
        if math.isfinite(now):
            return now
        if (more := throttle.admit()) is not None:
            LOG.error("The clock does not return a finite number; time.time() is used.%s", more, exc_info=error)
        return system_time()

    return read
