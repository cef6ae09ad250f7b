"""
What each client knows of a customer's inbox: the sync tokens. No I/O.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from attrs import frozen

from exponea_async.sandbox.encoding import dumps
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.identity import COOKIE
from exponea_async.sandbox.models import CustomerView

MAX_TOKENS = 10_000


class GoneError(Exception):
    """A sync token is unknown, has expired, or was given to another customer."""


@frozen
class Snapshot:
    """
    What a customer has been told up to a sync token.

    Attributes:
        project: The token of the project.
        ids: The ids for which it was asked.
        digests: Of each message as it was told.
    """

    project: str
    ids: Mapping[str, str]
    digests: frozenset[bytes]


class InboxSync:
    """
    The sync tokens of all inboxes; each answer gives a new one, and a later fetch tells only what differs since.

    Args:
        engine: The books.
        hard_ids_only: Whether the inbox of a customer without a hard id is always empty.

    Attributes:
        issues_tokens: Whether responses have a ``sync_token`` at all.
        hard_ids_only: As above.
    """

    def __init__(self, engine: Engine, *, hard_ids_only: bool = False) -> None:
        self._engine = engine
        self._usual = hard_ids_only
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self.reset()

    def reset(self) -> None:
        """Starts afresh: no token is known, and both switches are as at first."""
        self.expire_tokens()
        self.issues_tokens = True
        self.hard_ids_only = self._usual

    def expire_tokens(self) -> None:
        """Lets all tokens that were given expire."""
        self._snapshots.clear()

    def opens(self, customer: CustomerView) -> bool:
        """Whether a customer has an inbox."""
        return not self.hard_ids_only or any(kind != COOKIE for kind in customer.ids)

    def news(self, messages: Iterable[Any], token: str | None, project: str, ids: Mapping[str, str]) -> list[Any]:
        """
        Picks the messages that were not told as they are now.

        Raises:
            GoneError: The token is none of this customer's; it has to ask for all.
        """
        if token is None:
            return list(messages)
        told = self.recall(token, project, ids).digests
        return [message for message in messages if _digest(message) not in told]

    def recall(self, token: str, project: str, ids: Mapping[str, str]) -> Snapshot:
        """
        Finds what a token stands for.

        Raises:
            GoneError: The token is none of this customer's.
        """
        snapshot = self._snapshots.get(token)
        if snapshot is None or snapshot.project != project or not self._are_one(project, snapshot.ids, ids):
            raise GoneError
        return snapshot

    def remember(self, messages: Iterable[Any], project: str, ids: Mapping[str, str]) -> str:
        """Gives a token for what a customer has been told by now."""
        token = secrets.token_urlsafe(18)
        self._snapshots[token] = Snapshot(project, dict(ids), frozenset(map(_digest, messages)))
        if len(self._snapshots) > MAX_TOKENS:
            self._snapshots.popitem(last=False)
        return token

    def _are_one(self, project: str, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
        first, second = self._engine.recognize(project, one), self._engine.recognize(project, other)
        # Whom the books don't know can only be told by the ids themselves.
        return first.key == second.key and (first.key != 0 or bool(one.items() & other.items()))


def with_read_mark(message: Any, customer: CustomerView) -> Any:
    """Marks a message as read where the customer has read it."""
    if isinstance(message, dict) and message.get("id") in customer.read_messages:
        return {**message, "is_read": True}
    return message


def _digest(message: Any) -> bytes:
    return blake2b(dumps(message), digest_size=16).digest()
