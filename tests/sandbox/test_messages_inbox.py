"""
The inbox over real HTTP: sync tokens, read marks, and whose inbox it is.
"""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from helpers.sandbox_client import BOB, ITEM, JANE, SandboxClient

from exponea_async.sandbox import Sandbox
from exponea_async.sandbox.messages import inbox


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def api(sandbox: Sandbox, session: aiohttp.ClientSession) -> SandboxClient:
    for ids in (JANE, BOB):
        properties = {"first_name": ids["registered"][:4]}
        sandbox.engine.execute("shop", "customers", {"customer_ids": ids, "properties": properties})
    sandbox.messages.inbox.put(ITEM, {**ITEM, "id": "i2", "is_read": True})
    return SandboxClient(session, sandbox.url)


def read(body: Any) -> dict[str, bool]:
    return {message["id"]: message["is_read"] for message in body["messages"]}


class TestSync:
    async def test_the_first_fetch_tells_all(self, api: SandboxClient) -> None:
        """Without a token all messages come, with the customer's properties in them, and a token."""
        body = (await api.inbox(JANE)).body

        assert body["success"] is True
        assert body["messages"][0] == {**ITEM, "is_read": False, "content": {"title": "Hi jane"}}
        assert read(body) == {"i1": False, "i2": True}
        assert body["sync_token"]

    async def test_later_ones_tell_what_is_new(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """With a token only new and changed messages come; each answer has a token of its own."""
        first = (await api.inbox(JANE)).body["sync_token"]
        nothing = (await api.inbox(JANE, first)).body
        sandbox.messages.inbox.put({**ITEM, "id": "i3"})
        sandbox.messages.inbox.change("i2", {"content": {"title": "Changed"}})

        news = (await api.inbox(JANE, nothing["sync_token"])).body

        assert nothing["messages"] == []
        assert list(read(news)) == ["i2", "i3"]
        assert len({first, nothing["sync_token"], news["sync_token"]}) == 3
        assert list(read((await api.inbox(JANE, first)).body)) == ["i2", "i3"]

    async def test_unknown_tokens_are_gone(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """An unknown, expired or foreign token is a 410 with the platform's failure."""
        token = (await api.inbox(JANE)).body["sync_token"]

        replies = [await api.inbox(JANE, "unknown"), await api.inbox(BOB, token)]
        sandbox.sync.expire_tokens()
        replies += [await api.inbox(JANE, token), await api.mark_read(JANE, token, "i1")]

        assert [reply.status for reply in replies] == [410] * 4
        assert all(reply.body["success"] is False for reply in replies)

    async def test_old_tokens_expire(
        self, api: SandboxClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond a number of tokens the oldest ones expire."""
        monkeypatch.setattr(inbox, "MAX_TOKENS", 2)
        tokens = [(await api.inbox(JANE)).body["sync_token"] for _ in range(3)]

        assert [(await api.inbox(JANE, token)).status for token in reversed(tokens[1:])] == [200, 410]

    async def test_answers_without_a_token(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Answers can be made without a token; one from before still counts."""
        token = (await api.inbox(JANE)).body["sync_token"]
        sandbox.sync.issues_tokens = False

        assert "sync_token" not in (await api.inbox(JANE)).body
        assert (await api.inbox(JANE, token)).body == {"success": True, "messages": []}

    @pytest.mark.parametrize("token", [5, ""])
    async def test_wrong_tokens(self, api: SandboxClient, token: Any) -> None:
        """A token that is no text is a 400."""
        assert (await api.inbox(JANE, token)).status == 400

    async def test_a_reset_forgets_all(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """After a reset no token is known, and there are no messages but the first ones."""
        token = (await api.inbox(JANE)).body["sync_token"]
        sandbox.sync.issues_tokens = False

        sandbox.reset()

        assert (await api.inbox(JANE, token)).status == 410
        assert (await api.inbox(JANE)).body["messages"] == []
        assert sandbox.sync.issues_tokens


class TestReadMarks:
    async def test_for_this_customer_only(self, api: SandboxClient) -> None:
        """A message that was marked is read for this customer, and comes as changed."""
        token = (await api.inbox(JANE)).body["sync_token"]

        reply = await api.mark_read(JANE, token, "i1")

        assert (reply.status, reply.body) == (200, {"success": True})
        assert read((await api.inbox(JANE, token)).body) == {"i1": True}
        assert read((await api.inbox(BOB)).body) == {"i1": False, "i2": True}

    async def test_by_any_id(self, api: SandboxClient) -> None:
        """Who marks by the cookie has read it by the hard id, too."""
        token = (await api.inbox({"cookie": "c1"})).body["sync_token"]
        await api.mark_read({"cookie": "c1"}, token, "i1")

        assert read((await api.inbox({"registered": "jane@x.com"})).body)["i1"]

    async def test_they_stay_when_a_visitor_logs_in(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """What an unknown visitor has read stays read when it becomes a known customer; its token stays good."""
        visitor = {"cookie": "fresh"}
        token = (await api.inbox(visitor)).body["sync_token"]
        assert (await api.mark_read(visitor, token, "i1")).status == 200
        known = {**visitor, "registered": "jane@x.com"}
        assert await api.link("fresh", {"registered": "jane@x.com"})

        assert read((await api.inbox(known)).body)["i1"]
        assert (await api.inbox(known, token)).status == 200
        assert len(sandbox.engine.customers("shop")) == 2

    async def test_unknown_messages(self, api: SandboxClient) -> None:
        """A message that the customer doesn't have can't be marked."""
        token = (await api.inbox(JANE)).body["sync_token"]

        reply = await api.mark_read(JANE, token, "i1", "none")

        assert (reply.status, reply.body["success"]) == (400, False)
        assert read((await api.inbox(JANE)).body)["i1"] is False

    @pytest.mark.parametrize(("token", "ids"), [(None, ["i1"]), ("", ["i1"]), ("t", [1]), ("t", [""])])
    async def test_wrong_shapes(self, api: SandboxClient, token: Any, ids: list[Any]) -> None:
        """A token and texts are needed."""
        assert (await api.mark_read(JANE, token, *ids)).status == 400


class TestWhose:
    async def test_for_some_customers(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A message for one customer is found by each of its ids, and by nobody else."""
        sandbox.messages.inbox.clear()
        sandbox.messages.inbox.put(ITEM, to={"registered": "jane@x.com"})

        asked = [JANE, {"cookie": "c1"}, {"registered": "jane@x.com"}, BOB, {"cookie": "c1", "registered": "new"}]
        found = [len((await api.inbox(ids)).body["messages"]) for ids in asked]

        assert found == [1, 1, 1, 0, 0]

    @pytest.mark.parametrize(("ids", "count"), [({"cookie": "new"}, 0), ({"cookie": "c1"}, 2), (BOB, 2)])
    async def test_hard_ids_only(self, session: aiohttp.ClientSession, ids: Any, count: int) -> None:
        """Where the sandbox is so strict, the inbox of a customer without a hard id is empty."""
        async with Sandbox(definitions={"inbox": [ITEM, {**ITEM, "id": "i2"}]}, hard_ids_only=True) as sandbox:
            sandbox.engine.execute("shop", "customers", {"customer_ids": JANE})
            reply = await SandboxClient(session, sandbox.url).inbox(ids)

        assert (reply.status, len(reply.body["messages"])) == (200, count)

    async def test_broken_messages(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """What was handed over unchecked comes as it is, again and again the same."""
        sandbox.messages.inbox.clear()
        broken = [5, None, [1], {"id": ["x"]}, {"id": "i1", "type": 7}, {"id": "i1"}]
        sandbox.messages.inbox.put(*broken, check=False)

        body = (await api.inbox(JANE)).body

        assert body["messages"] == broken
        assert (await api.inbox(JANE, body["sync_token"])).body["messages"] == []
        assert (await api.mark_read(JANE, body["sync_token"], "i1")).status == 200
        assert (await api.inbox(JANE)).body["messages"][4] == {"id": "i1", "type": 7, "is_read": True}
