"""
The public API: its names and signatures.
"""

import inspect
from types import ModuleType
from typing import Any

import pytest

import exponea_async
from exponea_async import CustomerTracker, Device, Exponea, testing
from exponea_async.portal import Portal

TRACKING = {
    "track_event": "async (event: Event) -> Receipt",
    "track_payment_event": "async (item: PurchasedItem, timestamp: datetime | float | None = None) -> Receipt",
    "identify_customer": "async (customer: Customer | Mapping[str, str | None]) -> Receipt",
}
IDENTITY = {
    "get_customer_cookie": "async () -> str",
    "anonymize": "async (change: ConfigurationChange | None = None) -> list[Receipt]",
}
SESSIONS = {
    "track_session_start": "async (timestamp: datetime | float | None = None) -> Receipt",
    "track_session_end": "async (timestamp: datetime | float | None = None) -> Receipt",
    "resume": "async () -> None",
    "pause": "async () -> None",
}
PUSH = {
    "track_push_token": "async (token: str) -> Receipt",
    "track_hms_push_token": "async (token: str) -> Receipt",
    "track_apns_push_token": "async (token: str) -> Receipt",
    "handle_push_token": "async (token: str) -> list[Receipt]",
    "handle_hms_push_token": "async (token: str) -> list[Receipt]",
    "verify_push_status_and_track_push_token": "async (authorized: bool | None = None) -> list[Receipt]",
    "is_bloomreach_notification": "(payload: Mapping[str, Any]) -> bool",
    "track_delivered_push": "async (payload: Mapping[str, Any], consider_consent: bool = True) -> Receipt",
    "track_clicked_push": "async (payload: Mapping[str, Any], consider_consent: bool = True) -> Receipt",
    "handle_push_notification_opened": "async (payload: Mapping[str, Any], consider_consent: bool = True) -> Receipt",
    "opened_push_stream": "() -> Subscription[OpenedPush]",
    "received_push_stream": "() -> Subscription[ReceivedPush]",
}
CAMPAIGNS = {"handle_campaign_click": "async (url: str, timestamp: datetime | float | None = None) -> bool"}
IN_APP_STREAM = {"in_app_messages": "() -> Subscription[InAppMessage]"}
IN_APP = {
    "in_app_message_for": "async (event: Event) -> InAppMessage | None",
    "in_app_message_token": "(message: InAppMessage) -> str",
    "content_block_token": "(block: InAppContentBlock) -> str",
    "click_in_app_message": "async (message: InAppMessage | str, button: InAppMessageButton | str) -> str | None",
    "close_in_app_message": "async (message: InAppMessage | str, button: InAppMessageButton | None = None, interaction: bool = True) -> None",
    "fail_in_app_message": "async (message: InAppMessage | str, error_message: str) -> None",
    "in_app_message_action_stream": "(override_default_behavior: bool = False, track_actions: bool = True) -> Subscription[InAppMessageAction]",
    "track_in_app_message_click": "async (message: InAppMessage | str, button: InAppMessageButton, consider_consent: bool = True) -> Receipt",
    "track_in_app_message_close": "async (message: InAppMessage | str, button: InAppMessageButton | None = None, interaction: bool = True, consider_consent: bool = True) -> Receipt",
}
BLOCKS = {
    "content_block": "async (placeholder_id: str) -> InAppContentBlock | None",
    "click_content_block": "async (placeholder_id: str, block: InAppContentBlock | str, action: InAppContentBlockAction | str) -> str | None",
    "close_content_block": "async (placeholder_id: str, block: InAppContentBlock | str) -> None",
    "content_block_carousel": "(placeholder_id: str, max_messages_count: int = 0, scroll_delay: float = 3.0, filter_content_blocks: Callable[[list[InAppContentBlock]], Iterable[InAppContentBlock]] | None = None, sort_content_blocks: Callable[[list[InAppContentBlock]], Iterable[InAppContentBlock]] | None = None, override_default_behavior: bool = False, track_actions: bool = True) -> Carousel",
    "track_in_app_content_block_shown": "async (placeholder_id: str, content_block: InAppContentBlock | str, consider_consent: bool = True) -> Receipt",
    "track_in_app_content_block_click": "async (placeholder_id: str, content_block: InAppContentBlock | str, action: InAppContentBlockAction, consider_consent: bool = True) -> Receipt",
    "track_in_app_content_block_close": "async (placeholder_id: str, content_block: InAppContentBlock | str, consider_consent: bool = True) -> Receipt",
    "track_in_app_content_block_error": "async (placeholder_id: str, content_block: InAppContentBlock | str, error_message: str, consider_consent: bool = True) -> Receipt",
}
INBOX = {
    "fetch_app_inbox": "async () -> list[AppInboxMessage]",
    "fetch_app_inbox_item": "async (message_id: str) -> AppInboxMessage | None",
    "mark_app_inbox_as_read": "async (message: AppInboxMessage) -> bool",
    "track_app_inbox_opened": "async (message: AppInboxMessage, consider_consent: bool = True) -> Receipt",
    "track_app_inbox_click": "async (action: AppInboxAction, message: AppInboxMessage, consider_consent: bool = True) -> Receipt",
}
SEGMENTS = {
    "get_segments": "async (exposing_category: str, force: bool = False) -> list[dict[str, str]]",
    "segmentation_data_stream": "(exposing_category: str, include_first_load: bool = False) -> Subscription[list[dict[str, str]]]",
}
FETCH = {
    "fetch_recommendations": "async (options: RecommendationOptions) -> list[Recommendation]",
    "fetch_consents": "async () -> list[Consent]",
    "fetch_attributes": "async (attributes: Sequence[Mapping[str, Any]]) -> list[CustomerAttribute]",
}
LIFE = IDENTITY | SESSIONS | PUSH | CAMPAIGNS | IN_APP_STREAM
MESSAGES = IN_APP | BLOCKS | INBOX | FETCH

