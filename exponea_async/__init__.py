"""
The asyncio-native tracking SDK for Bloomreach Engagement.
"""

from exponea_async._version import __version__
from exponea_async.client import Exponea
from exponea_async.config import (
    BasicAuth,
    Configuration,
    ConfigurationChange,
    ExponeaProject,
)
from exponea_async.errors import (
    ClosedError,
    ConfigurationError,
    DamagedFileError,
    DeliveryError,
    DeliveryTimeoutError,
    DroppedError,
    ExponeaError,
    InvalidEventError,
    LifecycleError,
    NotStartedError,
    ProjectPausedError,
    QueueFullError,
    RejectedError,
    StorageError,
    UnavailableError,
)
from exponea_async.hooks import Hooks, Notice
from exponea_async.models import (
    Customer,
    Event,
    EventType,
    FlushMode,
    FlushResult,
    OpenedPush,
    PurchasedItem,
    Receipt,
    ReceivedPush,
    Stats,
    TokenFrequency,
)
from exponea_async.observability import export_metrics
from exponea_async.settings import QueueSettings, UploadSettings
from exponea_async.subjects import CustomerTracker, Device

__all__ = [
    "BasicAuth",
    "ClosedError",
    "Configuration",
    "ConfigurationChange",
    "ConfigurationError",
    "Customer",
    "CustomerTracker",
    "DamagedFileError",
    "DeliveryError",
    "DeliveryTimeoutError",
    "Device",
    "DroppedError",
    "Event",
    "EventType",
    "Exponea",
    "ExponeaError",
    "ExponeaProject",
    "FlushMode",
    "FlushResult",
    "Hooks",
    "InvalidEventError",
    "LifecycleError",
    "NotStartedError",
    "Notice",
    "OpenedPush",
    "ProjectPausedError",
    "PurchasedItem",
    "QueueFullError",
    "QueueSettings",
    "Receipt",
    "ReceivedPush",
    "RejectedError",
    "Stats",
    "StorageError",
    "TokenFrequency",
    "UnavailableError",
    "UploadSettings",
    "__version__",
    "export_metrics",
]
