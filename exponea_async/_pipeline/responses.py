"""
Responses of the platform: what a status means, and the result of each command of a batch. Pure.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

from exponea_async._internal.json import decode
from exponea_async._internal.printable import printable
from exponea_async._pipeline.commands import is_click_route, project_of
from exponea_async.errors import CHECK_SETTINGS, ProjectPausedError, RejectedError, UnavailableError
from exponea_async.storage.base import Leased

#: The longest ``Retry-After`` that is respected, in seconds: a mistake must not stop the upload for good.
MAX_RETRY_AFTER = 86_400.0
#: Statuses that are about the content of the request. All other 4xx are about the project or the way to it: a 415, for
#: example, is about the compression, and must not turn records into dead letters.
DATA_ERRORS = frozenset({400, 409, 413, 422})
#: Statuses of a temporary failure, besides 5xx.
RETRYABLE = frozenset({408, 425, 429})
#: The reason of a failure is not looked for in larger bodies, in bytes: decoding them would block the event loop.
MAX_REASON_BODY = 65_536
#: Maximum length of a reason in characters.
MAX_REASON = 1000
#: How much of a body that is not JSON is looked at for its text, in bytes, and is shown of that, in characters.
MAX_EXCERPT_BODY = 2000
MAX_EXCERPT = 200
_MARKUP = r"(?si)<(script|style)\b.*?(</\1>|$)|<[^>]*(>|$)"
_SECONDS = r"(?a)\s*\d+(\.\d+)?\s*"

StatusClass = Literal["success", "data error", "temporary error", "project error"]


class HeldError(UnavailableError):
    """No request was made, since the platform has asked to wait for longer."""


class NoVerdictError(UnavailableError):
    """The response is readable, but has no verdict on any of the records."""


class HttpResponse(NamedTuple):
    """
    The response to one request.

    Attributes:
        status: The HTTP status.
        body: The body.
        retry_after: The wait that the platform asked for, in seconds, or None.
        location: The target of a redirect, or the empty string.
    """

    status: int
    body: bytes
    retry_after: float | None = None
    location: str = ""


class BatchResult(NamedTuple):
    """
    The platform's result for each record of a batch.

    Attributes:
        delivered: Ids of the records that were accepted.
        rejected: Ids of the records that were refused, each with the reason.
        unanswered: Ids of the records without a verdict.
    """

    delivered: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...] = ()
    unanswered: tuple[str, ...] = ()

    @property
    def has_verdict(self) -> bool:
        """Whether any of the records got a verdict. Without one, the response says nothing about the records."""
        return bool(self.delivered or self.rejected)


#: The status with which a proxy asks for credentials, and what to do then: those of the project do not help.
PROXY_REFUSED = 407
PROXY_HINT = "Its events are kept. Check the name and the password in upload.proxy, or in the variables of the proxy."


def classify(status: int) -> StatusClass:
    """
    Return what an HTTP status says.

    Returns:
        ``"data error"`` if the content of the request is wrong, ``"temporary error"`` if the same request may succeed
        later, and ``"project error"`` if the key, the project or its address is wrong.
    """
    if 200 <= status < 300:
        return "success"
    if status in DATA_ERRORS:
        return "data error"
    return "temporary error" if status >= 500 or status in RETRYABLE or status < 200 else "project error"


def read_batch_result(
    response: HttpResponse, batch: Sequence[Leased], address: str = "", *, hint: str = CHECK_SETTINGS
) -> BatchResult:
    """
    Read the response to a batch.

    Args:
        response: The response.
        batch: The records of the request.
        address: The URL that it was sent to, for errors.
        hint: What to do if the project is refused, for errors.

    Raises:
        RejectedError: The request as a whole is refused for its content.
        ProjectPausedError: The key, the project or the address is wrong, or the platform refuses without a reason that
            is about a record.
        UnavailableError: There is no result, and the request is worth repeating.
    """
    kind = classify(response.status)
    if kind == "success":
        return _read_success(response, batch, address, hint)
    reason = describe(response)
    if kind == "data error":
        raise RejectedError(reason, status=response.status)
    if kind == "temporary error":
        raise UnavailableError(reason, status=response.status, retry_after=response.retry_after)
    hint = PROXY_HINT if response.status == PROXY_REFUSED else hint
    raise ProjectPausedError(project_of(batch[0].route), response.status, reason, address=address, hint=hint)


def is_success(response: HttpResponse) -> bool:
    """Return whether a response is that of a request that succeeded, and not the page of a captive portal."""
    content = _decode(response.body) if classify(response.status) == "success" else None
    return isinstance(content, dict) and content.get("success") is not False


def describe(response: HttpResponse) -> str:
    """Return the status of an unsuccessful response and the platform's explanation, for logs and errors."""
    explanation = f"redirect to {printable(response.location)}" if response.location else _explain(response.body)
    return f"HTTP {response.status}" + (f": {explanation}" if explanation else "")


