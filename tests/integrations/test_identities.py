"""
One end user's identity never leaks into another's, whatever a request does and however it ends.
"""

import asyncio
import gc
import sys
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from helpers.identities import (
    consent_of,
    customer_of,
    event_of,
    misattributed,
    scope_of,
    tracked_numbers,
)
from helpers.waiting import until
from helpers.web import Application, Receive, Scope, Send, call, http_scope, tracked
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse

from exponea_async import Event, Exponea, NoSubjectError
from exponea_async.integrations.asgi import ExponeaMiddleware, RequestProperties, bind_customer, identify_visitor

#: What a request does, given the number of steps that it waits for.
Work = Callable[[Exponea, Scope, Receive, Send], Awaitable[None]]


def middleware(exponea: Exponea, application: Application, **options: Any) -> ExponeaMiddleware:
    return ExponeaMiddleware(application, exponea, customer=customer_of, consent=consent_of, **options)


def running(exponea: Exponea, work: Work) -> ExponeaMiddleware:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await work(exponea, scope, receive, send)

    return middleware(exponea, application)


async def wait_a_while(scope: Scope) -> None:
    """Let others run, for a number of steps that differs between requests, so that they overlap in all ways."""
    for _ in range(int(scope["path"].strip("/")) * 7 % 11):
        await asyncio.sleep(0)


async def assert_nothing_bound(exponea: Exponea) -> None:
    with pytest.raises(NoSubjectError):
        await exponea.track_event(Event("after"))


async def assert_own(exponea: Exponea, count: int, *names: str) -> None:
    """Assert that each request has tracked these events, each with exactly its own customer's ids."""
    records = await tracked(exponea)
    expected = Counter((name, str(number)) for number in tracked_numbers(count) for name in names)

    assert misattributed(records) == []
    assert Counter((record.name, record.properties["who"]) for record in records) == expected
    await assert_nothing_bound(exponea)


# What requests do


async def track_twice(exponea: Exponea, scope: Scope, _receive: Receive, _send: Send) -> None:
    await exponea.track_event(event_of(scope, "first"))
    await wait_a_while(scope)
    await exponea.track_event(event_of(scope, "second"))


async def stream(exponea: Exponea, scope: Scope, receive: Receive, send: Send) -> None:
    async def body() -> AsyncIterator[bytes]:
        for name in ("first", "second"):
            await wait_a_while(scope)
            await exponea.track_event(event_of(scope, name))
            yield name.encode()

    await StreamingResponse(body())(scope, receive, send)


async def in_background(exponea: Exponea, scope: Scope, receive: Receive, send: Send) -> None:
    async def work() -> None:
        await wait_a_while(scope)
        await exponea.track_event(event_of(scope, "second"))

    await exponea.track_event(event_of(scope, "first"))
    response = StreamingResponse(iter([b"body"]), background=BackgroundTask(work))
    await response(scope, receive, send)


async def in_tasks(exponea: Exponea, scope: Scope, _receive: Receive, _send: Send) -> None:
    async def work(name: str) -> None:
        await wait_a_while(scope)
        await exponea.track_event(event_of(scope, name))

    await asyncio.gather(work("first"), work("second"))


async def in_threads(exponea: Exponea, scope: Scope, _receive: Receive, _send: Send) -> None:
    # As a framework runs plain functions: in a thread, with a copy of the context.
    subjects = [await asyncio.to_thread(lambda: exponea.current) for _ in range(2)]
    for subject, name in zip(subjects, ("first", "second"), strict=True):
        await subject.track_event(event_of(scope, name))


async def as_many(exponea: Exponea, scope: Scope, _receive: Receive, _send: Send) -> None:
    await wait_a_while(scope)
    await exponea.track_many([event_of(scope, "first"), event_of(scope, "second")])


WORKS = (track_twice, stream, in_background, in_tasks, as_many)


