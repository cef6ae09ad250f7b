"""
Keys are masked wherever a tool that reports errors could show them.
"""

import asyncio
import copy
import json
import pickle
from base64 import b64encode
from collections.abc import Awaitable
from typing import Any

import pytest
from aiohttp import web
from helpers.clients import Connect
from helpers.frames import locals_of_error, locals_of_tasks
from helpers.local_server import LocalServer

from exponea_async import (
    BasicAuth,
    Configuration,
    ConfigurationChange,
    ConfigurationError,
    Event,
    ExponeaError,
    ExponeaProject,
)
from exponea_async._internal.secrets import Secret, SecretBytes

KEY = "s3cret-key"
TOKEN = "s3cret.jwt.token"
PAIR = b64encode(f"id:{KEY}".encode()).decode()


class SilentServer(LocalServer):
    """A server that keeps a request waiting until the test lets it refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.authorization = ""
        self.arrived, self.released = asyncio.Event(), asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.authorization = request.headers["Authorization"]
        self.arrived.set()
        await self.released.wait()
        return web.json_response({"errors": ["no"]}, status=403)


async def _provide_token(_ids: Any) -> str:
    return TOKEN


async def _outcome(call: Awaitable[object]) -> ExponeaError | None:
    try:
        await call
    except ExponeaError as error:
        return error
    return None


def revealed(shown: list[str]) -> list[str]:
    """Return the local variables with a key in them."""
    return [each for each in shown if any(secret in each for secret in (KEY, TOKEN, PAIR))]


def test_the_repr_is_masked() -> None:
    """The repr has nothing of the value; otherwise it is a string, also after a copy and through pickle."""
    for secret in (Secret(KEY), SecretBytes(KEY.encode())):
        for same in (secret, copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):
            assert KEY not in f"{same!r} {[same]!r}"
            assert same == secret
    assert f"Token {Secret(KEY)}" == f"Token {KEY}"


@pytest.mark.parametrize("authorization", [KEY, BasicAuth("id", KEY)])
def test_settings(authorization: Any) -> None:
    """A configuration compares and is used as with a plain key."""
    project = ExponeaProject("p", authorization)
    settings = Configuration(
        project_token="p", authorization_token=authorization, project_mapping={"PAYMENT": [project]}
    )

    assert settings.authorization_token == authorization
    assert json.dumps(settings.authorization_token if isinstance(authorization, str) else "")
    assert KEY not in repr([settings, settings.main, vars(type(settings)), settings.authorization_token])


@pytest.mark.parametrize(
    "variables",
    [
        {"EXPONEA_AUTHORIZATION_TOKEN": KEY, "EXPONEA_FLUSH_PERIOD": "soon"},
        {"EXPONEA_AUTHORIZATION_TOKEN": KEY, "EXPONEA_FLUSH_MODE": "soon"},
        {"EXPONEA_BASIC_AUTH_KEY_ID": "id", "EXPONEA_BASIC_AUTH_SECRET": KEY, "EXPONEA_UPLOAD_GZIP": "maybe"},
        {"EXPONEA_BASIC_AUTH_KEY_ID": "i:d", "EXPONEA_BASIC_AUTH_SECRET": KEY},
        {"EXPONEA_AUTHORIZATION_TOKEN": KEY, "EXPONEA_UNKNOWN": "x"},
        {"EXPONEA_AUTHORIZATION_TOKEN": "other", "EXPONEA_STORAGE": f"postgresql://u:{KEY}@h:x/db"},
        {"EXPONEA_AUTHORIZATION_TOKEN": "other", "EXPONEA_STORAGE": f"postgresql://u:/{KEY}@h/db"},
        {
            "EXPONEA_AUTHORIZATION_TOKEN": "other",
            "EXPONEA_STORAGE": f"postgresql://u:{KEY}@h/db",
            "EXPONEA_POSTGRES_LISTEN_URL": f"postgresql://u:{KEY}@h/db",
            "EXPONEA_APP_GROUP": "x" * 999,
        },
        {"EXPONEA_AUTHORIZATION_TOKEN": "other", "EXPONEA_POSTGRES_LISTEN_URL": f"postgresql://u:{KEY}@h:x/db"},
        {
            "EXPONEA_AUTHORIZATION_TOKEN": "other",
            "EXPONEA_PROJECT_MAPPING": json.dumps(
                {"PAYMENT": [{"project_token": "x", "authorization_token": {"key_id": "", "secret": KEY}}]}
            ),
        },
    ],
)
def test_errors_of_the_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """An error of one variable shows no key of another one in any frame."""
    for name, value in {"EXPONEA_PROJECT_TOKEN": "p", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Configuration.from_env()
    shown = list(locals_of_error(caught.value))

    assert shown
    assert revealed(shown) == []


@pytest.mark.parametrize("authorization", [KEY, BasicAuth("id", KEY)])
@pytest.mark.parametrize("verb", ["flush_data", "fetch_consents", "fetch_app_inbox"])
async def test_requests(connect: Connect, authorization: Any, verb: str) -> None:
    """While a request waits for its response, and in the error after it, no frame shows what authorizes it."""
    async with SilentServer() as server:
        client = await connect(
            base_url=server.url,
            authorization_token=authorization,
            flush_mode="MANUAL",
            customer_token_provider=_provide_token if verb == "fetch_app_inbox" else None,
        )
        receipt = await client.track_event(Event("x"))
        waiting = asyncio.create_task(_outcome(getattr(client, verb)()))
        await server.arrived.wait()
        shown = list(locals_of_tasks())
        server.released.set()
        shown += locals_of_error(await waiting)

    assert server.authorization.rpartition(" ")[2] in (KEY, TOKEN, PAIR)
    assert any("transport" in each for each in shown)
    assert receipt.status == "queued"
    assert revealed(shown) == []


@pytest.mark.parametrize("authorization", [KEY, BasicAuth("id", KEY)])
async def test_stored_keys(connect: Connect, authorization: Any) -> None:
    """The key of a project that a device was switched to is shown neither while it is stored nor when it is used."""
    async with SilentServer() as server:
        client = await connect(device=True, flush_mode="MANUAL")
        project = ExponeaProject("other", authorization, server.url)
        switching = asyncio.create_task(client.anonymize(ConfigurationChange(project=project)))
        shown: list[str] = []
        while not switching.done():
            shown += locals_of_tasks()
            await asyncio.sleep(0)
        await client.aclose(timeout=0)
        client = await connect(device=True, flush_mode="MANUAL")
        waiting = asyncio.create_task(_outcome(client.flush_data()))
        await server.arrived.wait()
        shown += locals_of_tasks()
        server.released.set()
        await waiting

    assert server.authorization.rpartition(" ")[2] in (KEY, PAIR)
    assert any("StateChange" in each for each in shown)
    assert revealed(shown) == []


async def test_connections_that_fail(connect: Connect) -> None:
    """The errors of the HTTP library, and those raised from them, show no key in any frame."""
    client = await connect(base_url="http://127.0.0.1:9", authorization_token=KEY, flush_mode="MANUAL")
    with pytest.raises(ExponeaError) as caught:
        await client.fetch_consents()
    shown = list(locals_of_error(caught.value))

    assert any("aiohttp" in each for each in shown)
    assert revealed(shown) == []
