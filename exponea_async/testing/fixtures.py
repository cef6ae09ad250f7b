"""
What the fixtures of the pytest plugin return. The plugin imports this module when a test uses one of them.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from exponea_async.client import Exponea
from exponea_async.config import Configuration
from exponea_async.portal import Portal
from exponea_async.sandbox import Sandbox
from exponea_async.testing.assertions import assert_not_tracked, assert_tracked
from exponea_async.testing.clock import Clock
from exponea_async.testing.events import TrackedEvent


def new_sandbox(options: Mapping[str, Any]) -> Sandbox:
    """
    Return a sandbox with what a marker says.

    Args:
        options: The keywords of the marker.

    Raises:
        ValueError: The definitions or the rate limit are invalid.
        TypeError: An option is of a wrong type.
    """
    faults = options.get("faults") or ()
    sandbox = Sandbox(definitions=options.get("definitions"), rate_limit=options.get("rate_limit"))
    sandbox.faults.add(*(faults if isinstance(faults, list | tuple | set | frozenset) else [faults]))
    return sandbox


@asynccontextmanager
async def running_client(configuration: Configuration, clock: Clock) -> AsyncIterator[Exponea]:
    """Run a client in the present event loop; what it has not sent at the end is not sent."""
    client = Exponea(configuration, clock=clock)
    await client.start()
    try:
        yield client
    finally:
        await client.aclose(timeout=0)


@contextmanager
def open_portal(configuration: Configuration, clock: Clock) -> Iterator[Portal]:
    """Return a portal to a client of its own; what it has not sent at the end is not sent."""
    portal = Portal(Exponea(configuration, clock=clock))
    try:
        yield portal
    finally:
        portal.close(timeout=0)


def assertion(sandbox: Sandbox) -> Callable[..., list[TrackedEvent]]:
    """Return `assert_tracked` for one sandbox."""
    return partial(assert_tracked, sandbox)


def opposite_assertion(sandbox: Sandbox) -> Callable[..., None]:
    """Return `assert_not_tracked` for one sandbox."""
    return partial(assert_not_tracked, sandbox)
