"""
A platform that is slow or does not respond: each kind of message has limits of its own, and nothing is lost silently.
"""

import asyncio
import logging
from collections.abc import Mapping

import pytest
from helpers.content_blocks import static
from helpers.environment import SetConstants
from helpers.in_app import PATH, InAppFixture, message
from helpers.inbox import push
from helpers.waiting import until

from exponea_async import Customer, Event, Exponea, RequestLimits, UnavailableError
from exponea_async.features.in_app import loader
from exponea_async.sandbox import Fault
from exponea_async.testing import idle, received

ANN, BEN = {"registered": "ann@x.com"}, {"registered": "ben@x.com"}


def put_everything(in_app: InAppFixture) -> None:
    """Add a message of each kind to the sandbox."""
    in_app.put(message())
    in_app.sandbox.messages.content_blocks.put(static())
    in_app.sandbox.messages.inbox.put(push())
    in_app.sandbox.messages.consents.put(
        {"id": "news", "legitimate_interest": False, "sources": {}, "translations": {}}
    )


class TestOneRouteThatHangs:
    async def test_other_kinds_are_answered(self, in_app: InAppFixture) -> None:
        """While requests for in-app messages hang, content blocks, the inbox and consents are answered."""
        put_everything(in_app)
        client = await in_app.start()
        in_app.hold()
        for number in range(20):
            await client.device(f"chat {number}").track_event(Event("x"))
        await until(lambda: in_app.held == 8)

        jane = client.for_customer({"registered": "jane"})
        block, inbox, consents = await asyncio.gather(
            jane.content_block("top"), jane.fetch_app_inbox(), jane.fetch_consents()
        )

        assert block is not None
        assert [each.id for each in inbox] == ["m1"]
        assert [each.id for each in consents] == ["news"]
        assert in_app.held == 8
        await in_app.release()

    async def test_a_message_that_is_asked_for(self, in_app: InAppFixture) -> None:
        """A caller waits for a limited time; the next ones get the error at once, until there is a response."""
        limits = RequestLimits(in_app_messages_wait=0.3)
        client = await in_app.start(message(), listen=False, limits=limits)
        in_app.hold()
        with pytest.raises(UnavailableError, match=r"within 0\.3 s"):
            await client.in_app_message_for(Event("x"))
        async with asyncio.timeout(60):  # far longer, if each of them waited
            for subject in (*[client] * 300, *(client.device(str(number)) for number in range(10))):
                with pytest.raises(UnavailableError):
                    await subject.in_app_message_for(Event("x"))
        assert in_app.held == 1

        await in_app.release()
        found = await client.in_app_message_for(Event("x"))
        assert found is not None
        assert in_app.loads == 1

    async def test_a_platform_that_fails(self, in_app: InAppFixture, set_constants: SetConstants) -> None:
        """After a failure nothing is requested for a while; then the platform is asked again."""
        client = await in_app.start(message(), listen=False)
        in_app.sandbox.faults.add(Fault("status", status=500, paths=f"{PATH}$"))
        for _ in range(3):
            with pytest.raises(UnavailableError, match="500"):
                await client.in_app_message_for(Event("x"))
        assert in_app.loads == loader.MAX_ATTEMPTS
        in_app.sandbox.faults.clear()
        set_constants(loader, PAUSE=0.0)
        in_app.service.loader.pauses.clear()
        assert await client.in_app_message_for(Event("x")) is not None


