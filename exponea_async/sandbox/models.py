"""
The values that the sandbox hands out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _pairs(values: Iterable[Iterable[str]]) -> tuple[tuple[str, str], ...]:
    # Lists too, since a settings file knows no tuples.
    return tuple((key_id, secret) for key_id, secret in values)


@frozen
class Project:
    """
    A project that the sandbox knows, and the credentials that open it.

    Attributes:
        token: The project token, as it stands in the URL.
        tokens: API keys accepted as ``Authorization: Token <key>``.
        basic: Pairs of key id and secret accepted as ``Authorization: Basic``.
        jwt_secret: With what customers' tokens are signed, accepted as ``Authorization: Bearer <token>`` for the inbox
            and for content blocks; none are accepted where None.
        require_jwt: Whether those routes are closed to anything but a customer's token.

    Raises:
        ValueError: A token is required, but there is no secret.
    """

    token: str
    tokens: tuple[str, ...] = field(default=(), converter=_strings, repr=False)
    basic: tuple[tuple[str, str], ...] = field(default=(), converter=_pairs, repr=False)
    jwt_secret: str | None = field(default=None, kw_only=True, repr=False)
    require_jwt: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.require_jwt and not self.jwt_secret:
            raise ValueError("require_jwt needs a jwt_secret.")


@frozen
class StoredEvent:
    """
    An event that the platform would have stored.

    Attributes:
        project: The token of its project.
        customer: The key of the customer that owns it now; 0 where none was named.
        customer_ids: The ids as they were sent.
        event_type: Its type; ``campaign_click`` for a click.
        timestamp: When it happened, UNIX seconds; its arrival where none was sent.
        properties: Its properties. Not a copy: leave them alone.
        received_at: When it arrived, UNIX seconds.
    """

    project: str
    customer: int
    customer_ids: Mapping[str, str]
    event_type: str
    timestamp: float
    properties: Mapping[str, Any]
    received_at: float


@frozen
class PushToken:
    """
    What is known last of a customer's push notifications on one platform and application.

    Attributes:
        token: The push token.
        platform: ``android``, ``huawei`` or ``ios``.
        application_id: The application.
        valid: Whether it can be sent to; not after it was invalidated, or permission denied.
        at: Since when, UNIX seconds.
    """

    token: str
    platform: str
    application_id: str
    valid: bool
    at: float


@frozen
class CustomerView:
    """
    A customer as the platform would show it.

    Attributes:
        project: The token of its project.
        key: The sandbox's own number for it, from 1.
        ids: The values of each kind of id; only ``cookie`` ever has more than one.
        properties: Its properties.
        events: How many events it owns.
        push_tokens: Its push tokens, the current ones and those that are not valid any more.
        read_messages: The ids of the inbox messages that it has read.
    """

    project: str
    key: int
    ids: dict[str, tuple[str, ...]]
    properties: dict[str, Any]
    events: int
    push_tokens: tuple[PushToken, ...] = ()
    read_messages: tuple[str, ...] = ()


@frozen
class RejectedCommand:
    """
    A command that was refused.

    Attributes:
        project: The token of its project.
        name: The name of the command, such as ``customers/events``.
        data: The beginning of its data, as JSON.
        errors: Why.
        at: When, UNIX seconds.
    """

    project: str
    name: str
    data: str
    errors: tuple[str, ...]
    at: float


@frozen
class RequestLog:
    """
    A request that was answered or cut. Of tracking, it holds no query or body; of nothing a credential.

    Attributes:
        at: When it arrived, UNIX seconds.
        method: The HTTP method.
        path: The path without its query.
        status: The HTTP status; 0 where the connection was cut without an answer.
        seconds: How long it took.
        size: The length of its body on the wire, in bytes.
        commands: How many commands it carried.
        scheme: The scheme of its ``Authorization``: ``Token``, ``Basic``, ``Bearer``, or empty.
        query: Its query; empty for tracking.
        body: Its JSON body, where it is no longer than 32 KiB; None for tracking.
    """

    at: float
    method: str
    path: str
    status: int
    seconds: float
    size: int
    commands: int
    scheme: str = ""
    query: str = ""
    body: Any = None

    @property
    def target(self) -> str:
        """The path with the query."""
        return f"{self.path}?{self.query}" if self.query else self.path
