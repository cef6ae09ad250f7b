"""
The sandbox over real HTTP.
"""

import asyncio
import gzip
import io
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from attrs import evolve, frozen

from exponea_async.sandbox import Fault, Project, Sandbox

EVENT = {"customer_ids": {"cookie": "c"}, "event_type": "ping", "timestamp": 1.0, "properties": {}}
EVENTS = "/customers/events"
CUT = aiohttp.ClientConnectionError


@frozen
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any


@frozen
class Caller:
    """Sends requests to a sandbox."""

    session: aiohttp.ClientSession
    url: str
    project: str = "shop"
    authorization: str = "Token key"

    async def track(self, path: str, body: Any = None, method: str = "POST", **options: Any) -> Reply:
        """Calls a tracking route of the project."""
        headers = {"Authorization": self.authorization, **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        return await self.ask(f"/track/v2/projects/{self.project}{path}", method, headers=headers, **options)

    async def ask(self, path: str, method: str = "GET", **options: Any) -> Reply:
        """Calls any route."""
        async with self.session.request(method, self.url + path, **options) as response:
            return Reply(response.status, response.headers, await response.json(content_type=None))


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def caller(sandbox: Sandbox, session: aiohttp.ClientSession) -> Caller:
    return Caller(session, sandbox.url)


async def until(condition: Callable[[], bool]) -> None:
    """Waits, for 5 seconds at most, until something holds true."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("It never held true.")


class TestTracking:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (EVENTS, EVENT),
            ("/customers", {"customer_ids": {"registered": "r"}, "properties": {"a": 1}}),
            ("/campaigns/clicks", {"url": "https://x.example/?utm_source=a", "properties": {}}),
        ],
    )
    async def test_a_single_command_succeeds(self, caller: Caller, path: str, body: dict[str, Any]) -> None:
        """Each single route answers as the platform does."""
        reply = await caller.track(path, body)

        assert (reply.status, reply.body) == (200, {"success": True, "errors": []})
        assert reply.headers["Content-Type"].startswith("application/json")

    async def test_a_wrong_single_command_fails(self, caller: Caller, sandbox: Sandbox) -> None:
        """A refused single command is a 400 with its errors."""
        reply = await caller.track(EVENTS, {**EVENT, "customer_ids": {}})

        assert (reply.status, reply.body["success"]) == (400, False)
        assert reply.body["errors"] == ["At least one id should be specified."]
        assert sandbox.engine.rejected_count == 1

    async def test_a_batch_tells_each_result(self, caller: Caller, sandbox: Sandbox) -> None:
        """A batch succeeds as a whole, whatever became of its commands."""
        commands = [
            {"name": "customers/events", "command_id": "a", "data": EVENT},
            {"name": "customers/events", "command_id": "b", "data": {}},
            {"name": "system/time"},
        ]

        reply = await caller.track("/batch", {"commands": commands})

        assert (reply.status, reply.body["success"]) == (200, True)
        assert reply.body["start_time"] <= reply.body["end_time"]
        assert [result["success"] for result in reply.body["results"]] == [True, False, True]
        assert [result.get("command_id") for result in reply.body["results"]] == ["a", "b", None]
        assert sandbox.requests[-1].commands == 3

    @pytest.mark.parametrize("body", [{}, {"commands": []}, {"commands": {}}, {"commands": [{}] * 51}])
    async def test_a_wrong_batch_fails_as_a_whole(self, caller: Caller, body: dict[str, Any]) -> None:
        """A batch without commands, or with more than 50, is a 400 with one message."""
        reply = await caller.track("/batch", body)

        assert (reply.status, reply.body["success"]) == (400, False)
        assert isinstance(reply.body["message"], str)

    async def test_the_time(self, caller: Caller) -> None:
        """The server tells its time in seconds."""
        reply = await caller.track("/system/time", method="GET")

        assert reply.body["success"] is True
        assert abs(reply.body["time"] - time.time()) < 5

    @pytest.mark.parametrize(
        ("path", "method", "status"),
        [("/nowhere", "POST", 404), (EVENTS, "GET", 405), ("/system/time", "POST", 405), (EVENTS, "OPTIONS", 405)],
    )
    async def test_what_there_is_not(self, caller: Caller, path: str, method: str, status: int) -> None:
        """Unknown routes and methods are refused in the platform's shape."""
        reply = await caller.track(path, method=method)

        assert (reply.status, reply.body["success"]) == (status, False)
        assert ("Allow" in reply.headers) == (status == 405)


class TestBodies:
    @pytest.mark.parametrize("path", [EVENTS, "/batch"])
    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"timestamp": NaN}', b'{"a": -Infinity}', b"\xff"])
    async def test_what_is_no_object_is_refused(self, caller: Caller, path: str, body: bytes) -> None:
        """A body that is no strict JSON object is a 400."""
        reply = await caller.track(path, data=body)

        assert (reply.status, reply.body["success"]) == (400, False)
        assert ("message" in reply.body) == (path == "/batch")

    async def test_a_body_may_be_compressed(self, caller: Caller, sandbox: Sandbox) -> None:
        """A gzip body is read; the log tells its size on the wire."""
        body = gzip.compress(json.dumps(EVENT).encode())

        reply = await caller.track(EVENTS, data=body, headers={"Content-Encoding": "gzip"})

        assert reply.status == 200
        assert len(sandbox.engine.events("shop")) == 1
        assert sandbox.requests[-1].size == len(body)

    @pytest.mark.parametrize(
        ("encoding", "body", "status"),
        [
            ("gzip", b"no gzip", 400),
            ("gzip", gzip.compress(b"{}")[:-4], 400),
            ("gzip", gzip.compress(b"{}") + b"more", 400),
            ("gzip", gzip.compress(b" " * 11_000_000), 413),
            ("identity", b" " * 11_000_000, 413),
            ("br", b"{}", 415),
        ],
        ids=["broken", "cut", "longer", "bomb", "large", "unknown"],
    )
    async def test_a_bad_encoding_is_refused(self, caller: Caller, encoding: str, body: bytes, status: int) -> None:
        """Broken, oversized and unknown encodings are refused without being unpacked further."""
        reply = await caller.track(EVENTS, data=io.BytesIO(body), headers={"Content-Encoding": encoding})

        assert (reply.status, reply.body["success"]) == (status, False)


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
    async def test_only_a_project_s_own_key_opens_it(
        self, session: aiohttp.ClientSession, project: str, authorization: str, status: int
    ) -> None:
        """Missing and unknown keys are 401, another project's 403, an unknown project 404."""
        projects = [Project("shop", tokens=["shop-key"], basic=[("id", "secret")]), Project("blog", ["blog-key"])]
        async with Sandbox(projects=projects) as sandbox:
            caller = Caller(session, sandbox.url, project, authorization)

            assert (await caller.track(EVENTS, EVENT)).status == status
            assert (await caller.track("/batch", {"commands": [{"name": "system/time"}]})).status == status
            assert (await caller.track("/system/time", method="GET")).status == status
            assert len(sandbox.engine.events()) == (status == 200)

    async def test_without_projects_a_credential_is_still_needed(self, caller: Caller) -> None:
        """A sandbox without projects takes any credential, but not none."""
        reply = await evolve(caller, authorization="Bearer jwt").track(EVENTS, EVENT)

        assert reply.status == 401
        assert list(reply.body["errors"]) == ["_global"]

    @pytest.mark.parametrize(("host", "status"), [("localhost:8080", 200), ("evil.example", 403), ("", 403)])
    async def test_only_local_names_are_answered(self, caller: Caller, host: str, status: int) -> None:
        """A foreign Host header is refused on every route, against DNS rebinding."""
        assert (await caller.track(EVENTS, EVENT, headers={"Host": host})).status == status
        assert (await caller.ask("/sandbox/summary", headers={"Host": host})).status == status

    async def test_the_rate_limit(self, session: aiohttp.ClientSession) -> None:
        """Beyond the rate limit the answer is 429 with Retry-After, and the data is lost."""
        async with Sandbox(rate_limit=1) as sandbox:
            caller = Caller(session, sandbox.url)
            replies = [await caller.track(EVENTS, {**EVENT, "timestamp": number}) for number in range(4)]

            refused = [reply for reply in replies if reply.status == 429]
            assert replies[0].status == 200
            assert refused
            assert {reply.headers["Retry-After"] for reply in refused} == {"1"}
            assert len(sandbox.engine.events()) == 4 - len(refused)


