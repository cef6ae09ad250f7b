"""
Django: whom the events of a request are about, under WSGI and ASGI, in plain and asynchronous views.
"""

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse
from django.test import Client, RequestFactory, override_settings
from helpers import django_site
from helpers.clients import Configure
from helpers.django_site import AUTHENTICATION, EXPONEA
from helpers.environment import Environment

from exponea_async import Configuration, ConfigurationError, Event, Exponea, NoSubjectError
from exponea_async.integrations.django import (
    ClientLifespan,
    ExponeaMiddleware,
    acall,
    aclose,
    atrack,
    bind_customer,
    call,
    close,
    get_client,
    track,
)
from exponea_async.sandbox import Sandbox
from exponea_async.testing import SandboxThread, assert_tracked, pending_records, sandbox_configuration

JANE = {"registered": "jane@example.com"}
JOE = {"registered": "joe@example.com"}
VISITOR = {"xnpe_shop": "v1"}


class Browser:
    """A browser of the site, with cookies."""

    def __init__(self, mode: str) -> None:
        self._client: httpx.Client | httpx.AsyncClient
        if mode == "wsgi":
            transport = httpx.WSGITransport(WSGIHandler(), raise_app_exceptions=False)
            self._client = httpx.Client(transport=transport, base_url="http://site")
        else:
            self._client = httpx.AsyncClient(
                transport=httpx.ASGITransport(ASGIHandler(), raise_app_exceptions=False), base_url="http://site"
            )

    async def get(self, path: str, cookies: Mapping[str, str] = {}, headers: Mapping[str, str] = {}) -> httpx.Response:
        """Make a request."""
        self._client.cookies.update(dict(cookies))
        if isinstance(self._client, httpx.AsyncClient):
            return await self._client.get(path, headers=headers)
        return await asyncio.to_thread(self._client.get, path, headers=headers)


@asynccontextmanager
async def lifespan(application: Any) -> AsyncIterator[None]:
    """Start an ASGI application, and end it."""
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(application({"type": "lifespan"}, received.get, sent.put))
    await received.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    yield
    await received.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await task


class Browse(Protocol):
    """Returns a new browser, after the setting ``EXPONEA`` was changed."""

    def __call__(self, **settings: Any) -> Browser: ...


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> None:
    django_site.create_database(tmp_path_factory.mktemp("django") / "database.sqlite", "jane", "joe")


