"""
Requests to the API: attempts, credentials and responses.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, get_args

import pytest
from aiohttp import web
from helpers.clients import PROJECT, Configure
from helpers.environment import SetConstants
from helpers.waiting import until, until_succeeds

from exponea_async import ClosedError, RequestRefusedError, UnavailableError
from exponea_async._pipeline import api as api_module
from exponea_async._pipeline.api import MAX_RESPONSE, ApiClient
from exponea_async._pipeline.network import Network
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.retry import RateLimiter
from exponea_async.requests import ApiRequest, RequestKind, RequestLimits
from exponea_async.storage.memory import MemoryStorage

IDS = {"cookie": "c", "registered": "jane"}
PATH = "/webxp/s/shop/inappmessages?compatibility=3"


KINDS = get_args(RequestKind)


class Host:
    """A server with a list of responses, of which the last one is repeated."""

    def __init__(self) -> None:
        self.responses: list[Callable[[], web.StreamResponse]] = [lambda: web.json_response({"success": True})]
        self.seen: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.max_concurrent = self.concurrent = 0
        self.delay = 0.0
        #: The path whose requests hang until `release` is set, and how many of them hang.
        self.hanging = ""
        self.hung = 0
        self.release = asyncio.Event()
        self.url = ""

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Return the next response."""
        self.seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        self.concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self.concurrent)
        await asyncio.sleep(self.delay)
        if request.path == self.hanging:
            self.hung += 1
            await self.release.wait()
        self.concurrent -= 1
        return (self.responses.pop(0) if len(self.responses) > 1 else self.responses[0])()

    @property
    def keys(self) -> list[str]:
        """Return the ``Authorization`` headers of all requests."""
        return [headers["Authorization"] for _, _, headers, _ in self.seen]


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", host.respond)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield host
    await runner.cleanup()


CreateApi = Callable[..., ApiClient]


@pytest.fixture
async def create_api(host: Host, configure: Configure) -> AsyncIterator[CreateApi]:
    made: list[ApiClient] = []
    storage = MemoryStorage()
    await storage.open()

    def make(**settings: Any) -> ApiClient:
        configuration = configure(**{"base_url": host.url, **settings})
        api = ApiClient(
            configuration, ProjectStore(configuration, storage), Network(configuration.upload), RateLimiter(100_000.0)
        )
        api.open()
        made.append(api)
        return api

    yield make
    for api in made:
        await api.aclose()


@pytest.fixture
def project() -> str:
    return PROJECT


async def send(
    api: ApiClient,
    project: str,
    path: str,
    body: Mapping[str, Any] | None,
    *,
    ids: Mapping[str, str] | None = None,
    **options: Any,
) -> bytes:
    """Make a request for in-app messages, or of another kind."""
    kind = options.pop("kind", "in_app_messages")
    return await api.request(project, ApiRequest(kind, path, body, **options), ids=ids)


def status(code: int, body: str = "", **headers: str) -> Callable[[], web.Response]:
    return lambda: web.Response(status=code, text=body, headers=headers)


