"""
What is kept of app inboxes: in memory those used last, and in the storage as bytes. Pure.
"""

import json
import logging
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from attrs import evolve, frozen

from exponea_async._internal.json import decode, elements
from exponea_async.features.inbox.parsing import FetchInfo, MessageHeader, ReadPage, read_heads, read_message
from exponea_async.messages import AppInboxMessage

LOG = logging.getLogger("exponea_async")

#: A mailbox holds so many messages, and so many bytes of them as they came; the newest stay.
MOST, MOST_BYTES = 1_000, 8_000_000
#: Mailboxes in memory, and the bytes of their messages as they came, of which Python makes five to eight times as many.
#: Others are read from the storage again.
CAPACITY, CAPACITY_BYTES = 1_000, 16_000_000
#: More than a mailbox that was packed here can have.
_MAX_UNPACKED = 4 * MOST_BYTES
_EMPTY: Mapping[str, "Entry"] = MappingProxyType({})


class _Dated(Protocol):
    @property
    def create_time(self) -> float | None: ...

    @property
    def piece(self) -> bytes: ...


D = TypeVar("D", bound=_Dated)


@frozen(eq=False)
class Entry:
    """
    A message that is kept.

    Attributes:
        message: The message.
        piece: The same as it came, as JSON.
        at: When it came, UNIX seconds.
    """

    message: AppInboxMessage
    piece: bytes
    at: float

    @property
    def create_time(self) -> float | None:
        """When it was made, UNIX seconds."""
        return self.message.create_time


@frozen(eq=False)
class Mailbox:
    """
    The inbox of a customer, as far as it is known.

    Attributes:
        fingerprint: Stands for the customer and the project.
        token: Up to where the platform has told what there is, or None.
        entries: The messages by their ids, newest first.
    """

    fingerprint: str
    token: str | None = None
    entries: Mapping[str, Entry] = _EMPTY

    @property
    def messages(self) -> list[AppInboxMessage]:
        """The messages, newest first."""
        return [entry.message for entry in self.entries.values()]

    @property
    def size(self) -> int:
        """How many bytes the messages had as they came."""
        return sum(len(entry.piece) for entry in self.entries.values())

    def message(self, message_id: str) -> AppInboxMessage | None:
        """Tell a message by its id, or None."""
        entry = self.entries.get(message_id)
        return entry.message if entry else None

    def merged(self, entries: Iterable[Entry], token: str | None) -> "Mailbox":
        """Tell it with what came: messages that are there already are replaced, and a token as well, if one came."""
        news = {entry.message.id: entry for entry in entries}
        kept = [entry for id_, entry in self.entries.items() if id_ not in news]
        return Mailbox(self.fingerprint, token or self.token, _by_id(newest([*news.values(), *kept])))

    def read(self, message_id: str) -> "Mailbox":
        """Tell it with a message that was read."""
        entry = self.entries[message_id]
        changed = evolve(entry, message=evolve(entry.message, is_read=True))
        return evolve(self, entries=MappingProxyType({**self.entries, message_id: changed}))


def newest(dated: Iterable[D]) -> list[D]:
    """Put what is dated in order, newest first; what is more than a mailbox holds is left out, and logged."""
    ordered = sorted(dated, key=_age)
    size, count = 0, 0
    for each in ordered[:MOST]:
        size += len(each.piece)
        if size > MOST_BYTES:
            break
        count += 1
    if count < len(ordered):
        LOG.warning("The app inbox is too large: its %d oldest messages are left out.", len(ordered) - count)
    return ordered[:count]


def read_entries(
    pieces: Iterable[bytes], known: Mapping[str, Entry], stamp: FetchInfo, read_page: ReadPage
) -> list[Entry]:
    """
    Read the messages of an answer.

    Args:
        pieces: The messages.
        known: Those that are kept; what came again as it was is not read again.
        stamp: What they are marked with.
        read_page: Makes HTML safe.
    """
    return [_entry(head, known.get(head.id), stamp, read_page) for head in newest(read_heads(pieces, stamp.at))]


