"""
Requests for messages, segments and other data, whose responses callers wait for, and their limits; reports of requests.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from attrs import field, frozen

from exponea_async._internal import validation as checks

#: What a request asks for. Each kind has limits of its own, so that a slow route delays nothing else.
RequestKind = Literal["in_app_messages", "content_blocks", "app_inbox", "segments", "customer_data"]


def _concurrency() -> Any:
    return field(default=8, validator=checks.integer(1))


def _seconds(default: float) -> Any:
    return field(default=default, converter=checks.to_seconds, validator=checks.positive("seconds"))


@frozen(kw_only=True)
class RequestLimits:
    """
    The limits of requests for messages, segments and other data about customers.

    Each kind of data has a ``..._concurrency``, the maximum number of concurrent requests, and a ``..._timeout``, the
    time limit of a request in seconds, the response included. The limit counts from when the request is sent; a request
    that waits for its turn because of the concurrency does not use it up.

    Args:
        in_app_messages_concurrency: For in-app messages.
        in_app_messages_timeout: For in-app messages.
        in_app_messages_wait: Maximum time in seconds that ``in_app_message_for()`` waits for messages.
        in_app_messages_event_wait: How long after its request a message may be shown for a tracked event, in seconds.
        content_blocks_concurrency: For content blocks.
        content_blocks_timeout: For content blocks.
        content_blocks_wait: Maximum time in seconds that ``content_block()`` waits for the list of all blocks, and then
            for the content for a customer.
        app_inbox_concurrency: For the app inbox.
        app_inbox_timeout: For the app inbox.
        segments_concurrency: For segments.
        segments_timeout: For segments.
        segments_wait: Maximum time in seconds that ``get_segments()`` waits.
        customer_data_concurrency: For recommendations, consents and attributes.
        customer_data_timeout: For recommendations, consents and attributes.
    """

    in_app_messages_concurrency: int = _concurrency()
    in_app_messages_timeout: float = _seconds(10.0)
    in_app_messages_wait: float = _seconds(5.0)
    in_app_messages_event_wait: float = _seconds(3.0)
    content_blocks_concurrency: int = _concurrency()
    content_blocks_timeout: float = _seconds(10.0)
    content_blocks_wait: float = _seconds(5.0)
    app_inbox_concurrency: int = _concurrency()
    app_inbox_timeout: float = _seconds(10.0)
    segments_concurrency: int = _concurrency()
    segments_timeout: float = _seconds(10.0)
    segments_wait: float = _seconds(5.0)
    customer_data_concurrency: int = _concurrency()
    customer_data_timeout: float = _seconds(10.0)

    def concurrency(self, kind: RequestKind) -> int:
        """Return the maximum number of concurrent requests of a kind."""
        found: int = getattr(self, f"{kind}_concurrency")
        return found

    def timeout(self, kind: RequestKind) -> float:
        """Return the time limit of a request of a kind, in seconds."""
        found: float = getattr(self, f"{kind}_timeout")
        return found


class ApiRequest(NamedTuple):
    """
    A request to the platform whose response a caller waits for.

    Attributes:
        kind: What it asks for, which decides its limits.
        path: The path below the project's address; ``{project}`` in it stands for the project's token.
        body: The body, as JSON types; None makes it a GET request.
        is_personal: Whether the customer's own token authorizes it, where the host provides one.
        max_attempts: Maximum number of attempts, with back-off.
        before_sending: Called right before each attempt is sent, after it has waited for its turn; it may raise an
            `ExponeaError` to prevent it.
    """

    kind: RequestKind
    path: str
    body: Mapping[str, Any] | None = None
    is_personal: bool = False
    max_attempts: int = 1
    before_sending: Callable[[], None] = lambda: None


@frozen
class RequestReport:
    """
    A request to the platform that has ended. It has no body, no key and no ids of customers.

    Attributes:
        method: ``"GET"`` or ``"POST"``.
        host: The host, with its port if it is not the usual one.
        path: The path, which includes the token of the project.
        is_upload: Whether it uploaded records; otherwise a caller waits for its response.
        records: The number of uploaded records.
        bytes_sent: The size of its body in bytes, before compression.
        at: When it was sent, UNIX seconds.
        seconds: How long it took, until the response was read.
        status: The HTTP status; 0 if there was no response.
        error: Why it failed, in words; empty for a 2xx response.
    """

    method: str
    host: str
    path: str
    is_upload: bool
    records: int
    bytes_sent: int
    at: float
    seconds: float
    status: int
    error: str = ""
