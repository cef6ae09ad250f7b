"""
Commands: how events and customer updates are encoded, and how stored commands become requests. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from exponea_async._internal.encoding import MAX_MESSAGE, encode_number
from exponea_async._internal.json import decode
from exponea_async.errors import InvalidEventError
from exponea_async.models import Draft, EventType, Identity
from exponea_async.storage.base import Leased

# Looking a member up on the enum class takes as long as a command.
_CLICK = EventType.CAMPAIGN_CLICK
#: What precedes the token of the project in URLs of the tracking API.
PROJECTS_PATH = "/track/v2/projects/"
BATCH_PATH = "/batch"
CLICK_PATH = "/campaigns/clicks"
#: What precedes the body of a campaign click in its record.
CLICK_PREFIX = b'"name":"campaigns/clicks","data":'
#: Upper bound of the bytes that a command's braces, its ``command_id`` and the comma take in a batch.
COMMAND_OVERHEAD = 64
#: Upper bound of the bytes that a batch takes besides its commands.
BATCH_OVERHEAD = 32


def route_of(project_token: str, kind: EventType | None = None) -> str:
    """
    Return the route of a project's records: the project and the endpoint, by which they are kept apart from others.

    It has no address: that is looked up when the records are sent, so that a corrected address applies to all of them.

    Args:
        project_token: The token of the project.
        kind: The kind of the records. Campaign clicks have an endpoint of their own, since no batch accepts them.
    """
    return f"{project_token}{CLICK_PATH if kind is EventType.CAMPAIGN_CLICK else BATCH_PATH}"


def split_route(route: str) -> tuple[str, str]:
    """
    Return the address in the name of a route, and the route without it.

    In queue files of schema version 1, routes were URLs. The address is empty for all others.
    """
    address, _, rest = route.rpartition(PROJECTS_PATH)
    return address, rest


def project_of(route: str) -> str:
    """Return the token of a route's project."""
    return split_route(route)[1].partition("/")[0]


def url_of(base_url: str, route: str) -> str:
    """Return the URL that the records of a route are sent to."""
    return f"{base_url}{PROJECTS_PATH}{split_route(route)[1]}"


def time_url(base_url: str, project_token: str) -> str:
    """Return the URL that returns the platform's time."""
    return f"{base_url}{PROJECTS_PATH}{project_token}/system/time"


def is_click_route(route: str) -> bool:
    """Return whether the records of a route are campaign clicks, each of which needs a request of its own."""
    return route.endswith(CLICK_PATH)


def draft_command(identity: Identity, draft: Draft, timestamp: float) -> bytes:
    """
    Return the command of a draft, as the function for its kind does.

    Args:
        identity: Whom it is about.
        draft: The draft.
        timestamp: UNIX seconds.

    Raises:
        InvalidEventError: The command is too large.
    """
    kind, name, properties, _, own_device, _ = draft
    if not name:
        return customer_command(identity.encoded_ids, timestamp, properties)
    if kind is _CLICK:
        return click_command(identity.encoded_ids, name, timestamp, properties)
    stamps = identity.encoded_stamps
    if own_device and not identity.is_device:
        stamps = b"%b,%b" % (stamps, own_device)
    return event_command(identity.encoded_ids, name, timestamp, properties, stamps)


def event_command(customer_ids: bytes, name: bytes, timestamp: float, properties: bytes, stamps: bytes = b"") -> bytes:
    """
    Return the command of an event, without its opening brace and ``command_id``.

    Args:
        customer_ids: A JSON object.
        name: The event type, a JSON string.
        timestamp: UNIX seconds.
        properties: The properties, JSON members.
        stamps: The properties that the SDK adds, JSON members.

    Raises:
        InvalidEventError: The command is too large.
    """
    parts = (
        b'"name":"customers/events","data":{"customer_ids":',
        customer_ids,
        b',"event_type":',
        name,
        b',"timestamp":',
        encode_number(timestamp),
        b',"properties":{',
        properties,
        b"," if properties and stamps else b"",
        stamps,
        b"}}}",
    )
    # Joined, which takes half as long as formatting.
    command = b"".join(parts)
    return command if len(command) <= MAX_MESSAGE else _check_size(command, "event")


def customer_command(customer_ids: bytes, timestamp: float, properties: bytes) -> bytes:
    """
    Return the command of a customer update, without its opening brace and ``command_id``.

    Args:
        customer_ids: A JSON object.
        timestamp: When the update was made, UNIX seconds. It is sent as ``update_timestamp``, so that a late upload
            does not overwrite newer values.
        properties: JSON members.

    Raises:
        InvalidEventError: The command is too large.
    """
    return _check_size(
        b'"name":"customers","data":{"customer_ids":%b,"properties":{%b},"update_timestamp":%b}}'
        % (customer_ids, properties, encode_number(timestamp)),
        "customer",
    )


def click_command(customer_ids: bytes, url: bytes, timestamp: float, properties: bytes) -> bytes:
    """
    Return a campaign click in the form of a command, although no batch accepts it.

    Args:
        customer_ids: A JSON object.
        url: The link, a JSON string.
        timestamp: UNIX seconds.
        properties: JSON members.

    Raises:
        InvalidEventError: The command is too large.
    """
    return _check_size(
        b'%b{"customer_ids":%b,"url":%b,"timestamp":%b,"properties":{%b}}}'
        % (CLICK_PREFIX, customer_ids, url, encode_number(timestamp), properties),
        "click",
    )


def read_command(body: bytes) -> dict[str, Any]:
    """Decode a stored command, to show it."""
    command: dict[str, Any] = decode(b"{" + body)
    return command


def _check_size(command: bytes, path: str) -> bytes:
    if len(command) > MAX_MESSAGE:
        trouble = f"must take at most {MAX_MESSAGE} bytes of JSON, got {len(command)}"
        raise InvalidEventError(path, trouble, "Send fewer or shorter properties.")
    return command


def pack(records: Iterable[Leased], max_count: int, max_bytes: int) -> Iterator[tuple[Leased, ...]]:
    """
    Split records into batches of one route each, in their order.

    A record that has failed by itself before gets a batch of its own, so that it does not make others fail.

    Args:
        records: The records.
        max_count: Maximum number of records in a batch.
        max_bytes: Maximum size of the request's body. A larger record gets a batch of its own.
    """
    by_route: dict[str, list[Leased]] = {}
    for record in records:
        by_route.setdefault(record.route, []).append(record)
    for route, group in by_route.items():
        if is_click_route(route):
            yield from ((record,) for record in group)
        else:
            yield from _pack_route(group, max_count, max_bytes)


def _pack_route(records: Sequence[Leased], max_count: int, max_bytes: int) -> Iterator[tuple[Leased, ...]]:
    batch: list[Leased] = []
    size = BATCH_OVERHEAD
    for record in records:
        if record.failures:
            yield (record,)
            continue
        added = len(record.body) + COMMAND_OVERHEAD
        if len(batch) >= max_count or (batch and size + added > max_bytes):
            yield tuple(batch)
            batch, size = [], BATCH_OVERHEAD
        size += added
        batch.append(record)
    if batch:
        yield tuple(batch)


def request_body(batch: Sequence[Leased]) -> bytes:
    """Return the body of the request for a batch."""
    if is_click_route(batch[0].route):
        return batch[0].body[len(CLICK_PREFIX) : -1]
    commands = [b'{"command_id":"%b",%b' % (record.id.encode(), record.body) for record in batch]
    return b'{"commands":[%b]}' % b",".join(commands)
