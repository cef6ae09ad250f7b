"""
A customer's mailbox: the messages that are known, and their stored form. Pure.
"""

import json
import logging
import zlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar

from attrs import evolve, frozen

from exponea_async._internal.json import elements
from exponea_async._internal.lru import LruCache
from exponea_async.features.inbox.parsing import FetchInfo, MessageHeader, ReadHtml, read_headers, read_message
from exponea_async.features.inbox.stored import decompressed
from exponea_async.messages import AppInboxMessage

LOG = logging.getLogger("exponea_async")

#: Maximum number of messages in a mailbox, and their maximum size in bytes of JSON; the newest are kept.
MAX_MESSAGES, MAX_BYTES = 1_000, 8_000_000
#: Maximum number of mailboxes in memory, and their maximum size in bytes of JSON, which Python's objects exceed five to
#: eight times. Other mailboxes are read from the storage again.
MAX_MAILBOXES, MAX_MAILBOXES_BYTES = 1_000, 16_000_000
_EMPTY: Mapping[str, "CachedMessage"] = MappingProxyType({})


class _Dated(Protocol):
    @property
    def create_time(self) -> float | None: ...

    @property
    def raw_json(self) -> bytes: ...


D = TypeVar("D", bound=_Dated)


@frozen(eq=False)
class CachedMessage:
    """
    A message in a mailbox.

    Attributes:
        message: The message.
        raw_json: The message as it came.
        fetched_at: When it was fetched, UNIX seconds.
    """

    message: AppInboxMessage
    raw_json: bytes
    fetched_at: float

    @property
    def create_time(self) -> float | None:
        """When it was created, UNIX seconds."""
        return self.message.create_time


@frozen(eq=False)
class Mailbox:
    """
    The messages of a customer that are known.

    Attributes:
        fingerprint: The fingerprint of the customer.
        sync_token: The platform's token of this state of the inbox, or None.
        entries: The messages by id, newest first.
    """

    fingerprint: str
    sync_token: str | None = None
    entries: Mapping[str, CachedMessage] = _EMPTY

    @property
    def messages(self) -> list[AppInboxMessage]:
        """The messages, newest first."""
        return [entry.message for entry in self.entries.values()]

    @property
    def size(self) -> int:
        """The size of the messages in bytes of JSON."""
        return sum(len(entry.raw_json) for entry in self.entries.values())

    def message(self, message_id: str) -> AppInboxMessage | None:
        """Return a message by its id, or None."""
        entry = self.entries.get(message_id)
        return entry.message if entry else None

    def merged(self, entries: Iterable[CachedMessage], sync_token: str | None) -> "Mailbox":
        """Return the mailbox with messages added or replaced, and with the token, unless it is None."""
        new = {entry.message.id: entry for entry in entries}
        unchanged = [entry for id_, entry in self.entries.items() if id_ not in new]
        return Mailbox(self.fingerprint, sync_token or self.sync_token, _by_id(newest([*new.values(), *unchanged])))

    def with_read(self, message_id: str) -> "Mailbox":
        """Return the mailbox with a message marked as read."""
        entry = self.entries[message_id]
        changed = evolve(entry, message=evolve(entry.message, is_read=True))
        return evolve(self, entries=MappingProxyType({**self.entries, message_id: changed}))


def mailbox_cache(
    *, max_mailboxes: int = MAX_MAILBOXES, max_bytes: int = MAX_MAILBOXES_BYTES
) -> LruCache[str, Mailbox]:
    """Return an empty cache of mailboxes by device key, whichever customer owns them."""
    return LruCache(max_mailboxes, max_weight=max_bytes, weigh=lambda mailbox: mailbox.size, keep_latest=True)


def newest(messages: Iterable[D], *, max_bytes: int = MAX_BYTES) -> list[D]:
    """Return the messages, newest first; the oldest that a mailbox has no room for are left out and logged."""
    in_order = sorted(messages, key=_sort_key)
    size, count = 0, 0
    for each in in_order[:MAX_MESSAGES]:
        size += len(each.raw_json)
        if size > max_bytes:
            break
        count += 1
    if count < len(in_order):
        LOG.warning("The app inbox is too large: its %d oldest messages are left out.", len(in_order) - count)
    return in_order[:count]


def read_messages(
    raw_messages: Iterable[bytes], known: Mapping[str, CachedMessage], info: FetchInfo, read_html: ReadHtml
) -> list[CachedMessage]:
    """
    Read the messages of a response.

    Args:
        raw_messages: The messages.
        known: The messages in the mailbox; one that came again unchanged is not read again.
        info: The fetch they came with.
        read_html: Makes HTML safe.
    """
    headers = newest(read_headers(raw_messages, info.fetched_at))
    return [_cached(header, known.get(header.id), info, read_html) for header in headers]


def pack(mailbox: Mailbox, application_id: str) -> bytes:
    """Return the stored form of a mailbox."""
    entries = mailbox.entries.values()
    header = {
        "mark": mailbox.fingerprint,
        "application_id": application_id,
        "token": mailbox.sync_token,
        "stamps": [[entry.message.sync_token, entry.fetched_at, entry.message.is_read] for entry in entries],
    }
    raw_messages = b",".join(entry.raw_json for entry in entries)
    # The header has no line break, since JSON escapes those in strings.
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return zlib.compress(encoded + b"\n[" + raw_messages + b"]", level=1)


def unpack(value: bytes, empty: Mailbox, application_id: str, ids: Mapping[str, str], read_html: ReadHtml) -> Mailbox:
    """
    Read the stored form of a mailbox.

    Args:
        value: The stored form.
        empty: An empty mailbox of the customer, which is returned if the stored one belongs to another customer or
            another application.
        application_id: The application.
        ids: The customer's ids.
        read_html: Makes HTML safe.

    Raises:
        ValueError: The stored form is damaged.
    """
    try:
        header, raw_messages = decompressed(value)
        if (header["mark"], header["application_id"]) != (empty.fingerprint, application_id):
            return empty
        entries = [
            _restored(raw_json, FetchInfo(ids, float(fetched_at), token), is_read=bool(is_read), read_html=read_html)
            for raw_json, (token, fetched_at, is_read) in zip(elements(raw_messages), header["stamps"], strict=True)
        ]
    except (KeyError, TypeError, AttributeError, IndexError, zlib.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Mailbox(empty.fingerprint, header["token"], _by_id(entries))


def _sort_key(message: _Dated) -> float:
    return float("inf") if message.create_time is None else -message.create_time


def _by_id(entries: Iterable[CachedMessage]) -> Mapping[str, CachedMessage]:
    return MappingProxyType({entry.message.id: entry for entry in entries})


def _cached(header: MessageHeader, known: CachedMessage | None, info: FetchInfo, read_html: ReadHtml) -> CachedMessage:
    if known is None or known.raw_json != header.raw_json:
        return CachedMessage(read_message(header, info, read_html), header.raw_json, info.fetched_at)
    # It came again, because it came before its token did, or because the token had expired.
    is_read = header.decoded.get("is_read") is True
    return evolve(known, message=evolve(known.message, sync_token=info.sync_token, is_read=is_read))


def _restored(raw_json: bytes, info: FetchInfo, *, is_read: bool, read_html: ReadHtml) -> CachedMessage:
    (header,) = read_headers([raw_json], info.fetched_at)
    message = read_message(header, info, read_html)
    return CachedMessage(evolve(message, is_read=is_read), raw_json, info.fetched_at)
