"""
The control routes of the sandbox, over real HTTP.
"""

from collections.abc import AsyncIterator
from typing import Any, get_args

import aiohttp
import pytest
from attrs import fields

from exponea_async.sandbox import Fault, Sandbox
from exponea_async.sandbox.faults import FaultKind


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        for number in range(3):
            ids = {"cookie": f"c{number}", "registered": f"r{number}"}
            data = {"customer_ids": ids, "event_type": "view" if number else "buy", "timestamp": number}
            running.engine.execute("shop", "customers/events", data)
        yield running


@pytest.fixture
async def session(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sandbox.url) as opened:
        yield opened


async def get(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(f"/sandbox/{path}") as response:
        assert response.status == 200
        return await response.json()


async def post(session: aiohttp.ClientSession, path: str, **options: Any) -> tuple[int, Any]:
    async with session.post(f"/sandbox/{path}", **options) as response:
        return response.status, await response.json()


async def test_projects(session: aiohttp.ClientSession) -> None:
    """The projects are those that have received a command."""
    assert await get(session, "projects") == {"projects": ["shop"]}


@pytest.mark.parametrize(
    ("query", "timestamps", "total"),
    [
        ("", [0, 1, 2], 3),
        ("?event_type=view", [1, 2], 2),
        ("?customer=1", [0], 1),
        ("?customer=r2", [2], 1),
        ("?customer=c0&event_type=view", [], 0),
        ("?limit=1&offset=1", [1], 3),
        ("?limit=0", [], 3),
        ("?offset=9", [], 3),
    ],
)
async def test_events(session: aiohttp.ClientSession, query: str, timestamps: list[int], total: int) -> None:
    """Events can be selected by type and customer, and are returned in pages."""
    page = await get(session, f"projects/shop/events{query}")

    assert [event["timestamp"] for event in page["events"]] == timestamps
    assert page["total"] == total


async def test_customers(session: aiohttp.ClientSession) -> None:
    """Customers can be selected by any id, and are returned in pages."""
    page = await get(session, "projects/shop/customers?id=c1")
    (customer,) = page["customers"]

    assert customer["ids"] == {"registered": ["r1"], "cookie": ["c1"]}
    assert (customer["key"], customer["events"]) == (2, 1)
    assert (await get(session, "projects/shop/customers?limit=2"))["total"] == 3
    assert (await get(session, "projects/none/customers"))["customers"] == []


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "offset=1.5"])
async def test_invalid_pages(session: aiohttp.ClientSession, query: str) -> None:
    """A limit or offset that is not a whole number of at least 0 is a 400."""
    async with session.get(f"/sandbox/requests?{query}") as response:
        assert response.status == 400


async def test_summary_and_requests(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """The summary counts stored data and statuses; the log is returned newest first, without credentials."""
    sandbox.engine.execute("shop", "customers/events", {})
    for key in ("Token hidden-key", ""):
        path = "/track/v2/projects/shop/system/time"
        await (await session.get(path, headers={"Authorization": key})).read()

    summary, log = await get(session, "summary"), await get(session, "requests?limit=5")

    assert summary["projects"]["shop"] == {"events": 3, "customers": 3, "duplicates": 0, "rejected": 1}
    assert summary["requests"] == {"total": 2, "200": 1, "401": 1}
    assert [entry["status"] for entry in log["requests"]] == [401, 200]
    assert "hidden-key" not in str(log)


async def test_faults(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """One or several faults at a time can be added; all can be listed and removed."""
    assert (await post(session, "faults", json={"kind": "drop", "times": 2}))[0] == 200
    await post(session, "faults", json=[{"kind": "status", "status": 500}, {"kind": "latency"}])

    assert [fault["kind"] for fault in (await get(session, "faults"))["faults"]] == ["drop", "status", "latency"]
    assert sandbox.faults.active[0] == Fault("drop", times=2)
    async with session.delete("/sandbox/faults") as response:
        assert await response.json() == {"faults": []}
    assert sandbox.faults.active == ()


async def test_counters_of_faults(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """Each active fault has its index, and how many requests it has seen and affected."""
    sandbox.faults.add(Fault("status", every=2), Fault("drop", path="/nowhere"), Fault("status", times=0))
    for _ in range(3):
        async with session.post("/track/v2/projects/shop/batch", json={}):
            pass

    faults = (await get(session, "faults"))["faults"]

    assert [(each["index"], each["requests"], each["fired"]) for each in faults] == [(1, 3, 1), (2, 0, 0)]


async def test_removing_one_fault(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """A fault is removed by its index, which no other fault gets; the counters of the others stay."""
    sandbox.faults.add(Fault("latency", seconds=0), Fault("drop", path="/x"), Fault("latency", seconds=0, times=5))
    async with session.get("/track/v2/projects/shop/system/time"):
        pass

    async with session.delete("/sandbox/faults/1") as response:
        faults = (await response.json())["faults"]
    for index in ("1", "9", "x", "-1", "2.0", "9" * 50):
        async with session.delete(f"/sandbox/faults/{index}") as response:
            assert response.status == 404
    sandbox.faults.clear()
    sandbox.faults.add(Fault("drop"))

    assert [(each["index"], each["requests"], each["times"]) for each in faults] == [(2, 0, None), (3, 1, 4)]
    assert [each["index"] for each in (await get(session, "faults"))["faults"]] == [4]


async def test_the_schema_of_faults(session: aiohttp.ClientSession) -> None:
    """The schema for a form has all kinds and fields; each default and limit is accepted, and nothing beyond it."""
    schema = (await get(session, "faults"))["schema"]

    assert set(schema["kinds"]) == set(get_args(FaultKind))
    assert {"kind", *schema["fields"]} == {each.name for each in fields(Fault)}
    for kind, described in schema["kinds"].items():
        chosen = {name: schema["fields"][name] for name in described["fields"]}
        Fault(kind, **{name: each["default"] for name, each in chosen.items()})
        for name, each in chosen.items():
            for limit, step in (("minimum", -1), ("maximum", 1)):
                if limit in each:
                    Fault(kind, **{name: each[limit]})
                    with pytest.raises(ValueError, match=name):
                        Fault(kind, **{name: each[limit] + step})


@pytest.mark.parametrize(
    "body", [{}, [], 5, "drop", {"kind": "drop", "oops": 1}, {"kind": ["drop"]}, {"kind": "drop", "every": 0}]
)
async def test_invalid_faults(session: aiohttp.ClientSession, sandbox: Sandbox, body: Any) -> None:
    """An invalid fault is a 400; none of the list is added."""
    status, _ = await post(session, "faults", json=[{"kind": "drop"}, body])

    assert status == 400
    assert sandbox.faults.active == ()


@pytest.mark.parametrize("path", ["faults", "reset"])
async def test_requests_of_another_origin(session: aiohttp.ClientSession, sandbox: Sandbox, path: str) -> None:
    """A POST that a web page of another origin can send without a preflight is rejected."""
    status, _ = await post(session, path, data='{"kind": "drop"}', headers={"Content-Type": "text/plain"})

    assert status == 415
    assert len(sandbox.engine.events()) == 3
    assert sandbox.faults.active == ()


async def test_invalid_json(session: aiohttp.ClientSession) -> None:
    """A control request with invalid JSON is a 400."""
    status, _ = await post(session, "faults", data="{", headers={"Content-Type": "application/json"})

    assert status == 400


async def test_reset(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """A reset deletes all data."""
    assert await post(session, "reset", json={}) == (200, {"success": True})
    assert sandbox.engine.events() == []
