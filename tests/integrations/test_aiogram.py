"""
aiogram: each update is about the device of its user, whatever becomes of the update.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiogram import Bot, Dispatcher, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import ErrorEvent, Message, Update
from aiogram.webhook.aiohttp_server import SimpleRequestHandler, setup_application
from aiohttp import web
from helpers.bots import cookies_by_user, is_one_each, keys, nothing_is_bound, recorded
from helpers.clients import Configure
from helpers.telegram_server import (
    BY_NOBODY,
    BY_USER,
    TOKEN,
    TelegramServer,
    callback_update,
    message_update,
)
from helpers.waiting import until

from exponea_async import Event, Exponea, LifecycleError
from exponea_async.integrations.aiogram import ExponeaMiddleware, setup, user_key


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    async with TelegramServer() as server:
        yield server


@pytest.fixture
async def bot(telegram: TelegramServer) -> AsyncIterator[Bot]:
    async with Bot(TOKEN, session=AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))) as bot:
        yield bot


@pytest.fixture
def exponea(configure: Configure) -> Exponea:
    return Exponea(configure(flush_mode="MANUAL", default_device=False))


@pytest.fixture
async def started(exponea: Exponea) -> AsyncIterator[Exponea]:
    async with exponea:
        yield exponea


@pytest.fixture
def subjects() -> list[object]:
    """The subjects that were current when an update was handled."""
    return []


@pytest.fixture
def dispatcher(exponea: Exponea, subjects: list[object]) -> Dispatcher:
    """A dispatcher that notes the subject of each update."""
    dispatcher = Dispatcher()

    async def note(event: Any, exponea: Exponea) -> None:
        subjects.append(exponea.current)

    for name, observer in dispatcher.observers.items():
        if name not in ("update", "error"):
            observer.register(note)
    return dispatcher


class TestSubjects:
    @pytest.mark.parametrize("make", BY_USER.values(), ids=BY_USER)
    async def test_updates_of_users(
        self, dispatcher: Dispatcher, bot: Bot, started: Exponea, subjects: list[object], make: Callable[[], Any]
    ) -> None:
        """An update of any kind is about the device of the user who caused it, wherever that was."""
        setup(dispatcher, started)

        await dispatcher.feed_raw_update(bot, make())

        assert keys(subjects) == ["telegram:7"]

    @pytest.mark.parametrize("make", BY_NOBODY.values(), ids=BY_NOBODY)
    async def test_updates_of_nobody(
        self, dispatcher: Dispatcher, bot: Bot, started: Exponea, subjects: list[object], make: Callable[[], Any]
    ) -> None:
        """An update that no user has caused, or an anonymous one, is about nobody."""
        setup(dispatcher, started)

        await dispatcher.feed_raw_update(bot, make())

        assert subjects != []
        assert keys(subjects) == [None]

    def test_unknown_updates(self) -> None:
        """An update of a kind that aiogram does not know has no user."""
        assert user_key(Update.model_validate({"update_id": 1, "telepathy": {"from": {"id": 7}}})) is None

    async def test_another_key(
        self, dispatcher: Dispatcher, bot: Bot, started: Exponea, subjects: list[object]
    ) -> None:
        """The application may choose the key, and None is nobody."""

        def chat_key(update: Update) -> str | None:
            return f"chat:{update.message.chat.id}" if update.message else None

        setup(dispatcher, started, key=chat_key)
        for each in (message_update(7), callback_update(7, "buy")):
            await dispatcher.feed_raw_update(bot, each)

        assert keys(subjects) == ["chat:7", None]

    async def test_consent(self, dispatcher: Dispatcher, bot: Bot, started: Exponea, subjects: list[object]) -> None:
        """Users who have not consented are nobody; the answer may have to be awaited."""

        async def has_consented(update: Update) -> bool:
            await asyncio.sleep(0)
            return user_key(update) == "telegram:7"

        setup(dispatcher, started, consent=has_consented)
        for number in (7, 8):
            await dispatcher.feed_raw_update(bot, message_update(number))

        assert keys(subjects) == ["telegram:7", None]

    async def test_plain_consent(
        self, dispatcher: Dispatcher, bot: Bot, started: Exponea, subjects: list[object]
    ) -> None:
        """The answer may also be returned at once."""
        setup(dispatcher, started, consent=lambda update: user_key(update) == "telegram:7")
        for number in (7, 8):
            await dispatcher.feed_raw_update(bot, message_update(number))

        assert keys(subjects) == ["telegram:7", None]

    @pytest.mark.parametrize("option", ["key", "consent"])
    @pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()], ids=["error", "cancellation"])
    async def test_failures_of_functions(
        self,
        dispatcher: Dispatcher,
        bot: Bot,
        started: Exponea,
        subjects: list[object],
        *,
        caplog: pytest.LogCaptureFixture,
        option: str,
        error: BaseException,
    ) -> None:
        """If a function of the application raises an error, it is logged, and the update is about nobody."""

        def fail(_: object) -> Any:
            raise error

        options: dict[str, Any] = {option: fail}
        setup(dispatcher, started, **options)

        await dispatcher.feed_raw_update(bot, message_update(7))

        assert keys(subjects) == [None]
        assert "The subject of an update is not known" in caplog.text

    async def test_one_router_only(self, dispatcher: Dispatcher, bot: Bot, started: Exponea) -> None:
        """The middleware may be registered for the messages of one router only."""
        found = []
        dispatcher, router = Dispatcher(), Router()
        router.message.outer_middleware(ExponeaMiddleware(started))
        dispatcher.include_router(router)

        @router.message()
        async def note(_: Message, exponea: Exponea) -> None:
            found.append(exponea.current)

        await dispatcher.feed_raw_update(bot, message_update(7, "in the router"))

        assert keys(found) == ["telegram:7"]


class TestBinding:
    async def test_it_ends_with_the_update(self, dispatcher: Dispatcher, bot: Bot, started: Exponea) -> None:
        """In a task that handles one update after the other, the next one is not about the last one's user."""
        setup(dispatcher, started)

        await dispatcher.feed_raw_update(bot, message_update(7))

        assert nothing_is_bound(started)

    async def test_it_ends_with_an_error(self, bot: Bot, started: Exponea) -> None:
        """A handler that raises an error leaves nothing bound, and handlers of errors have its subject."""
        found, dispatcher = [], Dispatcher()
        setup(dispatcher, started)

        @dispatcher.message()
        async def fail(_: Message) -> None:
            raise ValueError("no")

        @dispatcher.error()
        async def note(_: ErrorEvent, exponea: Exponea) -> bool:
            found.append(exponea.current)
            return True

        await dispatcher.feed_raw_update(bot, message_update(7))
        await dispatcher.feed_raw_update(bot, BY_NOBODY["anonymous administrator"]())

        assert keys(found) == ["telegram:7", None]
        assert nothing_is_bound(started)

    async def test_two_clients(self, bot: Bot, started: Exponea, configure: Configure) -> None:
        """A bot may have two clients; handlers of errors have the subjects of both."""
        other, dispatcher, found = Exponea(configure(default_device=False)), Dispatcher(), []
        setup(dispatcher, started)
        setup(dispatcher, other, key=lambda update: f"other:{update.update_id}")

        @dispatcher.message()
        async def fail(_: Message) -> None:
            raise ValueError("no")

        @dispatcher.error()
        async def note(_: ErrorEvent) -> bool:
            found.extend([started.current, other.current])
            return True

        update = message_update(7)
        await dispatcher.feed_raw_update(bot, update)

        assert keys(found) == ["telegram:7", f"other:{update['update_id']}"]

    async def test_it_ends_with_a_cancellation(self, bot: Bot, started: Exponea) -> None:
        """An update whose handling is cancelled leaves nothing bound."""
        dispatcher, is_waiting = Dispatcher(), asyncio.Event()
        setup(dispatcher, started)

        @dispatcher.message()
        async def wait(_: Message) -> None:
            is_waiting.set()
            await asyncio.Event().wait()

        async def handle() -> bool:
            with pytest.raises(asyncio.CancelledError):
                await dispatcher.feed_raw_update(bot, message_update(7))
            assert nothing_is_bound(started)
            return True

        task = asyncio.create_task(handle())
        await is_waiting.wait()
        task.cancel()
        assert await task

    async def test_tasks_keep_it(self, bot: Bot, started: Exponea) -> None:
        """A task that a handler starts keeps the subject after the update."""
        dispatcher, go = Dispatcher(), asyncio.Event()
        tasks: list[asyncio.Task[object]] = []
        setup(dispatcher, started)

        @dispatcher.message()
        async def later(_: Message, exponea: Exponea) -> None:
            async def look() -> object:
                await go.wait()
                return exponea.current

            tasks.append(asyncio.create_task(look()))

        for number in (7, 8):
            await dispatcher.feed_raw_update(bot, message_update(number))
        go.set()

        assert keys(list(await asyncio.gather(*tasks))) == ["telegram:7", "telegram:8"]

    async def test_two_updates_of_one_user(self, bot: Bot, started: Exponea) -> None:
        """Updates of a new user that are handled at the same time are about one device."""
        dispatcher, barrier = Dispatcher(), asyncio.Barrier(2)
        setup(dispatcher, started)

        @dispatcher.message()
        async def track(_: Message, exponea: Exponea) -> None:
            await barrier.wait()
            await exponea.track_event(Event("seen", {"user": 7}))

        await asyncio.gather(*(dispatcher.feed_raw_update(bot, message_update(7)) for _ in range(2)))

        assert sorted(await recorded(started)) == ["installation", "seen", "seen", "session_start"]
        assert is_one_each(await cookies_by_user(started, "seen"))

    async def test_nothing_else_is_tracked(self, dispatcher: Dispatcher, bot: Bot, started: Exponea) -> None:
        """An update alone tracks nothing, and creates no device."""
        setup(dispatcher, started)

        for make in (*BY_USER.values(), *BY_NOBODY.values()):
            await dispatcher.feed_raw_update(bot, make())

        assert await recorded(started) == []


