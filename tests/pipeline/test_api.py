"""
Questions to the platform: how often they are asked, with which key, and what comes of their answers.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from aiohttp import web
from attrs import evolve
from helpers.clients import Configure
from helpers.waiting import until

from exponea_async import ClosedError, Configuration, RequestRefusedError, UnavailableError
from exponea_async._pipeline import api as calls_module
from exponea_async._pipeline.api import ApiClient
from exponea_async._pipeline.credentials import CredentialStore
from exponea_async._pipeline.retry import RateLimiter
from exponea_async.storage.memory import MemoryStorage

IDS = {"cookie": "c", "registered": "jane"}
PATH = "/webxp/s/shop/inappmessages?compatibility=3"


class Host:
    """A platform that answers with one thing after the other, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Callable[[], web.StreamResponse]] = [lambda: web.json_response({"success": True})]
        self.seen: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.most = self.now = 0
        self.delay = 0.0
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer."""
        self.seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.delay)
        self.now -= 1
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])()

    @property
    def keys(self) -> list[str]:
        """Tell what the requests were opened with."""
        return [headers["Authorization"] for _, _, headers, _ in self.seen]


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", host.answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield host
    await runner.cleanup()


Ask = Callable[..., ApiClient]


@pytest.fixture
async def calls_of(host: Host, configure: Configure) -> AsyncIterator[Ask]:
    made: list[ApiClient] = []
    storage = MemoryStorage()
    await storage.open()

    def make(**settings: Any) -> ApiClient:
        configuration = configure(base_url=host.url, **settings)
        calls = ApiClient(configuration, CredentialStore(configuration.projects, storage), RateLimiter(100_000.0))
        calls.open()
        made.append(calls)
        return calls

    yield make
    for calls in made:
        await calls.aclose()


def project(calls: ApiClient) -> Any:
    return calls._configuration.main


def status(code: int, body: str = "", **headers: str) -> Callable[[], web.Response]:
    return lambda: web.Response(status=code, text=body, headers=headers)


class TestAnswers:
    async def test_a_question_with_a_body_is_a_post(self, host: Host, calls_of: Ask) -> None:
        """The body goes out as JSON, opened by the project's key, and the answer comes back as it is."""
        calls = calls_of()
        body = await calls.request(project(calls), PATH, {"customer_ids": IDS, "none": None})

        assert body == b'{"success": true}'
        method, path, headers, sent = host.seen[0]
        assert (method, path, headers["Authorization"]) == ("POST", PATH, "Token key")
        assert sent == b'{"customer_ids":{"cookie":"c","registered":"jane"},"none":null}'

    async def test_a_question_without_a_body_is_a_get(self, host: Host, calls_of: Ask) -> None:
        """Nothing is sent along, compressed or not."""
        calls = calls_of(upload={"gzip": True})
        await calls.request(project(calls), "/data/v2/projects/shop/consent/categories", None)

        method, _, headers, sent = host.seen[0]
        assert (method, sent) == ("GET", b"")
        assert "Content-Encoding" not in headers

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 302])
    async def test_a_refusal_is_not_asked_again(self, host: Host, calls_of: Ask, code: int) -> None:
        """What will not change is told at once, with the status and the platform's words."""
        host.answers = [status(code, '{"success": false, "errors": ["no such thing"]}')]
        calls = calls_of()

        with pytest.raises(RequestRefusedError) as caught:
            await calls.request(project(calls), PATH, {}, max_attempts=4)

        assert (caught.value.status, len(host.seen)) == (code, 1)
        assert caught.value.retryable is False
        assert str(code) in str(caught.value)

    @pytest.mark.parametrize("code", [408, 425, 429, 500, 503])
    async def test_trouble_is_asked_again(self, host: Host, calls_of: Ask, code: int) -> None:
        """While there is no usable answer it is asked again, as often as it may be."""
        host.answers = [status(code), status(code), status(code), status(200, "fine")]
        calls = calls_of()

        assert await calls.request(project(calls), PATH, {}, max_attempts=4) == b"fine"
        assert len(host.seen) == 4

    async def test_trouble_that_stays_is_told(self, host: Host, calls_of: Ask) -> None:
        """After the last time the trouble is told, with its status."""
        host.answers = [status(503)]
        calls = calls_of()

        with pytest.raises(UnavailableError) as caught:
            await calls.request(project(calls), PATH, {}, max_attempts=3)

        assert (caught.value.status, len(host.seen)) == (503, 3)

    async def test_the_platform_may_ask_to_wait(self, host: Host, calls_of: Ask) -> None:
        """It is not asked again before the time that it says itself."""
        host.answers = [status(429, **{"Retry-After": "1"}), status(200)]
        calls, loop = calls_of(), asyncio.get_running_loop()
        began = loop.time()
        await calls.request(project(calls), PATH, {}, max_attempts=2)

        assert loop.time() - began >= 1.0

    async def test_nobody_there(self, calls_of: Ask) -> None:
        """A platform that can't be reached is one without an answer."""
        calls = calls_of()
        nowhere = evolve(project(calls), base_url="http://127.0.0.1:9")

        with pytest.raises(RequestRefusedError, match="no credentials are known"):
            await calls.request(nowhere, PATH, {})
        await calls._credentials.store_credentials([nowhere])
        with pytest.raises(UnavailableError):
            await calls.request(nowhere, PATH, {}, max_attempts=2)

    async def test_an_answer_of_ten_megabytes_is_one(self, host: Host, calls_of: Ask) -> None:
        """Large answers come through, up to a bound."""
        host.answers = [lambda: web.Response(body=b"x" * 10_000_000)]
        calls = calls_of()

        assert len(await calls.request(project(calls), PATH, {})) == 10_000_000

    async def test_an_answer_of_no_end_is_none(
        self, host: Host, calls_of: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is larger than the bound is given up."""
        monkeypatch.setattr(calls_module, "MAX_RESPONSE", 1000)
        host.answers = [lambda: web.Response(body=b"x" * 1001)]
        calls = calls_of()

        with pytest.raises(UnavailableError, match="too large"):
            await calls.request(project(calls), PATH, {})

    async def test_not_all_is_asked_at_once(self, host: Host, calls_of: Ask) -> None:
        """A crowd of questions waits for its turn."""
        host.delay = 0.02
        calls = calls_of()
        await asyncio.gather(*[calls.request(project(calls), PATH, {}) for _ in range(40)])

        assert len(host.seen) == 40
        assert 1 < host.most <= calls_module.CONCURRENCY


class TestCustomerTokens:
    async def test_without_a_provider_the_key_opens_it(self, host: Host, calls_of: Ask) -> None:
        """What is personal is opened by the project's key where the host provides nothing else."""
        calls = calls_of()
        await calls.request(project(calls), PATH, {}, ids=IDS)

        assert host.keys == ["Token key"]

    async def test_the_customers_own_token_opens_what_is_personal(self, host: Host, calls_of: Ask) -> None:
        """It is asked for each time, and told as a bearer's; all else is opened by the project's key."""
        asked: list[Any] = []

        async def provide() -> str:
            asked.append(None)
            return f"jwt-{len(asked)}"

        calls = calls_of(customer_token_provider=provide)
        for ids in (IDS, IDS, None):
            await calls.request(project(calls), PATH, {}, ids=ids)

        assert host.keys == ["Bearer jwt-1", "Bearer jwt-2", "Token key"]

    async def test_a_provider_may_ask_whose_token_is_wanted(self, host: Host, calls_of: Ask) -> None:
        """One that takes an argument gets the customer's ids."""

        async def provide(ids: Mapping[str, str]) -> str:
            return f"Bearer jwt-of-{ids['registered']}"

        calls = calls_of(customer_token_provider=provide)
        await calls.request(project(calls), PATH, {}, ids=IDS)

        assert host.keys == ["Bearer jwt-of-jane"]

    @pytest.mark.parametrize(
        "token", [None, "", "  ", 5, b"jwt", "Bearer ", "a b", "a\r\nX-Evil: 1", "a\x00", "é", "\ud800"]
    )
    async def test_no_token_no_request(self, host: Host, calls_of: Ask, token: Any) -> None:
        """Where the host provides nothing that is one, nothing is asked."""

        async def provide() -> Any:
            return token

        calls = calls_of(customer_token_provider=provide)
        with pytest.raises(RequestRefusedError) as caught:
            await calls.request(project(calls), PATH, {}, ids=IDS, max_attempts=4)

        assert (caught.value.status, host.seen) == (0, [])

    @pytest.mark.parametrize("token", ["jwt\n", " jwt ", "Bearer jwt\r\n"])
    async def test_blanks_round_a_token_are_none_of_it(self, host: Host, calls_of: Ask, token: str) -> None:
        """What is read from a file ends with a line break, which no header can have."""

        async def provide() -> str:
            return token

        calls = calls_of(customer_token_provider=provide)
        await calls.request(project(calls), PATH, {}, ids=IDS)

        assert host.keys == ["Bearer jwt"]

    async def test_a_provider_that_fails_tells_no_secret(self, host: Host, calls_of: Ask) -> None:
        """Its words may hold one, so only its class is told; the error itself stands behind."""

        async def provide() -> str:
            raise ValueError("secret-of-mine")

        calls = calls_of(customer_token_provider=provide)
        with pytest.raises(RequestRefusedError) as caught:
            await calls.request(project(calls), PATH, {}, ids=IDS, max_attempts=4)

        assert "secret-of-mine" not in str(caught.value)
        assert isinstance(caught.value.__cause__, ValueError)
        assert host.seen == []

    async def test_a_plain_function_is_no_provider(self, calls_of: Ask) -> None:
        """One that is not async is told to be."""
        calls = calls_of(customer_token_provider=lambda: "jwt")

        with pytest.raises(RequestRefusedError, match=r"is not an async function\. Define it"):
            await calls.request(project(calls), PATH, {}, ids=IDS)


class TestLife:
    async def test_closed_calls_ask_nothing(self, host: Host, calls_of: Ask) -> None:
        """After the end of the client there are no answers, until it is opened again."""
        calls = calls_of()
        await calls.request(project(calls), PATH, {})
        await calls.aclose()

        with pytest.raises(ClosedError):
            await calls.request(project(calls), PATH, {})
        calls.open()
        await calls.request(project(calls), PATH, {})
        assert len(host.seen) == 2

    async def test_who_waits_gets_no_answer_at_the_end(self, host: Host, calls_of: Ask) -> None:
        """Closing cuts what is under way."""
        host.delay = 30.0
        calls = calls_of()
        waiting = asyncio.create_task(calls.request(project(calls), PATH, {}))
        await until(lambda: bool(host.seen))
        await calls.aclose()

        with pytest.raises(UnavailableError):
            await asyncio.wait_for(waiting, 5.0)


def test_a_client_that_is_never_asked_opens_no_connection(configure: Configure) -> None:
    """Nothing is made before it is needed."""
    configuration: Configuration = configure()
    calls = ApiClient(configuration, CredentialStore((), MemoryStorage()), RateLimiter(100.0))

    assert calls._transport is None