class TestPatience:
    async def test_many_devices_at_once(self, in_app: InAppFixture) -> None:
        """Each of many devices gets its message, though requests wait for their turn longer than events do."""
        limits = RequestLimits(in_app_messages_concurrency=1, in_app_messages_event_wait=1.5)
        client = await in_app.start(message(), limits=limits)
        in_app.sandbox.faults.add(Fault("latency", seconds=0.1, paths=f"{PATH}$"))
        for number in range(25):
            await client.device(str(number)).track_event(Event("x"))

        shown, not_shown = len(await in_app.received()), client.stats().not_shown
        assert not_shown in ({}, {"late": 25 - shown})
        # A third would be late if they did not have that time from their requests. Those that are answered while the
        # machine stops may be late.
        assert shown > 20

    async def test_late_messages_are_counted(self, in_app: InAppFixture, caplog: pytest.LogCaptureFixture) -> None:
        """An event whose message comes too late is counted and logged; one without a message is not."""
        client = await in_app.start(message(), message("n", "y"))
        in_app.hold()
        for name in ("x", "z"):
            await client.track_event(Event(name))
        in_app.service.pending.max_wait = 0.0
        await in_app.release()

        assert await in_app.shown() == []
        assert client.stats().not_shown == {"late": 1}
        assert "were loaded too late" in caplog.text

    async def test_others_do_not_hide_late_messages(self, in_app: InAppFixture) -> None:
        """An event whose message comes too late is counted, also where other devices have tracked events meanwhile."""
        client = await in_app.start(message())
        in_app.hold()
        in_app.service.pending.max_wait = 0.0
        for number in range(3):
            await client.device(str(number)).track_event(Event("x"))
            await until(lambda number=number: in_app.held > number)  # type: ignore[misc]
        await in_app.release()

        assert await in_app.shown() == []
        assert client.stats().not_shown == {"late": 3}

    async def test_messages_that_are_not_loaded_are_counted(
        self, in_app: InAppFixture, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Events, automatic ones included, are counted and logged if their messages can't be loaded now."""
        caplog.set_level(logging.WARNING)
        client = await in_app.start(message())
        in_app.sandbox.faults.add(Fault("status", status=500, paths=f"{PATH}$"))
        await client.track_event(Event("x"))
        await in_app.idle()
        assert client.stats().not_shown == {"not_loaded": 2}
        await client.device("other").track_event(Event("x"))
        assert client.stats().not_shown == {"not_loaded": 4}
        assert in_app.loads == loader.MAX_ATTEMPTS
        assert "can't be loaded now, for events of device '@default': installation, x" in caplog.text

    async def test_a_load_that_was_replaced(self, in_app: InAppFixture) -> None:
        """A caller that waits for a load gets the result of the one that has replaced it, not its error."""
        client = await in_app.start(message())
        in_app.hold()
        waiting = asyncio.create_task(client.in_app_message_for(Event("x")))
        await until(lambda: in_app.held == 1)
        await client.identify_customer(Customer({}, {"likes": "mugs"}))
        await client.flush_data()  # the customer is the same, and the messages are loaded again
        await until(lambda: in_app.held == 2)
        in_app.gateway.held[1].set()
        await until(lambda: not in_app.service.loader.loads)
        in_app.sandbox.faults.add(Fault("status", status=403, paths=f"{PATH}$", times=1))
        in_app.gateway.release()
        assert await waiting is not None


class TestDelays:
    async def test_the_delay_is_left_to_the_host(self, in_app: InAppFixture) -> None:
        """A call returns a message at once, with its delay."""
        client = await in_app.start(message(load_delay=3_600_000), listen=False)
        found = await client.in_app_message_for(Event("x"))
        assert found is not None
        assert found.load_delay == 3600.0

    async def test_a_stream_delivers_after_the_delay(self, in_app: InAppFixture) -> None:
        """A message of a stream has no delay any more."""
        await in_app.start(message(load_delay=20))
        assert (await in_app.first()).load_delay == 0.0

    async def test_a_message_closes_after_both(self, in_app: InAppFixture) -> None:
        """The time after which a message closes by itself begins after its delay."""
        client = await in_app.start(message(load_delay=300, close_timeout=50), listen=False)
        actions = client.in_app_message_action_stream()
        started = asyncio.get_running_loop().time()
        await client.in_app_message_for(Event("x"))
        assert [(await anext(actions)).type for _ in range(2)] == ["show", "close"]
        assert asyncio.get_running_loop().time() - started >= 0.35


class TestWhileAnIdentificationWaits:
    """The client uploads on request only."""

    async def identify(self, client: Exponea, ids: Mapping[str, str]) -> None:
        await client.identify_customer(Customer(dict(ids)))

    async def test_messages_from_before_are_shown(self, in_app: InAppFixture) -> None:
        """Until the upload, the messages from before are shown to the customer who has got an id; then new ones."""
        client = await in_app.start(message("before"))
        assert await in_app.track("y") == []
        in_app.service.max_upload_wait = 0.0
        await self.identify(client, ANN)
        shown = await in_app.first()

        assert (shown.id, in_app.loads) == ("before", 1)
        assert shown.customer_ids["registered"] == "ann@x.com"
        await client.close_in_app_message(shown)
        in_app.sandbox.messages.in_app_messages.clear()
        in_app.put(message("after"))
        await client.flush_data()
        await until(lambda: in_app.loads == 2)
        assert await in_app.track() == ["after"]

    async def test_more_ids(self, in_app: InAppFixture) -> None:
        """That is so after several identifications that only add ids."""
        client = await in_app.start(message())
        await in_app.track("y")
        in_app.service.max_upload_wait = 0.0
        await self.identify(client, ANN)
        await self.identify(client, {"phone": "1"})
        assert await in_app.track() == ["m"]

    async def test_another_customer(self, in_app: InAppFixture) -> None:
        """The messages of one customer are never shown to another one; those of the new one are requested."""
        in_app.put(message("ann's"), to=ANN)
        in_app.put(message("ben's", "z"), to=BEN)
        client = await in_app.start()
        await self.identify(client, ANN)
        await client.flush_data()
        await until(lambda: "ann@x.com" in [each["customer_ids"].get("registered") for each in in_app.bodies()])
        shown = await in_app.first()
        assert shown.id == "ann's"
        await client.close_in_app_message(shown)

        in_app.service.max_upload_wait = 0.0
        await self.identify(client, BEN)
        assert await in_app.track("x") == []
        assert in_app.bodies()[-1]["customer_ids"]["registered"] == "ben@x.com"

    async def test_without_messages_from_before(self, in_app: InAppFixture) -> None:
        """Where none are known, messages are requested before the upload, and again after it."""
        client = await in_app.start(message())
        in_app.service.max_upload_wait = 0.0
        await self.identify(client, ANN)
        assert await in_app.track() == ["m"]
        before = in_app.loads
        assert in_app.bodies()[-1]["customer_ids"]["registered"] == "ann@x.com"
        await client.flush_data()
        await until(lambda: in_app.loads == before + 1)

    async def test_events_wait_for_an_upload(self, in_app: InAppFixture) -> None:
        """An event waits for an upload that comes soon, and is then handled with the new messages only."""
        client = await in_app.start(message("before"))
        await in_app.track("y")
        in_app.sandbox.messages.in_app_messages.clear()
        in_app.put(message("after"))
        await self.identify(client, ANN)
        assert await in_app.track() == []
        await client.flush_data()
        assert (await anext(in_app.messages)).id == "after"

    async def test_events_that_have_waited(self, in_app: InAppFixture) -> None:
        """An event that has waited for an upload in vain gets a message from before."""
        client = await in_app.start(message())
        await in_app.track("y")
        in_app.service.max_upload_wait = 0.3
        await self.identify(client, ANN)
        await client.track_event(Event("x"))
        assert (await anext(in_app.messages)).id == "m"

    async def test_an_outage(self, in_app: InAppFixture) -> None:
        """While the platform is unavailable, a call returns a message from before the identification."""
        client = await in_app.start(message())
        await in_app.track("y")
        in_app.service.max_upload_wait = 0.0
        in_app.sandbox.faults.add(Fault("status", status=503))
        await self.identify(client, ANN)
        await in_app.idle()
        found = await client.in_app_message_for(Event("x"))
        assert found is not None
        assert found.customer_ids["registered"] == "ann@x.com"

    async def test_stored_messages_are_deleted(self, in_app: InAppFixture) -> None:
        """An identification deletes what an earlier process has stored for the previous customer."""
        await in_app.start(message())
        await in_app.track("y")
        assert await in_app.stored() is not None
        client = await in_app.restart()
        await self.identify(client, ANN)
        await idle(client)
        assert await in_app.stored() is None
        assert received(in_app.messages) == []
