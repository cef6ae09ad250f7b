"""
What every request passes through: the check of its host, the faults, the rate limit and the log.
"""

import asyncio
import time
from collections import Counter, deque
from typing import Any

from aiohttp import web
from attrs import evolve

from exponea_async.sandbox.access import RateLimit, is_local
from exponea_async.sandbox.encoding import dumps
from exponea_async.sandbox.faults import Fault, Faults
from exponea_async.sandbox.http import BodyError, failure, read_json
from exponea_async.sandbox.models import RequestLog
from exponea_async.sandbox.tracking import Handler

MAX_LOGGED = 1000
CONTROL = "/sandbox/"
CUT = 0
TRACKING = "/track/"
TRACKED = object()
# A thousand requests are kept.
MAX_KEPT_BYTES = 32_768
SCHEMES = ("Token", "Basic", "Bearer")


class CutError(Exception):
    """
    The connection is to be cut without an answer.

    Attributes:
        commands: How many commands have been processed before.
    """

    def __init__(self, commands: int = 0) -> None:
        super().__init__("cut")
        self.commands = commands


class Traffic:
    """
    The way in and out.

    Attributes:
        requests: The latest 1,000 requests, oldest first; those to the sandbox's own routes are left out.
        request_count: How many such requests have arrived.
        statuses: How many were answered with which status; 0 where cut.
    """

    def __init__(self, faults: Faults, rate_limit: int | None) -> None:
        self._faults = faults
        self._rate = RateLimit(rate_limit, time.monotonic)
        self._closing = asyncio.Event()
        self.requests: deque[RequestLog] = deque(maxlen=MAX_LOGGED)
        self.statuses: Counter[int] = Counter()
        self.request_count = 0

    def reset(self) -> None:
        """Empties the log and the counts, and fills the rate limit's bucket."""
        self.requests.clear()
        self.statuses.clear()
        self.request_count = 0
        self._rate.reset()

    def open(self) -> None:
        """Lets requests be held."""
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Cuts the requests that are held."""
        self._closing.set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Carries one request through."""
        if not is_local(request.headers.get("Host", "")):
            return failure(403, "The sandbox answers to local names only.")
        if request.path.startswith(CONTROL):
            return await _answer(request, handler)
        return await self._logged(request, handler)

    async def _logged(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        at, started = time.time(), time.perf_counter()
        status, commands, body = 500, 0, TRACKED
        self.request_count += 1
        try:
            body = await _kept_body(request)
            response = await self._exposed(request, handler)
            status, commands = response.status, getattr(response, "commands", 0)
        except BodyError as error:
            status, response = error.status, failure(error.status, error.reason)
        except CutError as cut:
            status, commands = CUT, cut.commands
            response = _cut(request)
        except (ConnectionError, asyncio.CancelledError):
            status = CUT
            raise
        finally:
            seconds, size = time.perf_counter() - started, request.content.total_bytes
            log = RequestLog(at, request.method, request.path, status, seconds, size, commands, _scheme(request))
            self.statuses[status] += 1
            self.requests.append(log if body is TRACKED else evolve(log, query=request.query_string, body=body))
        return response

    async def _exposed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        project = request.match_info.get("token") or request.query.get("project_id")
        plan = self._faults.plan(request.path, project)
        if plan.latency:
            await self._hold(plan.latency)
        if plan.fault is not None and plan.fault.kind != "drop_after":
            return await self._broken(plan.fault)
        if wait := self._rate.take():
            return failure(429, "Too many requests.", headers={"Retry-After": str(wait)})
        response = await _answer(request, handler)
        if plan.fault is not None:
            raise CutError(getattr(response, "commands", 0))
        return response

    async def _broken(self, fault: Fault) -> web.StreamResponse:
        if fault.kind == "timeout":
            await self._hold(fault.seconds)
        if fault.kind != "status":
            raise CutError
        return _injected(fault)

    async def _hold(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
        # Closing has to be quick: who is held is not answered any more.
        raise CutError


def _scheme(request: web.Request) -> str:
    # Only a known word: what stands there alone may be the key itself.
    word = request.headers.get("Authorization", "").strip().partition(" ")[0].capitalize()
    return word if word in SCHEMES else ""


async def _kept_body(request: web.Request) -> Any:
    """Reads the body for the log, before anything goes wrong; the route finds it read."""
    if request.path.startswith(TRACKING):
        return TRACKED
    if not request.can_read_body:
        return None
    try:
        body = await read_json(request)
        return body if len(dumps(body)) <= MAX_KEPT_BYTES else None
    except BodyError as error:
        if error.status == 413:
            # What is left of it would look like a body of its own to the route.
            raise
        return None
    except ValueError:
        return None


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        allowed = error.headers.get("Allow")
        return failure(error.status, f"{error.reason}.", headers={"Allow": allowed} if allowed else None)


def _injected(fault: Fault) -> web.Response:
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = f"{fault.retry_after:.3f}".rstrip("0").rstrip(".")
    if fault.body is None:
        return failure(fault.status, f"{fault.status} by fault injection", headers=headers)
    kind = "application/json" if fault.body.startswith(("{", "[")) else "text/plain"
    return web.Response(text=fault.body, status=fault.status, headers=headers, content_type=kind)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