class TestLeaks:
    async def test_many_updates_at_once(self, bot: Bot, started: Exponea) -> None:
        """Of 600 concurrent updates of 150 users, some of which fail, each event is about its own user."""
        dispatcher, pauses = Dispatcher(), random.Random(5)
        tasks: list[asyncio.Task[Any]] = []
        setup(dispatcher, started)

        async def track(exponea: Exponea, name: str, number: int) -> None:
            for _ in range(pauses.randrange(4)):
                await asyncio.sleep(0)
            await exponea.track_event(Event(name, {"user": number}))

        @dispatcher.message()
        async def handle(message: Message, exponea: Exponea) -> None:
            number = message.from_user.id if message.from_user else 0
            await track(exponea, "seen", number)
            tasks.append(asyncio.create_task(track(exponea, "seen_later", number)))
            if message.text == "fail":
                raise ValueError("no")

        @dispatcher.error()
        async def handle_error(error: ErrorEvent, exponea: Exponea) -> None:
            sender = error.update.message.from_user if error.update.message else None
            await track(exponea, "failed", sender.id if sender else 0)

        updates = [message_update(1000 + number % 150, "fail" if number % 7 == 0 else "hi") for number in range(600)]
        updates += [BY_NOBODY["anonymous administrator"]() for _ in range(60)]
        pauses.shuffle(updates)
        await asyncio.gather(*(dispatcher.feed_raw_update(bot, each) for each in updates))
        await asyncio.gather(*tasks)

        names = await recorded(started)
        assert (names.count("seen"), names.count("seen_later"), names.count("failed")) == (600, 600, 86)
        assert names.count("installation") == 150
        cookies = await cookies_by_user(started, "seen", "seen_later", "failed")
        assert sorted(cookies) == list(range(1000, 1150))
        assert is_one_each(cookies)
        assert started.stats().dropped["nobody"] == 120


