"""
Commands that are executed by the engine of the sandbox directly, without a server.
"""

from typing import Any

from exponea_async.sandbox import Engine

PROJECT = "shop"
#: The time of engines whose clock stands still, UNIX seconds.
NOW = 1_767_225_600.0


def engine_at_now() -> Engine:
    """Return an engine whose clock always returns `NOW`."""
    return Engine(clock=lambda: NOW)


def event(ids: dict[str, str], event_type: str = "ping", **fields: Any) -> dict[str, Any]:
    """Return the data of an event."""
    return {"customer_ids": ids, "event_type": event_type, "timestamp": 1.0, "properties": {}, **fields}


def track(engine: Engine, ids: dict[str, str], event_type: str = "ping", **fields: Any) -> tuple[str, ...]:
    """Track an event; return the errors."""
    return engine.execute(PROJECT, "customers/events", event(ids, event_type, **fields))


def identify(engine: Engine, ids: dict[str, str], **fields: Any) -> tuple[str, ...]:
    """Update a customer; return the errors."""
    return engine.execute(PROJECT, "customers", {"customer_ids": ids, **fields})


def event_types(engine: Engine, **ids: str) -> list[str]:
    """Return the types of the events of a customer."""
    view = engine.customer(PROJECT, ids)
    assert view is not None
    return [each.event_type for each in engine.events(PROJECT) if each.customer == view.key]
