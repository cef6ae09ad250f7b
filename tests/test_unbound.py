"""
Servers: no device of the client's own, nobody in particular, and bindings that are lost.
"""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing

import pytest
from helpers.clients import Configure, pending_data
from helpers.waiting import until

from exponea_async import (
    Customer,
    DroppedError,
    Event,
    Exponea,
    InvalidEventError,
    NoSubjectError,
)

JANE = {"registered": "jane@example.com"}


@pytest.fixture
async def server(configure: Configure) -> AsyncIterator[Exponea]:
    async with Exponea(configure(flush_mode="MANUAL", default_device=False)) as client:
        yield client


@pytest.fixture
async def client(configure: Configure) -> AsyncIterator[Exponea]:
    async with Exponea(configure(flush_mode="MANUAL")) as client:
        yield client


class TestWithoutADefaultDevice:
    VERBS: tuple[Callable[[Exponea], Awaitable[object]], ...] = (
        lambda client: client.track_event(Event("ping")),
        lambda client: client.track_many([Event("ping")]),
        lambda client: client.identify_customer(Customer(JANE)),
        lambda client: client.anonymize(),
        lambda client: client.get_customer_cookie(),
        lambda client: client.track_session_start(),
        lambda client: client.track_push_token("token"),
        lambda client: client.resume(),
        lambda client: client.handle_campaign_click("https://shop.example/?xnpe_cmp=x&utm_source=y"),
        lambda client: client.fetch_app_inbox(),
        lambda client: client.content_block("home"),
        lambda client: client.in_app_message_for(Event("ping")),
        lambda client: client.fetch_consents(),
        lambda client: client.get_segments("discovery"),
    )

    @pytest.mark.parametrize("verb", VERBS)
    async def test_unbound_verbs_raise(self, server: Exponea, verb: Callable[[Exponea], Awaitable[object]]) -> None:
        """A verb without a subject raises one clear error, and nothing is recorded."""
        with pytest.raises(NoSubjectError, match="for_customer"):
            await verb(server)
        assert await pending_data(server) == []

    async def test_current(self, server: Exponea) -> None:
        """There is no current subject."""
        with pytest.raises(NoSubjectError):
            _ = server.current
        with server.bind(server.for_customer(JANE)):
            assert server.current is not None

    async def test_bound_verbs(self, server: Exponea) -> None:
        """With a subject everything works as always, also for events that have ids of their own."""
        with server.bind(server.for_customer(JANE)):
            await server.track_event(Event("ping"))
        with server.bind(server.device("tg:42")):
            await server.track_event(Event("ping"))
        await server.track_many([(JANE, Event("ping"))])
        assert [each["event_type"] for each in await pending_data(server)] == [
            *("ping", "installation", "session_start", "ping", "ping")
        ]

    async def test_one_visitor_is_not_another(self, server: Exponea) -> None:
        """What is not bound is never stored as another visitor's."""
        with server.bind(server.for_customer(JANE)):
            await server.identify_customer(Customer({}))
        with pytest.raises(NoSubjectError):
            await server.track_event(Event("page_visit"))
        assert len(await pending_data(server)) == 1


class TestNobody:
    async def test_nothing_is_tracked(self, client: Exponea) -> None:
        """All verbs of nobody do nothing, and what they drop is counted."""
        nobody = client.nobody()
        receipts = [
            await nobody.track_event(Event("ping")),
            await nobody.identify_customer(Customer(JANE)),
            await nobody.track_push_token("token"),
            await nobody.track_session_start(),
            *await nobody.anonymize(),
        ]
        assert {each.status for each in receipts} == {"dropped"}
        with pytest.raises(DroppedError, match="nobody"):
            await receipts[0].delivered()
        assert await nobody.get_customer_cookie() == ""
        assert await nobody.fetch_app_inbox() == []
        assert await nobody.content_block("home") is None
        assert await nobody.in_app_message_for(Event("ping")) is None
        assert not await nobody.handle_campaign_click("https://shop.example/?xnpe_cmp=x")
        await nobody.resume()
        await nobody.pause()
        assert await pending_data(client) == []
        assert client.stats().dropped["nobody"] >= len(receipts)

    async def test_bound(self, client: Exponea) -> None:
        """It can be bound, so that code which tracks need not know of consent."""
        with client.bind(client.nobody()):
            assert (await client.track_event(Event("ping"))).status == "dropped"
        assert (await client.track_event(Event("ping"))).status == "queued"


