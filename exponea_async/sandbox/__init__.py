"""
A local server with the API of the Engagement platform, including its validation, limits and failures.

It is an independent implementation: it imports nothing of the SDK.
"""

from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.faults import Fault, Faults
from exponea_async.sandbox.jwt import issue_token
from exponea_async.sandbox.messages.definitions import Definitions
from exponea_async.sandbox.messages.inbox import InboxSync
from exponea_async.sandbox.messages.schemas import DefinitionError
from exponea_async.sandbox.models import (
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
    "DefinitionError",
    "Definitions",
    "Engine",
    "Fault",
    "Faults",
    "InboxSync",
    "Project",
    "PushToken",
    "RejectedCommand",
    "RequestLog",
    "Sandbox",
    "StoredEvent",
    "issue_token",
]
