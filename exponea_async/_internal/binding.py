"""
The context variable behind ``exponea.bind()``.

One variable serves all clients: a context variable that is created dynamically is never freed.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextvars import Context, ContextVar, copy_context
from types import MappingProxyType
from typing import Any

#: What is bound to each client. What that is, `exponea_async.subjects` defines.
BOUND: ContextVar[Mapping[object, Any]] = ContextVar("exponea_async.bound")
NOTHING: Mapping[object, Any] = MappingProxyType({})

#: The key of the coroutine that closes a generator, and has given up what its task had inherited.
_CLOSED = object()


def _closing_type() -> type:
    async def generate() -> AsyncGenerator[None, None]:
        yield None

    closing = generate().aclose()
    # One that is neither awaited nor closed is warned of.
    closing.close()
    return type(closing)


#: The type of the coroutines ``aclose()`` and ``athrow()`` of asynchronous generators.
_CLOSING = _closing_type()


def bindings() -> Mapping[object, Any]:
    """
    Return what is bound in the present context.

    An asynchronous generator that was not read to its end is closed when its memory is freed: in a task that the event
    loop creates at that moment, with the context of whatever runs then. That may be the request of somebody else, so
    nothing that such a task has inherited counts.
    """
    found = BOUND.get(NOTHING)
    if found and (closing := _closing_coroutine()) is not None and found.get(_CLOSED) is not closing:
        # What is bound from here on is bound by the generator itself, and counts.
        found = {_CLOSED: closing}
        BOUND.set(found)
    return found


def _closing_coroutine() -> object | None:
    """Return the coroutine of the running task if that does nothing but close a generator."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    coroutine = None if task is None else task.get_coro()
    return coroutine if isinstance(coroutine, _CLOSING) else None


def unbound_context() -> Context:
    """
    Return a copy of the present context in which nothing is bound.

    For code that is about no end user: it may run in a task that the request of one has started, and what it tracks
    must not become that one's.
    """
    context = copy_context()
    context.run(BOUND.set, NOTHING)
    return context
