"""
A sandbox in a thread, for tests that are not coroutines, and the settings of clients that send to it.
"""

import asyncio
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from attrs import evolve

from exponea_async.config import Configuration, UploadSettings
from exponea_async.sandbox import Sandbox

#: Hardly any waits, and no linger: where freezegun stops the time of the event loop, a linger never ends.
QUICK = UploadSettings(backoff_initial=0.01, backoff_max=0.05, linger=0.0, linger_max=0.0, requests_per_second=100_000)
#: The sandbox accepts every project and every key.
PROJECT = KEY = "test"


class SandboxThread:
    """
    Runs a sandbox in an event loop of its own, in a thread of its own; a context manager.

    For tests that are not coroutines, and for those whose event loop ends before the sandbox::

        with SandboxThread() as sandbox:
            print(sandbox.url.rpartition(":")[0])  # http://127.0.0.1

    Args:
        sandbox: The sandbox, not started yet; None for a new one.
    """

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = Sandbox() if sandbox is None else sandbox
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Sandbox:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="exponea_async sandbox", daemon=True)
        self._thread.start()
        try:
            self._loop = started.result()
        except BaseException:
            self._thread.join()
            raise
        return self._sandbox

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop = self._thread = None

    def _run(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(self._sandbox.start())
            except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
                started.set_exception(error)
                return
            loop = runner.get_loop()
            started.set_result(loop)
            loop.run_forever()
            runner.run(self._sandbox.aclose())


def sandbox_configuration(sandbox: Sandbox, **settings: Any) -> Configuration:
    """
    Return settings for tests: a client that sends to a sandbox, keeps its queue in memory, and uploads on demand only.

    Its waits are short.

    Args:
        sandbox: The sandbox, started.
        settings: Fields of `Configuration` that differ.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    usual = Configuration(
        project_token=PROJECT,
        authorization_token=KEY,
        base_url=sandbox.url,
        storage="memory:",
        flush_mode="MANUAL",
        upload=QUICK,
    )
    return evolve(usual, **settings) if settings else usual
