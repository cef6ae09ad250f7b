"""
Pauses after failures, in which nothing is requested.
"""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

from exponea_async.errors import ExponeaError

K = TypeVar("K", bound=Hashable)


class Pauses(Generic[K]):
    """Pauses by what is paused, such as a project, each with the error that led to it."""

    def __init__(self) -> None:
        # The end of a pause in event-loop time, and its error.
        self._pauses: dict[K, tuple[float, ExponeaError]] = {}

    def begin(self, key: K, seconds: float, error: ExponeaError) -> None:
        """Begin a pause of so many seconds, which replaces one in progress."""
        now = _loop_time()
        self._pauses = {each: pause for each, pause in self._pauses.items() if pause[0] > now}
        self._pauses[key] = now + seconds, error

    def end(self, key: K) -> None:
        """End a pause, if there is one."""
        self._pauses.pop(key, None)

    def error(self, *keys: K) -> ExponeaError | None:
        """Return the error that led to a pause in progress of any of these keys; None if there is none."""
        now = _loop_time()
        found = (self._pauses[key] for key in keys if key in self._pauses)
        return next((error for end, error in found if end > now), None)

    def raise_error(self, *keys: K) -> None:
        """Raise the error that led to a pause in progress of any of these keys."""
        error = self.error(*keys)
        if error is not None:
            # Raised for each caller: without this, every traceback would show the frames of all the others.
            raise error.with_traceback(None)

    def clear(self) -> None:
        """End all pauses."""
        self._pauses.clear()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