class TestResponses:
    async def test_a_request_with_a_body_is_a_post(self, host: Host, create_api: CreateApi, project: str) -> None:
        """The body is sent as JSON with the key of the project, and the body of the response is returned unchanged."""
        api = create_api()
        body = await send(api, project, PATH, {"customer_ids": IDS, "none": None})

        assert body == b'{"success": true}'
        method, path, headers, sent = host.seen[0]
        assert (method, path, headers["Authorization"]) == ("POST", PATH, "Token key")
        assert sent == b'{"customer_ids":{"cookie":"c","registered":"jane"},"none":null}'

    async def test_a_request_without_a_body_is_a_get(self, host: Host, create_api: CreateApi, project: str) -> None:
        """It has no body, compressed or not."""
        api = create_api(upload={"gzip": True})
        await send(api, project, "/data/v2/projects/shop/consent/categories", None)

        method, _, headers, sent = host.seen[0]
        assert (method, sent) == ("GET", b"")
        assert "Content-Encoding" not in headers

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 302])
    async def test_a_refused_request_is_not_repeated(
        self, host: Host, create_api: CreateApi, project: str, code: int
    ) -> None:
        """The error has the status and the reason of the platform."""
        host.responses = [status(code, '{"success": false, "errors": ["no such thing"]}')]
        api = create_api()

        with pytest.raises(RequestRefusedError) as caught:
            await send(api, project, PATH, {}, max_attempts=4)

        assert (caught.value.status, len(host.seen)) == (code, 1)
        assert caught.value.retryable is False
        assert str(code) in str(caught.value)

    @pytest.mark.parametrize("code", [408, 425, 429, 500, 503])
    async def test_temporary_errors_are_retried(
        self, host: Host, create_api: CreateApi, project: str, code: int
    ) -> None:
        """The request is repeated while there is no usable response, up to the maximum number of attempts."""
        host.responses = [status(code), status(code), status(code), status(200, "fine")]
        api = create_api()

        assert await send(api, project, PATH, {}, max_attempts=4) == b"fine"
        assert len(host.seen) == 4

    async def test_the_last_error_is_raised(self, host: Host, create_api: CreateApi, project: str) -> None:
        """After the last attempt its error is raised, with the status."""
        host.responses = [status(503)]
        api = create_api()

        with pytest.raises(UnavailableError) as caught:
            await send(api, project, PATH, {}, max_attempts=3)

        assert (caught.value.status, len(host.seen)) == (503, 3)

    async def test_retry_after_is_respected(self, host: Host, create_api: CreateApi, project: str) -> None:
        """The next attempt is not made earlier than the platform asks for."""
        host.responses = [status(429, **{"Retry-After": "1"}), status(200)]
        api, loop = create_api(), asyncio.get_running_loop()
        began = loop.time()
        await send(api, project, PATH, {}, max_attempts=2)

        assert loop.time() - began >= 1.0

    async def test_an_unknown_project(self, host: Host, create_api: CreateApi) -> None:
        """No request is made for a project that is neither configured nor stored."""
        with pytest.raises(RequestRefusedError, match="no address and no key are known for project outlet"):
            await send(create_api(), "outlet", PATH, {})

        assert host.seen == []

    async def test_an_unreachable_host(self, create_api: CreateApi, project: str) -> None:
        """It is unavailable."""
        with pytest.raises(UnavailableError):
            await send(create_api(base_url="http://127.0.0.1:9"), project, PATH, {}, max_attempts=2)

    async def test_a_response_of_ten_megabytes_is_read(self, host: Host, create_api: CreateApi, project: str) -> None:
        """Responses may be large, up to a limit."""
        host.responses = [lambda: web.Response(body=b"x" * 10_000_000)]
        api = create_api()

        assert len(await send(api, project, PATH, {})) == 10_000_000

    async def test_a_response_beyond_the_limit_is_not_read(
        self, host: Host, create_api: CreateApi, project: str
    ) -> None:
        """It counts as unavailable."""
        host.responses = [lambda: web.Response(body=b"x" * (MAX_RESPONSE + 1))]
        api = create_api()

        with pytest.raises(UnavailableError, match="too large"):
            await send(api, project, PATH, {})

    @pytest.mark.parametrize("kind", KINDS)
    async def test_concurrency_is_limited(
        self, host: Host, create_api: CreateApi, project: str, kind: RequestKind
    ) -> None:
        """More requests of a kind than its limit wait for their turn."""
        host.delay = 0.02
        concurrency: dict[str, Any] = {f"{kind}_concurrency": 3}
        api = create_api(limits=RequestLimits(**concurrency))
        await asyncio.gather(*[send(api, project, PATH, {}, kind=kind) for _ in range(20)])

        assert len(host.seen) == 20
        assert 1 < host.max_concurrent <= 3

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_route_that_hangs_delays_no_other_kind(
        self, host: Host, create_api: CreateApi, project: str, kind: RequestKind
    ) -> None:
        """While all requests of one kind hang, and more of them wait, those of the other kinds are answered."""
        host.hanging = "/slow"
        api = create_api()
        hanging = [asyncio.create_task(send(api, project, "/slow", {}, kind=kind)) for _ in range(20)]
        await until(lambda: host.hung == 8)
        for other in set(KINDS) - {kind}:
            assert await send(api, project, PATH, {}, kind=other) == b'{"success": true}'
        host.release.set()
        await asyncio.gather(*hanging)

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_request_has_the_time_limit_of_its_kind(
        self, host: Host, create_api: CreateApi, project: str, kind: RequestKind
    ) -> None:
        """Without a response in time, the platform is unavailable."""
        host.hanging = PATH.partition("?")[0]
        timeout: dict[str, Any] = {f"{kind}_timeout": 0.05}
        api = create_api(limits=RequestLimits(**timeout))
        with pytest.raises(UnavailableError, match="no response in time"):
            await send(api, project, PATH, {}, kind=kind)

    async def test_waiting_for_the_turn_uses_up_no_time_limit(
        self, host: Host, create_api: CreateApi, project: str
    ) -> None:
        """The time limit of a request counts from when it is sent."""
        host.delay = 0.1
        api = create_api(limits=RequestLimits(in_app_messages_concurrency=1, in_app_messages_timeout=1.0))
        sent: list[float] = []
        note = lambda: sent.append(asyncio.get_running_loop().time())  # noqa: E731 - a function to be called

        async def send_all() -> None:
            sent.clear()
            host.seen.clear()
            await asyncio.gather(*[send(api, project, PATH, {}, before_sending=note) for _ in range(15)])

        # On a busy machine one of them may take longer than its time limit.
        await until_succeeds(send_all, UnavailableError)
        assert len(host.seen) == len(sent) == 15
        assert sent[-1] - sent[0] > 1.0

    async def test_the_wait_for_the_turn_is_limited(
        self, host: Host, create_api: CreateApi, project: str, set_constants: SetConstants
    ) -> None:
        """A request that has waited too long for its turn is not sent, and the error names the setting."""
        set_constants(api_module, MAX_QUEUE_TIME=0.05)
        host.hanging = "/slow"
        api = create_api(limits=RequestLimits(app_inbox_concurrency=1))
        hanging = asyncio.create_task(send(api, project, "/slow", {}, kind="app_inbox"))
        await until(lambda: host.hung == 1)
        with pytest.raises(UnavailableError, match=r"limits\.app_inbox_concurrency is 1"):
            await send(api, project, PATH, {}, kind="app_inbox")
        host.release.set()
        await hanging
        assert await send(api, project, PATH, {}, kind="app_inbox") == b'{"success": true}'

    async def test_a_request_can_be_prevented(self, host: Host, create_api: CreateApi, project: str) -> None:
        """An error that is raised right before a request is sent prevents it, and frees its turn."""

        def prevent() -> None:
            raise RequestRefusedError("not now")

        api = create_api(limits=RequestLimits(in_app_messages_concurrency=1))
        for _ in range(2):
            with pytest.raises(RequestRefusedError, match="not now"):
                await send(api, project, PATH, {}, before_sending=prevent)
        assert host.seen == []