class TestFaults:
    async def test_a_status_instead_of_an_answer(self, caller: Caller, sandbox: Sandbox) -> None:
        """An injected status comes with its Retry-After, and nothing is stored."""
        sandbox.faults.add(Fault("status", status=429, retry_after=1.5, times=1))

        reply = await caller.track(EVENTS, EVENT)

        assert (reply.status, reply.headers["Retry-After"]) == (429, "1.5")
        assert reply.body == {"success": False, "errors": ["429 by fault injection"]}
        assert sandbox.engine.events() == []
        assert (await caller.track(EVENTS, EVENT)).status == 200

    @pytest.mark.parametrize("body", ['{"success": false}', '"no object"'])
    async def test_a_status_with_a_body(self, caller: Caller, sandbox: Sandbox, body: str) -> None:
        """An injected answer may have any body."""
        sandbox.faults.add(Fault("status", status=200, body=body, path="/batch"))

        assert (await caller.track("/batch", {})).body == json.loads(body)
        assert (await caller.track(EVENTS, EVENT)).body["success"] is True

    @pytest.mark.parametrize(("kind", "stored"), [("drop", 0), ("drop_after", 1), ("timeout", 0)])
    async def test_a_cut_connection(self, caller: Caller, sandbox: Sandbox, kind: Any, stored: int) -> None:
        """A cut leaves no answer; only drop_after has stored the event before."""
        sandbox.faults.add(Fault(kind, seconds=0.01, times=1))

        with pytest.raises(CUT):
            await caller.track(EVENTS, EVENT)

        assert len(sandbox.engine.events()) == stored
        assert (sandbox.requests[-1].status, sandbox.requests[-1].commands) == (0, stored)
        assert (await caller.track(EVENTS, EVENT)).status == 200
        assert sandbox.engine.duplicates == stored

    async def test_latency(self, caller: Caller, sandbox: Sandbox) -> None:
        """A delayed request is answered all the same, later."""
        sandbox.faults.add(Fault("latency", seconds=0.05), Fault("latency", seconds=0.05))

        assert (await caller.track(EVENTS, EVENT)).status == 200
        assert sandbox.requests[-1].seconds > 0.09

    async def test_rejected_commands(self, caller: Caller, sandbox: Sandbox) -> None:
        """Every n-th command fails in the place it had, in batches and alone."""
        sandbox.faults.add(Fault("reject", every_command=2))
        commands = [{"name": "customers/events", "data": {**EVENT, "timestamp": n}} for n in range(3)]

        batch = await caller.track("/batch", {"commands": commands})
        alone = await caller.track(EVENTS, EVENT)

        assert [result["success"] for result in batch.body["results"]] == [True, False, True]
        assert (alone.status, alone.body["errors"]) == (400, ["rejected by fault injection"])
        assert [event.timestamp for event in sandbox.engine.events()] == [0.0, 2.0]
        assert sandbox.engine.rejected_count == 2

    @pytest.mark.parametrize("kind", ["timeout", "latency"])
    async def test_closing_doesnt_wait_for_held_requests(self, caller: Caller, sandbox: Sandbox, kind: Any) -> None:
        """A request that is held is cut when the sandbox closes, at once."""
        sandbox.faults.add(Fault(kind, seconds=60))
        held = asyncio.create_task(caller.track(EVENTS, EVENT))
        await until(lambda: sandbox.request_count == 1)
        started = time.perf_counter()

        await sandbox.aclose()

        assert time.perf_counter() - started < 1
        with pytest.raises(CUT):
            await held

    async def test_a_client_that_left_while_held(self, caller: Caller, sandbox: Sandbox) -> None:
        """A request whose client didn't wait is logged as cut all the same."""
        sandbox.faults.add(Fault("timeout", seconds=0.1))

        with pytest.raises(TimeoutError):
            await caller.track(EVENTS, EVENT, timeout=aiohttp.ClientTimeout(0.02))
        await until(lambda: len(sandbox.requests) == 1)

        assert [entry.status for entry in sandbox.requests] == [0]


