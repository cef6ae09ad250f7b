"""
The customers as the sandbox shows them, over real HTTP: identities, histories, sessions and messages.
"""

from typing import Any

import aiohttp
import pytest
from helpers.sandbox_page import Page, event, update

from exponea_async.sandbox import Sandbox

ANONYMOUS = {"cookie": "c1"}
JANE = {"registered": "jane@x.com"}
LOGGED_IN = {**ANONYMOUS, **JANE}


@pytest.fixture
def page(sandbox: Sandbox, session: aiohttp.ClientSession) -> Page:
    return Page(session, sandbox.url)


async def track(page: Page, *commands: Any) -> None:
    """Send each command alone, since the commands of a batch are executed in a random order."""
    for command in commands:
        (result,) = await page.send_commands(command)
        assert result["success"], result


class TestList:
    async def test_the_latest_activity_is_first(self, page: Page) -> None:
        """Customers are ordered by their latest command, in pages."""
        for number in (1, 2, 3, 1):
            await track(page, event({"registered": f"r{number}"}))

        first = await page.get("customers?limit=2")
        second = await page.get(f"customers?limit=2&before={first['next']}")

        assert [each["name"] for each in first["customers"] + second["customers"]] == ["r1", "r3", "r2"]
        assert first["customers"][0]["events"] == 2
        assert second["next"] is None

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("text=JANE", ["Jane Doe"]),
            ("text=doe", ["Jane Doe"]),
            ("text=C1", ["Jane Doe"]),
            ("text=nobody", []),
            ("project=blog", ["b@x.com"]),
            ("project=none", []),
            ("limit=0", []),
        ],
    )
    async def test_filters(self, page: Page, query: str, names: list[str]) -> None:
        """Customers are selected by project, and by a part of their name or of an id."""
        await track(page, update(LOGGED_IN, first_name="Jane", last_name="Doe"), event({"cookie": "c2"}))
        await page.send_commands(update({"registered": "b"}, email="b@x.com"), project="blog")

        assert [each["name"] for each in (await page.get(f"customers?{query}"))["customers"]] == names

    @pytest.mark.parametrize("path", ["customers?limit=x", "customers?before=-1", "customers?id=5"])
    async def test_invalid_parameters(self, page: Page, path: str) -> None:
        """An invalid or unknown parameter is a 400."""
        await page.get(path, 400)

    @pytest.mark.parametrize("path", ["shop/1", "none/1", "shop/x", "shop/0", "shop/" + "9" * 100])
    async def test_unknown_customers(self, page: Page, path: str) -> None:
        """A customer that does not exist is a 404."""
        await page.send_commands(event({}))
        await page.get(f"customers/{path}", 404)


class TestIdentities:
    async def test_a_login(self, page: Page) -> None:
        """The graph has each id with its first command, and the command that merged the anonymous customer."""
        await track(page, event(ANONYMOUS), event(JANE), event(LOGGED_IN))

        customer = await page.get("customers/shop/1")

        assert (customer["key"], customer["redirected_from"]) == (2, 1)
        nodes = {node["id"]: node["entry"] for node in customer["identities"]["nodes"]}
        assert nodes == {"cookie:c1": 1, "registered:jane@x.com": 2}
        (edge,) = customer["identities"]["edges"]
        assert (edge["from"], edge["to"]) == ("registered:jane@x.com", "cookie:c1")
        assert (edge["entry"], edge["why"], edge["merged_key"]) == (3, "event", 1)

    async def test_new_ids(self, page: Page) -> None:
        """An id that joins without a merge has an edge without a merged customer; repeating it adds nothing."""
        await track(page, update(JANE), update({**JANE, "crm": "7"}), update({**JANE, "crm": "7"}))

        customer = await page.get("customers/shop/1")

        assert "redirected_from" not in customer
        edges = customer["identities"]["edges"]
        assert [(edge["entry"], edge["why"], edge["merged_key"]) for edge in edges] == [(2, "identify", None)]

    async def test_a_chain_of_merges(self, page: Page) -> None:
        """Each merge is an edge with the key of its customer; every merged key leads to the remaining customer."""
        ids = [{"registered": "r"}, {"crm": "7"}, {"phone": "1"}]
        await track(page, *map(event, ids), event({**ids[1], **ids[2]}), event({**ids[0], **ids[1]}))

        for key in (1, 2, 3):
            customer = await page.get(f"customers/shop/{key}")
            assert customer["key"] == 1
            assert sorted(edge["merged_key"] for edge in customer["identities"]["edges"]) == [2, 3]

    async def test_a_cookie_that_moves(self, page: Page) -> None:
        """A cookie that now belongs to another customer is still in the graph, and marked."""
        await track(page, event(LOGGED_IN), event({**ANONYMOUS, "registered": "bob"}))

        nodes = (await page.get("customers/shop/1"))["identities"]["nodes"]
        others = (await page.get("customers/shop/2"))["identities"]["nodes"]

        assert {node["id"]: node["current"] for node in nodes} == {"cookie:c1": False, "registered:jane@x.com": True}
        assert {node["id"]: node["current"] for node in others} == {"cookie:c1": True, "registered:bob": True}

    async def test_forgotten_commands(self, session: aiohttp.ClientSession) -> None:
        """Ids whose commands are no longer kept have no time; everything else is shown as far as it is known."""
        async with Sandbox(max_entries=2) as sandbox:
            page = Page(session, sandbox.url)
            await track(page, update(LOGGED_IN, a=1), event(JANE), event(JANE, timestamp=5))

            customer = await page.get("customers/shop/1")

        nodes = {node["id"]: node["first_seen"] is None for node in customer["identities"]["nodes"]}
        assert nodes == {"cookie:c1": True, "registered:jane@x.com": False}
        assert (customer["events"], customer["properties"], customer["history"]) == (2, {"a": 1}, [])


