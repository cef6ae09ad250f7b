"""
Records to requests, answers to verdicts. Pure.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from attrs import frozen

from exponea_async._internal.json import decode
from exponea_async._pipeline.encoding import MAX_MESSAGE, encode_number
from exponea_async.errors import InvalidEventError, ProjectPausedError, RejectedError, UnavailableError
from exponea_async.models import EventType
from exponea_async.storage.base import Leased

CLICKS = "/campaigns/clicks"
CLICK_HEAD = b'"name":"campaigns/clicks","data":'
#: Nobody is waited for longer than this, in seconds, whatever they ask for.
LONGEST_WAIT = 1800.0
#: Answers that are about what is in the request. All other 4xx are about the project or the way to it: a 415, say, is
#: about the compression, and no record is to die of that.
_REFUSED = frozenset({400, 409, 413, 422})
#: Answers that ask for patience; 5xx do so too.
RETRYABLE = frozenset({408, 425, 429})
#: The reason of a failure is looked for in answers of this many bytes at the most: the event loop waits for it.
_LARGEST_REASON = 65_536
#: Answers are shown up to this length, in characters.
_LONGEST_REASON = 1000
_SECONDS = re.compile(r"\s*\d+(\.\d+)?\s*", re.ASCII)


@frozen
class HttpResponse:
    """
    What came back for one request.

    Attributes:
        status: The HTTP status.
        body: The body.
        retry_after: How long the platform asked to wait, in seconds, or None.
        location: Where a redirect points to, or nothing.
    """

    status: int
    body: bytes
    retry_after: float | None = None
    location: str = ""


@frozen
class BatchResult:
    """
    What the platform said of some records.

    Attributes:
        delivered: Those it accepted.
        rejected: Those it refused, each with the reason.
        unanswered: Those it said nothing of.
    """

    delivered: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...] = ()
    unanswered: tuple[str, ...] = ()


class Project(Protocol):
    """A project, as far as its address goes."""

    @property
    def base_url(self) -> str | None:
        """Where it is reached."""
        ...

    @property
    def project_token(self) -> str:
        """Its token."""
        ...


def route_of(project: Project, kind: EventType | None = None) -> str:
    """
    Tell where a project's batches go: the address that keeps its records apart from others'.

    Args:
        project: The project.
        kind: A kind of record; a click of a campaign has an address of its own, since no batch takes it.
    """
    end = CLICKS if kind is EventType.CAMPAIGN_CLICK else "/batch"
    return f"{project.base_url}/track/v2/projects/{project.project_token}{end}"


def is_click(route: str) -> bool:
    """Tell whether what goes there goes alone."""
    return route.endswith(CLICKS)


def event_command(customer_ids: bytes, name: bytes, timestamp: float, properties: bytes) -> bytes:
    """Put an event together from encoded parts, but for the command's opening brace and id."""
    return _checked(
        b'"name":"customers/events","data":{"customer_ids":%b,"event_type":%b,"timestamp":%b,"properties":%b}}'
        % (customer_ids, name, encode_number(timestamp), properties),
        "event",
    )


def customer_command(customer_ids: bytes, timestamp: float, properties: bytes) -> bytes:
    """
    Put a customer update together from encoded parts.

    The update carries the moment of the call as ``update_timestamp``, so that a late upload can't roll newer
    values back.
    """
    return _checked(
        b'"name":"customers","data":{"customer_ids":%b,"properties":%b,"update_timestamp":%b}}'
        % (customer_ids, properties, encode_number(timestamp)),
        "customer",
    )


def click_command(customer_ids: bytes, url: bytes, timestamp: float, properties: bytes) -> bytes:
    """Put a click of a campaign together from encoded parts, as if there were such a command."""
    return _checked(
        b'%b{"customer_ids":%b,"url":%b,"timestamp":%b,"properties":%b}}'
        % (CLICK_HEAD, customer_ids, url, encode_number(timestamp), properties),
        "click",
    )


def read_command(body: bytes) -> dict[str, Any]:
    """Decode a stored command, to show it."""
    command: dict[str, Any] = decode(b"{" + body)
    return command


def _checked(body: bytes, path: str) -> bytes:
    if len(body) > MAX_MESSAGE:
        raise InvalidEventError(path, f"it takes {len(body)} bytes", f"The platform takes {MAX_MESSAGE} at the most.")
    return body


def pack(records: Iterable[Leased], count: int, size: int) -> Iterator[tuple[Leased, ...]]:
    """
    Make batches of one route each, at most `count` records and `size` bytes.

    A record that was refused by itself before goes alone: it must not drag others along.
    """
    gathered: dict[str, list[Leased]] = {}
    sizes: dict[str, int] = {}
    for record in records:
        # The command's id, its name and the comma take less than 64 bytes more.
        length = len(record.body) + 64
        if record.failures or is_click(record.route):
            yield (record,)
            continue
        batch = gathered.setdefault(record.route, [])
        if len(batch) >= count or (batch and sizes[record.route] + length > size):
            yield tuple(batch)
            batch.clear()
        sizes[record.route] = length + (sizes[record.route] if batch else 32)
        batch.append(record)
    yield from (tuple(batch) for batch in gathered.values() if batch)


