"""
The App Inbox over real HTTP: sync tokens, read messages, and which customer gets which messages.
"""

from typing import Any

import aiohttp
import pytest
from helpers.sandbox_client import BOB, ITEM, JANE, SandboxClient

from exponea_async.sandbox import Sandbox
from exponea_async.sandbox.messages.inbox import MAX_TOKENS


@pytest.fixture
def api(sandbox: Sandbox, session: aiohttp.ClientSession) -> SandboxClient:
    for ids in (JANE, BOB):
        properties = {"first_name": ids["registered"][:4]}
        sandbox.engine.execute("shop", "customers", {"customer_ids": ids, "properties": properties})
    sandbox.messages.inbox.put(ITEM, {**ITEM, "id": "i2", "is_read": True})
    return SandboxClient(session, sandbox.url)


def read_states(body: Any) -> dict[str, bool]:
    return {message["id"]: message["is_read"] for message in body["messages"]}


class TestSync:
    async def test_the_first_fetch_returns_all_messages(self, api: SandboxClient) -> None:
        """Without a token all messages are returned, with the customer's properties filled in, and a token."""
        body = (await api.inbox(JANE)).body

        assert body["success"] is True
        assert body["messages"][0] == {**ITEM, "is_read": False, "content": {"title": "Hi jane"}}
        assert read_states(body) == {"i1": False, "i2": True}
        assert body["sync_token"]

    async def test_later_fetches_return_changes(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """With a token only new and changed messages are returned; each response has a new token."""
        first = (await api.inbox(JANE)).body["sync_token"]
        unchanged = (await api.inbox(JANE, first)).body
        sandbox.messages.inbox.put({**ITEM, "id": "i3"})
        sandbox.messages.inbox.change("i2", {"content": {"title": "Changed"}})

        changed = (await api.inbox(JANE, unchanged["sync_token"])).body

        assert unchanged["messages"] == []
        assert list(read_states(changed)) == ["i2", "i3"]
        assert len({first, unchanged["sync_token"], changed["sync_token"]}) == 3
        assert list(read_states((await api.inbox(JANE, first)).body)) == ["i2", "i3"]

    async def test_invalid_tokens_are_gone(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A token that is unknown, has expired or belongs to another customer is a 410."""
        token = (await api.inbox(JANE)).body["sync_token"]

        responses = [await api.inbox(JANE, "unknown"), await api.inbox(BOB, token)]
        sandbox.sync.expire_tokens()
        responses += [await api.inbox(JANE, token), await api.mark_read(JANE, token, "i1")]

        assert [response.status for response in responses] == [410] * 4
        assert all(response.body["success"] is False for response in responses)

    async def test_old_tokens_expire(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Beyond the maximum number of tokens the oldest ones expire."""
        first, second = [(await api.inbox(JANE)).body["sync_token"] for _ in range(2)]
        for _ in range(MAX_TOKENS - 1):
            sandbox.sync.create_token([], "shop", JANE)

        assert [(await api.mark_read(JANE, token, "i1")).status for token in (first, second)] == [410, 200]

    async def test_responses_without_a_token(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The sandbox can omit tokens; an earlier token remains valid."""
        token = (await api.inbox(JANE)).body["sync_token"]
        sandbox.sync.issues_tokens = False

        assert "sync_token" not in (await api.inbox(JANE)).body
        assert (await api.inbox(JANE, token)).body == {"success": True, "messages": []}

    @pytest.mark.parametrize("token", [5, ""])
    async def test_malformed_tokens(self, api: SandboxClient, token: Any) -> None:
        """A token that is not a non-empty string is a 400."""
        assert (await api.inbox(JANE, token)).status == 400

    async def test_a_reset(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A reset lets all tokens expire and restores the initial messages."""
        token = (await api.inbox(JANE)).body["sync_token"]
        sandbox.sync.issues_tokens = False

        sandbox.reset()

        assert (await api.inbox(JANE, token)).status == 410
        assert (await api.inbox(JANE)).body["messages"] == []
        assert sandbox.sync.issues_tokens


class TestReadMessages:
    async def test_a_message_is_read_for_one_customer(self, api: SandboxClient) -> None:
        """A message that a customer marked as read is read for this customer only, and counts as changed."""
        token = (await api.inbox(JANE)).body["sync_token"]

        response = await api.mark_read(JANE, token, "i1")

        assert (response.status, response.body) == (200, {"success": True})
        assert read_states((await api.inbox(JANE, token)).body) == {"i1": True}
        assert read_states((await api.inbox(BOB)).body) == {"i1": False, "i2": True}

    async def test_a_message_is_read_for_all_ids(self, api: SandboxClient) -> None:
        """A message that was marked as read by cookie is read for the hard id of the customer too."""
        token = (await api.inbox({"cookie": "c1"})).body["sync_token"]
        await api.mark_read({"cookie": "c1"}, token, "i1")

        assert read_states((await api.inbox({"registered": "jane@x.com"})).body)["i1"]

    async def test_messages_stay_read_after_a_login(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Messages and tokens of an anonymous customer remain read and valid after a login."""
        visitor = {"cookie": "new"}
        token = (await api.inbox(visitor)).body["sync_token"]
        assert (await api.mark_read(visitor, token, "i1")).status == 200
        known = {**visitor, "registered": "jane@x.com"}
        assert await api.link("new", {"registered": "jane@x.com"})

        assert read_states((await api.inbox(known)).body)["i1"]
        assert (await api.inbox(known, token)).status == 200
        assert len(sandbox.engine.customers("shop")) == 2

    async def test_unknown_messages(self, api: SandboxClient) -> None:
        """A message that the customer doesn't have can't be marked as read."""
        token = (await api.inbox(JANE)).body["sync_token"]

        response = await api.mark_read(JANE, token, "i1", "none")

        assert (response.status, response.body["success"]) == (400, False)
        assert read_states((await api.inbox(JANE)).body)["i1"] is False

    @pytest.mark.parametrize(("token", "ids"), [(None, ["i1"]), ("", ["i1"]), ("t", [1]), ("t", [""])])
    async def test_invalid_requests(self, api: SandboxClient, token: Any, ids: list[Any]) -> None:
        """Marking messages as read needs a token, and ids that are non-empty strings."""
        assert (await api.mark_read(JANE, token, *ids)).status == 400


class TestCustomers:
    async def test_for_some_customers(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A message for one customer is returned for each of its ids, and to no other customer."""
        sandbox.messages.inbox.clear()
        sandbox.messages.inbox.put(ITEM, to={"registered": "jane@x.com"})

        requested = [JANE, {"cookie": "c1"}, {"registered": "jane@x.com"}, BOB, {"cookie": "c1", "registered": "new"}]
        counts = [len((await api.inbox(ids)).body["messages"]) for ids in requested]

        assert counts == [1, 1, 1, 0, 0]

    @pytest.mark.parametrize(("ids", "count"), [({"cookie": "new"}, 0), ({"cookie": "c1"}, 2), (BOB, 2)])
    async def test_hard_ids_only(self, session: aiohttp.ClientSession, ids: Any, count: int) -> None:
        """With hard_ids_only, the inbox of a customer without a hard id is empty."""
        async with Sandbox(definitions={"inbox": [ITEM, {**ITEM, "id": "i2"}]}, hard_ids_only=True) as sandbox:
            sandbox.engine.execute("shop", "customers", {"customer_ids": JANE})
            response = await SandboxClient(session, sandbox.url).inbox(ids)

        assert (response.status, len(response.body["messages"])) == (200, count)

    async def test_unchecked_messages(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Messages that were defined without a check are returned unchanged, and don't count as changed."""
        sandbox.messages.inbox.clear()
        messages = [5, None, [1], {"id": ["x"]}, {"id": "i1", "type": 7}, {"id": "i1"}]
        sandbox.messages.inbox.put(*messages, check=False)

        body = (await api.inbox(JANE)).body

        assert body["messages"] == messages
        assert (await api.inbox(JANE, body["sync_token"])).body["messages"] == []
        assert (await api.mark_read(JANE, body["sync_token"], "i1")).status == 200
        assert (await api.inbox(JANE)).body["messages"][4] == {"id": "i1", "type": 7, "is_read": True}
