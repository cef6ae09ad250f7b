"""
The ASGI middleware: whom the events of a request are about.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from helpers.clients import Configure
from helpers.web import Application, Receive, Scope, Send, call, http_scope, owners, tracked, visitor

from exponea_async import (
    ConfigurationError,
    DroppedError,
    Event,
    Exponea,
    InvalidEventError,
    NoSubjectError,
)
from exponea_async.integrations.asgi import ExponeaMiddleware, RequestProperties, bind_customer, identify_visitor

JANE = {"registered": "jane@example.com"}
JOE = {"registered": "joe@example.com"}


def tracking(exponea: Exponea, *names: str) -> Application:
    """Return an application that tracks events."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for name in names or ("visit",):
            await exponea.track_event(Event(name))

    return application


class TestCustomer:
    @pytest.mark.parametrize(
        ("returned", "ids"),
        [
            (JANE, JANE),
            ("jane@example.com", JANE),
            ({"crm_id": "7", "registered": "jane@example.com"}, {"crm_id": "7", **JANE}),
        ],
    )
    async def test_authenticated(self, exponea: Exponea, returned: Any, ids: Mapping[str, str]) -> None:
        """The events of a request carry exactly the ids of the customer whom the application has authenticated."""
        middleware = ExponeaMiddleware(tracking(exponea), exponea, customer=lambda _: returned)
        await call(middleware)

        assert await owners(exponea) == [("visit", ids)]

    async def test_customer_wins_over_visitor(self, exponea: Exponea) -> None:
        """The cookie of the visitor is not among the ids of a customer, so that nobody is merged by a request."""
        middleware = ExponeaMiddleware(tracking(exponea), exponea, customer=lambda _: "jane@example.com")
        await call(middleware, http_scope(headers=[visitor("v1")]))

        assert await owners(exponea) == [("visit", JANE)]

    @pytest.mark.parametrize("returned", [None, {}])
    async def test_not_authenticated(self, exponea: Exponea, returned: Any) -> None:
        """Without a customer the events are about the visitor."""
        middleware = ExponeaMiddleware(tracking(exponea), exponea, customer=lambda _: returned)
        await call(middleware, http_scope(headers=[visitor("v1")]))

        assert await owners(exponea) == [("visit", {"cookie": "v1"})]

    async def test_authentication_inside(self, exponea: Exponea) -> None:
        """It does not matter that the authentication runs within the middleware, nor that an event precedes it."""

        async def authenticate(scope: Scope, receive: Receive, send: Send) -> None:
            await exponea.track_event(Event("before"))
            scope["user"] = "jane@example.com"
            await tracking(exponea, "after")(scope, receive, send)

        middleware = ExponeaMiddleware(authenticate, exponea, customer=lambda scope: scope.get("user"))
        await call(middleware, http_scope(headers=[visitor("v1")]))

        assert await owners(exponea) == [("before", {"cookie": "v1"}), ("after", JANE)]

    async def test_known_customers_stay(self, exponea: Exponea) -> None:
        """Once the customer is known, that is the subject to the end, so that a sign-out is still theirs."""

        async def sign_out(scope: Scope, receive: Receive, send: Send) -> None:
            await exponea.track_event(Event("before"))
            del scope["user"]
            await exponea.track_event(Event("signed_out"))

        middleware = ExponeaMiddleware(sign_out, exponea, customer=lambda scope: scope.get("user"))
        await call(middleware, http_scope(user="jane@example.com"))

        assert await owners(exponea) == [("before", JANE), ("signed_out", JANE)]

    async def test_async_function(self, exponea: Exponea) -> None:
        """An async function is awaited once, before the application is called."""
        calls: list[str] = []

        async def customer(scope: Scope) -> str:
            await asyncio.sleep(0)
            calls.append(scope["path"])
            return "jane@example.com"

        middleware = ExponeaMiddleware(tracking(exponea, "one", "two"), exponea, customer=customer)
        await call(middleware)

        assert calls == ["/"]
        assert await owners(exponea) == [("one", JANE), ("two", JANE)]

    async def test_not_called_without_need(self, exponea: Exponea) -> None:
        """A plain function is not called in requests that track nothing."""
        calls: list[Scope] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            return

        await call(ExponeaMiddleware(application, exponea, customer=calls.append))

        assert calls == []

    async def test_bound_later(self, exponea: Exponea) -> None:
        """A customer that becomes known in a request is the subject of its rest, also in tasks that run already."""
        signed_in = asyncio.Event()

        async def track_later() -> None:
            await signed_in.wait()
            await exponea.track_event(Event("later"))

        async def sign_in(scope: Scope, receive: Receive, send: Send) -> None:
            task = asyncio.create_task(track_later())
            await exponea.track_event(Event("before"))
            await asyncio.to_thread(bind_customer, exponea, scope, "jane@example.com")
            bind_customer(exponea, scope, None)
            await exponea.track_event(Event("after"))
            signed_in.set()
            await task

        await call(ExponeaMiddleware(sign_in, exponea), http_scope(headers=[visitor("v1")]))

        assert await owners(exponea) == [("before", {"cookie": "v1"}), ("after", JANE), ("later", JANE)]

    async def test_bound_without_middleware(self, exponea: Exponea) -> None:
        """Without the middleware there is nothing that a customer could be bound to, and the error says so."""
        with pytest.raises(ConfigurationError, match="did not pass the middleware"):
            bind_customer(exponea, http_scope(), "jane@example.com")


