"""
Batches, and the requests that send them.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from attrs import define

from exponea_async._internal.log_fields import log_fields
from exponea_async._pipeline.commands import project_of, request_body, time_url, url_of
from exponea_async._pipeline.projects import UNKNOWN_PROJECT_HINT, ProjectAccess, ProjectStore
from exponea_async._pipeline.responses import (
    BatchResult,
    HeldError,
    HttpResponse,
    NoVerdictError,
    classify,
    is_success,
    read_batch_result,
)
from exponea_async._pipeline.retry import RateLimiter
from exponea_async._pipeline.transport import Transport
from exponea_async.errors import DeliveryError, ProjectPausedError, RejectedError, StorageError, UnavailableError
from exponea_async.observability import Counters
from exponea_async.storage.base import Leased

LOG = logging.getLogger("exponea_async")

#: Maximum size of the response to a batch, in bytes: this, and so much for each record. A usual one takes about 100.
RESPONSE_BASE, RESPONSE_PER_RECORD = 65_536, 4_096
#: Response bodies of more bytes are decoded on a thread.
READ_ON_THREAD = 32_768
#: The status for a body whose encoding is not accepted.
UNSUPPORTED_MEDIA_TYPE = 415


@define(eq=False)
class Batch:
    """
    The records of one request.

    Attributes:
        records: The records, all of one route; at least one.
        is_probe: Whether it is the probe of an open circuit.
        address: The URL that it was sent to, once it was sent.
        base_url: The address of the API in that URL.
        hint: What to do if the project is refused there.
    """

    records: Sequence[Leased]
    is_probe: bool = False
    address: str = ""
    base_url: str = ""
    hint: str = ""

    @property
    def route(self) -> str:
        """The route of all records."""
        return self.records[0].route

    @property
    def project(self) -> str:
        """The token of the project of all records."""
        return project_of(self.route)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the records."""
        return tuple(record.id for record in self.records)

    def halves(self) -> "tuple[Batch, Batch]":
        """Split a batch of at least two records."""
        middle = len(self.records) // 2
        return Batch(self.records[:middle], self.is_probe), Batch(self.records[middle:], self.is_probe)


class Exchange:
    """
    Sends batches, and reads the responses.

    Args:
        transport: Makes the requests.
        counters: Count requests.
        projects: The addresses and credentials of projects.
        rate_limiter: Spaces the requests.
        gzip: Whether bodies are compressed, except for addresses that refuse that.
    """

    def __init__(
        self,
        transport: Transport,
        counters: Counters,
        projects: ProjectStore,
        rate_limiter: RateLimiter,
        *,
        gzip: bool,
    ) -> None:
        self._transport = transport
        self._counters = counters
        self._projects = projects
        self._rate_limiter = rate_limiter
        self._gzip = gzip
        # Addresses of the API that do not accept compressed bodies.
        self._uncompressed: set[str] = set()
        # Until when addresses of the API have asked to wait, in event-loop time.
        self._held_until: dict[str, float] = {}

    def ignore_waits(self) -> None:
        """Do not wait any longer where the platform has asked to."""
        self._held_until.clear()

    async def send(self, batch: Batch) -> BatchResult:
        """
        Send a batch once; and once more, uncompressed, if its compression may be what is refused.

        Raises:
            RejectedError: The request as a whole is refused for its content.
            ProjectPausedError: The key, the project or the address is wrong.
            UnavailableError: There is no result, and the request is worth repeating.
        """
        try:
            return await self._send(batch, compress=self._compresses(batch))
        except RejectedError:
            result = await self.send_uncompressed(batch) if len(batch.records) == 1 else None
            if result is None:
                raise
            return result
        except ProjectPausedError as error:
            result = await self.send_uncompressed(batch) if error.status == UNSUPPORTED_MEDIA_TYPE else None
            if result is None:
                raise
            return result

    async def send_uncompressed(self, batch: Batch) -> BatchResult | None:
        """
        Send a batch that failed once more, uncompressed, if it was compressed.

        If that succeeds, no more bodies are compressed for its address.

        Returns:
            The result, or None if it was not compressed, or fails again.
        """
        if not self._compresses(batch):
            return None
        try:
            result = await self._send(batch, compress=False)
        except DeliveryError:
            return None
        # Other batches may have found the same meanwhile.
        if batch.base_url not in self._uncompressed:
            self._uncompressed.add(batch.base_url)
            LOG.warning(
                "%s refuses compressed requests and accepts the same ones uncompressed; requests to it are not"
                " compressed any more. Set UploadSettings(gzip=False).",
                batch.base_url,
                extra=log_fields("uncompressed", project=batch.project),
            )
        return result

    async def is_platform_up(self, batch: Batch) -> bool:
        """Return whether the platform answers a request that has nothing to do with the records of a batch."""
        try:
            access = await self._access(batch)
            await self._rate_limiter.acquire()
            self._counters.requests += 1
            url = time_url(access.base_url, batch.project)
            return is_success(await self._transport.send("GET", url, None, access.authorization))
        except DeliveryError:
            return False

    def _compresses(self, batch: Batch) -> bool:
        return self._gzip and batch.base_url not in self._uncompressed

    async def _send(self, batch: Batch, *, compress: bool) -> BatchResult:
        await self._rate_limiter.acquire()
        response = await self._post(batch, compress=compress)
        if response.retry_after and classify(response.status) == "temporary error":
            self._held_until[batch.base_url] = asyncio.get_running_loop().time() + response.retry_after
        read = partial(read_batch_result, response, batch.records, batch.address, hint=batch.hint)
        # Decoding a large body would block the event loop.
        result = await asyncio.to_thread(read) if len(response.body) > READ_ON_THREAD else read()
        if not result.has_verdict:
            raise NoVerdictError("the response has no verdict on any of the events", status=response.status)
        return result

    async def _post(self, batch: Batch, *, compress: bool) -> HttpResponse:
        access = await self._access(batch)
        batch.address, batch.base_url = url_of(access.base_url, batch.route), access.base_url
        batch.hint = access.hint
        body = request_body(batch.records)
        self._counters.requests += 1
        self._counters.bytes_sent += len(body)
        self._counters.in_flight += len(batch.records)
        try:
            return await self._transport.send(
                "POST",
                batch.address,
                body,
                access.authorization,
                compress=compress and self._compresses(batch),
                max_response=RESPONSE_BASE + len(batch.records) * RESPONSE_PER_RECORD,
                records=len(batch.records),
            )
        finally:
            self._counters.in_flight -= len(batch.records)

    async def _access(self, batch: Batch) -> ProjectAccess:
        try:
            access = await self._projects.find(batch.project)
        except StorageError as error:
            raise UnavailableError(f"the address of project {batch.project} can't be read: {error}") from error
        if access is None:
            reason = "it is neither in the configuration nor one that anonymize() switched a device to"
            raise ProjectPausedError(batch.project, 0, reason, hint=UNKNOWN_PROJECT_HINT)
        # A Retry-After is about the sender, so it holds for all projects and endpoints at an address.
        wait = self._held_until.get(access.base_url, 0.0) - asyncio.get_running_loop().time()
        if wait > 0:
            raise HeldError(f"{access.base_url} has asked to wait", retry_after=wait)
        return access
