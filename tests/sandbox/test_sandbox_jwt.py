"""
Customers' tokens: how they are made, read, and asked for by the routes.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from helpers.sandbox_client import BOB, JANE, STATIC, SandboxClient

from exponea_async.sandbox import Project, Sandbox, issue_token
from exponea_async.sandbox.jwt import JwtError, verify_token

SECRET = "made-up"
IDS = {"registered": "jane@x.com"}


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_head(token: str, head: Any) -> str:
    return encoded(head) + token[token.index(".") :]


class TestReading:
    def test_a_good_one(self) -> None:
        """A token gives back the ids that it was made for, until it expires."""
        token = issue_token(SECRET, IDS, 60, now=1000.0)

        assert verify_token(SECRET, token, 1059.0) == IDS
        with pytest.raises(JwtError, match="expired"):
            verify_token(SECRET, token, 1060.0)

    def test_one_made_elsewhere(self) -> None:
        """A token with its claims in another order and without those that aren't needed is read."""
        token = (
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
            ".eyJpZHMiOnsicmVnaXN0ZXJlZCI6ImphbmVAeC5jb20ifSwiZXhwIjo0MTAyNDQ0ODAwfQ"
            ".rQCgf6t80G3Up2c_pt_OBGn1nhDzh3Uuzq-bdK-jiM0"
        )

        assert verify_token(SECRET, token, 4102444799.0) == IDS

    @pytest.mark.parametrize(
        "token",
        [
            "",
            "a.b",
            "a.b.c",
            "é.é.é",
            issue_token("another", IDS),
            issue_token(SECRET, IDS)[:-4],
            issue_token(SECRET, IDS, -1),
            issue_token(SECRET, {}),
            issue_token(SECRET, {"registered": ""}),
            issue_token(SECRET, IDS, claims={"ids": ["registered"]}),
            issue_token(SECRET, IDS, claims={"ids": {"registered": 5}}),
            issue_token(SECRET, IDS, claims={"exp": "tomorrow"}),
            issue_token(SECRET, IDS, claims={"exp": None}),
            issue_token(SECRET, IDS, claims={"exp": True}),
            with_head(issue_token(SECRET, IDS), {"alg": "none"}),
            with_head(issue_token(SECRET, IDS), {"alg": "HS512"}),
            with_head(issue_token(SECRET, IDS), ["HS256"]),
            encoded({"alg": "none"}) + "." + encoded({"ids": IDS, "exp": 4e9}) + ".",
        ],
    )
    def test_bad_ones(self, token: str) -> None:
        """What is broken, forged, unsigned, or vouches for nobody is refused."""
        with pytest.raises(JwtError):
            verify_token(SECRET, token, time.time())


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    projects = [
        Project("shop", ["key"], jwt_secret=SECRET),
        Project("strict", ["key"], jwt_secret=SECRET, require_jwt=True),
        Project("plain", ["key"]),
    ]
    async with Sandbox(projects=projects, definitions={"content_blocks": [STATIC]}) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def statuses(api: SandboxClient, ids: Mapping[str, str]) -> list[int]:
    """Asks all routes that take a customer's token."""
    replies = [
        await api.inbox(ids),
        await api.blocks(ids, "static"),
        await api.mark_read(ids, "t", "i"),
        await api.bundle(),
    ]
    return [reply.status for reply in replies]


class TestRoutes:
    @pytest.mark.parametrize("vouched", [IDS, JANE])
    async def test_a_customer_s_token_opens_its_routes(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, vouched: dict[str, str]
    ) -> None:
        """The inbox and content blocks open with the token of the customer; the cookie may come along."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, vouched)}")

        assert await statuses(api, JANE) == [200, 200, 410, 200]
        assert sandbox.requests[-1].scheme == "Bearer"

    @pytest.mark.parametrize(
        ("vouched", "ids"),
        [
            (IDS, BOB),
            (IDS, {"cookie": "c1"}),
            (IDS, {**JANE, "loyalty": "7"}),
            (JANE, {**JANE, "cookie": "other"}),
            ({"cookie": "c1"}, JANE),
        ],
    )
    async def test_another_customer_s_token(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, vouched: dict[str, str], ids: dict[str, str]
    ) -> None:
        """A token opens nothing of a customer for whose hard ids it doesn't vouch."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, vouched)}")

        assert await statuses(api, ids) == [403, 403, 403, 200]

    @pytest.mark.parametrize(
        "token", ["", "junk", issue_token("another", IDS), issue_token(SECRET, IDS, expires_in=-1)]
    )
    async def test_bad_tokens(self, sandbox: Sandbox, session: aiohttp.ClientSession, token: str) -> None:
        """A broken, forged or expired token opens nothing."""
        assert await statuses(SandboxClient(session, sandbox.url, f"Bearer {token}"), JANE) == [401] * 4

    async def test_other_routes_take_keys_only(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        """All other routes stay closed to a customer's token."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, IDS)}")

        replies = [await api.in_app(JANE), await api.segments(), await api.consents(), await api.self_check()]

        assert [reply.status for reply in replies] == [401] * 4

    @pytest.mark.parametrize(("project", "expected"), [("shop", [200, 200, 410, 200]), ("strict", [401] * 4)])
    async def test_keys_where_tokens_are_known(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, project: str, expected: list[int]
    ) -> None:
        """A key opens these routes too, unless the project requires a customer's token."""
        assert await statuses(SandboxClient(session, sandbox.url, project=project), JANE) == expected

    @pytest.mark.parametrize(("project", "status"), [("strict", 200), ("plain", 401), ("none", 404)])
    async def test_tokens_by_project(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, project: str, status: int
    ) -> None:
        """A token needs a project that knows its secret."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, IDS)}", project)

        assert (await api.inbox(JANE)).status == status

    async def test_without_ids(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        """A request without ids is a 400 before a token is held against it."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, IDS)}")

        assert (await api.inbox(None)).status == 400

    async def test_without_projects_any_token_will_do(self, session: aiohttp.ClientSession) -> None:
        """A sandbox without projects knows no secret, and takes any token."""
        async with Sandbox() as open_sandbox:
            assert (await SandboxClient(session, open_sandbox.url, "Bearer any").inbox(JANE)).status == 200
            assert (await SandboxClient(session, open_sandbox.url, "Bearer ").inbox(JANE)).status == 401


def test_a_token_can_t_be_required_without_a_secret() -> None:
    """A project that requires what it can't check is refused."""
    with pytest.raises(ValueError, match="jwt_secret"):
        Project("shop", require_jwt=True)
