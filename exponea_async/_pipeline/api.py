"""
Questions to the platform, whose answers somebody waits for.
"""

import asyncio
import inspect
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from exponea_async._pipeline.commands import RETRYABLE, Project, explained, route_of
from exponea_async._pipeline.credentials import CredentialStore
from exponea_async._pipeline.retry import Backoff, RateLimiter, call_attempts
from exponea_async._pipeline.transport import Transport
from exponea_async.config import Configuration
from exponea_async.errors import ClosedError, ExponeaError, RequestRefusedError, UnavailableError

#: Questions under way at once; more wait for their turn, so that uploads are never far behind in the queue for a pace.
CONCURRENCY = 8
#: An answer may have this many bytes; the messages of a customer have some thousand.
MAX_ANSWER = 32_000_000
#: How a customer's own token is given.
BEARER = "Bearer"
_TOKEN = re.compile(r"[!-~]+")


class ApiClient:
    """
    Asks the platform.

    Args:
        configuration: Tells how to ask, and who gives the customers' own tokens.
        keys: Tell which key opens which project.
        pace: Spaces requests out, those of the upload among them.
    """

    def __init__(self, configuration: Configuration, keys: CredentialStore, pace: RateLimiter) -> None:
        self._configuration = configuration
        self._keys = keys
        self._pace = pace
        self._backoff = Backoff(configuration.upload)
        self._turn = asyncio.Semaphore(CONCURRENCY)
        self._transport: Transport | None = None
        self._open = False

    def open(self) -> None:
        """Let questions be asked, after a close too."""
        self._open = True

    async def aclose(self) -> None:
        """Close the connections: who waits for an answer gets none."""
        self._open = False
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def ask(
        self,
        project: Project,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        ids: Mapping[str, str] | None = None,
        tries: int = 1,
    ) -> bytes:
        """
        Ask about something of a project.

        Args:
            project: The project.
            path: Where, below its address.
            body: What is asked, as JSON types; None makes it a GET.
            ids: The customer whose own token opens it, where the host provides one; None is the project's key.
            tries: How often to ask at the most, with waits between, where there is no usable answer.

        Raises:
            RefusedError: The platform refused, or there is nothing that opens it; it was not asked then.
            UnavailableError: There was no usable answer.
            ClosedError: The client is closed.
        """
        data = None if body is None else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        url = f"{project.base_url}{path}"
        async for attempt in call_attempts(self._backoff, tries):
            with attempt:
                authorization = await self._authorization(project, ids)
                return await self._send(url, data, authorization)
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, url: str, data: bytes | None, authorization: str) -> bytes:
        async with self._turn:
            await self._pace.turn()
            transport = self._transport_now()
            answer = await transport.send("GET" if data is None else "POST", url, data, authorization, most=MAX_ANSWER)
        if 200 <= answer.status < 300:
            return answer.body
        reason = explained(answer)
        if answer.status in RETRYABLE or answer.status >= 500:
            raise UnavailableError(reason, status=answer.status, retry_after=answer.retry_after)
        raise RequestRefusedError(reason, status=answer.status)

    def _transport_now(self) -> Transport:
        if not self._open:
            raise ClosedError("The client is closed.", hint="Make a new one.")
        if self._transport is None:
            settings = self._configuration.upload
            self._transport = Transport(timeout=settings.request_timeout, connections=CONCURRENCY, gzip=settings.gzip)
        return self._transport

    async def _authorization(self, project: Project, ids: Mapping[str, str] | None) -> str:
        if ids is not None and self._configuration.customer_token_provider is not None:
            return await self._customer_token(ids)
        key = await self._keys.find(route_of(project))
        if key is None:
            raise RequestRefusedError(f"no key is known for project {project.project_token}", status=0)
        return key

    async def _customer_token(self, ids: Mapping[str, str]) -> str:
        provider: Any = self._configuration.customer_token_provider
        try:
            token = await _awaitable(provider(ids) if _takes_ids(provider) else provider())
        except ExponeaError:
            raise
        except Exception as error:
            # Its words may hold a secret; they are in the error behind this one.
            raise RequestRefusedError(f"customer_token_provider raised {type(error).__name__}", status=0) from error
        # A line break at the end comes with whatever is read from a file; one within would begin another header.
        words = token.split() if isinstance(token, str) else []
        if words[:1] == [BEARER]:
            del words[0]
        if len(words) != 1 or not _TOKEN.fullmatch(words[0]):
            raise RequestRefusedError(
                "customer_token_provider gave no token", status=0, hint="Return the customer's JWT."
            )
        return f"{BEARER} {words[0]}"


def _awaitable(given: Any) -> Any:
    if not inspect.isawaitable(given):
        raise RequestRefusedError("customer_token_provider is not async", status=0, hint="Make it an 'async def'.")
    return given


def _takes_ids(provider: Any) -> bool:
    with suppress(ValueError):  # a function in C may have no signature
        return bool(inspect.signature(provider).parameters)
    return False
