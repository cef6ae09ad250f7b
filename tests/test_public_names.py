"""
The public API: its names and signatures.
"""

import importlib
import inspect
import re
import subprocess
import sys
import typing
from types import ModuleType
from typing import Any

import pytest
from helpers.modules import public_integrations

import exponea_async
from exponea_async import CustomerTracker, Device, Exponea, Nobody, TransactionTracker, testing
from exponea_async.integrations import asgi, starlette
from exponea_async.portal import Portal
from exponea_async.testing import storage_contract

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
TRANSACTION = (
    TRACKING
    | LIFE
    | MESSAGES
    | SEGMENTS
    | {
        "track_many": "async (events: Iterable[Event | tuple[Mapping[str, str], Event]]) -> list[Receipt]",
        "device": "(key: str) -> Device",
        "for_customer": "(ids: Mapping[str, str]) -> CustomerTracker",
    }
)
CLOCK = {
    "set": "(at: datetime | float) -> None",
    "advance": "(by: timedelta | float) -> None",
    "reset": "() -> None",
}
CLIENT = (
    TRACKING
    | LIFE
    | MESSAGES
    | SEGMENTS
    | {
        "start": "async () -> None",
        "aclose": "async (timeout: float | None = 10.0, *, end_sessions: bool = False, *, only_started: bool = False) -> None",
        "device": "(key: str) -> Device",
        "for_customer": "(ids: Mapping[str, str]) -> CustomerTracker",
        "nobody": "() -> Nobody",
        "bind": "(subject: Device | CustomerTracker | Nobody, *, properties: Mapping[str, Any] | None = None) -> AbstractContextManager[None]",
        "transaction": "(connection: object) -> AbstractAsyncContextManager[TransactionTracker]",
        "current": "property",
        "configuration": "property",
        "is_stopped": "property",
        "stats": "() -> Stats",
        "health": "async (*, max_age: float | None = 300.0, *, timeout: float | None = 5.0) -> Health",
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
    "is_running": "property",
    "start": "() -> None",
    "call": "(function: Callable[~P, Awaitable[~T]], args: P.args, kwargs: P.kwargs) -> ~T",
    "close": "(timeout: float | None = 10.0) -> None",
}
TESTING = {
    "assert_tracked": "(source: Sandbox | Exponea | Portal, name: str, properties: Mapping[str, Any] | None = None, *, customer: Mapping[str, Any] | None = None, *, count: int | None = None, *, exact: bool = False, *, timestamp: Any = None, *, project: str | None = None) -> list[TrackedEvent]",
    "assert_not_tracked": "(source: Sandbox | Exponea | Portal, name: str, properties: Mapping[str, Any] | None = None, *, customer: Mapping[str, Any] | None = None, *, exact: bool = False, *, timestamp: Any = None, *, project: str | None = None) -> None",
    "sandbox_configuration": "(sandbox: Sandbox, settings: Any) -> Configuration",
    "idle": "async (client: Exponea, *, timeout: float = 30.0) -> None",
    "pending_records": "async (client: Exponea, names: str) -> list[StoredRecord]",
    "dead_letters": "async (client: Exponea, names: str) -> list[StoredRecord]",
    "end_idle_sessions": "async (client: Exponea) -> int",
    "received": "(subscription: Subscription[~T]) -> list[~T]",
}

#: The public names of each module of the integrations, with their signatures; of a class that of its constructor.
INTEGRATIONS = {
    "aiohttp": {
        "CLIENT": "attribute",
        "RequestProperties": "as in asgi",
        "bind_customer": "(request: Request, ids: Mapping[str, str] | str | UUID | None) -> None",
        "identify_visitor": "async (request: Request, properties: Mapping[str, Any] | None = None) -> Receipt",
        "setup": "(app: Application, exponea: Exponea, *, customer: Callable[[Any], Mapping[str, str] | str | UUID | None | Awaitable[Mapping[str, str] | str | UUID | None]] | None = None, *, visitor: bool = True, *, consent: Callable[[Any], bool | Awaitable[bool]] | None = None, *, properties: RequestProperties | None = None, *, timeout: float | None = 10.0) -> None",
    },
    "aiogram": {
        "ExponeaMiddleware": "(exponea: Exponea, *, key: Callable[[Update], str | None] = user_key, *, consent: Callable[[Update], bool | Awaitable[bool]] | None = None) -> None",
        "setup": "(dispatcher: Dispatcher, exponea: Exponea, *, key: Callable[[Update], str | None] = user_key, *, consent: Callable[[Update], bool | Awaitable[bool]] | None = None, *, timeout: float | None = 10.0) -> ExponeaMiddleware",
        "user_key": "(update: Update) -> str | None",
    },
    "arq": {
        "ArqIntegration": "(exponea: Exponea, *, default: Device | CustomerTracker | Nobody | None = None, *, carry: bool = True, *, key: str = '_exponea', *, timeout: float | None = 10.0) -> None",
    },
    "asgi": {
        "ClientLifespan": "(app: Callable[[Any, Any, Any], Awaitable[None]], exponea: Startable, *, timeout: float | None = 10.0) -> None",
        "ExponeaMiddleware": "(app: Callable[[Any, Any, Any], Awaitable[None]], exponea: Exponea, *, customer: Callable[[Any], Mapping[str, str] | str | UUID | None | Awaitable[Mapping[str, str] | str | UUID | None]] | None = None, *, visitor: bool = True, *, consent: Callable[[Any], bool | Awaitable[bool]] | None = None, *, properties: RequestProperties | None = None) -> None",
        "RequestProperties": "(*, ip: int | None = None, *, user_agent: bool = False, *, location: Sequence[str] | None = None, *, referrer: bool = False, *, utm: bool = False) -> None",
        "bind_customer": "(exponea: Exponea, scope: Mapping[str, Any], ids: Mapping[str, str] | str | UUID | None) -> None",
        "identify_visitor": "async (exponea: Exponea, scope: Mapping[str, Any], properties: Mapping[str, Any] | None = None) -> Receipt",
        "visitor_cookie": "(scope: Mapping[str, Any], project: str) -> str | None",
    },
    "fastapi": {
        "ExponeaClient": "Exponea, a dependency",
        "ExponeaMiddleware": "as in asgi",
        "RequestProperties": "as in asgi",
        "bind_customer": "as in asgi",
        "client_lifespan": "as in starlette",
        "customer_from": "(dependency: Callable[..., Any], ids: Callable[[Any], Mapping[str, str] | str | UUID | None]) -> Callable[..., Coroutine[Any, Any, None]]",
        "get_exponea": "as in starlette",
        "identify_visitor": "as in asgi",
    },
    "litestar": {
        "ExponeaClient": "Exponea, a dependency",
        "ExponeaPlugin": "(exponea: Exponea, *, customer: Callable[[Any], Mapping[str, str] | str | UUID | None | Awaitable[Mapping[str, str] | str | UUID | None]] | None = None, *, visitor: bool = True, *, consent: Callable[[Any], bool | Awaitable[bool]] | None = None, *, properties: RequestProperties | None = None, *, dependency: str = 'exponea', *, timeout: float | None = 10.0) -> None",
        "RequestProperties": "as in asgi",
        "bind_customer": "as in asgi",
        "identify_visitor": "as in asgi",
    },
    "starlette": {
        "ExponeaMiddleware": "as in asgi",
        "RequestProperties": "as in asgi",
        "bind_customer": "as in asgi",
        "client_lifespan": "(exponea: Exponea, lifespan: Callable[[~AppType], AbstractAsyncContextManager[Any]] | None = None, *, timeout: float | None = 10.0) -> Callable[[~AppType], AbstractAsyncContextManager[Any]]",
        "get_exponea": "async (connection: HTTPConnection) -> Exponea",
        "identify_visitor": "as in asgi",
    },
    "celery": {
        "CeleryIntegration": "(portal: Portal, *, default: Device | CustomerTracker | Nobody | None = None, *, carry: bool = True, *, key: str = 'exponea', *, timeout: float = 5.0) -> None",
    },
    "django": {
        "ClientLifespan": "(app: Callable[[Any, Any, Any], Awaitable[None]], *, timeout: float = 10.0) -> None",
        "ExponeaMiddleware": "(get_response: Callable[[django.http.request.HttpRequest], Any]) -> None",
        "acall": "async (function: Callable[~P, Awaitable[~T]], args: P.args, kwargs: P.kwargs) -> ~T",
        "aclose": "async (timeout: float = 10.0) -> None",
        "aidentify_visitor": "async (request: HttpRequest, properties: Mapping[str, Any] | None = None) -> Receipt",
        "atrack": "async (event: Event) -> Receipt",
        "bind_customer": "(request: HttpRequest, ids: Mapping[str, str] | str | UUID | None) -> None",
        "call": "(function: Callable[~P, Awaitable[~T]], args: P.args, kwargs: P.kwargs) -> ~T",
        "close": "(timeout: float = 10.0) -> None",
        "get_client": "() -> Exponea",
        "identify_visitor": "(request: HttpRequest, properties: Mapping[str, Any] | None = None) -> Receipt",
        "track": "(event: Event) -> Receipt",
    },
    "discord": {
        "ExponeaBot": "(command_prefix: Any, *, exponea: Exponea, *, key: Callable[[User | Member], str | None] = user_key, *, consent: Callable[[User | Member], bool] | None = None, *, upload_timeout: float | None = 10.0, *, tree_cls: type[CommandTree[Any]] = ExponeaCommandTree, options: Any) -> None",
        "ExponeaClientMixin": "(args: Any, *, exponea: Exponea, *, key: Callable[[User | Member], str | None] = user_key, *, consent: Callable[[User | Member], bool] | None = None, *, upload_timeout: float | None = 10.0, options: Any) -> None",
        "ExponeaCommandTree": "as its base class",
        "ExponeaViewMixin": "as its base class",
        "acting_user": "(client: Client, event: str, args: Any) -> User | Member | None",
        "user_key": "(user: User | Member) -> str | None",
    },
    "saq": {
        "SaqIntegration": "(exponea: Exponea, *, default: Device | CustomerTracker | Nobody | None = None, *, carry: bool = True, *, key: str = 'exponea', *, timeout: float | None = 10.0) -> None",
    },
    "taskiq": {
        "ExponeaMiddleware": "(exponea: Exponea, *, default: Device | CustomerTracker | Nobody | None = None, *, carry: bool = True, *, key: str = 'exponea', *, timeout: float | None = 10.0) -> None",
    },
    "telegram": {
        "ExponeaJobQueue": "(exponea: Exponea, *, key: Callable[[Job[Any]], str | None] = job_key, *, consent: Callable[[Job[Any]], bool | Awaitable[bool]] | None = None) -> None",
        "ExponeaUpdateProcessor": "(exponea: Exponea, *, max_concurrent_updates: int = 1, *, key: Callable[[object], str | None] = user_key, *, consent: Callable[[object], bool | Awaitable[bool]] | None = None, *, timeout: float | None = 10.0) -> None",
        "get_exponea": "(context: CallbackContext[Any, Any, Any, Any]) -> Exponea",
        "job_key": "(job: Job[Any]) -> str | None",
        "setup": "(builder: ~BuilderT, exponea: Exponea, *, max_concurrent_updates: int = 1, *, key: Callable[[object], str | None] = user_key, *, consent: Callable[[object], bool | Awaitable[bool]] | None = None, *, job_queue: ExponeaJobQueue | None = None, *, timeout: float | None = 10.0) -> ~BuilderT",
        "user_key": "(update: object) -> str | None",
    },
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
        "portal",
        "sandbox.server",
        "testing.events",
        "testing.records",
        "testing",
        "portal",
        "transactions",
        "_internal.streams",
        "features.content_blocks.carousel",
        *(f"integrations.{each}" for each in ("_headers", "_request", *public_integrations())),
    ):
        text = text.replace(f"exponea_async.{module}.", "")
    for module in ("collections.abc.", "datetime.", "contextlib.", "typing.", "uuid."):
        text = text.replace(module, "")
    # The modules of frameworks in which a class is defined may be private ones.
    return re.sub(r"\b(?:aiogram|discord|telegram)\.(?:\w+\.)*(?=[A-Z])", "", text)


def signature(member: Any, skipped: int = 1) -> str:
    """Return how a member is used."""
    if isinstance(member, property):
        return "property"
    function = member.__func__ if isinstance(member, classmethod) else member
    if not inspect.isfunction(function):
        return "attribute"
    # The names of messages are strings, since their module is imported when it is used first.
    signature = inspect.signature(function, eval_str=True)
    parameters = [
        ("*, " if each.kind is each.KEYWORD_ONLY else "")
        + f"{each.name}: {spelled(each.annotation)}"
        + ("" if each.default is each.empty else f" = {getattr(each.default, '__name__', repr(each.default))}")
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
    # What is imported when it is used first is there from then on.
    for name in exponea_async.__all__:
        getattr(exponea_async, name)
    there = {
        name for name, value in vars(exponea_async).items() if name[0] != "_" and not isinstance(value, ModuleType)
    }

    assert exponea_async.__all__ == sorted(exponea_async.__all__)
    assert set(exponea_async.__all__) == there | {"__version__"}


LATE = """
import exponea_async, sys
assert "exponea_async.messages" not in sys.modules
{}
assert "exponea_async.messages" in sys.modules
"""


@pytest.mark.parametrize(
    "use",
    [
        "from exponea_async import *; assert InAppMessage.__name__ == 'InAppMessage'",
        "from exponea_async import InAppMessage",
        "exponea_async.AppInboxMessage; assert 'AppInboxMessage' in vars(exponea_async)",
        "import pickle; pickle.loads(b'cexponea_async\\nConsentSources\\n.')",
        "import typing; typing.get_type_hints(exponea_async.Exponea.fetch_consents)",
    ],
)
def test_names_that_are_imported_late(use: str) -> None:
    """Names that few applications need are imported when they are used first, in whichever way."""
    subprocess.run([sys.executable, "-c", LATE.format(use)], check=True)


def test_late_names_are_listed() -> None:
    """``dir()`` has all names, whether they were used or not; others are an ``AttributeError``."""
    listed = "import exponea_async; print(*dir(exponea_async))"
    names = subprocess.run([sys.executable, "-c", listed], check=True, capture_output=True, text=True).stdout.split()

    assert set(exponea_async.__all__) <= set(names)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(exponea_async, "Nothing")  # noqa: B009 - type checkers know that it is not there


@pytest.mark.parametrize("kind", [Exponea, Device, CustomerTracker, Nobody, TransactionTracker])
def test_type_hints(kind: type) -> None:
    """The annotations of all public methods can be evaluated."""
    methods = [each for name in dir(kind) if name[0] != "_" and inspect.isroutine(each := getattr(kind, name))]

    assert len(methods) > 10
    for method in methods:
        assert "return" in typing.get_type_hints(method)


@pytest.mark.parametrize("name", exponea_async.__all__)
def test_every_name_is_documented(name: str) -> None:
    """Each public name has a docstring."""
    assert (getattr(exponea_async, name).__doc__ or "").strip()


@pytest.mark.parametrize(
    ("kind", "members"),
    [(Exponea, CLIENT), (Device, DEVICE), (CustomerTracker, CUSTOMER), (TransactionTracker, TRANSACTION)],
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
        if inspect.isfunction(member) and not name.startswith("_")
    }

    assert functions == TESTING
    assert public(testing.Clock) == CLOCK
    assert public(testing.SandboxThread) == {}
    assert sorted([*TESTING, "Clock", "SandboxThread", "StoredRecord", "TrackedEvent"]) == testing.__all__


def test_the_contract_of_storages() -> None:
    """The module exports exactly these names: a class with all tests, its parts, and what makes the storages."""
    assert sorted(storage_contract.__all__) == storage_contract.__all__
    assert storage_contract.__all__ == [
        *sorted(
            [*(each.__name__ for each in storage_contract.StorageContract.__bases__), "MakeStorage", "StorageContract"]
        ),
        "storage_factory",
    ]
    assert signature(storage_contract.storage_factory, skipped=0).startswith("(create: Callable[..., ")


@pytest.mark.parametrize("name", public_integrations())
def test_the_integrations(name: str) -> None:
    """The modules of the integrations export exactly these names."""
    module = importlib.import_module(f"exponea_async.integrations.{name}")
    exported = {each: getattr(module, each) for each in module.__all__}

    assert module.__all__ == sorted(module.__all__)
    assert {each: exported_signature(module, value) for each, value in exported.items()} == INTEGRATIONS[name]


def exported_signature(module: ModuleType, value: Any) -> str:
    """Return how an exported name is used; what is exported again is described where it comes from."""
    for origin in (asgi, starlette):
        if module is origin:
            break
        if any(value is getattr(origin, each) for each in origin.__all__):
            return f"as in {origin.__name__.rpartition('.')[2]}"
    if hasattr(value, "__metadata__"):
        return f"{spelled(value.__origin__)}, a dependency"
    if isinstance(value, type):
        return signature(vars(value)["__init__"]) if "__init__" in vars(value) else "as its base class"
    return signature(value, skipped=0)