class TestKeys:
    @pytest.mark.parametrize("key", ["@default", "@nobody"])
    async def test_own_keys(self, client: Exponea, key: str) -> None:
        """A visitor can't take over the client's own device by its name."""
        with pytest.raises(InvalidEventError, match="belongs to the client"):
            client.device(key)

    async def test_a_visitor_named_default(self, client: Exponea) -> None:
        """The former name of the own device is a visitor's like any other."""
        assert await client.device("default").get_customer_cookie() != await client.get_customer_cookie()


class TestBindings:
    def test_without_with(self, configure: Configure) -> None:
        """A binding that is not entered has no effect, and warns of that."""
        client = Exponea(configure())
        with pytest.warns(RuntimeWarning, match="without 'with'"):
            client.bind(client.nobody())

    async def test_with_warns_of_nothing(self, client: Exponea) -> None:
        """A binding that is entered does not warn."""
        with client.bind(client.nobody()):
            pass

    async def test_a_plain_generator_in_a_thread(self, server: Exponea) -> None:
        """
        A framework that runs a plain generator in a thread runs it in a copy of the context: the binding is lost.

        Without a default device that is an error, and no stranger's event; its end raises nothing.
        """

        def dependency() -> Iterator[None]:
            with server.bind(server.for_customer(JANE)):
                yield

        generator = dependency()
        await asyncio.to_thread(next, generator)
        with pytest.raises(NoSubjectError):
            await server.track_event(Event("ping"))
        await asyncio.to_thread(next, generator, None)

    async def test_an_async_generator(self, server: Exponea) -> None:
        """An asynchronous generator runs in the context of the request, and its binding holds."""

        async def dependency() -> AsyncIterator[None]:
            with server.bind(server.for_customer(JANE)):
                yield

        generator = dependency()
        await anext(generator)
        assert (await server.track_event(Event("ping"))).status == "queued"
        await anext(generator, None)
        with pytest.raises(NoSubjectError):
            await server.track_event(Event("ping"))

    async def test_a_generator_that_is_closed_by_its_finalizer(self, server: Exponea) -> None:
        """
        The task that closes an asynchronous generator inherits no subject, since it may run in somebody else's context.

        What the generator binds by itself counts.
        """
        tracked: list[str] = []

        async def generate() -> AsyncIterator[None]:
            try:
                yield
            finally:
                with pytest.raises(NoSubjectError):
                    await server.track_event(Event("ping"))
                with server.bind(server.for_customer(JANE)):
                    tracked.append((await server.track_event(Event("ping"))).status)
                with pytest.raises(NoSubjectError):
                    await server.track_event(Event("ping"))
                tracked.append("end")

        with server.bind(server.for_customer({"registered": "joe@example.com"})):
            generator = generate()
            await anext(generator)
            # The event loop creates the task now.
            del generator
            await until(lambda: "end" in tracked)

        assert tracked == ["queued", "end"]
        assert [each["customer_ids"] for each in await pending_data(server)] == [JANE]

    async def test_a_generator_that_is_closed_in_its_request(self, server: Exponea) -> None:
        """A generator that the request itself closes has the subject of the request."""

        async def generate() -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                await server.track_event(Event("ping"))

        with server.bind(server.for_customer(JANE)):
            async with aclosing(generate()) as generator:
                await anext(generator)

        assert [each["customer_ids"] for each in await pending_data(server)] == [JANE]

    async def test_an_end_in_another_context(self, client: Exponea) -> None:
        """The end of a binding in another context changes nothing there."""
        binding = client.bind(client.nobody())
        contextvars.copy_context().run(binding.__enter__)
        with client.bind(client.for_customer(JANE)):
            binding.__exit__(None, None, None)
            assert (await client.track_event(Event("ping"))).status == "queued"
