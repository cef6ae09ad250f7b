"""
The in-app messages of many customers in memory, each distinct one once.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, field, frozen

from exponea_async.features._shared.envelopes import decode_elements, read_envelope
from exponea_async.features.in_app.parsing import Definition, digest_of, read_definition

#: How long a customer's messages are taken for the latest, in seconds, as in the vendor's SDKs.
LIFETIME = 1800.0
#: What distinct messages may take in memory, in bytes. Most customers have the same ones, which count once.
BUDGET = 64_000_000
#: Customers whose messages are in memory, at about 200 bytes each beside the messages, so 20 MB at the most.
CAPACITY = 100_000
#: Messages of one customer that are looked at; campaigns have some dozens.
MOST = 1_000
#: What a list of messages takes beside them, in bytes, and for each of them, as measured.
PER_LIST, PER_PLACE = 1_000, 20


@frozen(eq=False)
class Content:
    """
    A list of messages, as one or many customers have it.

    Attributes:
        digest: Stands for the answer that it came in.
        definitions: The messages.
        by_type: The same by the type of the events that they are for.
    """

    digest: bytes
    definitions: tuple[Definition, ...]
    by_type: Mapping[str, tuple[Definition, ...]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        found: dict[str, list[Definition]] = {}
        for each in self.definitions:
            if each.trigger is not None:
                found.setdefault(each.trigger.event_type, []).append(each)
        object.__setattr__(self, "by_type", {name: tuple(its) for name, its in found.items()})

    def upon(self, event_type: str) -> tuple[Definition, ...]:
        """Tell those that are for events of a type."""
        return self.by_type.get(event_type, ())


@frozen
class Loaded:
    """
    What a customer has.

    Attributes:
        content: The messages.
        at: When they were loaded, UNIX seconds.
    """

    content: Content
    at: float

    def is_good_for(self, moment: float) -> bool:
        """Whether it is taken for the latest upon an event of a moment, UNIX seconds; of the last moment it is."""
        return self.at + LIFETIME >= moment


class Cache:
    """
    Messages by the mark of the customer who has them. Those that were used longest ago make room for others.

    Args:
        budget: What distinct messages may take, in bytes.
        capacity: How many customers have a place.
    """

    def __init__(self, budget: int = BUDGET, capacity: int = CAPACITY) -> None:
        self._budget = budget
        self._capacity = capacity
        self._customers: OrderedDict[str, Loaded] = OrderedDict()
        self._contents: dict[bytes, Content] = {}
        self._definitions: dict[bytes, Definition] = {}
        # How many customers have a list, and how many lists have a message, by what stands for them.
        self._uses: dict[bytes, int] = {}
        # Messages that can't be read, so that it is said once of each and not of each customer who has it.
        self._broken: set[bytes] = set()
        #: What distinct messages take, in bytes.
        self.cost = 0

    def __len__(self) -> int:
        return len(self._customers)

    def find(self, fingerprint: str) -> Loaded | None:
        """Tell what a customer has, if that is known."""
        loaded = self._customers.get(fingerprint)
        if loaded is not None:
            self._customers.move_to_end(fingerprint)
        return loaded

    def read(self, body: bytes) -> Content:
        """
        Read an answer; a broken message is left out, and logged. May be done on a thread.

        Raises:
            RefusedError: The platform says that it failed.
            UnavailableError: It is no such answer.
        """
        digest = digest_of(body)
        same = self._contents.get(digest)
        if same is not None:
            return same
        found: dict[bytes, Definition | None] = {}
        fresh: list[bytes] = []
        for piece in read_envelope(body).elements[:MOST]:
            key = digest_of(piece)
            if key not in found:
                # Asked once: on a thread, what is known now may be forgotten in a moment.
                known = found[key] = self._definitions.get(key)
                if known is None and key not in self._broken:
                    fresh.append(piece)
        found.update({each.digest: each for each in _read(fresh)})
        self._remember_broken(key for key, each in found.items() if each is None)
        return Content(digest, tuple(each for each in found.values() if each is not None))

    def put(self, fingerprint: str, content: Content, at: float) -> Loaded:
        """Keep what a customer has, loaded at a moment, UNIX seconds."""
        loaded = Loaded(self._taken(content), at)
        self.drop(fingerprint)
        self._customers[fingerprint] = loaded
        # The latest stays, however large it is.
        while len(self._customers) > 1 and (self.cost > self._budget or len(self._customers) > self._capacity):
            self._leave(self._customers.popitem(last=False)[1].content)
        return loaded

    def drop(self, fingerprint: str) -> None:
        """Forget what a customer has."""
        loaded = self._customers.pop(fingerprint, None)
        if loaded is not None:
            self._leave(loaded.content)

    def clear(self) -> None:
        """Forget all."""
        self._customers.clear()
        self._contents.clear()
        self._definitions.clear()
        self._uses.clear()
        self.cost = 0

    def _remember_broken(self, keys: Iterable[bytes]) -> None:
        if len(self._broken) > MOST:
            self._broken = set()
        self._broken.update(keys)

    def _taken(self, content: Content) -> Content:
        """Count a customer who has a list, and give the list that the others have who have the same."""
        known = self._contents.get(content.digest)
        if known is None:
            known = evolve(content, definitions=tuple(self._shared(each) for each in content.definitions))
            self._contents[content.digest] = known
            self.cost += _cost(known)
        self._uses[content.digest] = self._uses.get(content.digest, 0) + 1
        return known

    def _shared(self, definition: Definition) -> Definition:
        known = self._definitions.get(definition.digest)
        if known is None:
            known = self._definitions[definition.digest] = definition
            self.cost += known.cost
        self._uses[definition.digest] = self._uses.get(definition.digest, 0) + 1
        return known

    def _leave(self, content: Content) -> None:
        if self._is_used(content.digest):
            return
        self.cost -= _cost(content)
        del self._contents[content.digest]
        for each in content.definitions:
            if not self._is_used(each.digest):
                self.cost -= each.cost
                del self._definitions[each.digest]

    def _is_used(self, digest: bytes) -> bool:
        """Count one use less, and tell whether there are others."""
        left = self._uses[digest] = self._uses[digest] - 1
        if not left:
            del self._uses[digest]
        return left > 0


def _read(sources: Iterable[bytes]) -> Iterator[Definition]:
    source = b""

    def walked() -> Iterator[bytes]:
        nonlocal source
        for source in sources:  # noqa: UP028 - somebody looks at it meanwhile
            yield source

    # Each is read before the next is asked for.
    return decode_elements(walked(), lambda value: read_definition(value, source), "In-app message")


def _cost(content: Content) -> int:
    return PER_LIST + PER_PLACE * len(content.definitions)