class TestVisitor:
    @pytest.mark.parametrize(
        ("cookies", "expected"),
        [
            ("xnpe_shop=abc-DEF_123", "abc-DEF_123"),
            ("__exponea_etc__=abc", "abc"),
            ("__exponea_etc__=old; xnpe_shop=new", "new"),
            ('other=1; xnpe_shop="quoted"; more=2', "quoted"),
            ("xnpe_shop=bad value; __exponea_etc__=good", "good"),
            ("xnpe_shop=first; xnpe_shop=second", "first"),
            ("xnpe_shop=" + "x" * 64, "x" * 64),
            ("xnpe_other=abc", None),
            ("xnpe_shop=", None),
            ("xnpe_shop=" + "x" * 65, None),
            ("xnpe_shop=---", None),
            ("xnpe_shop=null", None),
            ("xnpe_shop=undefined", None),
            ("xnpe_shop=čaj", None),
            # One byte, which is a letter in Latin-1.
            ("xnpe_shop=caf\udce9", None),
            ("xnpe_shop=٣", None),
            ("xnpe_shop=a\nb", None),
            ("xnpe_shop=abc\n", None),
            ("xnpe_shop=\x1cabc", None),
            ("xnpe_shop=abc\xa0", None),
            ('xnpe_shop="abc', None),
            ('xnpe_shop=""abc""', None),
            ("xnpe_shop=a%20b", None),
            ("xnpe_shop={}", None),
            ("", None),
        ],
    )
    async def test_cookies(self, exponea: Exponea, cookies: str, expected: str | None) -> None:
        """The cookie of the project counts before the general one, and only what the web SDK would have made."""
        await call(ExponeaMiddleware(tracking(exponea), exponea), http_scope(headers=[("Cookie", cookies)]))

        assert await owners(exponea) == ([("visit", {"cookie": expected})] if expected else [])
        assert exponea.stats().dropped == ({} if expected else {"nobody": 1})

    async def test_several_headers(self, exponea: Exponea) -> None:
        """Cookies may be in several headers, as in HTTP/2."""
        scope = http_scope(headers=[("cookie", "one=1"), visitor("v1"), ("cookie", "two=2")])
        await call(ExponeaMiddleware(tracking(exponea), exponea), scope)

        assert await owners(exponea) == [("visit", {"cookie": "v1"})]

    async def test_switched_off(self, exponea: Exponea) -> None:
        """With `visitor=False` the cookie is ignored."""
        middleware = ExponeaMiddleware(tracking(exponea), exponea, visitor=False)
        await call(middleware, http_scope(headers=[visitor("v1")]))

        assert await owners(exponea) == []
        assert exponea.stats().dropped == {"nobody": 1}


