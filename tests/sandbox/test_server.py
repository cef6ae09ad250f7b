"""
The server of the sandbox, over real HTTP.
"""

import asyncio
import gzip
import io
import json
import time
from base64 import b64encode
from typing import Any

import aiohttp
import pytest
from attrs import evolve
from helpers.sandbox_client import SandboxClient
from helpers.waiting import until

from exponea_async.sandbox import Fault, Project, Sandbox

EVENT = {"customer_ids": {"cookie": "c"}, "event_type": "ping", "timestamp": 1.0, "properties": {}}
EVENTS = "/customers/events"
DROPPED = aiohttp.ClientConnectionError


@pytest.fixture
def api(sandbox: Sandbox, session: aiohttp.ClientSession) -> SandboxClient:
    return SandboxClient(session, sandbox.url)


class TestTracking:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (EVENTS, EVENT),
            ("/customers", {"customer_ids": {"registered": "r"}, "properties": {"a": 1}}),
            ("/campaigns/clicks", {"url": "https://x.example/?utm_source=a", "properties": {}}),
        ],
    )
    async def test_single_commands(self, api: SandboxClient, path: str, body: dict[str, Any]) -> None:
        """Each route for a single command has the response of the platform."""
        response = await api.track(path, body)

        assert (response.status, response.body) == (200, {"success": True, "errors": []})
        assert response.headers["Content-Type"].startswith("application/json")

    async def test_an_invalid_single_command(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A rejected single command is a 400 with its errors."""
        response = await api.track(EVENTS, {**EVENT, "customer_ids": {}})

        assert (response.status, response.body["success"]) == (400, False)
        assert response.body["errors"] == ["At least one id should be specified."]
        assert sandbox.engine.rejected_count == 1

    async def test_a_batch(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A batch succeeds as a whole, with a result for each command."""
        commands = [
            {"name": "customers/events", "command_id": "a", "data": EVENT},
            {"name": "customers/events", "command_id": "b", "data": {}},
            {"name": "system/time"},
        ]

        response = await api.track("/batch", {"commands": commands})

        assert (response.status, response.body["success"]) == (200, True)
        assert response.body["start_time"] <= response.body["end_time"]
        assert [result["success"] for result in response.body["results"]] == [True, False, True]
        assert [result.get("command_id") for result in response.body["results"]] == ["a", "b", None]
        assert sandbox.requests[-1].commands == 3

    @pytest.mark.parametrize("body", [{}, {"commands": []}, {"commands": {}}, {"commands": [{}] * 51}])
    async def test_an_invalid_batch(self, api: SandboxClient, body: dict[str, Any]) -> None:
        """A batch without commands, or with more than 50, is a 400 with one message."""
        response = await api.track("/batch", body)

        assert (response.status, response.body["success"]) == (400, False)
        assert isinstance(response.body["message"], str)

    async def test_the_time(self, api: SandboxClient) -> None:
        """The server returns its time in seconds."""
        response = await api.track("/system/time", method="GET")

        assert response.body["success"] is True
        assert abs(response.body["time"] - time.time()) < 5

    @pytest.mark.parametrize(
        ("path", "method", "status"),
        [("/nowhere", "POST", 404), (EVENTS, "GET", 405), ("/system/time", "POST", 405), (EVENTS, "OPTIONS", 405)],
    )
    async def test_unknown_routes(self, api: SandboxClient, path: str, method: str, status: int) -> None:
        """Unknown routes and methods are rejected in the platform's format of errors."""
        response = await api.track(path, method=method)

        assert (response.status, response.body["success"]) == (status, False)
        assert ("Allow" in response.headers) == (status == 405)


class TestBodies:
    @pytest.mark.parametrize("path", [EVENTS, "/batch"])
    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"timestamp": NaN}', b'{"a": -Infinity}', b"\xff"])
    async def test_invalid_bodies(self, api: SandboxClient, path: str, body: bytes) -> None:
        """A body that is not a strict JSON object is a 400."""
        response = await api.track(path, data=body)

        assert (response.status, response.body["success"]) == (400, False)
        assert ("message" in response.body) == (path == "/batch")

    async def test_compressed_bodies(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A gzip body is decompressed; the log has its compressed size."""
        body = gzip.compress(json.dumps(EVENT).encode())

        response = await api.track(EVENTS, data=body, headers={"Content-Encoding": "gzip"})

        assert response.status == 200
        assert len(sandbox.engine.events("shop")) == 1
        assert sandbox.requests[-1].size == len(body)

    @pytest.mark.parametrize(
        ("encoding", "body", "status"),
        [
            ("gzip", b"not gzip", 400),
            ("gzip", gzip.compress(b"{}")[:-4], 400),
            ("gzip", gzip.compress(b"{}") + b"more", 400),
            ("gzip", gzip.compress(b" " * 11_000_000), 413),
            ("identity", b" " * 11_000_000, 413),
            ("br", b"{}", 415),
        ],
        ids=["invalid", "truncated", "trailing", "bomb", "large", "unknown"],
    )
    async def test_invalid_encodings(self, api: SandboxClient, encoding: str, body: bytes, status: int) -> None:
        """Invalid, oversized and unknown encodings are rejected without further decompression."""
        response = await api.track(EVENTS, data=io.BytesIO(body), headers={"Content-Encoding": encoding})

        assert (response.status, response.body["success"]) == (status, False)


def basic(pair: str) -> str:
    return f"Basic {b64encode(pair.encode()).decode()}"


class TestAccess:
    @pytest.mark.parametrize(
        ("project", "authorization", "status"),
        [
            ("shop", "Token shop-key", 200),
            ("shop", "token shop-key", 200),
            ("shop", basic("id:secret"), 200),
            ("shop", basic("id:wrong"), 401),
            ("shop", "Token id", 401),
            ("shop", "Token blog-key", 403),
            ("none", "Token shop-key", 404),
            ("shop", "", 401),
            ("none", "", 401),
        ],
    )
    async def test_keys_of_projects(
        self, session: aiohttp.ClientSession, project: str, authorization: str, status: int
    ) -> None:
        """Missing and unknown keys are 401, another project's 403, an unknown project 404."""
        projects = [Project("shop", tokens=["shop-key"], basic=[("id", "secret")]), Project("blog", ["blog-key"])]
        async with Sandbox(projects=projects) as sandbox:
            api = SandboxClient(session, sandbox.url, authorization, project)

            assert (await api.track(EVENTS, EVENT)).status == status
            assert (await api.track("/batch", {"commands": [{"name": "system/time"}]})).status == status
            assert (await api.track("/system/time", method="GET")).status == status
            assert len(sandbox.engine.events()) == (status == 200)

    async def test_without_projects_a_credential_is_required(self, api: SandboxClient) -> None:
        """A sandbox without projects accepts any credential, but requires one."""
        response = await evolve(api, authorization="Bearer jwt").track(EVENTS, EVENT)

        assert response.status == 401
        assert list(response.body["errors"]) == ["_global"]

    @pytest.mark.parametrize(("host", "status"), [("localhost:8080", 200), ("evil.example", 403), ("", 403)])
    async def test_host_names(self, api: SandboxClient, host: str, status: int) -> None:
        """A Host header that is not local is rejected on every route, to prevent DNS rebinding."""
        assert (await api.track(EVENTS, EVENT, headers={"Host": host})).status == status
        assert (await api.request("GET", "/sandbox/summary", headers={"Host": host})).status == status

    async def test_the_rate_limit(self, session: aiohttp.ClientSession) -> None:
        """Beyond the rate limit the response is 429 with Retry-After, and nothing is stored."""
        async with Sandbox(rate_limit=1) as sandbox:
            api = SandboxClient(session, sandbox.url)
            responses = [await api.track(EVENTS, {**EVENT, "timestamp": number}) for number in range(4)]

            limited = [response for response in responses if response.status == 429]
            assert responses[0].status == 200
            assert limited
            assert {response.headers["Retry-After"] for response in limited} == {"1"}
            assert len(sandbox.engine.events()) == 4 - len(limited)


class TestFaults:
    async def test_an_injected_status(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """An injected status has its Retry-After header, and nothing is stored."""
        sandbox.faults.add(Fault("status", status=429, retry_after=1.5, times=1))

        response = await api.track(EVENTS, EVENT)

        assert (response.status, response.headers["Retry-After"]) == (429, "1.5")
        assert response.body == {"success": False, "errors": ["429 by fault injection"]}
        assert sandbox.engine.events() == []
        assert (await api.track(EVENTS, EVENT)).status == 200

    @pytest.mark.parametrize("body", ['{"success": false}', '"not an object"'])
    async def test_an_injected_body(self, api: SandboxClient, sandbox: Sandbox, body: str) -> None:
        """An injected response can have any body."""
        sandbox.faults.add(Fault("status", status=200, body=body, path="/batch"))

        assert (await api.track("/batch", {})).body == json.loads(body)
        assert (await api.track(EVENTS, EVENT)).body["success"] is True

    @pytest.mark.parametrize(("kind", "stored"), [("drop", 0), ("drop_after", 1), ("timeout", 0)])
    async def test_dropped_connections(self, api: SandboxClient, sandbox: Sandbox, kind: Any, stored: int) -> None:
        """A dropped connection gets no response; only drop_after stores the event."""
        sandbox.faults.add(Fault(kind, seconds=0.01, times=1))

        with pytest.raises(DROPPED):
            await api.track(EVENTS, EVENT)

        assert len(sandbox.engine.events()) == stored
        assert (sandbox.requests[-1].status, sandbox.requests[-1].commands) == (0, stored)
        assert (await api.track(EVENTS, EVENT)).status == 200
        assert sandbox.engine.duplicates == stored

    async def test_latency(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A delayed request gets its response after the sum of all latencies."""
        sandbox.faults.add(Fault("latency", seconds=0.05), Fault("latency", seconds=0.05))

        assert (await api.track(EVENTS, EVENT)).status == 200
        assert sandbox.requests[-1].seconds > 0.09

    async def test_rejected_commands(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Every n-th command fails at its position, in batches and single."""
        sandbox.faults.add(Fault("reject", every_command=2))
        commands = [{"name": "customers/events", "data": {**EVENT, "timestamp": n}} for n in range(3)]

        batch = await api.track("/batch", {"commands": commands})
        single = await api.track(EVENTS, EVENT)

        assert [result["success"] for result in batch.body["results"]] == [True, False, True]
        assert (single.status, single.body["errors"]) == (400, ["rejected by fault injection"])
        assert [event.timestamp for event in sandbox.engine.events()] == [0.0, 2.0]
        assert sandbox.engine.rejected_count == 2

    @pytest.mark.parametrize("kind", ["timeout", "latency"])
    async def test_closing_drops_delayed_requests(self, api: SandboxClient, sandbox: Sandbox, kind: Any) -> None:
        """The connection of a delayed request is dropped as soon as the sandbox closes."""
        sandbox.faults.add(Fault(kind, seconds=60))
        delayed = asyncio.create_task(api.track(EVENTS, EVENT))
        await until(lambda: sandbox.request_count >= 1)
        started = time.perf_counter()

        await sandbox.aclose()

        assert time.perf_counter() - started < 30
        with pytest.raises(DROPPED):
            await delayed

    async def test_a_client_that_disconnects_during_a_delay(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A delayed request whose client disconnects is logged as dropped."""
        sandbox.faults.add(Fault("timeout", seconds=0.1))

        with pytest.raises(TimeoutError):
            await api.track(EVENTS, EVENT, timeout=aiohttp.ClientTimeout(0.02))
        await until(lambda: len(sandbox.requests) == 1)

        assert [entry.status for entry in sandbox.requests] == [0]


class TestLifecycle:
    async def test_a_client_that_disconnects_during_the_body(
        self, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A request whose body is incomplete is logged as dropped, without an error, and nothing is stored."""
        _, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
        head = "POST /track/v2/projects/shop/customers HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token key"
        writer.write(f"{head}\r\nContent-Length: 100\r\n\r\n{{".encode())
        await until(lambda: sandbox.request_count >= 1)
        writer.close()
        await writer.wait_closed()
        await until(lambda: len(sandbox.requests) == 1)

        assert caplog.text == ""
        assert [(entry.status, entry.size) for entry in sandbox.requests] == [(0, 1)]
        assert sandbox.engine.customers() == []

    async def test_starting_and_closing_are_idempotent(self, session: aiohttp.ClientSession) -> None:
        """Start and close can be repeated; after a restart the URL and the data are the same."""
        sandbox = Sandbox()
        await sandbox.aclose()
        with pytest.raises(RuntimeError, match="start"):
            _ = sandbox.url
        await sandbox.start()
        url = sandbox.url
        await sandbox.start()
        await SandboxClient(session, url).track(EVENTS, EVENT)
        await sandbox.aclose()
        await sandbox.aclose()
        with pytest.raises(DROPPED):
            await SandboxClient(session, url).track(EVENTS, EVENT)

        async with sandbox:
            assert sandbox.url == url
            assert (await SandboxClient(session, url).track(EVENTS, EVENT)).status == 200
            assert (len(sandbox.engine.events()), sandbox.engine.duplicates) == (1, 1)

    async def test_a_port_in_use(self, sandbox: Sandbox) -> None:
        """Starting a second sandbox on the same port is an error, after which it can be closed."""
        second = Sandbox(port=int(sandbox.url.rpartition(":")[2]))

        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.aclose()

    async def test_reset(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A reset deletes all data, the log and the faults."""
        await api.track(EVENTS, EVENT)
        await api.track(EVENTS, {})
        sandbox.faults.add(Fault("drop"))

        sandbox.reset()

        assert (sandbox.engine.events(), sandbox.engine.customers(), sandbox.engine.rejected) == ([], [], [])
        assert (sandbox.request_count, len(sandbox.requests), sandbox.faults.active) == (0, 0, ())

    async def test_the_log(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Each tracking request is logged without its query; control requests are not logged."""
        await api.track(EVENTS + "?secret=1", EVENT)
        await api.track("/nowhere")
        await api.request("GET", "/sandbox/requests")

        first, second = sandbox.requests
        assert (first.method, first.path) == ("POST", "/track/v2/projects/shop/customers/events")
        assert (first.status, first.commands, first.size) == (200, 1, len(json.dumps(EVENT)))
        assert second.status == 404
        assert sandbox.request_count == 2