def parse_retry_after(value: str | None, now: float) -> float | None:
    """
    Return the wait that a ``Retry-After`` header asks for, in seconds, or None if it is unreadable.

    It is at most `MAX_RETRY_AFTER`.

    Args:
        value: The header: seconds or an HTTP date.
        now: UNIX seconds.
    """
    if not value:
        return None
    try:
        seconds = float(value) if re.fullmatch(_SECONDS, value) else _seconds_until(value, now)
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER)


def _seconds_until(date: str, now: float) -> float:
    then = parsedate_to_datetime(date)
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now


# Results of commands


def _read_success(response: HttpResponse, batch: Sequence[Leased], address: str, hint: str) -> BatchResult:
    content = _decode(response.body)
    is_click = is_click_route(batch[0].route)
    if not isinstance(content, dict):
        shown = f": {excerpt}" if (excerpt := _excerpt(response.body)) else ""
        raise UnavailableError(f"the 2xx response is not a valid batch response{shown}", status=response.status)
    if is_click and content.get("success") is True:
        return BatchResult((batch[0].id,))
    results = content.get("results")
    if not results and content.get("success") is False:
        if is_click:
            # A click is sent alone, so this is its result.
            raise RejectedError(describe(response), status=response.status)
        # The platform answers with a result for each command, unless it refuses to execute any, as for a permission.
        project = project_of(batch[0].route)
        raise ProjectPausedError(project, response.status, describe(response), address=address, hint=hint)
    if not isinstance(results, list):
        raise UnavailableError("the 2xx response has no results", status=response.status)
    delivered = _delivered_in_order(results, batch)
    return _sort(_by_command_id(results, batch), batch) if delivered is None else BatchResult(delivered)


def _delivered_in_order(results: list[Any], batch: Sequence[Leased]) -> tuple[str, ...] | None:
    """Return all ids if each result, at the position of its command, is a success, as usual; otherwise None."""
    ids = [record.id for record in batch]
    try:
        if [result["command_id"] for result in results] != ids:
            return None
        failed = [result for result in results if result["success"] is not True]
    except (TypeError, KeyError):
        return None
    return None if failed else tuple(ids)


def _by_command_id(results: list[Any], batch: Sequence[Leased]) -> Mapping[Any, Any]:
    found = [_command_id(result) for result in results]
    sent = [record.id for record in batch]
    # Results come in the order of the commands. The position identifies a result without an id only if all others are
    # at their positions, too: a result must not be taken for that of another record.
    in_order = len(found) == len(sent) and all(theirs in (None, ours) for theirs, ours in zip(found, sent, strict=True))
    return dict(zip(sent if in_order else found, results, strict=True))


def _command_id(result: Any) -> str | None:
    found = result.get("command_id") if isinstance(result, dict) else None
    return str(found) if isinstance(found, str | int) else None


def _sort(results: Mapping[Any, Any], batch: Sequence[Leased]) -> BatchResult:
    delivered: list[str] = []
    rejected: list[tuple[str, str]] = []
    unanswered: list[str] = []
    for record in batch:
        result = results.get(record.id)
        success = result.get("success") if isinstance(result, dict) else None
        if success is True:
            delivered.append(record.id)
        elif success is False:
            rejected.append((record.id, _reason(result) or "no reason given"))
        else:
            unanswered.append(record.id)
    return BatchResult(tuple(delivered), tuple(rejected), tuple(unanswered))


# Reasons


def _explain(body: bytes) -> str:
    if len(body) > MAX_REASON_BODY:
        return _excerpt(body)
    content = _decode(body)
    return _excerpt(body) if content is None else _reason(content)


def _excerpt(body: bytes) -> str:
    """Return the beginning of a text that is not JSON, such as the page of a proxy, without its markup."""
    text = re.sub(_MARKUP, " ", body[:MAX_EXCERPT_BODY].decode(errors="replace"))
    return printable(" ".join(text.split()))[:MAX_EXCERPT]


def _decode(body: bytes) -> Any:
    try:
        return decode(body)
    except ValueError:
        return None


def _reason(content: Any) -> str:
    """Return the explanation in a response or a result, whichever of the platform's forms it has."""
    if isinstance(content, dict):
        content = _explanation(content)
    return printable(_flatten(content, depth=3)[:MAX_REASON])[:MAX_REASON]


def _explanation(content: Mapping[str, Any]) -> Any:
    return content.get("errors") or content.get("error") or content.get("message")


def _flatten(content: Any, depth: int) -> str:
    if isinstance(content, str):
        return content
    if content is None or not depth:
        return ""
    if isinstance(content, dict):
        inner = _explanation(content)
        if inner:
            return _flatten(inner, depth - 1)
        return "; ".join(f"{key}: {_flatten(value, depth - 1)}" for key, value in content.items())
    if isinstance(content, list):
        return "; ".join(filter(None, (_flatten(each, depth - 1) for each in content)))
    return str(content)
