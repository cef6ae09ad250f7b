"""
The first steps of the manual: an application whose events are in the sandbox.
"""

from pathlib import Path

import aiohttp
from helpers.app_server import ROOT, app_server
from helpers.waiting import until

from exponea_async.sandbox import Sandbox


async def test_the_first_application(sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """The application takes its settings from the environment, and an order arrives as its customer's."""
    command = ("uvicorn", "--factory", "--app-dir", str(ROOT / "examples"), "first_app:create_app", "--port", "0")
    environment = {
        "EXPONEA_PROJECT_TOKEN": "shop",
        "EXPONEA_AUTHORIZATION_TOKEN": "key",
        "EXPONEA_BASE_URL": sandbox.url,
    }
    async with app_server(tmp_path, *command, env=environment) as server:
        async with session.post(f"{server.url}/orders") as response:
            assert (response.status, await response.json()) == (200, {"ordered": True})
        await until(lambda: bool(sandbox.engine.events()))
        exit_code = await server.stop()

    (purchase,) = sandbox.engine.events()
    assert (purchase.event_type, dict(purchase.customer_ids)) == ("purchase", {"registered": "jane@example.com"})
    assert exit_code in (0, -15)
    assert "was never closed" not in server.log.read_text()
