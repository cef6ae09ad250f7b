"""
The public values of the sandbox.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _pairs(values: Iterable[Iterable[str]]) -> tuple[tuple[str, str], ...]:
    # Lists are accepted too, since a settings file has no tuples.
    return tuple((key_id, secret) for key_id, secret in values)


@frozen
class Project:
    """
    A project that exists in the sandbox, with its credentials.

    Attributes:
        token: The project token, as it appears in URLs.
        tokens: The API keys that are accepted as ``Authorization: Token <key>``.
        basic: The pairs of key id and secret that are accepted as ``Authorization: Basic``.
        jwt_secret: The secret that signs customer tokens, which are accepted as ``Authorization: Bearer <token>`` for
            the inbox and for content blocks; no customer tokens are accepted where None.
        require_jwt: Whether those routes require a customer token.

    Raises:
        ValueError: A customer token is required, but there is no secret.
    """

    token: str
    tokens: tuple[str, ...] = field(default=(), converter=_strings, repr=False)
    basic: tuple[tuple[str, str], ...] = field(default=(), converter=_pairs, repr=False)
    jwt_secret: str | None = field(default=None, kw_only=True, repr=False)
    require_jwt: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.require_jwt and not self.jwt_secret:
            raise ValueError("require_jwt: needs a jwt_secret")


@frozen
class StoredEvent:
    """
    An event as the platform would store it.

    Attributes:
        project: The token of the project.
        customer: The key of the customer that owns the event now; 0 for an event without a customer.
        customer_ids: The ids as they were sent, without blanks round them.
        event_type: The type; ``campaign_click`` for a campaign click.
        timestamp: The time of the event, UNIX seconds; the time of arrival if none was sent.
        properties: The properties. This is not a copy: do not change it.
        received_at: The time of arrival, UNIX seconds.
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
    The latest push token of a customer for one platform and application.

    Attributes:
        token: The push token.
        platform: ``android``, ``huawei`` or ``ios``.
        application_id: The application.
        valid: Whether notifications can be sent to it; False after it was invalidated or permission was denied.
        at: The time of the latest change, UNIX seconds.
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
        project: The token of the project.
        key: The number of the customer in the project, from 1; 0 for a customer that is not stored.
        ids: The values of each kind of id; only ``cookie`` can have more than one.
        properties: The properties.
        events: The number of events that the customer owns.
        push_tokens: The push tokens, including those that are no longer valid.
        read_messages: The ids of the inbox messages that the customer has read.
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
    A command that was rejected.

    Attributes:
        project: The token of the project.
        name: The name of the command, such as ``customers/events``.
        data: The beginning of its data, as JSON.
        errors: The error messages.
        at: The time of the rejection, UNIX seconds.
    """

    project: str
    name: str
    data: str
    errors: tuple[str, ...]
    at: float


@frozen
class RequestLog:
    """
    A logged request. It never contains a credential, and for tracking routes neither query nor body.

    Attributes:
        at: The time of arrival, UNIX seconds.
        method: The HTTP method.
        path: The path without the query.
        status: The HTTP status; 0 if the connection was dropped without a response.
        seconds: The duration of the request.
        size: The length of the body as transferred, in bytes.
        commands: The number of commands in the request.
        scheme: The scheme of ``Authorization``: ``Token``, ``Basic``, ``Bearer``, or empty.
        query: The query; empty for tracking routes.
        body: The JSON body if it is at most 32 KiB long; None for tracking routes.
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
        """The path and the query."""
        return f"{self.path}?{self.query}" if self.query else self.path
