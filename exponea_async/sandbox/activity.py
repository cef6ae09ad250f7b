"""
What one customer did: its events by session, and what happened to messages. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import define, field, frozen

from exponea_async.sandbox.journal import Entry

#: The time without an event after which another session begins, in seconds.
SESSION_GAP = 1800.0
#: The events and the messages that are shown, the newest ones.
MAX_EVENTS = 1000
BANNERS = {"in-app message": "in_app", "in-app content block": "content_block"}
CAMPAIGNS = {"app inbox": "inbox", "mobile notification": "push"}


@define
class Session:
    """
    A session of a customer.

    Attributes:
        source: ``session_start`` for the event, or ``gap`` for events after a time without any.
        start: The time of the first event, UNIX seconds.
        latest: The time of the latest event.
        end: The time of ``session_end``, or of the last event of a session without ``session_start``; None for one
            that has started and not ended.
        events: The events.
    """

    source: Literal["session_start", "gap"]
    start: float
    latest: float
    end: float | None = None
    events: list[dict[str, Any]] = field(factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the values with the names of the API."""
        end = self.latest if self.source == "gap" else self.end
        duration = (self.latest if end is None else end) - self.start
        return {"start": self.start, "end": end, "duration": duration, "source": self.source, "events": self.events}


@frozen
class Shown:
    """
    What happened to a message.

    Attributes:
        at: The time of the event, UNIX seconds.
        kind: ``in_app``, ``content_block``, ``inbox`` or ``push``.
        action: What happened, such as ``show``, ``click`` or ``delivered``.
        name: The name of the message or campaign; may be empty.
        entry: The number of the entry of the event.
    """

    at: float
    kind: str
    action: str
    name: str
    entry: int


def sessions(entries: Iterable[Entry]) -> list[Session]:
    """Return the sessions in the newest events of a customer, newest first; events are ordered by their own time."""
    events = sorted((_time(entry), entry.id, entry.label) for entry in entries if entry.digest is not None)
    found: list[Session] = []
    for at, number, name in events[-MAX_EVENTS:]:
        if not found or _begins(found[-1], at, name):
            found.append(Session("session_start" if name == "session_start" else "gap", at, at))
        session = found[-1]
        session.events.append({"entry": number, "name": name, "at": at})
        session.latest = at
        if name == "session_end":
            session.end = at
    return found[::-1]


def messages(entries: Iterable[Entry]) -> list[Shown]:
    """Return what happened to messages, newest first."""
    found = [shown for entry in entries if entry.digest is not None and (shown := _shown(entry)) is not None]
    return sorted(found, key=lambda shown: (-shown.at, -shown.entry))[:MAX_EVENTS]


def _begins(session: Session, at: float, name: str) -> bool:
    return name == "session_start" or session.end is not None or at - session.latest > SESSION_GAP


def _time(entry: Entry) -> float:
    return float(entry.received if entry.timestamp is None else entry.timestamp)


def _shown(entry: Entry) -> Shown | None:
    if entry.name not in ("banner", "campaign"):
        return None
    properties: Mapping[str, Any] = entry.data.get("properties") or {}
    if entry.name == "banner":
        kind, action, name = BANNERS.get(_text(properties, "type"), "in_app"), "action", "banner_name"
    else:
        kind, action, name = CAMPAIGNS.get(_text(properties, "action_type"), "push"), "status", "campaign_name"
    return Shown(_time(entry), kind, _text(properties, action), _text(properties, name), entry.id)


def _text(properties: Mapping[str, Any], name: str) -> str:
    value = properties.get(name)
    return value if isinstance(value, str) else ""