class TestHistory:
    async def test_updates_out_of_order(self, page: Page) -> None:
        """An update that is older than what is stored is in the history, but not applied."""
        await track(page, update(JANE, 50, name="Jane"), update(JANE, 40, name="J"), update(JANE, 60, name="Janet"))

        customer = await page.get("customers/shop/1")

        changes = [(each["at"], each["old"], each["new"], each["applied"]) for each in customer["history"]]
        assert changes == [(60, "Jane", "Janet", True), (40, "Jane", "J", False), (50, None, "Jane", True)]
        assert [each["entry"] for each in customer["history"]] == [3, 2, 1]
        assert customer["properties"] == {"name": "Janet"}

    async def test_merged_properties(self, page: Page) -> None:
        """What a merge made of the properties of both customers is in the history."""
        await track(
            page,
            update(ANONYMOUS, 10, newer="c", older="c", only="c"),
            update(JANE, 5, newer="j"),
            update(JANE, 20, older="j"),
            event(LOGGED_IN),
        )

        customer = await page.get("customers/shop/2")

        merged = {each["name"]: each for each in customer["history"] if each["why"] == "merge"}
        assert {name: (each["old"], each["new"], each["applied"]) for name, each in merged.items()} == {
            "newer": ("j", "c", True),
            "older": ("j", "c", False),
            "only": (None, "c", True),
        }
        assert customer["properties"] == {"newer": "c", "older": "j", "only": "c"}

    async def test_the_history_leads_to_the_properties(self, page: Page) -> None:
        """The last applied change of a customer's property is its value, whatever the order of updates and merges."""
        steps: list[Any] = [
            update({"cookie": f"c{number % 3}"}, (number * 7) % 11, **{f"p{number % 4}": number})
            for number in range(20)
        ]
        steps += [event({"cookie": f"c{number}", "registered": "r"}) for number in range(3)]
        steps.append(update({"registered": "r"}, 5, p1="last"))
        await track(page, *steps)

        customer = (await page.get("customers?text=r"))["customers"][0]
        details = await page.get(f"customers/shop/{customer['key']}")

        own = [each for each in reversed(details["history"]) if each["customer"] == details["key"]]
        applied = {each["name"]: each["new"] for each in own if each["applied"]}
        assert applied == details["properties"]


class TestActivity:
    async def test_sessions(self, page: Page) -> None:
        """Events are in the session that began last, or in one after a time without events."""
        await track(
            page,
            event(JANE, "view", timestamp=150),
            event(JANE, "session_start", timestamp=100),
            event(JANE, "session_end", timestamp=200),
            event(JANE, "offline", timestamp=210),
            event(JANE, "late", timestamp=5_000),
            event(JANE, "session_start", timestamp=5_010),
        )

        sessions = (await page.get("customers/shop/1"))["sessions"]

        facts = [
            (each["source"], each["start"], each["end"], [inner["name"] for inner in each["events"]])
            for each in sessions
        ]
        assert facts == [
            ("session_start", 5_010, None, ["session_start"]),
            ("gap", 5_000, 5_000, ["late"]),
            ("gap", 210, 210, ["offline"]),
            ("session_start", 100, 200, ["session_start", "view", "session_end"]),
        ]
        assert sessions[-1]["duration"] == 100

    async def test_duplicates_are_not_in_sessions(self, page: Page) -> None:
        """An event that was sent twice is in its session once."""
        await track(page, event(JANE, timestamp=5), event(JANE, timestamp=5))

        (session,) = (await page.get("customers/shop/1"))["sessions"]
        assert [each["entry"] for each in session["events"]] == [1]

    async def test_messages(self, page: Page) -> None:
        """What happened to messages is listed by kind, the newest first."""
        properties: list[tuple[str, dict[str, Any]]] = [
            ("banner", {"type": "in-app message", "action": "show", "banner_name": "Hi"}),
            ("banner", {"type": "in-app content block", "action": "click", "banner_name": "Top"}),
            ("campaign", {"action_type": "app inbox", "status": "opened", "campaign_name": "News"}),
            ("campaign", {"action_type": "mobile notification", "status": "delivered", "campaign_name": 5}),
            ("purchase", {"action": "show"}),
        ]
        await track(
            page,
            *(
                event(JANE, name, timestamp=number, properties=fields)
                for number, (name, fields) in enumerate(properties)
            ),
        )

        messages = (await page.get("customers/shop/1"))["messages"]

        assert [(each["kind"], each["action"], each["name"], each["entry"]) for each in messages] == [
            ("push", "delivered", "", 4),
            ("inbox", "opened", "News", 3),
            ("content_block", "click", "Top", 2),
            ("in_app", "show", "Hi", 1),
        ]

    async def test_push_tokens(self, page: Page) -> None:
        """The push tokens of a customer are shown."""
        properties = {"push_notification_token": "t", "platform": "android", "valid": True}
        await track(page, event(JANE, "notification_state", timestamp=5, properties=properties))

        (token,) = (await page.get("customers/shop/1"))["push_tokens"]
        assert (token["token"], token["platform"], token["valid"]) == ("t", "android", True)
