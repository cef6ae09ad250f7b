"""
The platform's answers to questions: what is in their envelopes. Pure, but for large ones, which are read on a thread.
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

#: Where the platform puts what was asked for.
PAYLOADS = ("results", "data", "messages", "in_app_content_blocks")
#: An element of a list may have this many bytes; messages have some thousand.
MAX_ELEMENT = 2_000_000
#: A list may have this many elements; those behind them are left out.
MAX_ELEMENTS = 200_000
#: An envelope may have this many members; it has some few.
MAX_MEMBERS = 1_000
#: A longer sync token is none, in bytes as it came.
MAX_TOKEN = 32_768
#: So many broken elements of an answer are told in the log one by one, and the others by their number.
TOLD = 3
#: Answers from this size on are read on a thread, in bytes: smaller ones take the event loop a millisecond or less.
ON_THREAD = 32_768


@frozen
class Envelope:
    """
    What an envelope holds.

    Attributes:
        elements: The elements of its list, not decoded.
        sync_token: The mark up to which somebody has been told, or None.
    """

    elements: tuple[bytes, ...]
    sync_token: str | None = None


def read_reply(body: bytes) -> Envelope:
    """
    Open an envelope. One without a list holds nothing.

    Raises:
        RefusedError: The platform says that it failed.
        UnavailableError: It is no envelope.
    """
    try:
        parts = dict(islice(members(body), MAX_MEMBERS))
        # Not decoded: whatever else stands there may be of any size.
        succeeded = parts.get("success")
        if succeeded == b"false":
            raise RequestRefusedError(_reason(parts))
        if succeeded != b"true":
            raise UnavailableError("an answer that says nothing of success")
        payload = next((parts[name] for name in PAYLOADS if parts.get(name, b"null") != b"null"), b"[]")
        return Envelope(taken(payload), _token(parts.get("sync_token", b"null")))
    except ValueError as error:
        raise UnavailableError(f"an answer that can't be read: {error}") from error


def taken(payload: bytes) -> tuple[bytes, ...]:
    """
    Cut a list into its elements, as many of them as it may have; that there are more is logged.

    Raises:
        ValueError: It has no end, or is no list.
    """
    found = tuple(islice(elements(payload), MAX_ELEMENTS + 1))
    if len(found) > MAX_ELEMENTS:
        LOG.warning("An answer has more than %d elements; the others are left out.", MAX_ELEMENTS)
    return found[:MAX_ELEMENTS]


def decoded(pieces: Iterable[bytes], read: Callable[[Any], T], what: str) -> Iterator[T]:
    """
    Decode elements one by one; a broken one is left out, and logged.

    Args:
        pieces: The elements.
        read: Makes a value of a decoded element, or raises a ValueError, KeyError or TypeError.
        what: What they are, for the log.
    """
    broken = 0
    for index, piece in enumerate(pieces):
        try:
            if len(piece) > MAX_ELEMENT:
                raise ValueError(f"{len(piece)} bytes are too many")  # noqa: TRY301 - broken like any other
            yield read(decode(piece))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            broken += 1
            if broken <= TOLD:
                LOG.warning("%s %d of an answer is left out: %s: %s", what, index, type(error).__name__, error)
    if broken > TOLD:
        LOG.warning("%d more of an answer are left out.", broken - TOLD)


async def on_thread(size: int, work: Callable[[], T]) -> T:
    """Do some work on what has so many bytes: here, or on a thread where the event loop would notice."""
    return work() if size < ON_THREAD else await asyncio.to_thread(work)


def _token(piece: bytes) -> str | None:
    token = decode(piece) if len(piece) <= MAX_TOKEN else None
    return token if isinstance(token, str) else None


def _reason(parts: dict[str, bytes]) -> str:
    told = next((parts[name] for name in ("errors", "error", "message") if name in parts), b"the platform says no more")
    return told[:300].decode(errors="replace")
