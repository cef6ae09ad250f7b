"""
The envelopes of the platform's responses, whose elements are cut out and decoded one by one.

Elements are not decoded with their envelope, because decoders reject a whole list for one broken element.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from attrs import frozen

from exponea_async._internal.json import decode, elements, members
from exponea_async.errors import RequestRefusedError, UnavailableError

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: The members of an envelope that may contain the requested list, in order of precedence.
PAYLOADS = ("results", "data", "messages", "in_app_content_blocks")
#: Maximum size of an element, in bytes; messages have some thousand.
MAX_ELEMENT_BYTES = 2_000_000
#: Maximum number of elements; those after it are ignored.
MAX_ELEMENTS = 200_000
#: Maximum number of members of an envelope; it has a few.
MAX_MEMBERS = 1_000
#: Maximum size of a sync token, in bytes of JSON; a longer one is ignored.
MAX_TOKEN_BYTES = 32_768
#: Number of broken elements of a response that are logged one by one; the others are only counted.
MAX_LOGGED = 3
#: Size in bytes from which a response is read in a thread; smaller ones take the event loop a millisecond or less.
THREAD_THRESHOLD = 32_768


@frozen
class Envelope:
    """
    The content of a response.

    Attributes:
        elements: The elements of its list, not decoded.
        sync_token: The token from which the next request continues, or None.
    """

    elements: tuple[bytes, ...]
    sync_token: str | None = None


def read_envelope(body: bytes) -> Envelope:
    """
    Read an envelope. One without a list has no elements.

    Raises:
        RequestRefusedError: The platform reports a failure.
        UnavailableError: The body is not an envelope.
    """
    try:
        parts = dict(islice(members(body), MAX_MEMBERS))
        # Not decoded: whatever else is there may be of any size.
        succeeded = parts.get("success")
        if succeeded == b"false":
            raise RequestRefusedError(_reason(parts))
        if succeeded != b"true":
            raise UnavailableError("the response does not say whether the request succeeded")
        payload = next((parts[name] for name in PAYLOADS if parts.get(name, b"null") != b"null"), b"[]")
        return Envelope(split_list(payload), _token(parts.get("sync_token", b"null")))
    except ValueError as error:
        raise UnavailableError(f"the response can't be read: {error}") from error


def split_list(payload: bytes) -> tuple[bytes, ...]:
    """
    Split a JSON list into its elements, at most `MAX_ELEMENTS`; a longer list is logged.

    Raises:
        ValueError: It is not a complete list.
    """
    found = tuple(islice(elements(payload), MAX_ELEMENTS + 1))
    if len(found) > MAX_ELEMENTS:
        LOG.warning("A response has more than %d elements; the others are ignored.", MAX_ELEMENTS)
    return found[:MAX_ELEMENTS]


def decode_elements(pieces: Iterable[bytes], read: Callable[[Any], T], what: str) -> Iterator[T]:
    """
    Decode elements one by one; a broken one is skipped, and logged.

    Args:
        pieces: The elements.
        read: Returns the value of a decoded element, or raises a ValueError, KeyError or TypeError.
        what: What an element is, for the log.
    """
    broken = 0
    for index, piece in enumerate(pieces):
        try:
            if len(piece) > MAX_ELEMENT_BYTES:
                raise ValueError(f"{len(piece)} bytes are too many")  # noqa: TRY301 - broken like any other
            yield read(decode(piece))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            broken += 1
            if broken <= MAX_LOGGED:
                LOG.warning("%s %d of a response is skipped: %s: %s", what, index, type(error).__name__, error)
    if broken > MAX_LOGGED:
        LOG.warning("%d more of a response are skipped.", broken - MAX_LOGGED)


async def to_thread_if_large(size: int, work: Callable[[], T]) -> T:
    """Call a function that reads so many bytes: directly, or in a thread where it would delay the event loop."""
    return work() if size < THREAD_THRESHOLD else await asyncio.to_thread(work)


def _token(piece: bytes) -> str | None:
    token = decode(piece) if len(piece) <= MAX_TOKEN_BYTES else None
    return token if isinstance(token, str) else None


def _reason(parts: dict[str, bytes]) -> str:
    reason = next((parts[name] for name in ("errors", "error", "message") if name in parts), b"no reason given")
    return reason[:300].decode(errors="replace")