CONSENT = {"start": "async () -> None", "forget": "async () -> int"}
DEVICE = TRACKING | LIFE | MESSAGES | SEGMENTS | CONSENT | {"open": "async () -> None", "key": "attribute"}
CUSTOMER = TRACKING | CAMPAIGNS | MESSAGES | CONSENT | {"ids": "attribute"}
CLIENT = (
    TRACKING
    | LIFE
    | MESSAGES
    | SEGMENTS
    | {
        "start": "async () -> None",
        "aclose": "async (timeout: float | None = 10.0, *, end_sessions: bool = False) -> None",
        "device": "(key: str) -> Device",
        "for_customer": "(ids: Mapping[str, str]) -> CustomerTracker",
        "nobody": "() -> Nobody",
        "bind": "(subject: Device | CustomerTracker | Nobody) -> AbstractContextManager[None]",
        "current": "property",
        "configuration": "property",
        "is_stopped": "property",
        "stats": "() -> Stats",
        "flush_mode": "property",
        "flush_period": "property",
        "default_properties": "property",
        "set_flush_mode": "async (mode: FlushMode | str) -> None",
        "set_flush_period": "async (period: float | timedelta) -> None",
        "set_default_properties": "async (properties: Mapping[str, Any]) -> None",
        "flush_data": "async (timeout: float | None = None, *, projects: Iterable[str] | None = None) -> FlushResult",
        "track_many": "async (events: Iterable[Event | tuple[Mapping[str, str], Event]]) -> list[Receipt]",
        "stop_integration": "async (flush: bool = False, *, timeout: float | None = 30.0, *, everyone: bool = False) -> FlushResult",
        "clear_local_customer_data": "async (configuration: Configuration, app_group: str | None = None) -> None",
    }
)


