"""
Commands: how events and customer updates are encoded, and how stored commands become requests. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from exponea_async._internal.encoding import MAX_MESSAGE, encode_number
from exponea_async._internal.json import decode
from exponea_async.errors import InvalidEventError
from exponea_async.models import EventType
from exponea_async.storage.base import Leased

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


def event_command(customer_ids: bytes, name: bytes, timestamp: float, properties: bytes) -> bytes:
    """
    Return the command of an event, without its opening brace and ``command_id``.

    Args:
        customer_ids: A JSON object.
        name: The event type, a JSON string.
        timestamp: UNIX seconds.
        properties: A JSON object.

    Raises:
        InvalidEventError: The command is too large.
    """
    return _check_size(
        b'"name":"customers/events","data":{"customer_ids":%b,"event_type":%b,"timestamp":%b,"properties":%b}}'
        % (customer_ids, name, encode_number(timestamp), properties),
        "event",
    )


def customer_command(customer_ids: bytes, timestamp: float, properties: bytes) -> bytes:
    """
    Return the command of a customer update, without its opening brace and ``command_id``.

    Args:
        customer_ids: A JSON object.
        timestamp: When the update was made, UNIX seconds. It is sent as ``update_timestamp``, so that a late upload
            does not overwrite newer values.
        properties: A JSON object.

    Raises:
        InvalidEventError: The command is too large.
    """
    return _check_size(
        b'"name":"customers","data":{"customer_ids":%b,"properties":%b,"update_timestamp":%b}}'
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
        properties: A JSON object.

    Raises:
        InvalidEventError: The command is too large.
    """
    return _check_size(
        b'%b{"customer_ids":%b,"url":%b,"timestamp":%b,"properties":%b}}'
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
    batches: dict[str, list[Leased]] = {}
    sizes: dict[str, int] = {}
    for record in records:
        if record.failures or is_click_route(record.route):
            yield (record,)
            continue
        size = len(record.body) + COMMAND_OVERHEAD
        batch = batches.setdefault(record.route, [])
        if len(batch) >= max_count or (batch and sizes[record.route] + size > max_bytes):
            yield tuple(batch)
            batch.clear()
        sizes[record.route] = size + (sizes[record.route] if batch else BATCH_OVERHEAD)
        batch.append(record)
    yield from (tuple(batch) for batch in batches.values() if batch)


def request_body(batch: Sequence[Leased]) -> bytes:
    """Return the body of the request for a batch."""
    if is_click_route(batch[0].route):
        return batch[0].body[len(CLICK_PREFIX) : -1]
    commands = [b'{"command_id":"%b",%b' % (record.id.encode(), record.body) for record in batch]
    return b'{"commands":[%b]}' % b",".join(commands)