class TestManyRequests:
    async def test_ten_thousand(self, exponea: Exponea) -> None:
        """Each event of 10,000 requests at the same time carries exactly the ids of its own customer or visitor."""
        count = 10_000
        application = running(exponea, track_twice)
        await asyncio.gather(*(call(application, scope_of(number)) for number in range(count)))

        await assert_own(exponea, count, "first", "second")
        assert exponea.stats().dropped == {"nobody": 2 * (count - len(tracked_numbers(count)))}

    @pytest.mark.parametrize("work", [*WORKS, in_threads])
    async def test_all_kinds_of_work(self, exponea: Exponea, work: Work) -> None:
        """The same holds while responses are streamed, in background tasks, in other tasks and in threads."""
        count = 1_000 if work is not in_threads else 200
        application = running(exponea, work)
        await asyncio.gather(*(call(application, scope_of(number)) for number in range(count)))

        await assert_own(exponea, count, "first", "second")

    async def test_tasks_that_outlive_the_request(self, exponea: Exponea) -> None:
        """A task that goes on after its request keeps the customer of the request."""
        tasks: list[asyncio.Task[object]] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            async def work() -> None:
                await asyncio.sleep(0)
                await exponea.track_event(event_of(scope, "later"))

            tasks.append(asyncio.create_task(work()))

        await asyncio.gather(*(call(middleware(exponea, application), scope_of(number)) for number in range(500)))
        await asyncio.gather(*tasks)

        await assert_own(exponea, 500, "later")

    async def test_one_task_for_many_requests(self, exponea: Exponea) -> None:
        """Requests that follow each other in one task, as on one connection of some servers, do not mix either."""
        application = running(exponea, track_twice)
        for number in range(500):
            await call(application, scope_of(number))

        await assert_own(exponea, 500, "first", "second")

    async def test_customers_that_become_known(self, exponea: Exponea) -> None:
        """Customers that are bound while requests overlap are bound to their own requests only."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await wait_a_while(scope)
            bind_customer(exponea, scope, customer_of(scope))
            await track_twice(exponea, scope, receive, send)

        own = ExponeaMiddleware(application, exponea, consent=consent_of)
        await asyncio.gather(*(call(own, scope_of(number)) for number in range(1_000)))

        await assert_own(exponea, 1_000, "first", "second")

    async def test_joined_visitors(self, exponea: Exponea) -> None:
        """An explicit identification has the customer and the visitor of one request, never of two."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await wait_a_while(scope)
            if customer_of(scope):
                await identify_visitor(exponea, scope, {"who": scope["path"].strip("/")})

        await asyncio.gather(*(call(middleware(exponea, application), scope_of(number)) for number in range(1_000)))

        updates = await tracked(exponea, "customer")
        assert len(updates) == 400
        for update in updates:
            number = int(update.properties["who"])
            joined = {"cookie": f"visitor-{number}"} if number % 5 == 2 else {}
            assert update.customer_ids == {"registered": f"user-{number}", **joined}

    async def test_properties_of_requests(self, exponea: Exponea) -> None:
        """The properties that are taken from requests are those of the event's own request."""
        application = running(exponea, track_twice)
        application = middleware(exponea, application.app, properties=RequestProperties(ip=1, user_agent=True))

        async def request(number: int) -> None:
            scope = scope_of(number)
            scope["headers"] += [(b"x-forwarded-for", f"10.0.{number // 256}.{number % 256}".encode())]
            scope["headers"] += [(b"user-agent", f"browser-{number}".encode())]
            await call(application, scope)

        await asyncio.gather(*map(request, range(1_000)))

        for record in await tracked(exponea):
            number = int(record.properties["who"])
            assert record.properties["ip"] == f"10.0.{number // 256}.{number % 256}"
            assert record.properties["user_agent"] == f"browser-{number}"


