"""
Segments of a customer: what the platform answers, what is remembered of it, and what is new in it. Pure.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote

from attrs import frozen

from exponea_async._internal.json import decode, members
from exponea_async.devices.context import ApiRequest
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.ids import COOKIE
from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import decode_elements, split_list

LOG = logging.getLogger("exponea_async")

Segment = Mapping[str, str]
#: Segments by the category that they are exposed in, such as ``"discovery"``.
Segments = Mapping[str, tuple[Segment, ...]]

#: For so long an answer counts as fresh, in seconds, as in the Android SDK.
FRESH = 5.0
#: An answer may have this many bytes; a customer is in some dozens of segments, of 70 bytes each.
MAX_ANSWER = 250_000
#: An answer may have this many categories; a project has three, and some of its own.
MAX_CATEGORIES = 100
#: What tells segments apart; others that have no such thing are of some category of the project's own.
_IDS = ("id", "segmentation_id")


@frozen
class Known:
    """
    The segments of a customer, as they were told last.

    Attributes:
        fingerprint: Whose they are.
        at: When that was, UNIX seconds.
        segments: The segments.
    """

    fingerprint: str
    at: float
    segments: Segments

    def is_fresh(self, now: float) -> bool:
        """Tell whether they still count, UNIX seconds; a clock that was set back makes them old."""
        return 0 <= now - self.at <= FRESH

    def of(self, category: str) -> list[dict[str, str]]:
        """Copy those of a category; there are none of an unknown one."""
        return [dict(segment) for segment in self.segments.get(category, ())]

    def encode(self) -> bytes:
        """Make the bytes to store."""
        segments = {category: [dict(each) for each in its] for category, its in self.segments.items()}
        return json.dumps(
            {"mark": self.fingerprint, "at": self.at, "segments": segments}, separators=(",", ":")
        ).encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """
        Read what `encode` made.

        Raises:
            ValueError: It is something else.
        """
        try:
            kept = decode(value)
            segments = {category: tuple(map(dict, its)) for category, its in kept["segments"].items()}
            return cls(str(kept["mark"]), float(kept["at"]), MappingProxyType(segments))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def read_segments(body: bytes) -> Segments:
    """
    Read the platform's answer, which has no envelope; what is broken in it is left out, and logged.

    Raises:
        RefusedError: It is an envelope that says that the platform failed.
        UnavailableError: It is no answer.
    """
    if len(body) > MAX_ANSWER:
        raise UnavailableError(f"an answer of {len(body)} bytes is too large for segments")
    try:
        parts = dict(islice(members(body), MAX_CATEGORIES))
    except ValueError as error:
        raise UnavailableError(f"segments that can't be read: {error}") from error
    if parts.get("success") == b"false":
        raise RequestRefusedError("an answer without success instead of segments")
    return MappingProxyType({category: tuple(its) for category, its in _categories(parts).items()})


def news(before: Segments | None, now: Segments) -> frozenset[str]:
    """
    Tell the categories whose segments have changed; their order does not count.

    Args:
        before: What the customer had; None where nothing is known, and all is new.
        now: What the customer has.
    """
    if before is None:
        return frozenset(now)
    names = before.keys() | now.keys()
    return frozenset(name for name in names if _as_set(before.get(name)) != _as_set(now.get(name)))


def ask_for(customer: CustomerSnapshot, tries: int) -> ApiRequest:
    """Make the question for a customer's segments."""
    return ApiRequest(f"/webxp/projects/{{project}}/segments?cookie={_quoted(customer)}", tries=tries)


def link_for(customer: CustomerSnapshot, tries: int) -> ApiRequest | None:
    """Make the call that joins a customer's ids to the cookie, by which segments are found; None without ids."""
    ids = {kind: value for kind, value in customer.ids.items() if kind != COOKIE}
    path = f"/webxp/projects/{{project}}/cookies/{_quoted(customer)}/link-ids"
    return ApiRequest(path, {"external_ids": ids}, tries=tries) if ids else None


def _quoted(customer: CustomerSnapshot) -> str:
    return quote(customer.ids[COOKIE], safe="")


def _as_set(segments: tuple[Segment, ...] | None) -> frozenset[frozenset[tuple[str, str]]] | None:
    return None if segments is None else frozenset(frozenset(segment.items()) for segment in segments)


def _categories(parts: Mapping[str, bytes]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    current: list[Segment] = []
    broken = 0

    def walked() -> Iterator[bytes]:
        nonlocal current, broken
        for category, piece in parts.items():
            try:
                pieces = split_list(piece)
            except ValueError:
                broken += 1
            else:
                current = found[category] = []
                yield from pieces

    # All in one go, for the log to stay short. Each is read before the next is asked for.
    for segment in decode_elements(walked(), _segment, "segment"):
        current.append(segment)  # noqa: PERF402 - it is another one for each category
    if broken:
        LOG.warning("%d categories of segments are left out, since they are no lists.", broken)
    return found


def _segment(value: Any) -> Segment:
    told = {name: _text(each) for name, each in value.items()}
    kept = {name: text for name, text in told.items() if text is not None}
    if not kept or any(name in value and name not in kept for name in _IDS):
        raise ValueError("it has nothing to tell it by")
    return MappingProxyType(kept)


def _text(value: Any) -> str | None:
    """Read a text, or what stands for one, as the Android SDK does."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, int | float) else None