class TestConsent:
    async def test_refused(self, exponea: Exponea) -> None:
        """Without consent nothing is tracked, of customers and of visitors, and what is dropped is counted."""
        middleware = ExponeaMiddleware(
            tracking(exponea), exponea, customer=lambda scope: scope.get("user"), consent=lambda _: False
        )
        await call(middleware, http_scope(user="jane@example.com"))
        await call(middleware, http_scope(headers=[visitor("v1")]))

        assert await owners(exponea) == []
        assert exponea.stats().dropped == {"nobody": 2}

    async def test_changed_within_a_request(self, exponea: Exponea) -> None:
        """Consent counts from the moment it is given, to the moment it is withdrawn, also for bound customers."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            bind_customer(exponea, scope, JANE)
            for given, name in ((False, "before"), (True, "while"), (False, "after")):
                scope["consent"] = given
                await exponea.track_event(Event(name))

        await call(ExponeaMiddleware(application, exponea, consent=lambda scope: bool(scope["consent"])))

        assert await owners(exponea) == [("while", JANE)]

    async def test_async_function(self, exponea: Exponea) -> None:
        """An async function may tell of the consent."""

        async def consent(scope: Scope) -> bool:
            await asyncio.sleep(0)
            return "ok" in scope["path"]

        middleware = ExponeaMiddleware(tracking(exponea), exponea, consent=consent)
        for path in ("/ok", "/no"):
            await call(middleware, http_scope(path, headers=[visitor(path.strip("/"))]))

        assert await owners(exponea) == [("visit", {"cookie": "ok"})]


def fail(scope: Scope) -> None:
    raise LookupError("secret of jane@example.com")


async def fail_later(scope: Scope) -> None:
    await asyncio.sleep(0)
    fail(scope)


FAILING: dict[str, dict[str, Any]] = {
    "customer raises": {"customer": fail},
    "customer raises later": {"customer": fail_later},
    "customer returns a number": {"customer": lambda _: 7},
    "customer returns a blank id": {"customer": lambda _: " "},
    "customer returns an awaitable": {"customer": lambda scope: asyncio.sleep(0, scope)},
    "consent raises": {"consent": fail},
    "consent raises later": {"consent": fail_later},
    "consent returns no bool": {"consent": lambda _: "no"},
}


class TestFailingFunctions:
    @pytest.mark.parametrize("functions", FAILING.values(), ids=FAILING)
    async def test_raise(self, exponea: Exponea, functions: dict[str, Any]) -> None:
        """What fails is raised to the code that tracks, without its message, and the event is nobody else's."""
        caught: list[InvalidEventError] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            for _ in range(2):
                with pytest.raises(InvalidEventError) as raised:
                    await exponea.track_event(Event("visit"))
                caught.append(raised.value)

        await call(ExponeaMiddleware(application, exponea, **functions), http_scope(headers=[visitor("v1")]))

        assert await owners(exponea) == []
        assert [error.path.partition(".")[0] for error in caught] == [*functions] * 2 or caught[0].path.startswith(
            "ids"
        )
        assert "secret" not in "".join(map(str, caught))

    @pytest.mark.parametrize("functions", FAILING.values(), ids=FAILING)
    async def test_log(self, configure: Configure, functions: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        """With `on_invalid="log"` the request goes on; the events are dropped and counted, the error is logged once."""
        settings = configure(storage="memory:", flush_mode="MANUAL", default_device=False, on_invalid="log")
        async with Exponea(settings) as exponea:
            middleware = ExponeaMiddleware(tracking(exponea, "one", "two"), exponea, **functions)
            await call(middleware, http_scope(headers=[visitor("v1")]))

            assert await owners(exponea) == []
            assert exponea.stats().dropped == {"invalid": 2}
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1

    async def test_cancelled(self, exponea: Exponea) -> None:
        """A request that is cancelled while a function is awaited ends, and is not taken for a failure."""
        waiting = asyncio.Event()

        async def customer(scope: Scope) -> str:
            waiting.set()
            await asyncio.Event().wait()
            return ""

        request = asyncio.create_task(call(ExponeaMiddleware(tracking(exponea), exponea, customer=customer)))
        await waiting.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

        assert await owners(exponea) == []

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"customer": "jane"}, "customer"),
            ({"consent": True}, "consent"),
            ({"visitor": "yes"}, "visitor"),
            ({"properties": {"ip": "1"}}, "properties"),
            ({"exponea": None}, "exponea"),
        ],
    )
    async def test_arguments(self, exponea: Exponea, arguments: dict[str, Any], field: str) -> None:
        """A wrong argument is an error where the middleware is made, which names it."""
        with pytest.raises(ConfigurationError) as raised:
            ExponeaMiddleware(tracking(exponea), **{"exponea": exponea, **arguments})
        assert raised.value.field == field