class TestEnds:
    async def test_exceptions(self, exponea: Exponea) -> None:
        """A request that fails leaves nothing behind for the others."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await track_twice(exponea, scope, receive, send)
            if int(scope["path"].strip("/")) % 2:
                raise ZeroDivisionError

        requests = (call(middleware(exponea, application), scope_of(number)) for number in range(1_000))
        results = await asyncio.gather(*requests, return_exceptions=True)

        assert sum(isinstance(result, ZeroDivisionError) for result in results) == 500
        await assert_own(exponea, 1_000, "first", "second")

    async def test_cancelled(self, exponea: Exponea) -> None:
        """Requests that are cancelled at any step leave nothing behind, and what they track at their end is theirs."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await track_twice(exponea, scope, receive, send)
                await asyncio.Event().wait()
            finally:
                await exponea.track_event(event_of(scope, "ended"))

        application = middleware(exponea, application)
        tasks = [asyncio.create_task(call(application, scope_of(number))) for number in range(1_000)]
        for step in range(30):
            await asyncio.sleep(0)
            for task in tasks[step::30]:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        records = await tracked(exponea)
        assert misattributed(records) == []
        assert len({record.properties["who"] for record in records}) > 500
        await assert_nothing_bound(exponea)

    async def test_disconnected(self, exponea: Exponea) -> None:
        """A client that disconnects while the response is streamed changes nothing."""

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        application = running(exponea, stream)
        await asyncio.gather(*(application(scope_of(number), receive, send) for number in range(1_000)))

        assert misattributed(await tracked(exponea)) == []
        await assert_nothing_bound(exponea)

    @pytest.mark.parametrize("end", ["current", "client"])
    async def test_closed_late(self, exponea: Exponea, end: str) -> None:
        """
        A generator whose request has ended is closed by the garbage collector, while others make requests.

        What it tracks then is never theirs. It is its own customer's if the generator has kept the subject.
        """
        abandoned: list[weakref.ref[object]] = []
        errors: list[Exception] = []
        # What earlier tests have left need not be searched by each of the collections.
        gc.collect()
        gc.freeze()

        async def body(scope: Scope) -> AsyncIterator[bytes]:
            subject = exponea.current if end == "current" else exponea
            # A cycle of references, as exceptions have them, which only the garbage collector can free.
            cycle = [sys._getframe()]  # noqa: F841, SLF001
            try:
                yield b"part"
            finally:
                try:
                    await subject.track_event(event_of(scope, "closed"))
                except NoSubjectError as error:
                    errors.append(error)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            parts = body(scope)
            await anext(parts)
            abandoned.append(weakref.ref(parts))
            del parts
            await wait_a_while(scope)
            gc.collect()
            await exponea.track_event(event_of(scope, "visit"))

        application = middleware(exponea, application)
        await asyncio.gather(*(call(application, scope_of(number)) for number in range(50)))
        await until(lambda: not any(each() for each in abandoned))

        await asyncio.sleep(0)
        if end == "current":
            await assert_own(exponea, 50, "visit", "closed")
        else:
            await assert_own(exponea, 50, "visit")
            assert len(errors) == 50


class TestWebSockets:
    async def test_whole_connection(self, exponea: Exponea) -> None:
        """A connection of a WebSocket has one subject from its beginning to its end."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while (message := await receive())["type"] != "websocket.disconnect":
                await wait_a_while(scope)
                await exponea.track_event(event_of(scope, message["type"].partition(".")[2]))
            await exponea.track_event(event_of(scope, "disconnected"))

        async def connect(number: int) -> None:
            messages = iter(["connect", "receive", "receive", "disconnect"])

            async def receive() -> dict[str, Any]:
                await asyncio.sleep(0)
                return {"type": f"websocket.{next(messages)}"}

            scope = scope_of(number, type="websocket")
            await middleware(exponea, application)(scope, receive, receive)

        await asyncio.gather(*map(connect, range(1_000)))

        await assert_own(exponea, 1_000, "connect", "receive", "receive", "disconnected")


class GlobalMiddleware:
    """A wrong middleware: the current customer is an attribute that all requests share."""

    def __init__(self, exponea: Exponea) -> None:
        self.exponea = exponea
        self.current: str | None = None

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.current = customer_of(scope)
        for name in ("first", "second"):
            if self.current:
                await self.exponea.for_customer({"registered": self.current}).track_event(event_of(scope, name))
            await wait_a_while(scope)


class TestTheCheck:
    """A check that can't fail proves nothing."""

    async def test_it_finds_a_customer_of_the_process(self, exponea: Exponea) -> None:
        """The same check finds the events of a middleware that keeps the current customer in one place for all."""
        wrong = GlobalMiddleware(exponea)
        await asyncio.gather(*(call(wrong, scope_of(number)) for number in range(100)))

        records = await tracked(exponea)
        assert len(misattributed(records)) > len(records) / 4

    async def test_it_finds_one_stranger(self, exponea: Exponea) -> None:
        """It finds a single event that carries more than its own customer's ids."""
        ids = {"registered": "user-0", "cookie": "visitor-1"}
        await exponea.for_customer(ids).track_event(event_of(http_scope("/0"), "visit"))

        assert misattributed(await tracked(exponea)) == [("visit", "0", ids)]


async def test_request_of_starlette(exponea: Exponea) -> None:
    """The functions get the scope, from which a framework's request can be made."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await exponea.track_event(event_of(scope, "visit"))

    own = ExponeaMiddleware(application, exponea, customer=lambda scope: Request(scope).headers.get("authorization"))
    await call(own, scope_of(0))

    assert misattributed(await tracked(exponea)) == []
