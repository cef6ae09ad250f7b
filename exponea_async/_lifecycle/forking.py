"""
What a forked child does with the clients that its parent had started, and what is never to be finalized.
"""

import os
from collections.abc import Callable
from weakref import WeakMethod, WeakSet

_handlers: "WeakSet[ForkHandler]" = WeakSet()
#: Kept for the rest of the process's life.
_abandoned: list[object] = []


class ForkHandler:
    """
    Calls a method in each child that the process forks, as long as the method's object exists.

    Args:
        method: A bound method. The object must keep a reference to the handler.
    """

    def __init__(self, method: Callable[[], None]) -> None:
        self._method = WeakMethod(method)
        _handlers.add(self)

    def __call__(self) -> None:
        """Call the method."""
        method = self._method()
        if method is not None:
            method()


def abandon(thing: object) -> None:
    """
    Never finalize an object, not even at the end of the process.

    In a forked child, this is for what belongs to the parent. Its sockets and the selector of its event loop are shared
    with the parent: closing them here would unregister the parent's own connections.
    """
    _abandoned.append(thing)
    try:
        from ctypes import py_object, pythonapi  # noqa: PLC0415 - only a forked child needs it
    except ImportError:  # pragma: no cover - a Python without ctypes: the end of the process finalizes the list
        return
    pythonapi.Py_IncRef(py_object(thing))


def _after_fork_in_child() -> None:
    for handler in list(_handlers):
        handler()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
