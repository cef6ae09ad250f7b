"""
Customer tokens: how they are issued and verified, and which routes accept and require them.
"""

import asyncio
import base64
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
import pytest
from helpers.sandbox_client import BOB, JANE, STATIC, SandboxClient

from exponea_async.sandbox import Project, Sandbox, issue_token
from exponea_async.sandbox.jwt import JwtError, verify_token

SECRET = "made-up"
IDS = {"registered": "jane@x.com"}


def case_ids() -> Iterator[str]:
    """Name the cases by their numbers: the tokens themselves depend on the time."""
    return map(str, itertools.count())


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_header(token: str, header: Any) -> str:
    return encoded(header) + token[token.index(".") :]


class TestVerification:
    def test_a_valid_token(self) -> None:
        """Verification returns the ids of the token until it expires."""
        token = issue_token(SECRET, IDS, 60, now=1000.0)

        assert verify_token(SECRET, token, 1059.0) == IDS
        with pytest.raises(JwtError, match="expired"):
            verify_token(SECRET, token, 1060.0)

    def test_a_token_of_another_library(self) -> None:
        """A token with its claims in another order and without optional claims is valid."""
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
            "\udcff.\udcff.\udcff",
            issue_token(SECRET, IDS).replace(".", ".\udcff", 1),
            issue_token(SECRET, IDS).replace(".", ".é", 1),
            issue_token(SECRET, IDS) + "é",
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
            with_header(issue_token(SECRET, IDS), {"alg": "none"}),
            with_header(issue_token(SECRET, IDS), {"alg": "HS512"}),
            with_header(issue_token(SECRET, IDS), ["HS256"]),
            encoded({"alg": "none"}) + "." + encoded({"ids": IDS, "exp": 4e9}) + ".",
        ],
        ids=case_ids(),
    )
    def test_invalid_tokens(self, token: str) -> None:
        """A token that is malformed, forged, unsigned, expired or without ids is invalid."""
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


async def statuses(api: SandboxClient, ids: Mapping[str, str]) -> list[int]:
    """Return the statuses of all routes that accept a customer token."""
    responses = [
        await api.inbox(ids),
        await api.blocks(ids, "static"),
        await api.mark_read(ids, "t", "i"),
        await api.bundle(),
    ]
    return [response.status for response in responses]


class TestRoutes:
    @pytest.mark.parametrize("token_ids", [IDS, JANE])
    async def test_a_token_of_the_customer(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, token_ids: dict[str, str]
    ) -> None:
        """The inbox and content blocks accept a token of the customer, with or without the cookie."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, token_ids)}")

        assert await statuses(api, JANE) == [200, 200, 410, 200]
        assert sandbox.requests[-1].scheme == "Bearer"

    @pytest.mark.parametrize(
        ("token_ids", "ids"),
        [
            (IDS, BOB),
            (IDS, {"cookie": "c1"}),
            (IDS, {**JANE, "loyalty": "7"}),
            (JANE, {**JANE, "cookie": "other"}),
            ({"cookie": "c1"}, JANE),
        ],
    )
    async def test_a_token_of_another_customer(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, token_ids: dict[str, str], ids: dict[str, str]
    ) -> None:
        """A token without all hard ids of the request is rejected."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, token_ids)}")

        assert await statuses(api, ids) == [403, 403, 403, 200]

    @pytest.mark.parametrize(
        "token",
        ["", "junk", "é.é.é", issue_token("another", IDS), issue_token(SECRET, IDS, expires_in=-1)],
        ids=case_ids(),
    )
    async def test_invalid_tokens(self, sandbox: Sandbox, session: aiohttp.ClientSession, token: str) -> None:
        """A malformed, forged or expired token is rejected."""
        assert await statuses(SandboxClient(session, sandbox.url, f"Bearer {token}"), JANE) == [401] * 4

    @pytest.mark.parametrize("scheme", ["Bearer", "Basic", "Token"])
    async def test_bytes_that_are_not_text(self, sandbox: Sandbox, scheme: str) -> None:
        """A header that is neither ASCII nor UTF-8 is rejected, too, on all routes."""
        address = sandbox.url.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*address.split(":"))
        path = "/wxstatic/projects/shop/bundle-android.json?v=2"
        head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {scheme} "
        token = issue_token(SECRET, IDS).replace(".", ".\udcff", 1).encode(errors="surrogateescape")
        writer.write(head.encode() + token + b"\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        writer.close()
        assert status.split()[1] == b"401"

    async def test_routes_without_customer_tokens(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        """All other routes reject customer tokens."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, IDS)}")

        responses = [await api.in_app(JANE), await api.segments(), await api.consents(), await api.self_check()]

        assert [response.status for response in responses] == [401] * 4

    @pytest.mark.parametrize(("project", "expected"), [("shop", [200, 200, 410, 200]), ("strict", [401] * 4)])
    async def test_keys_instead_of_tokens(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, project: str, expected: list[int]
    ) -> None:
        """The same routes accept a key too, unless the project requires a customer token."""
        assert await statuses(SandboxClient(session, sandbox.url, project=project), JANE) == expected

    @pytest.mark.parametrize(("project", "status"), [("strict", 200), ("plain", 401), ("none", 404)])
    async def test_tokens_by_project(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, project: str, status: int
    ) -> None:
        """A token is accepted only for a project with a secret."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, IDS)}", project)

        assert (await api.inbox(JANE)).status == status

    async def test_without_ids(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        """A request without ids is a 400, before its ids are compared with the token."""
        api = SandboxClient(session, sandbox.url, f"Bearer {issue_token(SECRET, IDS)}")

        assert (await api.inbox(None)).status == 400

    async def test_without_projects_any_token_is_accepted(self, session: aiohttp.ClientSession) -> None:
        """A sandbox without projects has no secret, and accepts any token that is not empty."""
        async with Sandbox() as open_sandbox:
            assert (await SandboxClient(session, open_sandbox.url, "Bearer any").inbox(JANE)).status == 200
            assert (await SandboxClient(session, open_sandbox.url, "Bearer ").inbox(JANE)).status == 401


def test_required_tokens_need_a_secret() -> None:
    """A project can't require tokens without a secret to verify them."""
    with pytest.raises(ValueError, match="jwt_secret"):
        Project("shop", require_jwt=True)
