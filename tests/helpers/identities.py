"""
Many end users at the same time, and the check that each event is about its own one.

An event says in its property ``who`` which request has tracked it. This does not come from the subject that is bound,
so that it can't be wrong in the same way.
"""

from collections.abc import Iterable
from typing import Any

from exponea_async import Event
from exponea_async.testing import StoredRecord
from helpers.web import Scope, http_scope, visitor

#: The kinds of end users; those of the last two must not be tracked at all.
KINDS = ("customer", "visitor", "both", "nobody", "refused")
TRACKED = KINDS[:3]


def scope_of(number: int, **more: Any) -> Scope:
    """Return the scope of the request of one of many end users, each of another one."""
    kind = KINDS[number % len(KINDS)]
    headers = [visitor(f"visitor-{number}")] if kind in ("visitor", "both", "refused") else []
    if kind in ("customer", "both", "refused"):
        headers.append(("authorization", f"user-{number}"))
    if kind == "refused":
        headers.append(("sec-gpc", "1"))
    return http_scope(f"/{number}", headers=headers, **more)


def header_of(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request."""
    return next((value.decode() for key, value in scope["headers"] if key == name), None)


def customer_of(scope: Scope) -> str | None:
    """Return the customer whom the application has authenticated."""
    return header_of(scope, b"authorization")


def consent_of(scope: Scope) -> bool:
    """Return whether the end user may be tracked."""
    return header_of(scope, b"sec-gpc") is None


def event_of(scope: Scope, name: str) -> Event:
    """Return an event that names the request that it belongs to."""
    return Event(name, {"who": scope["path"].strip("/")})


def expected_ids(number: int) -> dict[str, str] | None:
    """Return the ids that the events of a request must carry; None where nothing may be tracked."""
    kind = KINDS[number % len(KINDS)]
    if kind == "visitor":
        return {"cookie": f"visitor-{number}"}
    return {"registered": f"user-{number}"} if kind in TRACKED else None


def misattributed(records: Iterable[StoredRecord]) -> list[tuple[str, str, dict[str, str]]]:
    """Return the events that do not carry exactly the ids of the end user whose request has tracked them."""
    return [
        (record.name, record.properties["who"], record.customer_ids)
        for record in records
        if record.customer_ids != expected_ids(int(record.properties["who"]))
    ]


def tracked_numbers(count: int) -> list[int]:
    """Return the numbers of the requests whose events are tracked, in order."""
    return [number for number in range(count) if expected_ids(number) is not None]
