"""
The log of commands and requests that the sandbox keeps, over real HTTP.
"""

import json
from typing import Any

import aiohttp
import pytest
from helpers.sandbox_page import Page, event, update

from exponea_async.sandbox import Fault, Sandbox


@pytest.fixture
def page(sandbox: Sandbox, session: aiohttp.ClientSession) -> Page:
    return Page(session, sandbox.url)


def numbers(body: dict[str, Any]) -> list[int]:
    return [each["id"] for each in body["entries"]]


class TestEntries:
    async def test_each_verdict(self, page: Page) -> None:
        """An entry says what became of its command."""
        for command in (
            event({"cookie": "c"}, timestamp=1),
            event({"cookie": "c"}, timestamp=1),
            update({"registered": "r"}, a=1),
            event({"cookie": "c", "registered": "r"}, timestamp=2),
            event({"cookie": 5}, timestamp="now"),
        ):
            await page.send_commands(command)

        entries = (await page.get("log"))["entries"]

        assert [each["verdict"] for each in reversed(entries)] == [
            "accepted",
            "duplicate",
            "accepted",
            "merged",
            "rejected",
        ]
        rejected, merged = entries[:2]
        assert rejected["paths"] == ["customer_ids.cookie", "timestamp"]
        assert len(rejected["errors"]) == 2
        assert (rejected["customer"], rejected["name"]) == (None, "ping")
        assert (merged["merged"], merged["customer"]) == ([1], 2)
        # The entries of the merged customer are those of the remaining one.
        assert [each["customer"] for each in entries[1:]] == [2, 2, 2, 2]

    async def test_the_data_is_kept_as_sent(self, page: Page) -> None:
        """An entry has the whole data with keys in their order, and the request that carried it."""
        command = event({"registered": "j"}, "purchase", timestamp=5, properties={"z": 1, "a": [{"y": 1, "b": None}]})
        await page.send_commands(update({"registered": "j"}, name="Jane"))
        await page.send_commands(command)

        found = (await page.get("log?type=purchase"))["entries"][0]
        entry = await page.get(f"log/{found['id']}")

        assert json.dumps(entry["data"]) == json.dumps(command["data"])
        assert (entry["kind"], entry["project"], entry["timestamp"]) == ("event", "shop", 5)
        assert entry["preview"] == "z: 1, a: […]"
        carrier = await page.get(f"requests/{entry['request']}")
        assert json.loads(carrier["body"]) == {"commands": [command]}

    async def test_previews_begin_with_what_differs(self, page: Page) -> None:
        """The properties that SDKs add to each event are the last ones in the preview."""
        await page.send_commands(event({"cookie": "c"}, properties={"sdk": "x", "b": 1, "os_name": "y", "a": 2}))
        assert (await page.get("log"))["entries"][0]["preview"] == "b: 1, a: 2, sdk: x, os_name: y"

    async def test_pages(self, page: Page) -> None:
        """The newest entries come first, and each page says where the next one begins."""
        await page.send_commands(*[event({"cookie": "c"}, timestamp=number) for number in range(7)])

        first = await page.get("log?limit=3")
        second = await page.get(f"log?limit=3&before={first['next']}")
        third = await page.get(f"log?limit=3&before={second['next']}")

        assert [numbers(each) for each in (first, second, third)] == [[7, 6, 5], [4, 3, 2], [1]]
        assert third["next"] is None
        assert numbers(await page.get("log?after=5")) == [7, 6]
        assert (first["oldest"], first["newest"], first["forgotten"]) == (1, 7, 0)

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("project=shop", [4, 3, 2, 1]),
            ("project=shop&project=blog", [5, 4, 3, 2, 1]),
            ("type=view&type=buy", [5, 2, 1]),
            ("type=customer", [3]),
            ("verdict=rejected", [4]),
            ("verdict=accepted&project=blog", [5]),
            ("customer=jane", [3, 1]),
            ("customer=1", [5, 3, 1]),
            ("customer=nobody", []),
            ("text=PRICE", [2]),
            ("text=grüße", [1]),
            ("text=GRÜßE", [1]),
            ("text=at least one id", [4]),
        ],
    )
    async def test_filters(self, page: Page, query: str, found: list[int]) -> None:
        """Entries are selected by project, type, verdict, customer and text."""
        for command, project in (
            (event({"registered": "jane"}, "view", properties={"text": "Grüße"}), "shop"),
            (event({"registered": "bob"}, "buy", properties={"price": 5}), "shop"),
            (update({"registered": "jane", "cookie": "j1"}), "shop"),
            (event({}, "none"), "shop"),
            (event({"registered": "ann"}, "view"), "blog"),
        ):
            await page.send_commands(command, project=project)

        assert numbers(await page.get(f"log?{query}")) == found

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("log?limit=-1", 400),
            ("log?limit=x", 400),
            ("log?before=1.5", 400),
            ("log?after=" + "9" * 400, 400),
            ("log?verdict=fine", 400),
            ("log?verdit=accepted", 400),
            ("log/x", 400),
            ("log/1", 404),
            ("log/0", 404),
            ("timeline?seconds=0", 400),
            ("requests?status=abc", 400),
            ("requests?status=700", 400),
            ("requests/1", 404),
            ("facets?limit=5", 400),
            ("stream?after=x", 400),
            ("stream?before=5", 400),
        ],
    )
    async def test_invalid_parameters(self, page: Page, path: str, status: int) -> None:
        """An invalid or unknown parameter is a 400 that names it; what does not exist is a 404."""
        body = await page.get(path, status)

        name = path.partition("?")[2].partition("=")[0] or "id"
        assert body["errors"][0].startswith(f"{name}: ") or status == 404

    async def test_links_are_entries(self, page: Page) -> None:
        """Linking ids by the route of its own is an entry that can merge customers."""
        await page.send_commands(event({"cookie": "c"}))
        await page.send_commands(event({"registered": "r"}))
        path = f"{page.url}/webxp/projects/shop/cookies/c/link-ids"
        async with page.session.post(
            path, json={"external_ids": {"registered": "r"}}, headers={"Authorization": "Token k"}
        ):
            pass

        entry = (await page.get("log"))["entries"][0]

        assert (entry["kind"], entry["name"], entry["verdict"], entry["merged"]) == ("other", "link-ids", "merged", [1])

    async def test_counts(self, page: Page, sandbox: Sandbox) -> None:
        """The facets count what is kept; the timeline counts commands and failed requests by second."""
        await page.send_commands(event({"cookie": "c"}, "view"), event({"cookie": "c"}, "view", timestamp=5), event({}))
        sandbox.faults.add(Fault("status", status=429, times=1), Fault("status", times=1))
        for _ in range(2):
            path = f"{page.url}/track/v2/projects/shop/batch"
            async with page.session.post(path, json={}, headers={"Authorization": "Token k"}) as response:
                assert response.status in (429, 503)

        facets = await page.get("facets")
        timeline = await page.get("timeline?seconds=60&project=shop")
        other = await page.get("timeline?seconds=60&project=blog")

        assert facets["types"] == {"view": 2, "ping": 1}
        assert facets["verdicts"] == {"accepted": 2, "rejected": 1, "duplicate": 0, "merged": 0}
        assert facets["projects"] == ["shop"]
        totals = [sum(timeline[name]) for name in ("accepted", "rejected", "limited", "failed")]
        assert totals == [2, 1, 1, 1]
        assert len(timeline["accepted"]) == 60
        assert not any(other["accepted"])
