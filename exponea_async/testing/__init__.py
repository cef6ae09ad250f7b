"""
Assertions, fixtures and functions for tests of applications that use this package.

They work with a real client, for example one with the storage ``"memory:"``, and a `exponea_async.sandbox.Sandbox`::

    async with Sandbox() as sandbox:
        async with Exponea(sandbox_configuration(sandbox)) as exponea:
            await exponea.track_event(Event("purchase", {"total_price": 7.99}))  # what the application does
            assert_tracked(sandbox, "purchase", {"total_price": 7.99})

With pytest, the fixtures of the plugin ``pytest_exponea_async`` do all but the application's own part.
"""

from exponea_async.testing.assertions import assert_not_tracked, assert_tracked
from exponea_async.testing.clients import end_idle_sessions, idle, received
from exponea_async.testing.clock import Clock
from exponea_async.testing.events import TrackedEvent
from exponea_async.testing.records import StoredRecord, dead_letters, pending_records
from exponea_async.testing.threads import SandboxThread, sandbox_configuration

__all__ = [
    "Clock",
    "SandboxThread",
    "StoredRecord",
    "TrackedEvent",
    "assert_not_tracked",
    "assert_tracked",
    "dead_letters",
    "end_idle_sessions",
    "idle",
    "pending_records",
    "received",
    "sandbox_configuration",
]
