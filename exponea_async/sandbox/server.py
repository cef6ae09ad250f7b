"""
The web server of the sandbox on 127.0.0.1.
"""

from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from exponea_async.sandbox.access import AccessControl
from exponea_async.sandbox.control import ControlApi
from exponea_async.sandbox.customer_routes import CustomerApi
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.exchanges import Exchanges
from exponea_async.sandbox.fault_routes import FaultApi
from exponea_async.sandbox.faults import Faults
from exponea_async.sandbox.http import MAX_BODY_BYTES
from exponea_async.sandbox.journal import MAX_BYTES, MAX_ENTRIES
from exponea_async.sandbox.log_routes import LogApi
from exponea_async.sandbox.messages.definitions import Definitions, Source
from exponea_async.sandbox.messages.inbox import InboxSync
from exponea_async.sandbox.messages.routes import MessagesApi
from exponea_async.sandbox.models import Project, RequestLog
from exponea_async.sandbox.preview import Preview
from exponea_async.sandbox.static import PageFiles
from exponea_async.sandbox.stream import StreamApi
from exponea_async.sandbox.tracking import TrackingApi
from exponea_async.sandbox.traffic import Traffic

HOST = "127.0.0.1"
# Delayed requests are dropped first; this is the time for the others to send their response.
SHUTDOWN_SECONDS = 0.2


class Sandbox:
    """
    A local server with the API of the Engagement platform; an async context manager.

    It can be started again after `aclose`, on the same port and with the same data, as after an outage.

    Args:
        port: The port on 127.0.0.1; 0 selects a free one.
        projects: The projects that exist. If there are none, every project exists and accepts every credential.
        rate_limit: The number of requests per second, beyond which the response is 429; no limit where None.
        seed: The seed for everything random: the order within a batch, and faults with a probability.
        definitions: The initial definitions of messages: the path of a JSON or TOML file, or a mapping.
        hard_ids_only: Whether the inbox of a customer without a hard id is always empty.
        max_entries: The number of commands that are kept for inspection. The oldest are forgotten, and the events of
            these with them; customers stay, and counts include what was forgotten.
        max_bytes: The memory that these commands may take, about, in bytes. Requests and their responses may take a
            quarter of it in addition.

    Attributes:
        engine: The stored customers and events.
        faults: The active faults.
        messages: The definitions of in-app messages, content blocks, inbox messages and so on.
        sync: The sync tokens of the inboxes.

    Raises:
        DefinitionError: The definitions can't be read, or are invalid.
        ValueError: ``rate_limit``, ``max_entries`` or ``max_bytes`` is less than 1.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        projects: Iterable[Project] = (),
        rate_limit: int | None = None,
        seed: int = 0,
        definitions: Source | None = None,
        hard_ids_only: bool = False,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.engine = Engine(seed=seed, max_entries=max_entries, max_bytes=max_bytes)
        self.faults = Faults(seed)
        self._exchanges = Exchanges(max_bytes // 4)
        self._traffic = Traffic(self.faults, rate_limit, self._exchanges, self._count)
        self.messages = Definitions()
        self.messages.load(definitions or {})
        self._initial_definitions = self.messages.as_dict()
        self.sync = InboxSync(self.engine, hard_ids_only=hard_ids_only)
        access = AccessControl(projects)
        self._tracking = TrackingApi(self.engine, access, self.faults)
        self._messages = MessagesApi(self.engine, access, self.messages, self.sync)
        self._control = ControlApi(self.engine, self.messages, self._traffic, self.reset)
        self._inspection = (
            FaultApi(self.faults),
            LogApi(self.engine, self._exchanges),
            CustomerApi(self.engine),
        )
        self._stream = StreamApi(self.engine, self._exchanges)
        self._files = PageFiles()
        self._port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """
        The base URL, such as ``http://127.0.0.1:54321``.

        Raises:
            RuntimeError: The port was not chosen yet, since the sandbox was never started.
        """
        if self._port == 0:
            raise RuntimeError("The sandbox has no URL before start().")
        return f"http://{HOST}:{self._port}"

    @property
    def requests(self) -> deque[RequestLog]:
        """The latest 1,000 requests of SDKs, oldest first; those to the control routes are not included."""
        return self._traffic.requests

    @property
    def request_count(self) -> int:
        """The number of requests of SDKs."""
        return self._traffic.request_count

    async def start(self) -> None:
        """
        Start the server; do nothing if it is running.

        Raises:
            OSError: The port is in use.
        """
        if self._runner is not None:
            return
        self._traffic.open()
        self._stream.open()
        runner = web.AppRunner(self._app(), access_log=None, auto_decompress=False, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner

    async def aclose(self) -> None:
        """Stop the server and drop the connections of running requests; do nothing if it is not running."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._traffic.close()
        self._stream.close()
        await runner.cleanup()

    def reset(self) -> None:
        """Delete all data, the request log and all faults, and restore the initial definitions."""
        self.engine.reset()
        self.faults.clear()
        self._traffic.reset()
        self.sync.reset()
        self.messages.clear()
        self.messages.load(self._initial_definitions)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._traffic.middleware], client_max_size=MAX_BODY_BYTES)
        app.add_routes(self._tracking.routes())
        app.add_routes(self._messages.routes())
        app.add_routes(self._control.routes())
        app.add_routes(self._stream.routes())
        app.add_routes(Preview(self.engine, self.messages).routes())
        app.add_routes(self._files.routes())
        for api in self._inspection:
            app.add_routes(api.routes())
        return app

    def _count(self, at: float, project: str, name: Literal["limited", "failed"]) -> None:
        self.engine.journal.timeline.count(at, project, name)