class TestLifeCycle:
    @pytest.mark.parametrize("handle_as_tasks", [True, False], ids=["tasks", "one after the other"])
    async def test_polling(
        self, bot: Bot, telegram: TelegramServer, exponea: Exponea, *, handle_as_tasks: bool
    ) -> None:
        """The client is started before the first update and closed after the last one; handlers get it."""
        seen: list[object] = []
        dispatcher = Dispatcher()
        setup(dispatcher, exponea)

        @dispatcher.startup()
        async def on_startup(exponea: Exponea) -> None:
            await exponea.device("shop").track_event(Event("bot_started"))

        @dispatcher.message()
        async def on_message(message: Message, exponea: Exponea) -> None:
            seen.append(exponea.current)
            await message.answer("Hello")

        telegram.updates = [message_update(7), message_update(8)]
        polling = asyncio.create_task(
            dispatcher.start_polling(
                bot, handle_signals=False, handle_as_tasks=handle_as_tasks, close_bot_session=False, polling_timeout=0
            )
        )
        await until(lambda: len(telegram.sent("sendMessage")) == 2)
        assert "bot_started" in await recorded(exponea)
        await dispatcher.stop_polling()
        await polling

        assert keys(seen) == ["telegram:7", "telegram:8"]
        with pytest.raises(LifecycleError, match="closed"):
            await exponea.device("shop").track_event(Event("late"))

    @pytest.mark.parametrize("in_background", [True, False], ids=["background", "response"])
    async def test_webhook(self, bot: Bot, exponea: Exponea, *, in_background: bool) -> None:
        """By webhook, the client is started and closed with the web application."""
        seen: list[object] = []
        dispatcher, application = Dispatcher(), web.Application()
        setup(dispatcher, exponea)
        SimpleRequestHandler(dispatcher, bot, handle_in_background=in_background).register(application, "/hook")
        setup_application(application, dispatcher, bot=bot)

        @dispatcher.message()
        async def on_message(message: Message, exponea: Exponea) -> None:
            await exponea.track_event(Event("seen", {"user": 7}))
            seen.append(exponea.current)

        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            for number in (7, 8):
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
                async with session.post(url, json=message_update(number)) as response:
                    assert response.status == 200
        await until(lambda: len(seen) == 2)
        await runner.cleanup()

        assert keys(seen) == ["telegram:7", "telegram:8"]
        with pytest.raises(LifecycleError, match="closed"):
            await exponea.device("shop").track_event(Event("late"))