def pack(mailbox: Mailbox, application_id: str) -> bytes:
    """Make the bytes to store."""
    told = {
        "mark": mailbox.fingerprint,
        "application_id": application_id,
        "token": mailbox.token,
        "stamps": [[each.message.sync_token, each.at, each.message.is_read] for each in mailbox.entries.values()],
    }
    pieces = b",".join(entry.piece for entry in mailbox.entries.values())
    # No line break stands in JSON that has no spaces.
    return zlib.compress(json.dumps(told, separators=(",", ":")).encode() + b"\n[" + pieces + b"]", level=1)


def unpack(value: bytes, empty: Mailbox, application_id: str, ids: Mapping[str, str], read_page: ReadPage) -> Mailbox:
    """
    Read what `pack` made.

    Args:
        value: The bytes.
        empty: The customer's mailbox without anything in it, which it is where the bytes are another customer's or
            another application's.
        application_id: The application.
        ids: The customer's ids.
        read_page: Makes HTML safe.

    Raises:
        ValueError: They are something else.
    """
    try:
        told, pieces = _unzipped(value)
        if (told["mark"], told["application_id"]) != (empty.fingerprint, application_id):
            return empty
        entries = [
            _restored(piece, FetchInfo(ids, float(at), token), is_read=bool(is_read), read_page=read_page)
            for piece, (token, at, is_read) in zip(elements(pieces), told["stamps"], strict=True)
        ]
    except (KeyError, TypeError, AttributeError, IndexError, zlib.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Mailbox(empty.fingerprint, told["token"], _by_id(entries))


class Mailboxes:
    """The mailboxes in memory, by device; those that were used longest ago make room for others."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Mailbox] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, device: str) -> Mailbox | None:
        """Tell a device's mailbox, whosesoever it is."""
        mailbox = self._kept.get(device)
        if mailbox is not None:
            self._kept.move_to_end(device)
        return mailbox

    def put(self, device: str, mailbox: Mailbox) -> None:
        """Keep a device's mailbox."""
        self.drop(device)
        self._kept[device] = mailbox
        self._size += mailbox.size
        while len(self._kept) > CAPACITY or (self._size > CAPACITY_BYTES and len(self._kept) > 1):
            self.drop(next(iter(self._kept)))

    def drop(self, device: str) -> None:
        """Forget a device's mailbox."""
        mailbox = self._kept.pop(device, None)
        if mailbox is not None:
            self._size -= mailbox.size

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._size = 0


def _age(dated: _Dated) -> float:
    return float("inf") if dated.create_time is None else -dated.create_time


def _by_id(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    return MappingProxyType({entry.message.id: entry for entry in entries})


def _entry(head: MessageHeader, known: Entry | None, stamp: FetchInfo, read_page: ReadPage) -> Entry:
    if known is None or known.piece != head.piece:
        return Entry(read_message(head, stamp, read_page), head.piece, stamp.at)
    # It came before its token did, or again because the token had expired.
    is_read = head.element.get("is_read") is True
    return evolve(known, message=evolve(known.message, sync_token=stamp.sync_token, is_read=is_read))


def _restored(piece: bytes, stamp: FetchInfo, *, is_read: bool, read_page: ReadPage) -> Entry:
    (head,) = read_heads([piece], stamp.at)
    return Entry(evolve(read_message(head, stamp, read_page), is_read=is_read), piece, stamp.at)


def _unzipped(value: bytes) -> tuple[dict[str, Any], bytes]:
    unzip = zlib.decompressobj()
    data = unzip.decompress(value, _MAX_UNPACKED)
    if not unzip.eof:
        raise ValueError("it has no end")
    told, _, pieces = data.partition(b"\n")
    return decode(told), pieces
