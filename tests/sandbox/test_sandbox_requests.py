"""
The raw requests and responses that the sandbox keeps, over real HTTP.
"""

import asyncio
import gzip
import io
import json
from typing import Any

import aiohttp
import pytest
from helpers.environment import SetConstants
from helpers.sandbox_client import SandboxClient
from helpers.sandbox_page import Page, event
from helpers.waiting import until

from exponea_async.sandbox import Fault, Sandbox, exchanges

SECRET = "hidden-key"
EVENT = event({"cookie": "c"})["data"]
EVENTS = "/customers/events"


@pytest.fixture
def page(sandbox: Sandbox, session: aiohttp.ClientSession) -> Page:
    return Page(session, sandbox.url)


@pytest.fixture
def api(sandbox: Sandbox, session: aiohttp.ClientSession) -> SandboxClient:
    return SandboxClient(session, sandbox.url, f"Token {SECRET}")


async def latest(page: Page) -> dict[str, Any]:
    """Return the details of the latest request."""
    (found,) = (await page.get("requests?limit=1"))["requests"]
    details: dict[str, Any] = await page.get(f"requests/{found['id']}")
    assert {name: details[name] for name in found if name != "query"} == {
        name: value for name, value in found.items() if name not in ("query", "body")
    } | {"body": details["body"]}
    return details