def request_body(batch: Sequence[Leased]) -> bytes:
    """Join stored commands to the body of a batch request, or take a click out of its own."""
    if is_click(batch[0].route):
        return batch[0].body[len(CLICK_HEAD) : -1]
    commands = [b'{"command_id":"%b",%b' % (record.id.encode(), record.body) for record in batch]
    return b'{"commands":[%b]}' % b",".join(commands)


def read_answer(answer: HttpResponse, batch: Sequence[Leased]) -> BatchResult:
    """
    Read what the platform says of a batch.

    Raises:
        RejectedError: The request as a whole is refused for what is in it.
        ProjectPausedError: The key, the project or the address is wrong.
        UnavailableError: No verdict; worth trying again.
    """
    status = answer.status
    if 200 <= status < 300:
        return _read_results(answer, batch)
    if status in _REFUSED:
        raise RejectedError(explained(answer))
    if status >= 500 or status in RETRYABLE or status < 200:
        raise UnavailableError(explained(answer), status=status, retry_after=answer.retry_after)
    raise ProjectPausedError(batch[0].route, status, explained(answer))


def read_retry_after(value: str | None, now: float) -> float | None:
    """Read a ``Retry-After`` header, seconds or a date, as seconds from now; at most half an hour."""
    if not value:
        return None
    try:
        seconds = float(value) if _SECONDS.fullmatch(value) else _seconds_until(value, now)
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_WAIT)


def _seconds_until(date: str, now: float) -> float:
    moment = parsedate_to_datetime(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now


def _read_results(answer: HttpResponse, batch: Sequence[Leased]) -> BatchResult:
    content = _decoded(answer.body)
    if not isinstance(content, dict):
        raise UnavailableError("a success that is no answer of the platform's", status=answer.status)
    if is_click(batch[0].route) and content.get("success") is True:
        return BatchResult((batch[0].id,))
    results = content.get("results")
    if not results and content.get("success") is False:
        raise RejectedError(explained(answer))
    if not isinstance(results, list):
        raise UnavailableError("a success without results", status=answer.status)
    return _sorted_out(_by_id(results, batch), batch)


def _by_id(results: list[Any], batch: Sequence[Leased]) -> Mapping[Any, Any]:
    names = [_name_of(result) for result in results]
    places = [record.id for record in batch]
    # Results come in the order of the commands. One without an id is told by its place, but only where nothing speaks
    # against that: a verdict must not go to a wrong record.
    in_order = len(names) == len(places) and all(
        name in (None, place) for name, place in zip(names, places, strict=True)
    )
    return dict(zip(places if in_order else names, results, strict=True))


def _name_of(result: Any) -> str | None:
    name = result.get("command_id") if isinstance(result, dict) else None
    return str(name) if isinstance(name, str | int) else None


def _sorted_out(results: Mapping[Any, Any], batch: Sequence[Leased]) -> BatchResult:
    delivered: list[str] = []
    rejected: list[tuple[str, str]] = []
    unanswered: list[str] = []
    for record in batch:
        result = results.get(record.id)
        success = result.get("success") if isinstance(result, dict) else None
        if success is True:
            delivered.append(record.id)
        elif success is False:
            rejected.append((record.id, _reasons(result) or "no reason given"))
        else:
            unanswered.append(record.id)
    return BatchResult(tuple(delivered), tuple(rejected), tuple(unanswered))


def explained(answer: HttpResponse) -> str:
    """Tell an answer in words: the status, and what the platform says itself."""
    if answer.location:
        said = f"redirect to {_storable(answer.location)}"
    else:
        said = _reasons(_decoded(answer.body)) if len(answer.body) <= _LARGEST_REASON else ""
    return f"HTTP {answer.status}" + (f": {said}" if said else "")


def _decoded(body: bytes) -> Any:
    try:
        return decode(body)
    except ValueError:
        return None


def _reasons(content: Any) -> str:
    """Find the platform's words in any of the shapes it gives them."""
    if isinstance(content, dict):
        content = _said(content)
    return _storable(_told(content, depth=3)[:_LONGEST_REASON])


def _said(content: Mapping[str, Any]) -> Any:
    return content.get("errors") or content.get("error") or content.get("message")


def _told(content: Any, depth: int) -> str:
    if isinstance(content, str):
        return content
    if content is None or not depth:
        return ""
    if isinstance(content, dict):
        inner = _said(content)
        if inner:
            return _told(inner, depth - 1)
        return "; ".join(f"{key}: {_told(value, depth - 1)}" for key, value in content.items())
    if isinstance(content, list):
        return "; ".join(filter(None, (_told(each, depth - 1) for each in content)))
    return str(content)


def _storable(text: str) -> str:
    # A header's strange bytes come as halves of surrogate pairs, which no file and no log takes.
    return text.encode(errors="replace").decode()
