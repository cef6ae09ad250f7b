"""
Requests to the API whose responses a caller waits for, such as those for messages and segments.
"""

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, get_args

from exponea_async._internal.secrets import Secret
from exponea_async._internal.user_code import FunctionError, calling
from exponea_async._pipeline.network import Network
from exponea_async._pipeline.projects import ProjectAccess, ProjectStore
from exponea_async._pipeline.responses import classify, describe
from exponea_async._pipeline.retry import Backoff, RateLimiter, request_attempts
from exponea_async._pipeline.transport import Transport
from exponea_async.config import Configuration
from exponea_async.errors import ClosedError, ExponeaError, RequestRefusedError, UnavailableError
from exponea_async.requests import ApiRequest, RequestKind

#: Maximum time in seconds that a request waits for its turn, because of the limit of concurrent requests of its kind.
MAX_QUEUE_TIME = 30.0
#: Maximum size of a response body in bytes; a customer's messages take some thousand.
MAX_RESPONSE = 32_000_000
#: The scheme of a customer's own token.
BEARER = "Bearer"
_TOKEN = re.compile(r"[!-~]+")


class ApiClient:
    """
    Makes requests to the API. Each kind of request has limits of its own.

    Args:
        configuration: The settings; they include the function that returns customers' own tokens.
        projects: The addresses and credentials of projects.
        network: The proxy and the certificates of requests.
        rate_limiter: Shared with the uploads.
    """

    def __init__(
        self, configuration: Configuration, projects: ProjectStore, network: Network, rate_limiter: RateLimiter
    ) -> None:
        self._configuration = configuration
        self._projects = projects
        self._network = network
        self._rate_limiter = rate_limiter
        self._backoff = Backoff(configuration.upload)
        self._limits = configuration.limits
        self._slots: Mapping[RequestKind, asyncio.Semaphore] = {
            kind: asyncio.Semaphore(self._limits.concurrency(kind)) for kind in get_args(RequestKind)
        }
        self._transport: Transport | None = None
        self._is_open = False
        self._closing = asyncio.Event()

    def open(self) -> None:
        """Allow requests, also after `aclose`."""
        self._is_open, self._closing = True, asyncio.Event()

    async def aclose(self) -> None:
        """Close the connections: requests in flight fail with an `UnavailableError`, and none is repeated."""
        self._is_open = False
        self._closing.set()
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def abandon(self) -> None:
        """Let go of the connections without waiting: the event loop has ended."""
        self._is_open = False
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abandon()

    async def request(self, project: str, request: ApiRequest, *, ids: Mapping[str, str] | None = None) -> bytes:
        """
        Make a request, repeated with back-off while there is no usable response.

        Args:
            project: The token of the project.
            request: The request.
            ids: The customer whose own token authorizes the request if ``customer_token_provider`` is configured.
                Otherwise, and with None, it is the project's credentials.

        Returns:
            The body of the 2xx response.

        Raises:
            RequestRefusedError: The platform refused; or the project is not known, and no request was made.
            UnavailableError: There was no usable response, or too many requests of its kind are in progress.
            ClosedError: The client is closed.
            StorageError: The storage failed.
        """
        body = request.body
        data = None if body is None else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        path = request.path.format(project=project)
        turn_until = asyncio.get_running_loop().time() + MAX_QUEUE_TIME
        async for attempt in request_attempts(self._backoff, request.max_attempts, self._pause):
            with attempt:
                access = await self._projects.find(project)
                if access is None:
                    raise RequestRefusedError(
                        f"no address and no key are known for project {project}",
                        status=0,
                        hint="Add it to Configuration.other_projects.",
                    )
                authorization = await self._authorization(access, ids)
                return await self._send(request, f"{access.base_url}{path}", data, authorization, turn_until)
        raise AssertionError("the last attempt returns or raises")

    async def _send(
        self, request: ApiRequest, url: str, data: bytes | None, authorization: str, turn_until: float
    ) -> bytes:
        method, timeout = "GET" if data is None else "POST", self._limits.timeout(request.kind)
        async with self._turn(request.kind, turn_until):
            await self._rate_limiter.acquire()
            transport = self._open_transport()
            request.before_sending()
            response = await transport.send(
                method, url, data, authorization, max_response=MAX_RESPONSE, timeout=timeout
            )
        kind = classify(response.status)
        if kind == "success":
            return response.body
        reason = describe(response)
        if kind == "temporary error":
            raise UnavailableError(reason, status=response.status, retry_after=response.retry_after)
        raise RequestRefusedError(reason, status=response.status)

    @asynccontextmanager
    async def _turn(self, kind: RequestKind, until: float) -> AsyncIterator[None]:
        """Wait for the turn of a request, at most until a time in event-loop time."""
        try:
            async with asyncio.timeout_at(until):
                await self._slots[kind].acquire()
        except TimeoutError:
            trouble = f"too many requests at once: limits.{kind}_concurrency is {self._limits.concurrency(kind)}"
            raise UnavailableError(trouble) from None
        try:
            yield
        finally:
            self._slots[kind].release()

    async def _pause(self, seconds: float) -> None:
        """Wait between two attempts, at most until the client is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        self._check_open()

    def _check_open(self) -> None:
        if not self._is_open:
            raise ClosedError("The client is closed.", hint="Create a new one.")

    def _open_transport(self) -> Transport:
        self._check_open()
        if self._transport is None:
            # Requests never wait for a connection, which would use up the time limits of other kinds.
            connections = sum(map(self._limits.concurrency, self._slots))
            self._transport = Transport(self._configuration.upload, self._network, connections=connections)
        return self._transport

    async def _authorization(self, access: ProjectAccess, ids: Mapping[str, str] | None) -> str:
        if ids is not None and self._configuration.customer_token_provider is not None:
            return await self._customer_token(ids)
        return access.authorization

    async def _customer_token(self, ids: Mapping[str, str]) -> Secret:
        provider: Any = self._configuration.customer_token_provider
        try:
            with calling("the customer_token_provider", provider, is_async=True):
                token = _bearer(await _check_awaitable(provider(ids) if _accepts_ids(provider) else provider()))
        except ExponeaError:
            raise
        except Exception as error:
            # The message may hold a secret, so it is only in the error that this one is raised from.
            name = type(error.__cause__ if isinstance(error, FunctionError) else error).__name__
            raise RequestRefusedError(f"customer_token_provider raised {name}", status=0) from error
        if token is None:
            raise RequestRefusedError(
                "customer_token_provider did not return a token", status=0, hint="Return the customer's JWT."
            )
        return token


def _bearer(token: Any) -> Secret | None:
    """Return the header for a customer's token, or None if it is not a token."""
    # A string read from a file ends with a line break, which would begin another header.
    words = token.split() if isinstance(token, str) else []
    if words[:1] == [BEARER]:
        del words[0]
    return Secret(f"{BEARER} {words[0]}") if len(words) == 1 and _TOKEN.fullmatch(words[0]) else None


def _check_awaitable(returned: Any) -> Any:
    if not inspect.isawaitable(returned):
        raise RequestRefusedError(
            "customer_token_provider is not an async function", status=0, hint="Define it with 'async def'."
        )
    return returned


def _accepts_ids(provider: Any) -> bool:
    with suppress(ValueError):  # a function written in C may have no signature
        return bool(inspect.signature(provider).parameters)
    return False
