"""
What the tests of bots have in common: whose events were recorded.
"""

from collections import defaultdict
from collections.abc import Sequence

from exponea_async import Device, Exponea, NoSubjectError
from helpers.clients import pending_data


async def cookies_by_user(exponea: Exponea, *names: str) -> dict[int, set[str]]:
    """Return the cookies under which events were recorded, by the property ``user`` that the events have."""
    found: dict[int, set[str]] = defaultdict(set)
    for record in await pending_data(exponea):
        if record.get("event_type") in names:
            found[record["properties"]["user"]].add(record["customer_ids"]["cookie"])
    return found


async def recorded(exponea: Exponea) -> list[str]:
    """Return the names of the recorded events, in order."""
    return [record["event_type"] for record in await pending_data(exponea) if "event_type" in record]


def is_one_each(cookies: dict[int, set[str]]) -> bool:
    """Return whether each user has one cookie, which no other user has."""
    return all(len(each) == 1 for each in cookies.values()) and len(set[str]().union(*cookies.values())) == len(cookies)


def keys(subjects: Sequence[object]) -> list[str | None]:
    """Return the keys of devices; None for other subjects."""
    return [subject.key if isinstance(subject, Device) else None for subject in subjects]


def nothing_is_bound(exponea: Exponea) -> bool:
    """Return whether a client without a default device has no current subject."""
    try:
        _ = exponea.current
    except NoSubjectError:
        return True
    return False
