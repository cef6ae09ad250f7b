"""
The in-app messages of many customers in memory, each distinct message once.
"""

from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, field, frozen

from exponea_async._internal.lru import LruCache
from exponea_async.features._shared.envelopes import decode_elements, read_envelope
from exponea_async.features.in_app.parsing import MessageDefinition, digest_of, read_definition

#: Seconds for which a customer's messages count as fresh, as in the vendor's SDKs.
LIFETIME = 1800.0
#: Maximum memory of distinct messages, in bytes. Most customers have the same ones, which count once.
MAX_BYTES = 64_000_000
#: Maximum number of customers whose messages are cached, at about 200 bytes each beside the messages: 20 MB at most.
MAX_CUSTOMERS = 100_000
#: Maximum number of messages of one customer; campaigns have some dozens.
MAX_MESSAGES = 1_000
#: Memory of a list of messages beside them, in bytes, and of each of its entries, as measured.
LIST_OVERHEAD, ENTRY_OVERHEAD = 1_000, 20


@frozen(eq=False)
class MessageList:
    """
    A list of messages, which one or many customers have.

    Attributes:
        digest: The digest of the response that contained it.
        definitions: The messages.
        by_event_type: The same by the type of the events that they are for.
    """

    digest: bytes
    definitions: tuple[MessageDefinition, ...]
    by_event_type: Mapping[str, tuple[MessageDefinition, ...]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        found: dict[str, list[MessageDefinition]] = {}
        for each in self.definitions:
            if each.trigger is not None:
                found.setdefault(each.trigger.event_type, []).append(each)
        object.__setattr__(self, "by_event_type", {name: tuple(messages) for name, messages in found.items()})

    def for_event_type(self, event_type: str) -> tuple[MessageDefinition, ...]:
        """Return the messages for events of a type."""
        return self.by_event_type.get(event_type, ())

    @property
    def memory_size(self) -> int:
        """The memory it takes beside the messages, in bytes, approximately."""
        return LIST_OVERHEAD + ENTRY_OVERHEAD * len(self.definitions)


@frozen
class LoadedMessages:
    """
    The messages of a customer.

    Attributes:
        messages: The messages.
        loaded_at: When they were loaded, UNIX seconds.
        is_inherited: Whether they were loaded for the same customer before ids were added.
    """

    messages: MessageList
    loaded_at: float
    is_inherited: bool = False

    def is_fresh_at(self, timestamp: float) -> bool:
        """Return whether they are fresh for an event at a time, UNIX seconds; the end of the lifetime is included."""
        return self.loaded_at + LIFETIME >= timestamp


class MessageCache:
    """
    Messages by the fingerprint of the customer who has them; the least recently used customers are evicted.

    Args:
        max_bytes: Maximum memory of distinct messages, in bytes.
        max_customers: Maximum number of customers.

    Attributes:
        customers: The messages of each customer.
        lists: The distinct lists, by digest.
        definitions: The distinct messages, by digest.
        uses: How many customers have a list, and how many lists have a message, by digest.
        size: The memory of distinct messages, in bytes.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_customers: int = MAX_CUSTOMERS) -> None:
        self._max_bytes = max_bytes
        self.customers: LruCache[str, LoadedMessages] = LruCache(
            max_customers, on_evict=lambda _, loaded: self._release(loaded.messages)
        )
        self.lists: dict[bytes, MessageList] = {}
        self.definitions: dict[bytes, MessageDefinition] = {}
        self.uses: dict[bytes, int] = {}
        # The digests of messages that can't be read, which are logged once instead of once per customer.
        self._broken: set[bytes] = set()
        self.size = 0

    def __len__(self) -> int:
        return len(self.customers)

    def get(self, fingerprint: str) -> LoadedMessages | None:
        """Return the messages of a customer, or None if they are not known."""
        return self.customers.get(fingerprint)

    def read(self, body: bytes) -> MessageList:
        """
        Read a response; a broken message is skipped, and logged. May be called in a thread.

        Raises:
            RequestRefusedError: The platform reports a failure.
            UnavailableError: The body is not such a response.
        """
        digest = digest_of(body)
        known_list = self.lists.get(digest)
        if known_list is not None:
            return known_list
        found: dict[bytes, MessageDefinition | None] = {}
        unknown: list[bytes] = []
        for source in read_envelope(body).elements[:MAX_MESSAGES]:
            key = digest_of(source)
            if key not in found:
                # Looked up once: in a thread, it may be evicted at any time.
                known = found[key] = self.definitions.get(key)
                if known is None and key not in self._broken:
                    unknown.append(source)
        found.update({each.digest: each for each in _read_definitions(unknown)})
        self._remember_broken(key for key, each in found.items() if each is None)
        return MessageList(digest, tuple(each for each in found.values() if each is not None))

    def put(
        self, fingerprint: str, messages: MessageList, loaded_at: float, *, is_inherited: bool = False
    ) -> LoadedMessages:
        """Cache the messages of a customer, which were loaded at a time, UNIX seconds."""
        # Before the customer's earlier messages are released, since most of them are the same.
        loaded = LoadedMessages(self._acquire(messages), loaded_at, is_inherited)
        self.drop(fingerprint)
        self.customers.put(fingerprint, loaded)
        # The latest stays, however large it is.
        while len(self.customers) > 1 and self.size > self._max_bytes:
            self._release(self.customers.pop_oldest()[1].messages)
        return loaded

    def drop(self, fingerprint: str) -> None:
        """Remove the messages of a customer."""
        loaded = self.customers.pop(fingerprint)
        if loaded is not None:
            self._release(loaded.messages)

    def clear(self) -> None:
        """Remove all messages."""
        self.customers.clear()
        self.lists.clear()
        self.definitions.clear()
        self.uses.clear()
        self.size = 0

    def _remember_broken(self, keys: Iterable[bytes]) -> None:
        if len(self._broken) > MAX_MESSAGES:
            self._broken = set()
        self._broken.update(keys)

    def _acquire(self, messages: MessageList) -> MessageList:
        """Count a customer who has a list, and return the equal list that other customers have, if any."""
        known = self.lists.get(messages.digest)
        if known is None:
            known = evolve(messages, definitions=tuple(self._acquire_definition(each) for each in messages.definitions))
            self.lists[messages.digest] = known
            self.size += known.memory_size
        self.uses[messages.digest] = self.uses.get(messages.digest, 0) + 1
        return known

    def _acquire_definition(self, definition: MessageDefinition) -> MessageDefinition:
        known = self.definitions.get(definition.digest)
        if known is None:
            known = self.definitions[definition.digest] = definition
            self.size += known.memory_size
        self.uses[definition.digest] = self.uses.get(definition.digest, 0) + 1
        return known

    def _release(self, messages: MessageList) -> None:
        if self._is_used_after_release(messages.digest):
            return
        self.size -= messages.memory_size
        del self.lists[messages.digest]
        for each in messages.definitions:
            if not self._is_used_after_release(each.digest):
                self.size -= each.memory_size
                del self.definitions[each.digest]

    def _is_used_after_release(self, digest: bytes) -> bool:
        """Count one use less, and return whether there are others."""
        left = self.uses[digest] = self.uses[digest] - 1
        if not left:
            del self.uses[digest]
        return left > 0


def _read_definitions(sources: Iterable[bytes]) -> Iterator[MessageDefinition]:
    current = b""

    def remember_current() -> Iterator[bytes]:
        nonlocal current
        for current in sources:  # noqa: UP028 - the reader needs each source while it is current
            yield current

    # Each element is read before the next source is requested.
    return decode_elements(remember_current(), lambda value: read_definition(value, current), "In-app message")
