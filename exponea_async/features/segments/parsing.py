"""
Segments of a customer: the requests, the platform's response, the stored form, and what has changed. Pure.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote

from attrs import frozen

from exponea_async._internal.fields import as_string, optional
from exponea_async._internal.json import decode, members
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.ids import COOKIE
from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import decode_elements, split_list
from exponea_async.requests import ApiRequest

LOG = logging.getLogger("exponea_async")

Segment = Mapping[str, str]
#: Segments by the category in which they are exposed, such as ``"discovery"``.
SegmentsByCategory = Mapping[str, tuple[Segment, ...]]

#: How long loaded segments count as fresh, in seconds, as in the Android SDK.
MAX_AGE = 5.0
#: Maximum size of a response in bytes. A customer is in a few dozen segments of 70 bytes each.
MAX_RESPONSE = 250_000
#: Maximum number of categories in a response. A project has three, and a few of its own.
MAX_CATEGORIES = 100
#: The fields that identify a segment. Segments without them are of a category of the project's own.
_ID_FIELDS = ("id", "segmentation_id")


@frozen
class CachedSegments:
    """
    The segments of a customer as they were loaded last.

    Attributes:
        fingerprint: The fingerprint of the customer.
        loaded_at: When they were loaded, UNIX seconds.
        segments: The segments.
    """

    fingerprint: str
    loaded_at: float
    segments: SegmentsByCategory

    def is_fresh(self, now: float) -> bool:
        """Return whether they may still be used, at a time in UNIX seconds; not after a clock was set back."""
        return 0 <= now - self.loaded_at <= MAX_AGE

    def for_category(self, category: str) -> list[dict[str, str]]:
        """Return a copy of the segments of a category; empty for an unknown category."""
        return [dict(segment) for segment in self.segments.get(category, ())]

    def encode(self) -> bytes:
        """Return the stored form."""
        segments = {category: [dict(each) for each in its] for category, its in self.segments.items()}
        stored = {"mark": self.fingerprint, "at": self.loaded_at, "segments": segments}
        return json.dumps(stored, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """
        Read the stored form.

        Raises:
            ValueError: It is malformed.
        """
        try:
            stored = decode(value)
            segments = {category: tuple(map(dict, its)) for category, its in stored["segments"].items()}
            return cls(str(stored["mark"]), float(stored["at"]), MappingProxyType(segments))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def read_segments(body: bytes) -> SegmentsByCategory:
    """
    Read the platform's response, which has no envelope. Malformed segments and categories are skipped and logged.

    Raises:
        RequestRefusedError: The response is an envelope which says that the request failed.
        UnavailableError: The response can't be read.
    """
    if len(body) > MAX_RESPONSE:
        raise UnavailableError(f"the response with segments is too large: {len(body)} bytes")
    try:
        categories = dict(islice(members(body), MAX_CATEGORIES))
    except ValueError as error:
        raise UnavailableError(f"the segments can't be read: {error}") from error
    if categories.get("success") == b"false":
        raise RequestRefusedError("the request for segments failed")
    return MappingProxyType({category: tuple(its) for category, its in _by_category(categories).items()})


def changed_categories(before: SegmentsByCategory | None, now: SegmentsByCategory) -> frozenset[str]:
    """
    Return the categories whose segments have changed, whatever their order.

    Args:
        before: The segments that the customer had; None where they are not known, then all categories have changed.
        now: The segments that the customer has.
    """
    if before is None:
        return frozenset(now)
    names = before.keys() | now.keys()
    return frozenset(name for name in names if _as_set(before.get(name)) != _as_set(now.get(name)))


def segments_request(customer: CustomerSnapshot, max_attempts: int) -> ApiRequest:
    """Return the request for a customer's segments, which the platform finds by the cookie."""
    return ApiRequest(
        "segments", f"/webxp/projects/{{project}}/segments?cookie={_quoted_cookie(customer)}", max_attempts=max_attempts
    )


def link_request(customer: CustomerSnapshot, max_attempts: int) -> ApiRequest | None:
    """Return the request that links a customer's ids to the cookie; None where the cookie is the only id."""
    ids = {kind: value for kind, value in customer.ids.items() if kind != COOKIE}
    path = f"/webxp/projects/{{project}}/cookies/{_quoted_cookie(customer)}/link-ids"
    return ApiRequest("segments", path, {"external_ids": ids}, max_attempts=max_attempts) if ids else None


def _quoted_cookie(customer: CustomerSnapshot) -> str:
    return quote(customer.ids[COOKIE], safe="")


def _as_set(segments: tuple[Segment, ...] | None) -> frozenset[frozenset[tuple[str, str]]] | None:
    return None if segments is None else frozenset(frozenset(segment.items()) for segment in segments)


def _by_category(categories: Mapping[str, bytes]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    current: list[Segment] = []
    malformed = 0

    def encoded_segments() -> Iterator[bytes]:
        nonlocal current, malformed
        for category, encoded in categories.items():
            try:
                segments = split_list(encoded)
            except ValueError:
                malformed += 1
            else:
                current = found[category] = []
                yield from segments

    # One call for all categories, because each call may log several lines. Each segment is decoded before the generator
    # goes on to the next one, so that `current` is the list of its category.
    for segment in decode_elements(encoded_segments(), _segment, "segment"):
        current.append(segment)  # noqa: PERF402 - it is another list for each category
    if malformed:
        LOG.warning("%d categories of segments are skipped, since they are not lists.", malformed)
    return found


def _segment(value: Any) -> Segment:
    # Numbers and booleans are accepted as strings, as in the Android SDK.
    strings = {name: optional(value, name, as_string, coerce=(int, float, bool)) for name in value}
    segment = {name: string for name, string in strings.items() if string is not None}
    if not segment or any(name in value and name not in segment for name in _ID_FIELDS):
        raise ValueError("a segment needs an id")
    return MappingProxyType(segment)