@pytest.fixture(params=["wsgi", "asgi"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def browse(mode: str, configure: Configure) -> AsyncIterator[Browse]:
    settings: dict[str, Any] = {
        "CONFIGURATION": configure(flush_mode="MANUAL", default_device=False),
        "CUSTOMER": "helpers.django_site.customer",
    }

    def start(**more: Any) -> Browser:
        settings.update(more)
        return Browser(mode)

    with override_settings(EXPONEA=settings):
        yield start
        await aclose(0)


async def owners() -> list[tuple[str, dict[str, str]]]:
    """Return the events that wait, each with the ids of the customer it is about."""
    return [(record.name, record.customer_ids) for record in await acall(pending_records, get_client())]


def _client_after(barrier: threading.Barrier) -> Exponea:
    barrier.wait()
    return get_client()


@pytest.mark.parametrize("view", ["", "/async"])
class TestSubject:
    async def test_user(self, browse: Browse, view: str) -> None:
        """The events of a request are about the user who is logged in, and not about the visitor, too."""
        browser = browse()
        await browser.get("/login/jane", VISITOR)
        response = await browser.get(f"{view}/visit/shown")

        assert response.status_code == 200
        assert await owners() == [("login", JANE), ("shown", JANE)]

    async def test_database(self, browse: Browse, view: str) -> None:
        """The site's functions may use the database, whichever view tracks."""
        await browse(CUSTOMER=django_site.customer_of_table).get(f"{view}/visit/shown")

        assert await owners() == [("shown", JANE)]

    async def test_visitor(self, browse: Browse, view: str) -> None:
        """Without a user they are about the visitor whom the web SDK has given a cookie."""
        await browse().get(f"{view}/visit/shown", VISITOR)

        assert await owners() == [("shown", {"cookie": "v1"})]

    async def test_nobody(self, browse: Browse, view: str) -> None:
        """Without a user and a cookie nothing is tracked."""
        response = await browse().get(f"{view}/visit/shown")

        assert response.status_code == 200
        assert await owners() == []
        assert get_client().stats().dropped == {"nobody": 1}

    async def test_consent(self, browse: Browse, view: str) -> None:
        """Nothing is tracked of users who have not consented."""
        browser = browse(CONSENT=django_site.has_consented)
        await browser.get("/login/jane", VISITOR)
        await browser.get(f"{view}/visit/before")
        await browser.get(f"{view}/visit/after", {"consent": "yes"})

        assert await owners() == [("after", JANE)]

    async def test_identify(self, browse: Browse, view: str) -> None:
        """The user and the visitor become one customer where the view says so."""
        browser = browse()
        await browser.get("/login/jane", VISITOR)
        await browser.get(f"{view}/identify")

        assert ("customer", {"cookie": "v1", **JANE}) in await owners()

    async def test_identify_somebody_unknown(self, browse: Browse, view: str) -> None:
        """It is an error for a visitor whom the site does not know."""
        response = await browse().get(f"{view}/identify", VISITOR)

        assert response.status_code == 500
        assert await owners() == []


class TestContext:
    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
    @pytest.mark.parametrize(
        ("mode", "view"), [("wsgi", ""), ("asgi", ""), ("asgi", "/async")], indirect=["mode"], ids=str
    )
    async def test_streams(self, browse: Browse, view: str) -> None:
        """The subject is bound also while the content of a response is streamed."""
        browser = browse()
        await browser.get("/login/jane")
        response = await browser.get(f"{view}/stream/part")

        assert response.text == "0;1;"
        assert await owners() == [("login", JANE), ("part", JANE), ("part", JANE)]

    async def test_a_file(self, browse: Browse) -> None:
        """A response with a file is left as it is, so that servers can send the file by themselves."""
        browse()
        response = FileResponse(io.BytesIO(b"content"))
        handled = ExponeaMiddleware(lambda _: response)(RequestFactory().get("/"))

        assert handled.file_to_stream is not None

    async def test_errors(self, browse: Browse) -> None:
        """The binding of a request that fails ends with it."""
        browser = browse()
        await browser.get("/login/jane")
        response = await browser.get("/fail/broken")

        assert response.status_code == 500
        assert await owners() == [("login", JANE), ("broken", JANE)]
        with pytest.raises(NoSubjectError):
            await atrack(Event("after"))

    async def test_threads_of_the_application(self, browse: Browse) -> None:
        """A thread that the application starts has no subject, as Python has it for the context of threads."""
        browser = browse()
        await browser.get("/login/jane")
        response = await browser.get("/thread/other")

        assert response.text == "NoSubjectError"
        assert await owners() == [("login", JANE)]

    async def test_bound_later(self, browse: Browse) -> None:
        """A customer that becomes known in a view is the subject of the rest of the request."""
        await browse().get("/bind/joe@example.com", VISITOR)

        assert await owners() == [("before", {"cookie": "v1"}), ("after", JOE)]

    @pytest.mark.parametrize("view", ["/async/pause", "/visit", "/async/visit"])
    async def test_no_leaks(self, browse: Browse, view: str) -> None:
        """Of many requests at once, by threads and in the event loop, each is about its own customer."""
        browser = browse(CUSTOMER=lambda request: request.headers["X-Customer"])
        names = [f"u{number % 13}" for number in range(200)]
        await asyncio.gather(*(browser.get(f"{view}/{name}", headers={"X-Customer": name}) for name in names))

        records = await acall(pending_records, get_client())
        assert all(record.properties.get("of", record.name) == record.customer_ids["registered"] for record in records)
        assert len(records) == 200 * (2 if "pause" in view else 1)

    async def test_users_without_a_session(self, browse: Browse) -> None:
        """A user whom the application has authenticated itself counts, and not the one of the session."""
        browser = browse()
        await browser.get("/login/jane")
        response = await browser.get("/async/authenticate/joe")

        assert response.text == "joe@example.com"
        assert await owners() == [("login", JANE), ("visit", JOE)]

    @pytest.mark.parametrize("mode", ["wsgi"], indirect=True)
    async def test_streams_that_are_not_read_to_their_end(self, browse: Browse) -> None:
        """The subject is bound also while the content of a response is closed."""
        browse()

        def read() -> None:
            browser = Client()
            browser.cookies["xnpe_shop"] = "v1"
            response: Any = browser.get("/close")
            assert next(response.streaming_content) == b"0;"
            response.close()

        await asyncio.to_thread(read)

        assert await owners() == [("closed", {"cookie": "v1"})]

    @pytest.mark.parametrize("mode", ["wsgi"], indirect=True)
    async def test_headers_of_tests(self, browse: Browse) -> None:
        """A request of a test may have headers that no server would pass on."""
        browse(PROPERTIES={"user_agent": True})
        headers = {"HTTP_COOKIE": "xnpe_shop=v1", "HTTP_USER_AGENT": "5 €"}
        await asyncio.to_thread(Client().get, "/visit/shown", **headers)

        (record,) = await acall(pending_records, get_client())
        assert record.properties["user_agent"] == "5 €"

    async def test_requests_that_track_nothing(self, browse: Browse) -> None:
        """A request that tracks nothing loads neither a session nor a user, so that caches may keep its response."""
        browser = browse()
        await browser.get("/login/jane")

        assert "Vary" not in (await browser.get("/nothing")).headers
        assert (await browser.get("/visit/shown")).headers["Vary"] == "Cookie"

    async def test_sign_out(self, browse: Browse) -> None:
        """Once the user is known, what follows in the request is theirs, also after a sign-out."""
        browser = browse()
        await browser.get("/login/jane", VISITOR)
        await browser.get("/logout")

        assert await owners() == [("login", JANE), ("before", JANE), ("after", JANE)]

    async def test_properties(self, browse: Browse) -> None:
        """The events of a request carry what the setting names, and nothing else of the request."""
        properties = {"ip": 1, "user_agent": True, "location": ["page"], "referrer": True, "utm": True}
        headers = {"User-Agent": "Browser/1", "Referer": "https://a.example/x?secret=1", "X-Forwarded-For": "192.0.2.7"}
        await browse(PROPERTIES=properties).get("/visit/shown?page=2&token=3&utm_source=mail", VISITOR, headers)

        (record,) = await acall(pending_records, get_client())
        assert {name: record.properties[name] for name in ("ip", "user_agent", "location", "referrer")} == {
            "ip": "192.0.2.7",
            "user_agent": "Browser/1",
            "location": "/visit/shown?page=2",
            "referrer": "https://a.example/x",
        }
        assert record.properties["utm_source"] == "mail"

    async def test_blocking_calls(self, browse: Browse, mode: str) -> None:
        """The function for synchronous code refuses to block the event loop that runs the client."""
        response = await browse().get("/async/blocked", VISITOR)

        # Under WSGI an asynchronous view has an event loop of its own, which nobody else waits for.
        assert response.status_code == (500 if mode == "asgi" else 200)

    async def test_a_function_that_fails(self, browse: Browse) -> None:
        """If the site's function fails, the event is an error, and not somebody else's."""
        response = await browse(CUSTOMER=lambda request: request.nothing).get("/visit/shown", VISITOR)

        assert response.status_code == 500
        assert await owners() == []


class TestClient:
    @pytest.mark.parametrize("mode", ["wsgi"], indirect=True)
    async def test_one_for_all_threads(self, browse: Browse) -> None:
        """Threads that use it for the first time at the same moment use the same one."""
        browse()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(50):
                barrier = threading.Barrier(4)
                found = await asyncio.gather(*(asyncio.to_thread(_client_after, barrier) for _ in range(4)))
                assert len(set(found)) == 1
                await aclose(0)
        finally:
            sys.setswitchinterval(interval)

    async def test_where_it_runs(self, browse: Browse, mode: str) -> None:
        """Under ASGI the client runs in the event loop of the server, under WSGI in a thread of its own."""
        await browse().get("/visit/shown", VISITOR)

        threads = [each.name for each in threading.enumerate()]
        assert ("exponea_async" in threads) == (mode == "wsgi")

    @pytest.mark.parametrize("mode", ["wsgi"], indirect=True)
    async def test_scripts(self, browse: Browse, sandbox: Sandbox) -> None:
        """Without a server, for example in a management command, plain and asynchronous code have the same client."""
        browse()

        def script() -> None:
            exponea = get_client()
            with exponea.bind(exponea.for_customer(JANE)):
                track(Event("plain"))
                async_to_sync(atrack)(Event("async"))
            call(exponea.flush_data)
            close()

        await asyncio.to_thread(script)

        assert [event.event_type for event in sandbox.engine.events()] == ["plain", "async"]

    async def test_lifespan(self, configure: Configure, sandbox: Sandbox) -> None:
        """The lifespan starts the client, and uploads what waits at its end; then another one can follow."""
        for number in range(2):
            with override_settings(EXPONEA={"CONFIGURATION": configure()}):
                application = ClientLifespan(ASGIHandler())
                async with lifespan(application):
                    transport = httpx.ASGITransport(application)
                    async with httpx.AsyncClient(transport=transport, base_url="http://site") as browser:
                        await browser.get(f"/visit/shown{number}", headers={"Cookie": "xnpe_shop=v1"})
                    assert "open" in repr(get_client())

        assert [event.event_type for event in sandbox.engine.events()] == ["shown0", "shown1"]

    async def test_lifespan_after_a_call(self, browse: Browse) -> None:
        """If the client was used before the server started, for example on import, it goes on where it runs."""
        browse()
        exponea = get_client()
        await asyncio.to_thread(call, exponea.for_customer(JANE).track_event, Event("imported"))
        async with lifespan(ClientLifespan(ASGIHandler())):
            await acall(exponea.for_customer(JANE).track_event, Event("shown"))
            assert await owners() == [("imported", JANE), ("shown", JANE)]

    async def test_an_event_loop_that_has_ended(self, browse: Browse) -> None:
        """A client that was left open in an event loop goes on in a thread, with the same queue."""
        browser = browse()

        async def request() -> None:
            await browser.get("/visit/first", VISITOR)

        await asyncio.to_thread(asyncio.run, request())
        await asyncio.to_thread(call, get_client().for_customer(JANE).track_event, Event("second"))

        assert await owners() == [("first", {"cookie": "v1"}), ("second", JANE)]

    async def test_changed_settings(self, browse: Browse) -> None:
        """A changed setting closes the client, and the next use creates one anew."""
        browse()
        first = get_client()
        with override_settings(EXPONEA=first.configuration):
            second = get_client()
            assert second is not first
        assert get_client() is not second


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "trouble"),
        [
            (5, "EXPONEA: expected a dict, got 5. Use some of the keys CONFIGURATION,"),
            ({"CUSTOMR": 1}, r"EXPONEA: unknown key 'CUSTOMR'. Did you mean 'CUSTOMER'\?"),
            ("nowhere.SETTINGS", r"EXPONEA\['CONFIGURATION'\]: can't import 'nowhere.SETTINGS'"),
            ("asyncio.run", r"EXPONEA\['CONFIGURATION'\]: expected Configuration, got <function run"),
            ({}, r"EXPONEA\['CONFIGURATION'\]: EXPONEA_PROJECT_TOKEN"),
            ({"CONFIGURATION": {}}, r"EXPONEA\['CONFIGURATION'\]: project_token"),
            ({"CONFIGURATION": {"projct_token": "x"}}, r"unknown key 'projct_token'. Did you mean 'project_token'\?"),
            ({"HOOKS": 5}, r"EXPONEA\['HOOKS'\]: expected Hooks, got 5"),
            ({"CUSTOMER": 5}, r"EXPONEA\['CUSTOMER'\]: expected a function, got 5"),
            (
                {"CUSTOMER": "asyncio.sleep"},
                r"EXPONEA\['CUSTOMER'\]: expected a plain function, got the async function",
            ),
            ({"CONSENT": "no.where"}, r"EXPONEA\['CONSENT'\]: can't import 'no.where'"),
            ({"VISITOR": "no"}, r"EXPONEA\['VISITOR'\]: expected a bool, got 'no'"),
            ({"PROPERTIES": ["ip"]}, r"EXPONEA\['PROPERTIES'\]: expected a dict, got \['ip'\]"),
            ({"PROPERTIES": {"agent": 1}}, r"EXPONEA\['PROPERTIES'\]: unknown key 'agent'"),
            ({"PROPERTIES": {"ip": True}}, r"EXPONEA\['PROPERTIES'\]: ip: "),
        ],
        ids=str,
    )
    def test_wrong(self, setting: Any, trouble: str) -> None:
        """A wrong setting is an error of Django's kind when the server starts; it names the place and what to do."""
        if isinstance(setting, dict) and setting:
            setting = {"CONFIGURATION": Configuration(project_token="shop", authorization_token="key"), **setting}
        with override_settings(EXPONEA=setting), pytest.raises(ImproperlyConfigured, match=trouble):
            WSGIHandler()

    def test_order(self, configure: Configure) -> None:
        """The middleware before Django's authentication is an error if a customer is to be found."""
        setting = {"CONFIGURATION": configure(), "CUSTOMER": django_site.customer}
        with (
            override_settings(EXPONEA=setting, MIDDLEWARE=[EXPONEA, AUTHENTICATION]),
            pytest.raises(ImproperlyConfigured, match=r"MIDDLEWARE: .* is before .* Move it behind"),
        ):
            WSGIHandler()

    def test_dotted_paths(self) -> None:
        """The setting may be the path of a configuration, and all parts may be paths."""
        with override_settings(EXPONEA="helpers.django_site.CONFIGURATION"):
            assert get_client().configuration is django_site.CONFIGURATION

    def test_environment(self, environment: Environment) -> None:
        """Without the setting, the client is configured by the environment."""
        environment(EXPONEA_PROJECT_TOKEN="outside", EXPONEA_AUTHORIZATION_TOKEN="key", EXPONEA_STORAGE="memory:")
        with override_settings(EXPONEA={}):
            assert get_client().configuration.project_token == "outside"

    def test_requests_without_the_middleware(self) -> None:
        """A function that needs the middleware says so."""
        with pytest.raises(ConfigurationError, match="did not pass ExponeaMiddleware"):
            bind_customer(RequestFactory().get("/"), "jane")


def test_the_test_kit() -> None:
    """A plain test of a site finds its events with the functions of the package for tests."""
    with (
        SandboxThread() as sandbox,
        override_settings(EXPONEA={"CONFIGURATION": sandbox_configuration(sandbox)}),
    ):
        browser = Client()
        browser.cookies["xnpe_test"] = "a1b2c3"
        browser.get("/visit/shown")

        assert_tracked(sandbox, "shown", customer={"cookie": "a1b2c3"})


def test_the_example() -> None:
    """The example runs by itself, and prints what arrives: of the visitor before the sign-in, of the user after it."""
    program = Path(__file__).parent.parent.parent / "examples" / "django_shop.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=120)

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()] == [
        *("page_visit", "search", "purchase"),
        "customer",
    ]
    assert "page_visit {'cookie': 'a1b2c3'} {'utm_source': 'newsletter'" in done.stdout
    assert "purchase {'registered': 'jane@example.com'} {'product': 'teapot'" in done.stdout
