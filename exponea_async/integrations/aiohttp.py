"""
aiohttp.web: the client of an application, and the subject of each request.

::

    async def page(request: web.Request) -> web.Response:
        await request.config_dict[CLIENT].track_event(Event("page_visit", {"path": request.path}))
        return web.Response(text="Hello")


    def make_app(configuration: Configuration) -> web.Application:
        app = web.Application()
        app.add_routes([web.get("/", page)])
        setup(app, Exponea(configuration), customer=lambda request: request.query.get("user"))
        return app
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import AsyncIterablePayload, Payload
from aiohttp.typedefs import Handler, Middleware

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.errors import ConfigurationError
from exponea_async.integrations._headers import RequestProperties
from exponea_async.integrations._request import ConsentFunction, CustomerFunction, RequestRules, RequestSubject
from exponea_async.models import Receipt

__all__ = ["CLIENT", "RequestProperties", "bind_customer", "identify_visitor", "setup"]

#: The key of the client in an application: ``request.config_dict[CLIENT]``, also in handlers of its subapplications.
CLIENT = web.AppKey("exponea_async", Exponea)
# aiohttp before 3.14 has keys of requests only as strings, of which later versions warn.
_SUBJECT: Any = web.RequestKey("exponea_async", RequestSubject) if hasattr(web, "RequestKey") else "exponea_async"


def setup(
    app: web.Application,
    exponea: Exponea,
    *,
    customer: CustomerFunction | None = None,
    visitor: bool = True,
    consent: ConsentFunction | None = None,
    properties: RequestProperties | None = None,
    timeout: float | None = CLOSE_TIMEOUT,
) -> None:
    """
    Start a client with an application, close it with the application, and bind the subject of each request.

    The subject is bound in the handler, for the life of a WebSocket, and while the body of a response is streamed.
    Subapplications are included.

    Args:
        app: The application.
        exponea: The client, which is `CLIENT` in the application.
        customer: Returns the ids of the customer whom the application has authenticated, from the request: a mapping
            such as ``{"registered": "jane@example.com"}``, or the ``registered`` id alone, or None where nobody is
            authenticated. A plain function is called when something is tracked, until it returns ids. An async function
            is awaited before the handler is called, so a middleware that it needs must be added before.
        visitor: Whether a request without a customer is about the visitor that the web SDK's cookie names.
        consent: Returns whether the visitor may be tracked, from the request. A plain function is called whenever
            something is tracked, an async function as that of `customer`. None tracks everyone.
        properties: What the events of a request carry besides their own properties; by default nothing.
        timeout: How long closing uploads what waits in the queue, in seconds, as for ``aclose()``.

    Raises:
        ConfigurationError: An argument is invalid, or the application has a client already.
    """
    if CLIENT in app:
        trouble = "the application has a client already"
        raise ConfigurationError("app", trouble, "Call setup() once for each application, and pass it all options.")
    rules = RequestRules(
        exponea, customer=customer, visitor=visitor, consent=consent, properties=properties or RequestProperties()
    )

    async def run_client(_: web.Application) -> AsyncIterator[None]:
        await exponea.start()
        try:
            yield
        finally:
            await exponea.aclose(timeout)

    app[CLIENT] = exponea
    app.cleanup_ctx.append(run_client)
    app.middlewares.append(_binding(rules))


def bind_customer(request: web.Request, ids: Mapping[str, str] | str | UUID | None) -> None:
    """
    Make a customer the subject of the rest of a request.

    For customers that become known while the request is handled, for example after a sign-in.

    Args:
        request: The request.
        ids: The ids, as the function ``customer`` returns them. None changes nothing.

    Raises:
        InvalidEventError: The platform would refuse an id.
        ConfigurationError: The application was not set up with `setup`.
    """
    _subject_of(request).set_customer(ids)


async def identify_visitor(request: web.Request, properties: Mapping[str, Any] | None = None) -> Receipt:
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
        ConfigurationError: The application was not set up with `setup`.
        StorageError: The storage refused; nothing was recorded.
        LifecycleError: The client was not started, or is closed.
    """
    return await _subject_of(request).identify(properties or {})


def _binding(rules: RequestRules) -> Middleware:
    @web.middleware
    async def bind_subject(request: web.Request, handler: Handler) -> web.StreamResponse:
        subject = request[_SUBJECT] = await rules.subject_of(_scope(request), request)
        with subject.bind():
            response = await handler(request)
        # aiohttp writes such a body after the middleware has returned.
        if isinstance(response, web.Response) and isinstance(response.body, AsyncIterablePayload):
            response.body = _BoundBody(response.body, subject.bind)
        return response

    return bind_subject


def _scope(request: web.Request) -> dict[str, Any]:
    """Return a request as ASGI has it, as far as it is read."""
    return {
        "headers": request.raw_headers,
        "path": request.path,
        "query_string": request.rel_url.raw_query_string.encode(errors="surrogateescape"),
        "client": (request.remote, 0) if request.remote else None,
    }


def _subject_of(request: web.Request) -> RequestSubject:
    subject = request.get(_SUBJECT)
    if not isinstance(subject, RequestSubject):
        trouble = "the application has no client"
        raise ConfigurationError("request", trouble, "Call setup(app, exponea) where the application is made.")
    return subject


class _BoundBody(Payload):
    """
    A body that is made with the subject of its request.

    Args:
        body: The body.
        bind: Binds the subject.
    """

    _autoclose = True

    def __init__(self, body: Payload, bind: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(body, content_type=body.content_type)
        self._body = body
        self._bind = bind

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse, as a body that can be read only once does."""
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body up to a length."""
        with self._bind():
            await self._body.write_with_length(writer, content_length)
