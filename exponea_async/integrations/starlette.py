"""
The lifespan of a client in Starlette, beside that of the application.

::

    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    app = Starlette(
        lifespan=client_lifespan(exponea),
        middleware=[Middleware(ExponeaMiddleware, exponea=exponea)],
    )
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.errors import ConfigurationError
from exponea_async.integrations._request import KEY
from exponea_async.integrations.asgi import ExponeaMiddleware, RequestProperties, bind_customer, identify_visitor

__all__ = [
    "ExponeaMiddleware",
    "RequestProperties",
    "bind_customer",
    "client_lifespan",
    "get_exponea",
    "identify_visitor",
]

AppType = TypeVar("AppType", bound=Starlette)
#: A lifespan of an application, which may yield a mapping: the state of its requests.
Lifespan = Callable[[AppType], AbstractAsyncContextManager[Any]]


def client_lifespan(
    exponea: Exponea, lifespan: Lifespan[AppType] | None = None, *, timeout: float | None = CLOSE_TIMEOUT
) -> Lifespan[AppType]:
    """
    Return a lifespan that starts a client before that of the application, and closes it afterwards.

    Args:
        exponea: The client.
        lifespan: The application's own lifespan; its state is passed on.
        timeout: How long closing uploads what waits in the queue, in seconds, as for ``aclose()``.
    """

    @asynccontextmanager
    async def run(app: AppType) -> AsyncIterator[Any]:
        await exponea.start()
        try:
            if lifespan is None:
                yield None
            else:
                async with lifespan(app) as state:
                    yield state
        finally:
            await exponea.aclose(timeout)

    return run


async def get_exponea(connection: HTTPConnection) -> Exponea:
    """
    Return the client whose middleware the request has passed, the innermost one of several.

    Raises:
        ConfigurationError: The request did not pass `ExponeaMiddleware`.
    """
    clients = list(connection.scope.get(KEY, {}))
    if not clients:
        trouble = "the request did not pass the middleware"
        raise ConfigurationError("scope", trouble, "Add ExponeaMiddleware to the application.")
    found: Exponea = clients[-1]
    return found
