"""
Django: a middleware for WSGI and ASGI, and functions for views and other code, synchronous or not.

In the settings of the project::

    MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "exponea_async.integrations.django.ExponeaMiddleware",
    ]
    EXPONEA = {
        "CONFIGURATION": {"project_token": "my-project", "authorization_token": "my-public-api-key"},
        "CUSTOMER": "shop.analytics.customer",
        "CONSENT": "shop.analytics.has_consented",
    }

A view then calls `track`, or awaits `atrack`. Each process has one client. It runs in the event loop of the ASGI
server, or else in a thread of its own.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from attrs import frozen
from django.core.handlers.asgi import ASGIRequest
from django.core.signals import setting_changed
from django.http import FileResponse, HttpRequest, StreamingHttpResponse

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.errors import ConfigurationError
from exponea_async.integrations import asgi
from exponea_async.integrations._django_settings import SETTING, DjangoSettings, check_order, read_settings
from exponea_async.integrations._headers import Scope
from exponea_async.integrations._request import RequestRules, RequestSubject
from exponea_async.integrations._shared_client import SharedClient
from exponea_async.models import Customer, Event, Receipt
from exponea_async.subjects import Binding, FixedSource, bound

__all__ = [
    "ClientLifespan",
    "ExponeaMiddleware",
    "acall",
    "aclose",
    "aidentify_visitor",
    "atrack",
    "bind_customer",
    "call",
    "close",
    "get_client",
    "identify_visitor",
    "track",
]

P = ParamSpec("P")
T = TypeVar("T")

#: The attribute of a request that has its subject.
ATTRIBUTE = "exponea_async"

#: The headers that are read, by their names in WSGI.
_HEADERS = {
    "HTTP_COOKIE": b"cookie",
    "HTTP_USER_AGENT": b"user-agent",
    "HTTP_REFERER": b"referer",
    "HTTP_X_FORWARDED_FOR": b"x-forwarded-for",
}


def get_client() -> Exponea:
    """
    Return the client of the process: for subjects, `bind` and statistics.

    Its coroutines are to be called through `call` or `acall`.

    Raises:
        ImproperlyConfigured: The setting ``EXPONEA`` is invalid.
    """
    return _process().client


def track(event: Event) -> Receipt:
    """
    Track an event of the current subject, from synchronous code. It is durable when the call returns.

    Raises:
        InvalidEventError: The event is invalid. Nothing was recorded.
        StorageError: The storage refused; nothing was recorded.
        LifecycleError: The caller is in the event loop of the client. Await `atrack` there.
    """
    return call(get_client().track_event, event)


async def atrack(event: Event) -> Receipt:
    """Track an event of the current subject, from asynchronous code; otherwise as `track`."""
    return await acall(get_client().track_event, event)


def call(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call a coroutine function of the client or of a subject from synchronous code.

    Args:
        function: The coroutine function, such as ``get_client().identify_customer``.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        Its result; an exception that it raises is raised here.

    Raises:
        LifecycleError: The caller is in the event loop of the client. Await `acall` there.
    """
    process = _process()
    source = bound(process.client)
    if not isinstance(source, _Subject):
        return process.shared.call(function, *args, **kwargs)
    # The functions of the application may use the database, so they are called in this thread.
    with source.bind_found():
        return process.shared.call(function, *args, **kwargs)


