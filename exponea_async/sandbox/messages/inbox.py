"""
The sync tokens of the App Inbox, which say what each client has already received. No I/O.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from attrs import frozen

from exponea_async.sandbox.encoding import dumps
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.identity import COOKIE
from exponea_async.sandbox.models import CustomerView
from exponea_async.sandbox.projects import UNKNOWN_CUSTOMER

MAX_TOKENS = 10_000


@frozen
class Snapshot:
    """
    The messages that a customer had when a sync token was issued.

    Attributes:
        project: The token of the project.
        ids: The ids of the customer in the request.
        digests: The digests of the messages.
    """

    project: str
    ids: Mapping[str, str]
    digests: frozenset[bytes]


class InboxSync:
    """
    The sync tokens of all inboxes; each response has a new one, with which a later fetch gets only what has changed.

    Args:
        engine: The stored customers.
        hard_ids_only: Whether the inbox of a customer without a hard id is always empty.

    Attributes:
        issues_tokens: Whether responses have a ``sync_token``.
        hard_ids_only: As above.
    """

    def __init__(self, engine: Engine, *, hard_ids_only: bool = False) -> None:
        self._engine = engine
        self._initial_hard_ids_only = hard_ids_only
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self.reset()

    def reset(self) -> None:
        """Let all tokens expire, and restore the initial values of both switches."""
        self.expire_tokens()
        self.issues_tokens = True
        self.hard_ids_only = self._initial_hard_ids_only

    def expire_tokens(self) -> None:
        """Let all tokens expire."""
        self._snapshots.clear()

    def has_inbox(self, customer: CustomerView) -> bool:
        """Return whether a customer has an inbox."""
        return not self.hard_ids_only or any(kind != COOKIE for kind in customer.ids)

    def changed(self, messages: Iterable[Any], token: str | None, project: str, ids: Mapping[str, str]) -> list[Any]:
        """
        Return the messages that are new or changed since a token was issued; all without a token.

        Raises:
            RequestError: 410; the token is not valid for this customer, who has to fetch all messages.
        """
        if token is None:
            return list(messages)
        received = self.snapshot(token, project, ids).digests
        return [message for message in messages if _digest(message) not in received]

    def snapshot(self, token: str, project: str, ids: Mapping[str, str]) -> Snapshot:
        """
        Return the snapshot of a token.

        Raises:
            RequestError: 410; the token is not valid for this customer.
        """
        snapshot = self._snapshots.get(token)
        if snapshot is None or snapshot.project != project or not self._is_same_customer(project, snapshot.ids, ids):
            raise RequestError(410, "The sync token is unknown or has expired.")
        return snapshot

    def create_token(self, messages: Iterable[Any], project: str, ids: Mapping[str, str]) -> str:
        """Return a new token for the messages that a customer has now."""
        token = secrets.token_urlsafe(18)
        self._snapshots[token] = Snapshot(project, dict(ids), frozenset(map(_digest, messages)))
        if len(self._snapshots) > MAX_TOKENS:
            self._snapshots.popitem(last=False)
        return token

    def _is_same_customer(self, project: str, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
        first, second = self._engine.resolve(project, one), self._engine.resolve(project, other)
        # Customers that are not stored can only be compared by their ids.
        return first.key == second.key and (first.key != UNKNOWN_CUSTOMER or bool(one.items() & other.items()))


def with_read_state(message: Any, customer: CustomerView) -> Any:
    """Return a message, marked as read if the customer has read it."""
    if isinstance(message, dict) and message.get("id") in customer.read_messages:
        return {**message, "is_read": True}
    return message


def _digest(message: Any) -> bytes:
    return blake2b(dumps(message), digest_size=16).digest()
