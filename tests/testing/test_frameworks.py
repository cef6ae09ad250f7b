"""
The assertions with the test clients of frameworks, whose code runs in other threads and event loops than the test.
"""

import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import pytest
from celery import Celery
from django.test import Client, override_settings
from helpers.django_site import EXPONEA
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from exponea_async import Event, Exponea
from exponea_async.integrations.django import close
from exponea_async.portal import Portal
from exponea_async.sandbox import Sandbox
from exponea_async.testing import SandboxThread, assert_tracked, sandbox_configuration

JANE = {"registered": "jane@example.com"}


@pytest.fixture
def server() -> Iterator[Sandbox]:
    with SandboxThread() as running:
        yield running


@pytest.fixture
def portal(server: Sandbox) -> Iterator[Portal]:
    with Portal(Exponea(sandbox_configuration(server))) as opened:
        yield opened


def browser_of(app: Starlette) -> AbstractContextManager[Any]:
    """Return Starlette's test client, whose latest versions warn that they would rather have another HTTP library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient  # noqa: PLC0415 - warns on import
    return TestClient(app)


@pytest.mark.parametrize("storage", ["memory:", "queue.sqlite"])
def test_starlette(server: Sandbox, storage: str, tmp_path: object) -> None:
    """The queue of a client in the event loop of Starlette's test client is found, in memory and in a file."""
    queue = storage if storage == "memory:" else f"{tmp_path}/{storage}"
    client = Exponea(sandbox_configuration(server, storage=queue))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    async def buy(_: Request) -> Response:
        await client.for_customer(JANE).track_event(Event("purchase", {"total_price": 7.99}))
        return PlainTextResponse("Thank you!")

    with browser_of(Starlette(routes=[Route("/buy", buy)], lifespan=lifespan)) as browser:
        assert browser.get("/buy").status_code == 200
        assert_tracked(server, "purchase", {"total_price": 7.99}, customer=JANE, count=1)


def test_django(server: Sandbox) -> None:
    """With the settings of the sandbox, what the views of a Django site track is found."""
    setting = {"CONFIGURATION": sandbox_configuration(server), "CUSTOMER": lambda _: "jane@example.com"}
    with override_settings(EXPONEA=setting, MIDDLEWARE=[EXPONEA]):
        assert Client().get("/visit/purchase").status_code == 200
        assert Client().get("/async/visit/refund").status_code == 200

        assert_tracked(server, "purchase", customer=JANE, count=1)
        assert_tracked(server, "refund", customer=JANE, count=1)
        close(timeout=0)


def test_celery(server: Sandbox, portal: Portal) -> None:
    """What a task of Celery tracks is found where tasks run in the process of the test."""
    app = Celery("shop", set_as_current=False)
    app.conf.task_always_eager = True

    @app.task  # type: ignore[untyped-decorator]
    def ship(order: int) -> None:
        portal.call(portal.exponea.for_customer(JANE).track_event, Event("shipped", {"order": order}))

    ship.delay(7).get()
    assert_tracked(server, "shipped", {"order": 7}, customer=JANE, count=1)
