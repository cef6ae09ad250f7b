"""
Name look-ups that hold up neither the end of an event loop nor the exit of the process.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

#: What the system returns for an address: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
#: A host, a port and a family.
Query = tuple[str, int, int]


class DaemonResolver(AbstractResolver):
    """
    Looks names up with the system's resolver, in daemon threads.

    The resolver of aiohttp uses the event loop's default executor, whose threads are waited for when the loop ends. A
    name server that does not answer would delay that for many seconds.
    """

    def __init__(self) -> None:
        # At most one thread for each query: a look-up goes on after its request has timed out.
        self._queries: dict[Query, asyncio.Future[list[AddressInfo]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """
        Return the addresses of a host.

        Raises:
            OSError: The name can't be resolved.
        """
        query = (host, port, int(family))
        future = self._queries.get(query)
        if future is None:
            future = self._queries[query] = self._start(query)
        # The future is shared, and must survive a caller that gives up.
        return [_result(host, info) for info in await asyncio.shield(future)]

    async def close(self) -> None:
        """Do nothing: look-ups that are in progress end by themselves."""

    def _start(self, query: Query) -> "asyncio.Future[list[AddressInfo]]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[AddressInfo]] = loop.create_future()

        def settle(outcome: list[AddressInfo] | OSError) -> None:
            self._queries.pop(query, None)
            if future.done():
                return
            if isinstance(outcome, OSError):
                future.set_exception(outcome)
                # It is raised only to callers that still wait.
                future.exception()
            else:
                future.set_result(outcome)

        Thread(target=_look_up, args=(query, loop, settle), name="exponea_async: name look-up", daemon=True).start()
        return future


def _look_up(
    query: Query, loop: asyncio.AbstractEventLoop, settle: Callable[[list[AddressInfo] | OSError], None]
) -> None:
    host, port, family = query
    outcome: list[AddressInfo] | OSError
    try:
        outcome = list(
            socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        )
    except OSError as error:
        outcome = error
    except UnicodeError as error:
        outcome = OSError(f"the host name {host!r} can't be encoded: {error}")
    # The event loop may be closed by now.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(settle, outcome)


def _result(host: str, info: AddressInfo) -> ResolveResult:
    family, _, protocol, _, address = info
    ip = str(address[0])
    if family == socket.AF_INET6 and len(address) > 3 and address[3] and "%" not in ip:
        # A link-local address is valid on one network interface only.
        ip = f"{ip}%{address[3]}"
    return ResolveResult(
        hostname=host,
        host=ip,
        port=int(address[1]),
        family=family,
        proto=protocol,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
