"""
The client in FastAPI: its lifespan, and dependencies.

::

    from fastapi import FastAPI

    app = FastAPI(lifespan=client_lifespan(exponea))
    app.add_middleware(ExponeaMiddleware, exponea=exponea)

    @app.post("/orders")
    async def order(exponea: ExponeaClient) -> None:
        await exponea.track_event(Event("purchase"))
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends
from fastapi.requests import HTTPConnection

from exponea_async.client import Exponea
from exponea_async.integrations._request import Ids
from exponea_async.integrations.asgi import ExponeaMiddleware, RequestProperties, bind_customer, identify_visitor
from exponea_async.integrations.starlette import client_lifespan, get_exponea

__all__ = [
    "ExponeaClient",
    "ExponeaMiddleware",
    "RequestProperties",
    "bind_customer",
    "client_lifespan",
    "customer_from",
    "get_exponea",
    "identify_visitor",
]

#: The type of a parameter that gets the client: ``exponea: ExponeaClient``.
ExponeaClient = Annotated[Exponea, Depends(get_exponea)]


def customer_from(
    dependency: Callable[..., Any], ids: Callable[[Any], Ids]
) -> Callable[..., Coroutine[Any, Any, None]]:
    """
    Return a dependency that makes the customer the subject of the request whom another dependency has authenticated.

    ::

        from fastapi import APIRouter

        async def current_user() -> str:
            return "jane@example.com"

        router = APIRouter(dependencies=[Depends(customer_from(current_user, lambda user: user))])

    It holds for the rest of the request: while the response is streamed, and in background tasks, too. FastAPI calls
    the other dependency once for each request, however many depend on it.

    Args:
        dependency: The dependency that authenticates, such as ``current_user``.
        ids: Returns the ids of the customer from what the dependency returns, as the function ``customer`` of
            `ExponeaMiddleware` does; None where nobody is authenticated.
    """

    async def bind(
        connection: HTTPConnection,
        user: Any = Depends(dependency),  # noqa: B008 - how FastAPI declares it
    ) -> None:
        bind_customer(await get_exponea(connection), connection.scope, ids(user))

    return bind
