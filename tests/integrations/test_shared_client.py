"""
The client that synchronous and asynchronous code of a process share.
"""

import asyncio
import threading
import time

import pytest

from exponea_async import Configuration, Exponea
from exponea_async.integrations._shared_client import SharedClient


def test_the_event_loop_ends_while_the_client_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """A close does not wait for an event loop that ends at that moment; the log says so."""
    client = Exponea(Configuration(project_token="shop", authorization_token="key", storage="memory:"))
    shared = SharedClient(client)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(shared.start(), loop).result(30)
    is_ending = threading.Event()

    def end() -> None:
        loop.stop()
        is_ending.set()
        # What is scheduled from now on never begins.
        time.sleep(0.3)

    loop.call_soon_threadsafe(end)
    assert is_ending.wait(60)
    shared.close()
    thread.join(60)

    assert "The event loop of the server ended before the client was closed" in caplog.text
    # Closed in the end, so that nothing is left open.
    loop.run_until_complete(client.aclose(0))
    loop.close()