class TestLife:
    async def test_a_client_that_left_in_the_middle(self, sandbox: Sandbox) -> None:
        """A body that never comes to its end is logged as cut, and nothing is stored."""
        _, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
        head = "POST /track/v2/projects/shop/customers HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token key"
        writer.write(f"{head}\r\nContent-Length: 100\r\n\r\n{{".encode())
        await until(lambda: sandbox.request_count == 1)
        writer.close()
        await writer.wait_closed()
        await until(lambda: len(sandbox.requests) == 1)

        assert [(entry.status, entry.size) for entry in sandbox.requests] == [(0, 1)]
        assert sandbox.engine.customers() == []

    async def test_starting_and_closing_twice_is_once(self, session: aiohttp.ClientSession) -> None:
        """Both are idempotent; after a restart the address and the books are the same."""
        sandbox = Sandbox()
        await sandbox.aclose()
        with pytest.raises(RuntimeError, match="start"):
            _ = sandbox.url
        await sandbox.start()
        url = sandbox.url
        await sandbox.start()
        await Caller(session, url).track(EVENTS, EVENT)
        await sandbox.aclose()
        await sandbox.aclose()
        with pytest.raises(CUT):
            await Caller(session, url).track(EVENTS, EVENT)

        async with sandbox:
            assert sandbox.url == url
            assert (await Caller(session, url).track(EVENTS, EVENT)).status == 200
            assert (len(sandbox.engine.events()), sandbox.engine.duplicates) == (1, 1)

    async def test_a_taken_port_is_an_error(self, sandbox: Sandbox) -> None:
        """A second sandbox on the same port says so, and can be closed."""
        second = Sandbox(port=int(sandbox.url.rpartition(":")[2]))

        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.aclose()

    async def test_reset_starts_afresh(self, caller: Caller, sandbox: Sandbox) -> None:
        """A reset empties the books and the log and takes the faults away."""
        await caller.track(EVENTS, EVENT)
        await caller.track(EVENTS, {})
        sandbox.faults.add(Fault("drop"))

        sandbox.reset()

        assert (sandbox.engine.events(), sandbox.engine.customers(), sandbox.engine.rejected) == ([], [], [])
        assert (sandbox.request_count, len(sandbox.requests), sandbox.faults.active) == (0, 0, ())

    async def test_the_log_tells_each_request(self, caller: Caller, sandbox: Sandbox) -> None:
        """Each tracking request is logged without its query; the sandbox's own routes are not."""
        await caller.track(EVENTS + "?secret=1", EVENT)
        await caller.track("/nowhere")
        await caller.ask("/sandbox/requests")

        first, second = sandbox.requests
        assert (first.method, first.path) == ("POST", "/track/v2/projects/shop/customers/events")
        assert (first.status, first.commands, first.size) == (200, 1, len(json.dumps(EVENT)))
        assert second.status == 404
        assert sandbox.request_count == 2