class TestDetails:
    async def test_request_and_response(self, page: Page, api: SandboxClient) -> None:
        """A request has its headers and body, and those of the response."""
        response = await api.track(f"{EVENTS}?a=1", EVENT, headers={"X-Team": "shop"})

        details = await latest(page)

        assert (details["method"], details["status"], details["query"]) == ("POST", 200, "a=1")
        assert (details["project"], details["commands"], details["fault"]) == ("shop", 1, None)
        assert json.loads(details["body"]) == EVENT
        assert ["X-Team", "shop"] in details["headers"]
        assert json.loads(details["response"]) == response.body
        assert dict(details["response_headers"])["Content-Type"] == "application/json"

    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [
            ("Authorization", f"Token {SECRET}", "Token ***"),
            ("Authorization", f"bearer {SECRET}", "Bearer ***"),
            ("Authorization", SECRET, "***"),
            ("Cookie", f"session={SECRET}", "***"),
            ("X-Api-Key", SECRET, "***"),
            ("Referer", f"http://shop.example/a?token={SECRET}&b=1", "http://shop.example/a?token=%2A%2A%2A&b=1"),
            ("Referer", "http://shop.example/a?q=%20x", "http://shop.example/a?q=%20x"),
            ("X-Customer-Token", SECRET, "***"),
            ("Proxy-Authorization", f"Basic {SECRET}", "Basic ***"),
        ],
    )
    async def test_credentials_in_headers(
        self, page: Page, api: SandboxClient, name: str, value: str, shown: str
    ) -> None:
        """A credential in a header is never kept, whether the request succeeds or not."""
        await api.track(EVENTS, EVENT, headers={name: value})

        details = await latest(page)

        assert [name, shown] in details["headers"]
        assert SECRET not in json.dumps(details)

    async def test_credentials_in_queries(self, page: Page, api: SandboxClient) -> None:
        """A credential in a query is never kept; the cookie of a customer is not one."""
        await api.request("GET", f"/webxp/projects/shop/segments?cookie=c1&access_token={SECRET}&key={SECRET}")

        details = await latest(page)

        assert details["query"] == "cookie=c1&access_token=%2A%2A%2A&key=%2A%2A%2A"
        assert SECRET not in json.dumps([details, await page.get("requests")])

    async def test_compressed_bodies(self, page: Page, api: SandboxClient) -> None:
        """A compressed body is shown decompressed."""
        body = gzip.compress(json.dumps(EVENT).encode())
        await api.track(EVENTS, data=body, headers={"Content-Encoding": "gzip"})

        details = await latest(page)

        assert json.loads(details["body"]) == EVENT
        assert (details["bytes"], details["body_truncated"]) == (len(body), False)

    @pytest.mark.parametrize(
        ("body", "headers", "is_cut"),
        [
            (gzip.compress(b" " * 9_000_000), {"Content-Encoding": "gzip"}, True),
            (b" " * 1_100_000, {}, True),
            (b"\x1f\x8bno gzip", {"Content-Encoding": "gzip"}, False),
            (b"\xff\xfe\x00", {}, False),
        ],
        ids=["bomb", "large", "damaged", "binary"],
    )
    async def test_odd_bodies(
        self, page: Page, api: SandboxClient, body: bytes, headers: dict[str, str], *, is_cut: bool
    ) -> None:
        """A large body is cut, and one that can't be decoded is shown as far as possible."""
        await api.track(EVENTS, data=io.BytesIO(body), headers=headers)

        details = await latest(page)

        assert details["status"] == 400
        assert len(details["body"]) <= exchanges.MAX_BODY_BYTES
        assert details["body_truncated"] is is_cut

    async def test_bytes_that_are_not_text(self, page: Page, sandbox: Sandbox) -> None:
        """Headers and paths that are not UTF-8 can be shown."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
        head = b"GET /track/v2/projects/%ff%ed%a0%80/system/time?a=%ff HTTP/1.1\r\nHost: localhost\r\nX-Odd: a\xffb\r\n"
        writer.write(head + b"Connection: close\r\n\r\n")
        await writer.drain()
        await asyncio.wait_for(reader.read(), 60)
        writer.close()

        details = await latest(page)

        assert dict(details["headers"])["X-Odd"] == "a?b"
        assert details["status"] == 401

    @pytest.mark.parametrize(
        "expected",
        [
            (Fault("status", status=503), 503, '"success":false'),
            (Fault("drop"), 0, ""),
            (Fault("drop_after"), 0, '"success":true'),
            (Fault("latency", seconds=0.001), 200, '"success":true'),
        ],
    )
    async def test_faults(
        self, page: Page, api: SandboxClient, sandbox: Sandbox, expected: tuple[Fault, int, str]
    ) -> None:
        """A request that met a fault says so; its body is kept although it may not have been processed."""
        fault, status, response = expected
        sandbox.faults.add(fault)
        try:
            await api.track(EVENTS, EVENT)
        except aiohttp.ClientConnectionError:
            assert status == 0
        sandbox.faults.clear()

        details = await latest(page)

        assert (details["status"], details["fault"]) == (status, fault.kind)
        assert json.loads(details["body"]) == EVENT
        assert response in details["response"]
        assert bool(response) == bool(details["response"])


class TestList:
    async def test_pages_and_filters(self, page: Page, api: SandboxClient) -> None:
        """Requests are listed newest first, by status and project, in pages."""
        for number in range(5):
            await api.track(EVENTS, EVENT if number % 2 else {})
        await SandboxClient(page.session, page.url, project="blog").track(EVENTS, EVENT)

        first = await page.get("requests?limit=2")
        second = await page.get(f"requests?limit=3&before={first['next']}")
        third = await page.get(f"requests?before={second['next']}")

        assert [[each["id"] for each in found["requests"]] for found in (first, second, third)] == [
            [6, 5],
            [4, 3, 2],
            [1],
        ]
        assert third["next"] is None
        assert [each["id"] for each in (await page.get("requests?status=400"))["requests"]] == [5, 3, 1]
        assert [each["id"] for each in (await page.get("requests?project=blog"))["requests"]] == [6]
        assert [each["id"] for each in (await page.get("requests?limit=1&offset=2"))["requests"]] == [4]
        assert (await page.get("requests?before=77"))["requests"] == []

    async def test_the_limit(self, session: aiohttp.ClientSession) -> None:
        """The oldest requests are forgotten when their bodies take too much memory."""
        async with Sandbox(max_bytes=400_000) as sandbox:
            page, api = Page(session, sandbox.url), SandboxClient(session, sandbox.url)
            for _ in range(10):
                await api.track(EVENTS, {**EVENT, "properties": {"text": "x" * 15_000}})

            listed = await page.get("requests")

            assert listed["forgotten"] == 10 - listed["total"] > 3
            await page.get("requests/1", 404)
            assert sandbox.request_count == len(sandbox.requests) == 10

    async def test_the_number_of_requests(self, session: aiohttp.ClientSession, set_constants: SetConstants) -> None:
        """A limited number of requests is kept."""
        set_constants(exchanges, MAX_REQUESTS=3)
        async with Sandbox() as sandbox:
            page, api = Page(session, sandbox.url), SandboxClient(session, sandbox.url)
            for _ in range(5):
                await api.track(EVENTS, EVENT)

            assert [each["id"] for each in (await page.get("requests"))["requests"]] == [5, 4, 3]

    async def test_requests_that_end_in_another_order(self, page: Page, api: SandboxClient, sandbox: Sandbox) -> None:
        """Requests are numbered by their arrival and listed by their end; running ones are not listed."""
        sandbox.faults.add(Fault("latency", seconds=60, times=1))
        slow = asyncio.create_task(api.track(EVENTS, EVENT))
        await until(lambda: sandbox.request_count >= 1)
        await api.track(EVENTS, EVENT)
        assert [each["id"] for each in (await page.get("requests"))["requests"]] == [2]
        await page.get("requests/1", 404)

        await sandbox.aclose()
        await asyncio.wait([slow])
        assert isinstance(slow.exception(), aiohttp.ClientConnectionError)
        await sandbox.start()

        assert [(each["id"], each["status"]) for each in (await page.get("requests"))["requests"]] == [(1, 0), (2, 200)]
        assert [(await page.get(f"requests/{number}"))["id"] for number in (1, 2)] == [1, 2]
        assert [each["id"] for each in (await page.get("requests?before=1"))["requests"]] == [2]

    async def test_bodies_at_the_limit_of_depth(self, page: Page, api: SandboxClient) -> None:
        """A body that nests as deep as the encoder allows does not make the list fail."""
        for depth in range(248, 258):
            await api.request("POST", "/webxp/s/shop/inappmessages", data=b"[" * depth + b"]" * depth)

        listed = await page.get("requests")

        assert len(listed["requests"]) == 10
