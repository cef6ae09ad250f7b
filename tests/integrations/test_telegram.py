"""
python-telegram-bot: each update and each job is about the device of its user, whatever becomes of it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from helpers.bots import cookies_by_user, is_one_each, keys, nothing_is_bound, recorded
from helpers.clients import Configure
from helpers.telegram_server import BY_NOBODY, BY_USER, TOKEN, TelegramServer, callback_update, message_update
from helpers.waiting import until
from telegram import Update
from telegram.constants import ChatID
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackContext,
    JobQueue,
    MessageHandler,
    TypeHandler,
    filters,
)

from exponea_async import Event, Exponea, LifecycleError
from exponea_async.integrations.telegram import (
    ExponeaJobQueue,
    ExponeaUpdateProcessor,
    get_exponea,
    job_key,
    setup,
    user_key,
)

App = Application[Any, Any, Any, Any, Any, Any]
Context = CallbackContext[Any, Any, Any, Any]


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    async with TelegramServer() as server:
        yield server


@pytest.fixture
def builder(telegram: TelegramServer) -> ApplicationBuilder[Any, Any, Any, Any, Any, Any]:
    return Application.builder().token(TOKEN).base_url(f"{telegram.url}/bot").updater(None)


@pytest.fixture
def exponea(configure: Configure) -> Exponea:
    return Exponea(configure(flush_mode="MANUAL", default_device=False))


class Running:
    """
    A running application that notes the subject of each update.

    Attributes:
        subjects: The subjects.
    """

    def __init__(self, application: App) -> None:
        self.application = application
        self.subjects: list[object] = []
        application.add_handler(TypeHandler(object, self._note), group=-1)

    async def feed(self, *updates: object) -> None:
        """Let the application take updates from its queue, and wait until it has processed them."""
        for each in updates:
            known = Update.de_json(each, self.application.bot) if isinstance(each, dict) else each
            await self.application.update_queue.put(known)
        await self.application.update_queue.join()

    async def _note(self, _: object, context: Context) -> None:
        self.subjects.append(get_exponea(context).current)


@pytest.fixture
async def run(
    builder: ApplicationBuilder[Any, Any, Any, Any, Any, Any], exponea: Exponea
) -> AsyncIterator[Callable[..., Any]]:
    running: list[App] = []

    async def start(**options: Any) -> Running:
        application = setup(builder, exponea, **options).build()
        running.append(application)
        await application.initialize()
        await application.start()
        return Running(application)

    yield start
    for application in running:
        await application.stop()
        await application.shutdown()


Run = Callable[..., Any]


class TestWithoutTheProcessor:
    async def test_variables_of_a_handler_are_left_to_the_next_user(
        self, builder: ApplicationBuilder[Any, Any, Any, Any, Any, Any]
    ) -> None:
        """The reason for the processor: what a handler sets is still set in that of the next update."""
        current: ContextVar[int] = ContextVar("current", default=0)
        found = []
        application = builder.build()

        async def handle(update: Update, _: Context) -> None:
            found.append(current.get())
            if update.effective_user is not None:
                current.set(update.effective_user.id)

        application.add_handler(TypeHandler(Update, handle))
        async with application:
            await application.start()
            for number in (7, 8):
                await application.update_queue.put(Update.de_json(message_update(number), application.bot))
            await application.update_queue.join()
            await application.stop()

        assert found == [0, 7]

    async def test_jobs_have_the_variables_of_another_user(
        self, builder: ApplicationBuilder[Any, Any, Any, Any, Any, Any]
    ) -> None:
        """The reason for the job queue: a job has the variables of the update in which the queue was last used."""
        current: ContextVar[int] = ContextVar("current", default=0)
        found: list[tuple[int | None, int]] = []
        application: App = builder.job_queue(JobQueue()).build()

        async def run(context: Context) -> None:
            assert context.job is not None
            found.append((context.job.user_id, current.get()))

        async def handle(update: Update, context: Context) -> None:
            assert update.effective_user is not None
            assert context.job_queue is not None
            current.set(update.effective_user.id)
            context.job_queue.run_once(
                run, 0.2 if update.effective_user.id == 7 else 0.3, user_id=update.effective_user.id
            )

        application.add_handler(TypeHandler(Update, handle))
        async with application:
            for number in (7, 8):
                await application.update_queue.put(Update.de_json(message_update(number), application.bot))
            # Both updates wait already, so no job is due between them.
            await application.start()
            await until(lambda: len(found) == 2)
            await application.stop()

        assert (7, 8) in found


class TestSubjects:
    @pytest.mark.parametrize("make", BY_USER.values(), ids=BY_USER)
    async def test_updates_of_users(self, run: Run, make: Callable[[], Any]) -> None:
        """An update of any kind is about the device of the user who caused it, wherever that was."""
        running = await run()

        await running.feed(make())

        assert keys(running.subjects) == ["telegram:7"]

    @pytest.mark.parametrize("make", BY_NOBODY.values(), ids=BY_NOBODY)
    async def test_updates_of_nobody(self, run: Run, make: Callable[[], Any]) -> None:
        """An update that no user has caused, or an anonymous one, is about nobody."""
        running = await run()

        await running.feed(make())

        assert running.subjects != []
        assert keys(running.subjects) == [None]

    async def test_other_objects(self, run: Run) -> None:
        """Whatever else an application puts into its queue is about nobody."""
        running = await run()

        await running.feed("news")

        assert keys(running.subjects) == [None]

    async def test_another_key(self, run: Run) -> None:
        """The application may choose the key, and None is nobody."""

        def chat_key(update: object) -> str | None:
            message = update.message if isinstance(update, Update) else None
            return f"chat:{message.chat.id}" if message else None

        running = await run(key=chat_key)
        await running.feed(message_update(7), callback_update(7, "buy"))

        assert keys(running.subjects) == ["chat:7", None]

    async def test_consent(self, run: Run) -> None:
        """Users who have not consented are nobody; the answer may have to be awaited."""

        async def has_consented(update: object) -> bool:
            await asyncio.sleep(0)
            return user_key(update) == "telegram:7"

        running = await run(consent=has_consented)
        await running.feed(message_update(7), message_update(8))

        assert keys(running.subjects) == ["telegram:7", None]

    @pytest.mark.parametrize("option", ["key", "consent"])
    async def test_failures_of_functions(self, run: Run, caplog: pytest.LogCaptureFixture, option: str) -> None:
        """If a function of the application raises an error, it is logged, and the bot goes on, about nobody."""

        def fail(_: object) -> Any:
            raise ValueError("no")

        running = await run(**{option: fail})

        await running.feed(message_update(7), message_update(8))

        assert keys(running.subjects) == [None, None]
        assert "The subject of an update is not known" in caplog.text


class TestBinding:
    @pytest.mark.parametrize("max_concurrent_updates", [1, 100], ids=["one after the other", "concurrently"])
    async def test_many_updates_at_once(self, run: Run, exponea: Exponea, max_concurrent_updates: int) -> None:
        """Of 600 updates of 150 users, some of which fail, each event is about its own user."""
        running, pauses = await run(max_concurrent_updates=max_concurrent_updates), random.Random(5)
        tasks: list[asyncio.Task[Any]] = []

        async def track(context: Context, name: str, update: Update) -> None:
            for _ in range(pauses.randrange(4)):
                await asyncio.sleep(0)
            assert update.effective_user is not None
            await get_exponea(context).track_event(Event(name, {"user": update.effective_user.id}))

        async def handle(update: Update, context: Context) -> None:
            await track(context, "seen", update)
            tasks.append(asyncio.create_task(track(context, "seen_later", update)))
            if update.message and update.message.text == "fail":
                raise ValueError("no")

        async def handle_without_blocking(update: Update, context: Context) -> None:
            await track(context, "seen_too", update)
            if update.message and update.message.text == "fail":
                raise ValueError("no")

        async def handle_error(update: object, context: Context) -> None:
            assert isinstance(update, Update)
            await track(context, "failed", update)

        running.application.add_handler(MessageHandler(filters.ALL, handle))
        running.application.add_handler(MessageHandler(filters.ALL, handle_without_blocking, block=False), group=1)
        running.application.add_error_handler(handle_error)
        updates = [message_update(1000 + number % 150, "fail" if number % 7 == 0 else "hi") for number in range(600)]
        updates += [BY_NOBODY["anonymous administrator"]() for _ in range(60)]
        pauses.shuffle(updates)
        await running.feed(*updates)
        await running.application.stop()
        await asyncio.gather(*tasks)

        names = await recorded(exponea)
        assert {name: names.count(name) for name in set(names)} == {
            "seen": 600,
            "seen_too": 600,
            "seen_later": 600,
            "failed": 172,
            "installation": 150,
            "session_start": 150,
        }
        cookies = await cookies_by_user(exponea, "seen", "seen_too", "seen_later", "failed")
        assert sorted(cookies) == list(range(1000, 1150))
        assert is_one_each(cookies)
        assert exponea.stats().dropped["nobody"] == 180
        await running.application.start()

    async def test_web_server_of_the_application(self, run: Run, exponea: Exponea) -> None:
        """An update that a web server processes at once is about its user, if the processor gets it."""
        running = await run()
        application = running.application

        for number in (7, 8):
            update = Update.de_json(message_update(number), application.bot)
            await application.update_processor.process_update(update, application.process_update(update))

        assert keys(running.subjects) == ["telegram:7", "telegram:8"]
        assert nothing_is_bound(exponea)

    async def test_it_ends_with_the_update(self, exponea: Exponea) -> None:
        """After an update that ends, fails or is cancelled, nothing is bound in the task that has processed it."""
        processor, seen = ExponeaUpdateProcessor(exponea), []

        async def handle(error: BaseException | None) -> None:
            seen.append(exponea.current)
            if error is not None:
                raise error

        async with exponea:
            update = Update.de_json(message_update(7), None)
            for error in (None, ValueError(), asyncio.CancelledError()):
                assert await process(processor, update, handle(error), exponea)
                assert keys(seen[-1:]) == ["telegram:7"]

    async def test_nothing_else_is_tracked(self, run: Run, exponea: Exponea) -> None:
        """An update alone tracks nothing, and creates no device."""
        running = await run()

        await running.feed(*(make() for make in (*BY_USER.values(), *BY_NOBODY.values())))

        assert await recorded(exponea) == []


def poll(application: App) -> None:
    """Run an application in an event loop of its own, until one of its handlers stops it."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    application.run_polling(stop_signals=None, timeout=0)