async def acall(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a coroutine function of the client or of a subject from asynchronous code; otherwise as `call`."""
    process = _process()
    source = bound(process.client)
    if not isinstance(source, _Subject):
        return await process.shared.acall(function, *args, **kwargs)
    with await source.find_in_thread(source.bind_found):
        return await process.shared.acall(function, *args, **kwargs)


def bind_customer(request: HttpRequest, ids: Mapping[str, str] | str | UUID | None) -> None:
    """
    Make a customer the subject of the rest of a request.

    For customers that become known while the request is handled, where ``CUSTOMER`` does not find them: after a
    sign-in with tokens, for example.

    Args:
        request: The request.
        ids: A mapping such as ``{"registered": "jane@example.com"}``, or the ``registered`` id alone. None changes
            nothing.

    Raises:
        InvalidEventError: The platform would refuse an id.
        ConfigurationError: The request did not pass `ExponeaMiddleware`.
    """
    _subject_of(request).set_customer(ids)


def identify_visitor(request: HttpRequest, properties: Mapping[str, Any] | None = None) -> Receipt:
    """
    Tell the platform that the customer of a request and the visitor that the web SDK has given a cookie are the same.

    The platform merges the two, and that can't be undone. So this is never done automatically, and only for customers
    whom the application has authenticated. Call it after a sign-in.

    Args:
        request: The request.
        properties: Properties of the customer to set.

    Returns:
        The receipt of the update of the customer. Without a cookie it has the customer's ids alone. Without consent it
        is a dropped one.

    Raises:
        InvalidEventError: The application has authenticated nobody, or the properties can't be sent as they are.
            Nothing was recorded.
        ConfigurationError: The request did not pass `ExponeaMiddleware`.
        StorageError: The storage refused; nothing was recorded.
        LifecycleError: The caller is in the event loop of the client. Await `aidentify_visitor` there.
    """
    customer = Customer({}, properties or {})
    return _process().shared.call(_subject_of(request).joined().identify_customer, customer)


async def aidentify_visitor(request: HttpRequest, properties: Mapping[str, Any] | None = None) -> Receipt:
    """Tell the platform so from asynchronous code; otherwise as `identify_visitor`."""
    subject, customer = _subject_of(request), Customer({}, properties or {})
    joined = await subject.find_in_thread(subject.joined)
    return await _process().shared.acall(joined.identify_customer, customer)


def close(timeout: float = CLOSE_TIMEOUT) -> None:
    """
    Close the client of the process, as its ``aclose()`` does. The next use creates one anew, with the present settings.

    For scripts and tests; the end of the process and `ClientLifespan` do so, too. In the event loop of the client the
    function does not wait.

    Args:
        timeout: Maximum duration in seconds; 0 uploads nothing.
    """
    if (process := _PROCESS.get(SETTING)) is not None:
        process.shared.close(timeout)
        _forget_process(process)


async def aclose(timeout: float = CLOSE_TIMEOUT) -> None:  # noqa: ASYNC109 - as the client has it
    """Close the client of the process, from asynchronous code; otherwise as `close`."""
    if (process := _PROCESS.get(SETTING)) is not None:
        await process.shared.aclose(timeout)
        _forget_process(process)


class ExponeaMiddleware:
    """
    Makes the customer of each request the current subject, until its response was sent, streamed content included.

    It belongs after Django's ``AuthenticationMiddleware``, so that the function ``CUSTOMER`` can use ``request.user``.
    That function is called when something is tracked, always in a thread that may use the database.

    Args:
        get_response: The next middleware, or the view.

    Raises:
        ImproperlyConfigured: The setting ``EXPONEA``, or the order of the middleware, is wrong.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        check_order(f"{type(self).__module__}.{type(self).__qualname__}", _process().settings)

    def __call__(self, request: HttpRequest) -> Any:
        """Handle a request; in an asynchronous chain, the result must be awaited."""
        return self._handle_async(request) if self._is_async else self._handle(request)

    def _handle(self, request: HttpRequest) -> Any:
        subject = _new_subject(request)
        with subject.bind():
            response = self.get_response(request)
        return _bind_content(response, subject.bind)

    async def _handle_async(self, request: HttpRequest) -> Any:
        if isinstance(request, ASGIRequest):
            # Under WSGI, the event loop would be that of this one request.
            _process().shared.adopt_loop()
        subject = _new_subject(request)
        with subject.bind():
            response = await self.get_response(request)
        return _bind_content(response, subject.bind)


class ClientLifespan:
    """
    Starts the client before Django's ASGI application serves requests, and closes it at the shutdown of the server.

    In ``asgi.py`` it is ``application = ClientLifespan(get_asgi_application())``. If the server sends no lifespan
    events, or without this class, nothing closes the client: what was not sent stays in the queue, and the next
    start sends it.

    Args:
        app: The ASGI application.
        timeout: How long closing uploads what waits in the queue, in seconds.
    """

    def __init__(self, app: asgi.Application, *, timeout: float = CLOSE_TIMEOUT) -> None:
        self._app = app
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Call the application, or handle the lifespan events, which Django does not handle."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        process = _process()
        await asgi.ClientLifespan(self._app, process.shared, timeout=self._timeout)(scope, receive, send)
        _forget_process(process)


class _Subject(RequestSubject):
    """
    The subject of a request.

    Args:
        rules: How it is found.
        request: The request.
    """

    __slots__ = ()

    def __init__(self, rules: RequestRules, request: HttpRequest) -> None:
        super().__init__(rules, _scope(request), request)

    def bind_found(self) -> AbstractContextManager[None]:
        """Find the subject now, and bind it."""
        return Binding(self._rules.exponea, FixedSource(self.subject(), self.properties()))

    async def find_in_thread(self, find: Callable[[], T]) -> T:
        """Call a function that finds the subject in a thread that may use the database."""
        if self._rules.customer is None and self._rules.consent is None:
            return find()
        return await sync_to_async(find)()


def _new_subject(request: HttpRequest) -> _Subject:
    subject = _Subject(_process().rules, request)
    setattr(request, ATTRIBUTE, subject)
    return subject


def _subject_of(request: HttpRequest) -> _Subject:
    subject = getattr(request, ATTRIBUTE, None)
    if not isinstance(subject, _Subject):
        trouble = "the request did not pass ExponeaMiddleware"
        raise ConfigurationError("request", trouble, "Add it to the setting MIDDLEWARE.")
    return subject


def _scope(request: HttpRequest) -> Scope:
    """Return a request as ASGI has it, as far as it is read."""
    if isinstance(request, ASGIRequest):
        scope: Scope = request.scope
        return scope
    values = request.META
    return {
        "headers": [(name, _encoded(values[key])) for key, name in _HEADERS.items() if key in values],
        "path": request.path,
        "query_string": _encoded(values.get("QUERY_STRING", "")),
        "client": (values["REMOTE_ADDR"], 0) if values.get("REMOTE_ADDR") else None,
    }


def _encoded(value: str) -> bytes:
    """Return the bytes that a server has received."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        # Not from a server: the requests of a test may have headers that WSGI does not have.
        return value.encode(errors="ignore")


def _bind_content(response: Any, bind: Callable[[], AbstractContextManager[None]]) -> Any:
    """Let the content of a streaming response be made with the subject of its request."""
    # Servers send files by themselves, which a wrapper would prevent.
    if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
        bound_parts = _bound_async_parts if response.is_async else _bound_parts
        response.streaming_content = bound_parts(response.streaming_content, bind)
        # Closing the response closes a generator that was not read to its end.
        response.close = _bound_close(response.close, bind)
    return response


def _bound_close(close: Callable[[], None], bind: Callable[[], AbstractContextManager[None]]) -> Callable[[], None]:
    def close_bound() -> None:
        with bind():
            close()

    return close_bound


def _bound_parts(content: Iterator[bytes], bind: Callable[[], AbstractContextManager[None]]) -> Iterator[bytes]:
    while True:
        # For each part alone: between two parts, the thread runs code that is not of this request.
        with bind():
            part = next(content, None)
        if part is None:
            return
        yield part


async def _bound_async_parts(
    content: AsyncIterator[bytes], bind: Callable[[], AbstractContextManager[None]]
) -> AsyncIterator[bytes]:
    while True:
        with bind():
            part = await anext(content, None)
        if part is None:
            return
        yield part


@frozen
class _Process:
    """
    What a process has one of.

    Attributes:
        settings: The setting ``EXPONEA``.
        shared: The client.
        rules: How the subject of a request is found.
    """

    settings: DjangoSettings
    shared: SharedClient
    rules: RequestRules

    @property
    def client(self) -> Exponea:
        return self.shared.exponea


#: That of this process, by the name of its setting; empty until it is used.
_PROCESS: dict[str, _Process] = {}


def _process() -> _Process:
    found = _PROCESS.get(SETTING)
    # Several threads may create one at the same time; all use that of the first.
    return found or _PROCESS.setdefault(SETTING, _new_process())


def _new_process() -> _Process:
    settings = read_settings()
    client = Exponea(settings.configuration, hooks=settings.hooks)
    return _Process(settings, SharedClient(client), settings.rules(client))


def _forget_process(process: _Process) -> None:
    if _PROCESS.get(SETTING) is process:
        _PROCESS.pop(SETTING, None)


def _forget_settings(*, setting: str, **_: Any) -> None:
    # Tests override settings.
    if setting == SETTING:
        close(0)


setting_changed.connect(_forget_settings)
