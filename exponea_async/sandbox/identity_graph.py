"""
The graph of the ids of one customer: when each appeared, and which command joined which. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import frozen

from exponea_async.sandbox.commands import trimmed_ids
from exponea_async.sandbox.entry_views import ids_of
from exponea_async.sandbox.identity import COOKIE
from exponea_async.sandbox.journal import Entry

#: The ids that are shown, in the order in which they appeared.
MAX_NODES = 1000
LINK = "link-ids"

Why = Literal["identify", "event", "link"]


@frozen
class Node:
    """
    An id.

    Attributes:
        id: The kind and the value.
        kind: The kind.
        value: The value.
        first_seen: The time of the first command with it, UNIX seconds; None where that is no longer kept.
        entry: The number of the entry of that command.
        current: Whether the customer has the id now; False for a cookie that moved to another customer.
    """

    id: str
    kind: str
    value: str
    first_seen: float | None
    entry: int | None
    current: bool


@frozen
class Edge:
    """
    Two ids that a command joined.

    Attributes:
        from_id: One of the ids; a hard id if the command had one.
        to_id: The other one.
        at: The time of the command, UNIX seconds.
        entry: The number of its entry.
        why: What the command was.
        merged_key: The key of the customer that it merged; None if one of the ids was new.
    """

    from_id: str
    to_id: str
    at: float
    entry: int
    why: Why
    merged_key: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the values with the names of the API."""
        values = {"at": self.at, "entry": self.entry, "why": self.why, "merged_key": self.merged_key}
        return {"from": self.from_id, "to": self.to_id, **values}


class IdentityGraph:
    """
    The ids of a customer.

    Args:
        entries: The accepted entries of the customer and of all that were merged into it, oldest first.
        ids: The ids that the customer has now.
    """

    def __init__(self, entries: Iterable[Entry], ids: Mapping[str, tuple[str, ...]]) -> None:
        self._current = {_node_id(kind, value): (kind, value) for kind, values in ids.items() for value in values}
        self._parents: dict[str, str] = {}
        # The keys on arrival of the customers that the ids belonged to, by the root of each joined group.
        self._keys: dict[str, int] = {}
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        for entry in entries:
            if entry.kind != "other" or entry.name == LINK:
                self._add(entry)
        for node_id, (kind, value) in self._current.items():
            if node_id not in self.nodes and len(self.nodes) < MAX_NODES:
                self.nodes[node_id] = Node(node_id, kind, value, None, None, current=True)

    def _add(self, entry: Entry) -> None:
        ids = trimmed_ids(ids_of(entry.data))
        found = [
            self._node(kind, value, entry) for kind, value in sorted(ids.items(), key=lambda pair: pair[0] == COOKIE)
        ]
        known = [node_id for node_id in found if node_id is not None]
        merged = list(entry.merged)
        for other in known[1:]:
            self._join(known[0], other, entry, merged)
        if known:
            self._keys[self._root(known[0])] = entry.customer

    def _node(self, kind: str, value: str, entry: Entry) -> str | None:
        node_id = _node_id(kind, value)
        if node_id not in self.nodes:
            if len(self.nodes) >= MAX_NODES:
                return None
            self._parents[node_id] = node_id
            self.nodes[node_id] = Node(node_id, kind, value, entry.received, entry.id, node_id in self._current)
        return node_id

    def _join(self, one: str, other: str, entry: Entry, merged: list[int]) -> None:
        roots = self._root(one), self._root(other)
        if roots[0] == roots[1]:
            return
        keys = [key for root in roots if (key := self._keys.get(root)) in merged]
        if keys:
            merged.remove(keys[0])
        self._parents[roots[1]] = roots[0]
        why: Why = "identify" if entry.kind == "customer" else "link" if entry.kind == "other" else "event"
        self.edges.append(Edge(one, other, entry.received, entry.id, why, keys[0] if keys else None))

    def _root(self, node_id: str) -> str:
        while self._parents[node_id] != node_id:
            # Halves the path, so that a long chain stays cheap.
            self._parents[node_id] = self._parents[self._parents[node_id]]
            node_id = self._parents[node_id]
        return node_id


def _node_id(kind: str, value: str) -> str:
    return f"{kind}:{value}"
