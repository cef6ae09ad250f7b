"""
The asyncio-native tracking SDK for Bloomreach Engagement.
"""

import typing

from exponea_async._internal import lazy
from exponea_async._internal.actions import ActionType
from exponea_async._internal.streams import Subscription
from exponea_async._version import __version__
from exponea_async.client import Exponea
from exponea_async.config import Configuration, PostgresSettings, QueueSettings, UploadSettings
from exponea_async.errors import (
    ClosedError,
    ConfigurationError,
    DamagedFileError,
    DeliveryError,
    DeliveryTimeoutError,
    DroppedError,
    ExponeaError,
    GivenUpError,
    InvalidEventError,
    LifecycleError,
    LostError,
    NoSubjectError,
    NotStartedError,
    ProjectPausedError,
    QueueFullError,
    RejectedError,
    RequestRefusedError,
    StorageError,
    UnavailableError,
    WipedFileError,
)
from exponea_async.hooks import DeliveryEvent, Hooks
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
    TokenFrequency,
)
from exponea_async.observability import ErrorReport, Health, Stats, export_metrics, request_spans
from exponea_async.projects import BasicAuth, ConfigurationChange, ExponeaProject
from exponea_async.requests import RequestLimits, RequestReport
from exponea_async.subjects import CustomerTracker, Device, Nobody

if typing.TYPE_CHECKING:
    from exponea_async.features.content_blocks.carousel import Carousel, CarouselChange
    from exponea_async.messages import (
        AppInboxAction,
        AppInboxMessage,
        Consent,
        ConsentSources,
        CustomerAttribute,
        InAppContentBlock,
        InAppContentBlockAction,
        InAppMessage,
        InAppMessageAction,
        InAppMessageButton,
        PersonalizedData,
        Recommendation,
        RecommendationOptions,
    )
    from exponea_async.transactions import TransactionTracker
else:

    def __getattr__(name: str) -> typing.Any:
        """Import what only some applications use when it is used first."""
        module = _LAZY.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(lazy.LazyModule(module), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "ActionType",
    "AppInboxAction",
    "AppInboxMessage",
    "BasicAuth",
    "Carousel",
    "CarouselChange",
    "ClosedError",
    "Configuration",
    "ConfigurationChange",
    "ConfigurationError",
    "Consent",
    "ConsentSources",
    "Customer",
    "CustomerAttribute",
    "CustomerTracker",
    "DamagedFileError",
    "DeliveryError",
    "DeliveryEvent",
    "DeliveryTimeoutError",
    "Device",
    "DroppedError",
    "ErrorReport",
    "Event",
    "EventType",
    "Exponea",
    "ExponeaError",
    "ExponeaProject",
    "FlushMode",
    "FlushResult",
    "GivenUpError",
    "Health",
    "Hooks",
    "InAppContentBlock",
    "InAppContentBlockAction",
    "InAppMessage",
    "InAppMessageAction",
    "InAppMessageButton",
    "InvalidEventError",
    "LifecycleError",
    "LostError",
    "NoSubjectError",
    "Nobody",
    "NotStartedError",
    "OpenedPush",
    "PersonalizedData",
    "PostgresSettings",
    "ProjectPausedError",
    "PurchasedItem",
    "QueueFullError",
    "QueueSettings",
    "Receipt",
    "ReceivedPush",
    "Recommendation",
    "RecommendationOptions",
    "RejectedError",
    "RequestLimits",
    "RequestRefusedError",
    "RequestReport",
    "Stats",
    "StorageError",
    "Subscription",
    "TokenFrequency",
    "TransactionTracker",
    "UnavailableError",
    "UploadSettings",
    "WipedFileError",
    "__version__",
    "export_metrics",
    "request_spans",
]

_LAZY = dict.fromkeys(("Carousel", "CarouselChange"), "exponea_async.features.content_blocks.carousel") | dict.fromkeys(
    (
        "AppInboxAction",
        "AppInboxMessage",
        "Consent",
        "ConsentSources",
        "CustomerAttribute",
        "InAppContentBlock",
        "InAppContentBlockAction",
        "InAppMessage",
        "InAppMessageAction",
        "InAppMessageButton",
        "PersonalizedData",
        "Recommendation",
        "RecommendationOptions",
    ),
    "exponea_async.messages",
)
_LAZY["TransactionTracker"] = "exponea_async.transactions"
