"""
Open files in a process that is forked.

The child has a copy of SQLite's notes of the locks that the process holds, but none of these locks. A connection that
the child opens to the same file would rely on the notes. When the parent closes, it would then take itself for the last
process and delete the write-ahead log that the child still writes to. So a fork waits until no connection is in use.
The child closes its copies at once, which changes nothing for the parent: its locks keep the copies from touching the
file.
"""

import os
from collections.abc import Callable
from threading import Lock
from typing import ParamSpec, Protocol, TypeVar
from weakref import WeakSet

P = ParamSpec("P")
T = TypeVar("T")


class Forkable(Protocol):
    """A connection to a file, used on a thread of its own."""

    def begin_fork(self) -> None:
        """Wait until the connection is not in use, and keep others from using it."""

    def end_fork(self) -> None:
        """Let the connection be used again, in the parent."""

    def close_copy(self) -> None:
        """Close the copy of the connection, in the child."""


_connections: WeakSet[Forkable] = WeakSet()
#: Held from the beginning of a fork to its end: several threads may fork at once.
_fork = Lock()
_held: list[Forkable] = []


def register(connection: Forkable) -> None:
    """Consider a connection in each fork, as long as it exists; before it is opened, and behind a fork under way."""
    with _fork:
        _connections.add(connection)


def call_between_forks(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call a function that uses files of SQLite without a connection that is registered; a fork waits for its end.

    It must neither fork nor register a connection.
    """
    with _fork:
        return function(*args, **kwargs)


def _before() -> None:
    _fork.acquire()
    _held.extend(_connections)
    for connection in _held:
        connection.begin_fork()


def _after_in_parent() -> None:
    for connection in _held:
        connection.end_fork()
    _held.clear()
    _fork.release()


def _after_in_child() -> None:
    for connection in _held:
        connection.close_copy()
    _held.clear()
    _fork.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
