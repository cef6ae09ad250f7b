"""
A plugin for Litestar: the lifespan of a client, the middleware, and the client as a dependency.

::

    from litestar import Litestar, post

    @post("/orders")
    async def order(exponea: ExponeaClient) -> None:
        await exponea.track_event(Event("purchase"))

    app = Litestar(route_handlers=[order], plugins=[ExponeaPlugin(exponea)])
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from litestar import Litestar, di
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.plugins import InitPluginProtocol

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.errors import ConfigurationError
from exponea_async.integrations._request import ConsentFunction, CustomerFunction, RequestRules
from exponea_async.integrations.asgi import ExponeaMiddleware, RequestProperties, bind_customer, identify_visitor

__all__ = ["ExponeaClient", "ExponeaPlugin", "RequestProperties", "bind_customer", "identify_visitor"]


#: Litestar has an annotation of its own for dependencies since 2.23; before that any annotation will do.
_DEPENDENCY: Any = getattr(getattr(di, "NamedDependency", None), "__metadata__", ("a dependency",))[0]
#: The type of a parameter that gets the client: ``exponea: ExponeaClient``.
ExponeaClient = Annotated[Exponea, _DEPENDENCY]


class ExponeaPlugin(InitPluginProtocol):
    """
    Starts a client before a Litestar application and closes it afterwards, and binds the subject of each request.

    Handlers that have a parameter ``exponea: ExponeaClient`` get the client.

    Args:
        exponea: The client.
        customer: As for `ExponeaMiddleware`.
        visitor: As for `ExponeaMiddleware`.
        consent: As for `ExponeaMiddleware`.
        properties: As for `ExponeaMiddleware`.
        dependency: The name of the parameter of handlers that get the client.
        timeout: How long closing uploads what waits in the queue, in seconds, as for ``aclose()``.

    Raises:
        ConfigurationError: An argument is invalid.
    """

    def __init__(
        self,
        exponea: Exponea,
        *,
        customer: CustomerFunction | None = None,
        visitor: bool = True,
        consent: ConsentFunction | None = None,
        properties: RequestProperties | None = None,
        dependency: str = "exponea",
        timeout: float | None = CLOSE_TIMEOUT,
    ) -> None:
        self._exponea = exponea
        self._options = {"customer": customer, "visitor": visitor, "consent": consent, "properties": properties}
        self._dependency = dependency
        self._timeout = timeout
        # Checked here, and not only where the application is made.
        RequestRules(exponea, customer=customer, visitor=visitor, consent=consent)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, the lifespan and the dependency to an application."""
        # Before the application's own middleware, so that what that tracks has a subject, too.
        app_config.middleware.insert(0, DefineMiddleware(ExponeaMiddleware, exponea=self._exponea, **self._options))
        # First and last, so that all others of the application may track when they begin and end. What is to be done at
        # shutdown is done after all lifespans have ended.
        app_config.lifespan.insert(0, self._lifespan)
        app_config.on_shutdown.append(self._close)
        if self._dependency in app_config.dependencies:
            trouble = f"the application has a dependency {self._dependency!r} already"
            raise ConfigurationError("dependency", trouble, "Use another name: ExponeaPlugin(exponea, dependency=...).")
        app_config.dependencies[self._dependency] = Provide(self._provide, sync_to_thread=False)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        await self._exponea.start()
        yield

    async def _close(self) -> None:
        await self._exponea.aclose(self._timeout)

    def _provide(self) -> Exponea:
        return self._exponea