class TestIdentifyVisitor:
    async def identify(self, exponea: Exponea, scope: Scope, **arguments: Any) -> str:
        statuses: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            statuses.append((await identify_visitor(exponea, scope, {"plan": "gold"})).status)

        middleware = ExponeaMiddleware(application, exponea, customer=lambda scope: scope.get("user"), **arguments)
        await call(middleware, scope)
        return statuses[0]

    async def test_joined(self, exponea: Exponea) -> None:
        """One update carries the ids of the customer and the cookie of the visitor, so that both are merged."""
        assert await self.identify(exponea, http_scope(user=JANE, headers=[visitor("v1")])) == "queued"

        (update,) = await tracked(exponea, "customer")
        assert update.customer_ids == {"cookie": "v1", **JANE}
        assert update.properties == {"plan": "gold"}

    async def test_properties_of_the_request(self, exponea: Exponea) -> None:
        """What events take from their requests does not become properties of the customer."""
        await self.identify(exponea, http_scope(user=JANE), properties=RequestProperties(ip=0, location=[]))

        assert (await tracked(exponea, "customer"))[0].properties == {"plan": "gold"}

    async def test_without_visitor(self, exponea: Exponea) -> None:
        """Without a cookie it is an update of the customer."""
        await self.identify(exponea, http_scope(user=JANE))

        assert await owners(exponea) == [("customer", JANE)]

    @pytest.mark.parametrize("user", [None, {"cookie": "v2"}])
    async def test_not_authenticated(self, exponea: Exponea, user: Any) -> None:
        """A visitor whom nobody has authenticated is never identified."""
        with pytest.raises(InvalidEventError, match="authenticated"):
            await self.identify(exponea, http_scope(user=user, headers=[visitor("v1")]))
        assert await owners(exponea) == []

    async def test_without_consent(self, exponea: Exponea) -> None:
        """Without consent nothing is sent."""
        scope = http_scope(user=JANE, headers=[visitor("v1")])

        assert await self.identify(exponea, scope, consent=lambda _: False) == "dropped"
        assert await owners(exponea) == []

    async def test_visitors_are_ignored(self, exponea: Exponea) -> None:
        """With `visitor=False` the cookie is not joined."""
        await self.identify(exponea, http_scope(user=JANE, headers=[visitor("v1")]), visitor=False)

        assert await owners(exponea) == [("customer", JANE)]

    async def test_hostile_cookie(self, exponea: Exponea) -> None:
        """A cookie that the web SDK would not have made is not joined."""
        await self.identify(exponea, http_scope(user=JANE, headers=[visitor("a b<script>")]))

        assert await owners(exponea) == [("customer", JANE)]


class TestScopes:
    async def test_nothing_remains_bound(self, exponea: Exponea) -> None:
        """After a request, also one that fails, nothing is bound."""

        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            raise ZeroDivisionError

        await call(ExponeaMiddleware(tracking(exponea), exponea), http_scope(headers=[visitor("v1")]))
        with pytest.raises(ZeroDivisionError):
            await call(ExponeaMiddleware(failing, exponea))
        with pytest.raises(NoSubjectError):
            await exponea.track_event(Event("after"))

    async def test_other_scopes(self, exponea: Exponea) -> None:
        """Scopes that are about no end user pass unchanged, and bind nothing."""
        seen: list[Scope] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(dict(scope))
            with pytest.raises(NoSubjectError):
                await exponea.track_event(Event("never"))

        for kind in ("lifespan", "other"):
            await call(ExponeaMiddleware(application, exponea), {"type": kind})
        assert seen == [{"type": "lifespan"}, {"type": "other"}]

    async def test_two_clients(self, exponea: Exponea, configure: Configure) -> None:
        """The middleware of two clients bind a subject for each."""
        async with Exponea(configure(storage="memory:", flush_mode="MANUAL", project_token="other")) as other:

            async def application(scope: Scope, receive: Receive, send: Send) -> None:
                bind_customer(other, scope, JOE)
                await exponea.track_event(Event("visit"))
                await other.track_event(Event("visit"))

            inner = ExponeaMiddleware(application, other)
            await call(ExponeaMiddleware(inner, exponea, customer=lambda _: JANE))

            assert (await owners(exponea), await owners(other)) == ([("visit", JANE)], [("visit", JOE)])

    async def test_other_customers(self, exponea: Exponea) -> None:
        """An event about another customer carries nothing of the request that it is tracked in."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await exponea.for_customer(JOE).track_event(Event("invited"))
            await exponea.track_many([Event("sent"), (JOE, Event("received"))])

        middleware = ExponeaMiddleware(
            application, exponea, customer=lambda _: JANE, properties=RequestProperties(ip=0)
        )
        await call(middleware)

        records = await tracked(exponea)
        assert [(each.name, each.customer_ids, each.properties.get("ip")) for each in records] == [
            ("invited", JOE, None),
            ("sent", JANE, "192.0.2.1"),
            ("received", JOE, None),
        ]

    async def test_location_of_mounted_applications(self, exponea: Exponea) -> None:
        """The location is the path that the browser has requested, also where a framework shortens it afterwards."""

        async def mount(scope: Scope, receive: Receive, send: Send) -> None:
            scope["path"] = scope["path"].removeprefix("/shop")
            await exponea.track_event(Event("visit"))

        properties = RequestProperties(location=[])
        middleware = ExponeaMiddleware(mount, exponea, customer=lambda _: JANE, properties=properties)
        await call(middleware, http_scope("/shop/items"))

        assert (await tracked(exponea))[0].properties["location"] == "/shop/items"

    async def test_nobody(self, exponea: Exponea) -> None:
        """The receipt of an event of nobody says why it was dropped."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            receipt = await exponea.track_event(Event("visit"))
            with pytest.raises(DroppedError, match="nobody"):
                await receipt.delivered()

        await call(ExponeaMiddleware(application, exponea))
