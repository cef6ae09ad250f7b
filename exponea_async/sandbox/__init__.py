"""
A local stand-in of the Engagement tracking API, with its rules, its limits and its bad days.
"""

from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.faults import Fault, Faults
from exponea_async.sandbox.records import (
    CustomerView,
    Project,
    PushToken,
    RejectedCommand,
    RequestLog,
    StoredEvent,
)
from exponea_async.sandbox.server import Sandbox

__all__ = [
    "CustomerView",
    "Engine",
    "Fault",
    "Faults",
    "Project",
    "PushToken",
    "RejectedCommand",
    "RequestLog",
    "Sandbox",
    "StoredEvent",
]