PORTAL = {
    "start": "() -> None",
    "call": "(function: Callable[~P, Awaitable[~T]], args: P.args, kwargs: P.kwargs) -> ~T",
    "close": "(timeout: float = 10.0) -> None",
}
TESTING = {
    "idle": "async (client: Exponea, *, timeout: float = 10.0) -> None",
    "pending_records": "async (client: Exponea, names: str) -> list[StoredRecord]",
    "dead_letters": "async (client: Exponea, names: str) -> list[StoredRecord]",
    "end_idle_sessions": "async (client: Exponea) -> int",
    "received": "(subscription: Subscription[~T]) -> list[~T]",
}


def spelled(kind: Any) -> str:
    """Return an annotation without the modules of its names."""
    if isinstance(kind, type) and not getattr(kind, "__args__", None):
        return "None" if kind is type(None) else kind.__name__
    text = inspect.formatannotation(kind)
    for module in (
        "models",
        "config",
        "projects",
        "messages",
        "subjects",
        "client",
        "testing",
        "_internal.streams",
        "features.content_blocks.carousel",
    ):
        text = text.replace(f"exponea_async.{module}.", "")
    for module in ("collections.abc.", "datetime.", "contextlib.", "typing."):
        text = text.replace(module, "")
    return text


def signature(member: Any, skipped: int = 1) -> str:
    """Return how a member is used."""
    if isinstance(member, property):
        return "property"
    function = member.__func__ if isinstance(member, classmethod) else member
    if not inspect.isfunction(function):
        return "attribute"
    signature = inspect.signature(function)
    parameters = [
        ("*, " if each.kind is each.KEYWORD_ONLY else "")
        + f"{each.name}: {spelled(each.annotation)}"
        + ("" if each.default is each.empty else f" = {each.default!r}")
        for each in list(signature.parameters.values())[skipped:]
    ]
    awaited = "async " if inspect.iscoroutinefunction(function) else ""
    return f"{awaited}({', '.join(parameters)}) -> {spelled(signature.return_annotation)}"


def public(kind: type) -> dict[str, str]:
    """Return the public members of a class."""
    members = {name: member for each in reversed(kind.__mro__[:-1]) for name, member in vars(each).items()}
    return {name: signature(member) for name, member in members.items() if not name.startswith("_")}


def test_the_list_is_sorted_and_complete() -> None:
    """``__all__`` has all public names of the package and nothing else."""
    there = {
        name for name, value in vars(exponea_async).items() if name[0] != "_" and not isinstance(value, ModuleType)
    }

    assert exponea_async.__all__ == sorted(exponea_async.__all__)
    assert set(exponea_async.__all__) == there | {"__version__"}


@pytest.mark.parametrize("name", exponea_async.__all__)
def test_every_name_is_documented(name: str) -> None:
    """Each public name has a docstring."""
    assert (getattr(exponea_async, name).__doc__ or "").strip()


@pytest.mark.parametrize(
    ("kind", "members"),
    [(Exponea, CLIENT), (Device, DEVICE), (CustomerTracker, CUSTOMER)],
    ids=lambda each: str(each)[:30],
)
def test_the_members(kind: type, members: dict[str, str]) -> None:
    """The client and the subjects have exactly these members."""
    assert public(kind) == members


def test_the_constructor() -> None:
    """The configuration is positional, everything else is keyword-only."""
    parameters = inspect.signature(Exponea).parameters

    assert list(parameters) == ["configuration", "hooks", "clock"]
    assert [each.kind.name for each in parameters.values()] == ["POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY", "KEYWORD_ONLY"]


def test_the_portal() -> None:
    """The portal has exactly these public methods."""
    methods = {name: signature(member) for name, member in vars(Portal).items() if not name.startswith("_")}

    assert methods == PORTAL


def test_the_functions_for_tests() -> None:
    """The testing module has exactly these public functions."""
    functions = {
        name: signature(member, skipped=0)
        for name, member in vars(testing).items()
        if inspect.isfunction(member) and member.__module__ == testing.__name__ and not name.startswith("_")
    }

    assert functions == TESTING
