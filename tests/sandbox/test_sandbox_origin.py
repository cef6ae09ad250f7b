"""
Which web pages the sandbox responds to, over real HTTP.
"""

from typing import Any

import aiohttp
import pytest

from exponea_async.sandbox import Fault, Sandbox

ROUTES = [
    ("GET", "/"),
    ("GET", "/sandbox/log"),
    ("GET", "/sandbox/log/1"),
    ("GET", "/sandbox/stream"),
    ("GET", "/sandbox/requests/1"),
    ("GET", "/sandbox/customers"),
    ("GET", "/sandbox/summary"),
    ("POST", "/sandbox/reset"),
    ("POST", "/sandbox/faults"),
    ("DELETE", "/sandbox/faults"),
    ("DELETE", "/sandbox/faults/1"),
    ("PUT", "/sandbox/messages"),
    ("DELETE", "/sandbox/messages"),
    ("OPTIONS", "/sandbox/faults"),
    ("POST", "/track/v2/projects/shop/batch"),
    ("GET", "/webxp/projects/shop/segments?cookie=c"),
    ("GET", "/nowhere"),
]


@pytest.fixture
async def full(sandbox: Sandbox) -> Sandbox:
    sandbox.faults.add(Fault("latency", path="/nothing"))
    sandbox.engine.execute("shop", "customers/events", {"customer_ids": {"cookie": "c"}, "event_type": "ping"})
    sandbox.messages.inbox.put({"id": "i", "type": "push", "content": {}})
    return sandbox


async def status(session: aiohttp.ClientSession, method: str, url: str, headers: dict[str, str]) -> int:
    """Return the status of a request; the stream is not read."""
    body: dict[str, Any] = {} if method in ("GET", "OPTIONS") else {"json": {}}
    async with session.request(method, url, headers=headers, **body) as response:
        return response.status


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
async def test_other_origins(
    full: Sandbox, session: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str]
) -> None:
    """A request of a web page of another origin is a 403 on every route, and changes nothing."""
    assert await status(session, method, full.url + path, {"Authorization": "Token k", **headers}) == 403

    assert len(full.engine.events()) == len(full.faults.active) == len(full.messages.as_dict()["inbox"]) == 1
    assert full.request_count == 0


@pytest.mark.parametrize("path", ["/sandbox/summary", "/sandbox/stream", "/sandbox/log"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_its_own_origin(full: Sandbox, session: aiohttp.ClientSession, host: str, path: str) -> None:
    """A page of the sandbox itself may read everything, by each name of the host."""
    origin = full.url.replace("127.0.0.1", host)
    headers = {"Origin": origin, "Host": origin.removeprefix("http://"), "Sec-Fetch-Site": "same-origin"}

    assert await status(session, "GET", full.url + path, headers) == 200


async def test_two_names_are_two_origins(full: Sandbox, session: aiohttp.ClientSession) -> None:
    """A page that was opened by another name of the host is another origin."""
    headers = {"Origin": full.url.replace("127.0.0.1", "localhost")}
    assert await status(session, "GET", f"{full.url}/sandbox/summary", headers) == 403


async def test_links_from_other_pages(full: Sandbox, session: aiohttp.ClientSession) -> None:
    """A link on another page may lead to the sandbox."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert await status(session, "GET", f"{full.url}/sandbox/summary", headers) == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "faults"), ("POST", "reset"), ("POST", "messages"), ("PUT", "messages")],
)
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_content_types(
    full: Sandbox, session: aiohttp.ClientSession, method: str, path: str, content_type: str
) -> None:
    """A change whose content type a page can send without a preflight is a 415, and changes nothing."""
    headers = {"Content-Type": content_type}
    async with session.request(method, f"{full.url}/sandbox/{path}", data=b"{}", headers=headers) as response:
        assert response.status == 415

    assert len(full.engine.events()) == len(full.faults.active) == len(full.messages.as_dict()["inbox"]) == 1
