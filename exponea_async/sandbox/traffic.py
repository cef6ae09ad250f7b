"""
The middleware of all requests: the checks of host and origin, the faults, the rate limit and the request log.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal

from aiohttp import web
from attrs import evolve

from exponea_async.sandbox.access import RateLimiter, is_local_host, is_same_origin
from exponea_async.sandbox.encoding import encode
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.exchanges import Exchange, Exchanges, masked_headers, masked_query, scheme_of
from exponea_async.sandbox.faults import Fault, Faults
from exponea_async.sandbox.http import EXCHANGE, IDENTITY, Handler, decode_json, error_response, failure, read_body
from exponea_async.sandbox.models import RequestLog

MAX_LOGGED_REQUESTS = 1000
# The log holds a thousand bodies.
MAX_LOGGED_BYTES = 32_768
CONTROL_PATH = "/sandbox/"
#: The other paths of the page and its routes.
PAGE_PATHS = ("/", "/favicon.ico")
TRACKING_PATH = "/track/"
#: The status of requests whose connection was dropped.
DROPPED = 0
NOT_LOGGED = object()


class DropConnectionError(Exception):
    """
    The connection has to be dropped without a response.

    Attributes:
        commands: The number of commands that were processed before.
    """

    def __init__(self, commands: int = 0) -> None:
        super().__init__("The connection is dropped.")
        self.commands = commands


class Traffic:
    """
    The middleware that all requests pass.

    Args:
        faults: The faults to inject.
        rate_limit: The number of requests per second; no limit where None.
        exchanges: Where the requests and responses are kept.
        count: Called with the time, the project and ``"limited"`` or ``"failed"`` for requests without success.

    Attributes:
        requests: The latest 1,000 requests, oldest first, without those to the control routes.
        request_count: The number of these requests.
        statuses: The number of responses by status; 0 for dropped connections.
    """

    def __init__(
        self,
        faults: Faults,
        rate_limit: int | None,
        exchanges: Exchanges,
        count: Callable[[float, str, Literal["limited", "failed"]], object],
    ) -> None:
        self._faults = faults
        self._rate_limiter = RateLimiter(rate_limit, time.monotonic)
        self._exchanges = exchanges
        self._count = count
        self._closing = asyncio.Event()
        self.requests: deque[RequestLog] = deque(maxlen=MAX_LOGGED_REQUESTS)
        self.statuses: Counter[int] = Counter()
        self.request_count = 0

    def reset(self) -> None:
        """Clear the log and the counts, and reset the rate limit."""
        self.requests.clear()
        self._exchanges.reset()
        self.statuses.clear()
        self.request_count = 0
        self._rate_limiter.reset()

    def open(self) -> None:
        """Allow faults to delay requests; has to be called again after `close`."""
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Drop the connections of delayed requests."""
        self._closing.set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Process one request."""
        if not is_local_host(request.headers.get("Host", "")):
            return failure(403, "The sandbox responds to local host names only.")
        if not is_same_origin(request.headers):
            return failure(403, "The sandbox responds to no web page of another origin.")
        if request.path in PAGE_PATHS or request.path.startswith(CONTROL_PATH):
            return await _respond(request, handler)
        return await self._respond_and_log(request, handler)

    async def _respond_and_log(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        at, started = time.time(), time.perf_counter()
        exchange = request[EXCHANGE] = self._exchanges.start()
        status, commands, body = 500, 0, NOT_LOGGED
        self.request_count += 1
        try:
            body = await _logged_body(request, exchange)
            response = await self._respond_with_faults(request, handler, exchange)
            status, commands = response.status, getattr(response, "commands", 0)
            exchange.set_response(response.headers, getattr(response, "body", None))
        except RequestError as error:
            status, response = error.status, error_response(error)
            exchange.set_response(response.headers, response.body)
        except DropConnectionError as drop:
            status, commands = DROPPED, drop.commands
            response = _drop(request)
        except ConnectionError:
            # The client has gone in the middle of its request.
            status, response = DROPPED, _drop(request)
        except asyncio.CancelledError:
            status = DROPPED
            raise
        finally:
            seconds, size = time.perf_counter() - started, request.content.total_bytes
            scheme = scheme_of(request.headers.get("Authorization", ""))
            log = RequestLog(at, request.method, request.path, status, seconds, size, commands, scheme)
            if body is not NOT_LOGGED:
                log = evolve(log, query=request.query_string, body=body)
            self._log(request, exchange, log)
        return response

    def _log(self, request: web.Request, exchange: Exchange, log: RequestLog) -> None:
        self.statuses[log.status] += 1
        self.requests.append(log)
        exchange.project = _project(request) or ""
        exchange.headers = masked_headers(request.headers.items())
        exchange.raw_path = request.rel_url.raw_path
        exchange.query = masked_query(request.query_string)
        self._exchanges.finish(exchange, log)
        if log.status == 429:
            self._count(log.at, exchange.project, "limited")
        elif log.status == DROPPED or log.status >= 500 or (log.status >= 400 and not log.commands):
            self._count(log.at, exchange.project, "failed")

    async def _respond_with_faults(
        self, request: web.Request, handler: Handler, exchange: Exchange
    ) -> web.StreamResponse:
        plan = self._faults.plan(request.path, _project(request))
        if plan.latency:
            exchange.fault = "latency"
            await self._delay(plan.latency)
        if plan.fault is not None:
            exchange.fault = plan.fault.kind
        if plan.fault is not None and plan.fault.kind != "drop_after":
            return await self._inject(plan.fault)
        if wait := self._rate_limiter.take():
            return failure(429, "Too many requests.", headers={"Retry-After": str(wait)})
        response = await _respond(request, handler)
        if plan.fault is not None:
            # The client never sees it, but whoever inspects the request does.
            exchange.set_response(response.headers, getattr(response, "body", None))
            raise DropConnectionError(getattr(response, "commands", 0))
        return response

    async def _inject(self, fault: Fault) -> web.StreamResponse:
        if fault.kind == "timeout":
            await self._delay(fault.seconds)
        if fault.kind != "status":
            raise DropConnectionError
        return _injected_response(fault)

    async def _delay(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
        # The sandbox is closing, which has to be quick: delayed requests get no response.
        raise DropConnectionError


def _project(request: web.Request) -> str | None:
    return request.match_info.get("token") or request.query.get("project_id")


async def _logged_body(request: web.Request, exchange: Exchange) -> Any:
    """Return the body for the log, read before any fault; aiohttp caches it for the handler."""
    if not request.can_read_body:
        return NOT_LOGGED if request.path.startswith(TRACKING_PATH) else None
    raw, encoding = await read_body(request), request.headers.get("Content-Encoding", IDENTITY)
    exchange.set_body(raw, is_gzip=encoding.lower() == "gzip")
    if request.path.startswith(TRACKING_PATH):
        return NOT_LOGGED
    try:
        body = decode_json(raw, encoding)
        # Nested as deep as the response with the log nests it.
        return body if len(encode([[[[body]]]])) <= MAX_LOGGED_BYTES else None
    except (RequestError, ValueError) as error:
        if isinstance(error, RequestError) and error.status == 413:
            raise
        return None


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return error_response(error)
    except web.HTTPException as error:
        allowed = error.headers.get("Allow")
        return failure(error.status, f"{error.reason}.", headers={"Allow": allowed} if allowed else None)


def _injected_response(fault: Fault) -> web.Response:
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = f"{fault.retry_after:.3f}".rstrip("0").rstrip(".")
    if fault.body is None:
        return failure(fault.status, f"{fault.status} by fault injection", headers=headers)
    content_type = "application/json" if fault.body.startswith(("{", "[")) else "text/plain"
    return web.Response(text=fault.body, status=fault.status, headers=headers, content_type=content_type)


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