async def process(processor: ExponeaUpdateProcessor, update: object, coroutine: Any, exponea: Exponea) -> bool:
    """Process an update, and return whether nothing is bound after it."""
    with suppress(ValueError, asyncio.CancelledError):
        await processor.process_update(update, coroutine)
    return nothing_is_bound(exponea)


class TestJobs:
    async def test_jobs_of_users(self, run: Run, exponea: Exponea) -> None:
        """A job is about its own user, in whichever update it was created, and so are the handlers of its errors."""
        running = await run()
        found: list[tuple[str | None, object]] = []

        async def job(context: Context) -> None:
            found.append((context.job.name if context.job else None, exponea.current))
            raise ValueError("no")

        async def handle_error(_: object, context: Context) -> None:
            found.append((context.job.name if context.job else None, exponea.current))

        async def create(update: Update, context: Context) -> None:
            assert context.job_queue is not None
            context.job_queue.run_once(job, 0.01, name="of a user", user_id=8)
            context.job_queue.run_once(job, 0.01, name="of a private chat", chat_id=9)
            context.job_queue.run_once(job, 0.01, name="of a group", chat_id=-100)
            context.job_queue.run_once(job, 0.01, name="of nobody")

        running.application.add_handler(MessageHandler(filters.ALL, create))
        running.application.add_error_handler(handle_error)
        await running.feed(message_update(7))
        await until(lambda: len(found) == 8)

        expected = {"of a user": "telegram:8", "of a private chat": "telegram:9", "of a group": None, "of nobody": None}
        assert [expected[str(name)] for name, _ in found] == keys([subject for _, subject in found])

    @pytest.mark.parametrize("number", [ChatID.ANONYMOUS_ADMIN, ChatID.FAKE_CHANNEL, ChatID.SERVICE_CHAT])
    async def test_jobs_of_those_who_stand_for_many(self, run: Run, exponea: Exponea, number: int) -> None:
        """A job with the user of an update in the name of a chat is about nobody, as the update is."""
        running = await run()
        found: list[object] = []

        async def job(_: Context) -> None:
            found.append(exponea.current)

        running.application.job_queue.run_once(job, 0, user_id=number, chat_id=-100)
        await until(lambda: bool(found))

        assert keys(found) == [None]

    async def test_without_an_answer_jobs_are_about_nobody(self, run: Run, exponea: Exponea) -> None:
        """A function for the consent of updates can't answer for a job, which therefore is about nobody."""
        running = await run(consent=lambda _: True)
        found: list[object] = []

        async def job(_: Context) -> None:
            found.append(exponea.current)

        running.application.job_queue.run_once(job, 0, user_id=8)
        await until(lambda: bool(found))

        assert keys(found) == [None]

    async def test_consent(self, run: Run, exponea: Exponea) -> None:
        """A job queue with a function for consent is about those who have consented."""
        queue = ExponeaJobQueue(exponea, consent=lambda job: job_key(job) == "telegram:8")
        running = await run(consent=lambda _: True, job_queue=queue)
        found: dict[str | None, object] = {}

        async def job(context: Context) -> None:
            assert context.job is not None
            found[context.job.name] = exponea.current

        for number in (8, 9):
            running.application.job_queue.run_once(job, 0, user_id=number, name=str(number))
        await until(lambda: len(found) == 2)

        assert keys([found["8"], found["9"]]) == ["telegram:8", None]