class TestCustomerTokens:
    async def test_without_a_provider_the_key_is_used(self, host: Host, create_api: CreateApi, project: str) -> None:
        """Personal requests use the key of the project if there is no provider."""
        api = create_api()
        await send(api, project, PATH, {}, ids=IDS)

        assert host.keys == ["Token key"]

    async def test_personal_requests_use_the_customers_own_token(
        self, host: Host, create_api: CreateApi, project: str
    ) -> None:
        """The provider is called for each of them; other requests use the key of the project."""
        asked: list[Any] = []

        async def provide() -> str:
            asked.append(None)
            return f"jwt-{len(asked)}"

        api = create_api(customer_token_provider=provide)
        for ids in (IDS, IDS, None):
            await send(api, project, PATH, {}, ids=ids)

        assert host.keys == ["Bearer jwt-1", "Bearer jwt-2", "Token key"]

    async def test_a_provider_may_take_the_ids(self, host: Host, create_api: CreateApi, project: str) -> None:
        """A provider that takes an argument is called with the customer's ids."""

        async def provide(ids: Mapping[str, str]) -> str:
            return f"Bearer jwt-of-{ids['registered']}"

        api = create_api(customer_token_provider=provide)
        await send(api, project, PATH, {}, ids=IDS)

        assert host.keys == ["Bearer jwt-of-jane"]

    @pytest.mark.parametrize(
        "token", [None, "", "  ", 5, b"jwt", "Bearer ", "a b", "a\r\nX-Evil: 1", "a\x00", "é", "\ud800"]
    )
    async def test_without_a_token_no_request_is_made(
        self, host: Host, create_api: CreateApi, project: str, token: Any
    ) -> None:
        """The error has the status 0 if the provider returns something else than a token."""

        async def provide() -> Any:
            return token

        api = create_api(customer_token_provider=provide)
        with pytest.raises(RequestRefusedError) as caught:
            await send(api, project, PATH, {}, ids=IDS, max_attempts=4)

        assert (caught.value.status, host.seen) == (0, [])

    @pytest.mark.parametrize("token", ["jwt\n", " jwt ", "Bearer jwt\r\n"])
    async def test_whitespace_around_a_token_is_removed(
        self, host: Host, create_api: CreateApi, project: str, token: str
    ) -> None:
        """A token that is read from a file ends with a line break, which no header may contain."""

        async def provide() -> str:
            return token

        api = create_api(customer_token_provider=provide)
        await send(api, project, PATH, {}, ids=IDS)

        assert host.keys == ["Bearer jwt"]

    async def test_the_error_of_a_provider_is_not_shown(self, host: Host, create_api: CreateApi, project: str) -> None:
        """Its message may contain a secret, so only its class is named; the error itself is the cause."""

        async def provide() -> str:
            raise ValueError("secret-of-mine")

        api = create_api(customer_token_provider=provide)
        with pytest.raises(RequestRefusedError) as caught:
            await send(api, project, PATH, {}, ids=IDS, max_attempts=4)

        assert "secret-of-mine" not in str(caught.value)
        assert isinstance(caught.value.__cause__, ValueError)
        assert host.seen == []

    async def test_a_provider_must_be_async(self, create_api: CreateApi, project: str) -> None:
        """The hint says how to define it."""
        api = create_api(customer_token_provider=lambda: "jwt")

        with pytest.raises(RequestRefusedError, match=r"is not an async function\. Define it"):
            await send(api, project, PATH, {}, ids=IDS)


class TestLifecycle:
    async def test_a_closed_client_makes_no_requests(self, host: Host, create_api: CreateApi, project: str) -> None:
        """Requests raise ClosedError until it is opened again."""
        api = create_api()
        await send(api, project, PATH, {})
        await api.aclose()

        with pytest.raises(ClosedError):
            await send(api, project, PATH, {})
        api.open()
        await send(api, project, PATH, {})
        assert len(host.seen) == 2

    async def test_closing_cancels_requests_in_flight(self, host: Host, create_api: CreateApi, project: str) -> None:
        """Callers that wait for a response get an UnavailableError."""
        host.delay = 30.0
        api = create_api()
        waiting = asyncio.create_task(send(api, project, PATH, {}))
        await until(lambda: bool(host.seen))
        await api.aclose()

        with pytest.raises(UnavailableError):
            await asyncio.wait_for(waiting, 60)


def test_connections_are_created_with_the_first_request(configure: Configure) -> None:
    """A client without requests has no connection pool."""
    # Creating a connection pool outside of an event loop would raise an error.
    api = ApiClient(
        configure(), ProjectStore(configure(), MemoryStorage()), Network(configure().upload), RateLimiter(100.0)
    )

    asyncio.run(api.aclose())