class TestLifeCycle:
    async def test_with_the_application(
        self, builder: ApplicationBuilder[Any, Any, Any, Any, Any, Any], exponea: Exponea
    ) -> None:
        """The client is started with the application, and closed with it."""
        application = setup(builder, exponea).build()

        async with application:
            await exponea.device("shop").track_event(Event("bot_started"))

        with pytest.raises(LifecycleError, match="closed"):
            await exponea.device("shop").track_event(Event("late"))

    async def test_polling(self, telegram: TelegramServer, configure: Configure) -> None:
        """With polling, the application's own functions can use the client until ``post_stop``."""
        exponea, closed = Exponea(configure(flush_mode="MANUAL", default_device=False)), []

        async def track(name: str) -> None:
            await exponea.device("shop").track_event(Event(name))

        async def on_shutdown(_: App) -> None:
            with pytest.raises(LifecycleError, match="closed"):
                await track("late")
            closed.append(True)

        async def on_message(update: Update, context: Context) -> None:
            assert update.message is not None
            assert update.effective_user is not None
            await get_exponea(context).track_event(Event("seen", {"user": update.effective_user.id}))
            if update.effective_user.id == 8:
                context.application.stop_running()

        builder = Application.builder().token(TOKEN).base_url(f"{telegram.url}/bot")
        builder.post_init(lambda _: track("bot_started")).post_stop(lambda _: track("bot_stopped"))
        application: App = setup(builder.post_shutdown(on_shutdown), exponea).build()
        application.add_handler(MessageHandler(filters.ALL, on_message))
        telegram.updates = [message_update(7), message_update(8)]

        await asyncio.to_thread(poll, application)

        assert closed == [True]
        async with Exponea(configure(flush_mode="MANUAL")) as reader:
            names = [name for name in await recorded(reader) if name not in ("installation", "session_start")]
            assert names == ["bot_started", "seen", "seen", "bot_stopped"]
            assert is_one_each(await cookies_by_user(reader, "seen"))

    async def test_without_the_processor(self, builder: ApplicationBuilder[Any, Any, Any, Any, Any, Any]) -> None:
        """Where the application has another processor, the error says what to do."""
        application = builder.build()

        with pytest.raises(TypeError, match=r"got SimpleUpdateProcessor. Use setup"):
            get_exponea(CallbackContext(application))
