"""
python-telegram-bot: each update, and each job, is about the device of its user.

::

    application = setup(ApplicationBuilder().token("42:token"), Exponea(configuration)).build()


    async def on_message(update: Update, context: CallbackContext) -> None:
        await get_exponea(context).track_event(Event("message_received"))
"""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from telegram import Update, User
from telegram.constants import ChatID
from telegram.ext import ApplicationBuilder, BaseUpdateProcessor, CallbackContext, Job, JobQueue

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.integrations._bots import SubjectRule

__all__ = ["ExponeaJobQueue", "ExponeaUpdateProcessor", "get_exponea", "job_key", "setup", "user_key"]

Key = Callable[[object], str | None]
Consent = Callable[[object], bool | Awaitable[bool]]
JobKey = Callable[[Job[Any]], str | None]
JobConsent = Callable[[Job[Any]], bool | Awaitable[bool]]
#: The users whom Telegram names for all who act in the name of a chat. An update has its sender, too; a job has not.
SHARED_USERS = frozenset({ChatID.ANONYMOUS_ADMIN, ChatID.FAKE_CHANNEL, ChatID.SERVICE_CHAT})
BuilderT = TypeVar("BuilderT", bound=ApplicationBuilder[Any, Any, Any, Any, Any, Any])


def user_key(update: object) -> str | None:
    """
    Return the key of the device of the user who caused an update, such as ``"telegram:42"``.

    Returns:
        None where there is no user: channel posts, votes, reactions and messages in the name of a chat, polls, updates
        that a bot has caused, such as the one that stands for all anonymous administrators, and whatever is not an
        ``Update``.
    """
    # In the name of a chat, the sender is the chat; Telegram then also names a user, who is the same for all chats.
    sender = update.effective_sender if isinstance(update, Update) else None
    return f"telegram:{sender.id}" if isinstance(sender, User) and not sender.is_bot else None


def job_key(job: Job[Any]) -> str | None:
    """
    Return the key of the device of a job's user: its ``user_id``, or its ``chat_id`` if that is a private chat.

    Returns:
        None where it has no user, or one who stands for many, such as for all anonymous administrators.
    """
    # The id of a private chat is that of the user; those of groups and channels are negative.
    user_id = job.user_id or max(job.chat_id or 0, 0)
    return f"telegram:{user_id}" if user_id and user_id not in SHARED_USERS else None


class ExponeaUpdateProcessor(BaseUpdateProcessor):
    """
    An update processor that binds the subject of an update while it is handled, by error handlers as well.

    It starts the client when the application is initialized, and closes it when the application is shut down. To
    process updates in another way, override ``do_process_update`` and call that of this class.

    Args:
        exponea: The client, which is not started yet.
        max_concurrent_updates: How many updates are processed concurrently; 1 processes one after the other.
        key: Returns the key of the device that an update is about; None for nobody.
        consent: Returns whether the user of an update has consented to be tracked, or something to await that does;
            if not, the subject is ``exponea.nobody()``.
        timeout: Maximum duration of the upload at shutdown, in seconds; None sets no limit.

    Attributes:
        exponea: The client.
    """

    def __init__(
        self,
        exponea: Exponea,
        *,
        max_concurrent_updates: int = 1,
        key: Key = user_key,
        consent: Consent | None = None,
        timeout: float | None = CLOSE_TIMEOUT,
    ) -> None:
        super().__init__(max_concurrent_updates)
        self.exponea = exponea
        self._timeout = timeout
        self._rule = SubjectRule(exponea, key, consent)

    async def initialize(self) -> None:
        """Start the client."""
        await self.exponea.start()

    async def shutdown(self) -> None:
        """Close the client."""
        await self.exponea.aclose(self._timeout)

    async def do_process_update(self, update: object, coroutine: Awaitable[Any]) -> None:
        """Process an update with its subject bound."""
        with self.exponea.bind(await self._rule.choose(update)):
            await coroutine


class ExponeaJobQueue(JobQueue[Any]):
    """
    A job queue that binds the subject of a job while it runs, by error handlers as well.

    Without it, a job has the subject of whichever update the queue was last used in, which may be another user's.

    Args:
        exponea: The client.
        key: Returns the key of the device that a job is about; None for nobody.
        consent: Returns whether the user of a job has consented to be tracked, or something to await that does.
    """

    def __init__(self, exponea: Exponea, *, key: JobKey = job_key, consent: JobConsent | None = None) -> None:
        super().__init__()
        self._exponea = exponea
        self._rule = SubjectRule(exponea, key, consent)

    @staticmethod
    async def job_callback(job_queue: JobQueue[Any], job: Job[Any]) -> None:
        """Run a job with its subject bound."""
        assert isinstance(job_queue, ExponeaJobQueue)  # noqa: S101 - the queue passes itself
        await job_queue.run(job)

    async def run(self, job: Job[Any]) -> None:
        """Run a job with its subject bound."""
        with self._exponea.bind(await self._rule.choose(job)):
            await job.run(self.application)


def setup(
    builder: BuilderT,
    exponea: Exponea,
    *,
    max_concurrent_updates: int = 1,
    key: Key = user_key,
    consent: Consent | None = None,
    job_queue: ExponeaJobQueue | None = None,
    timeout: float | None = CLOSE_TIMEOUT,
) -> BuilderT:
    """
    Start and close a client with an application, and bind the subject of each update and job.

    Args:
        builder: The builder of the application.
        exponea: The client, which is not started yet.
        max_concurrent_updates: How many updates are processed concurrently; 1 processes one after the other.
        key: Returns the key of the device that an update is about; None for nobody.
        consent: Returns whether the user of an update has consented to be tracked, or something to await that does.
        job_queue: The job queue. By default each job is about its user; with ``key`` or ``consent``, which can't
            answer for a job, it is about nobody. Not needed without APScheduler.
        timeout: Maximum duration of the upload at shutdown, in seconds; None sets no limit.

    Returns:
        The builder.
    """
    processor = ExponeaUpdateProcessor(
        exponea, max_concurrent_updates=max_concurrent_updates, key=key, consent=consent, timeout=timeout
    )
    builder.concurrent_updates(processor)
    if find_spec("apscheduler") is not None:
        is_default = key is user_key and consent is None
        builder.job_queue(job_queue or ExponeaJobQueue(exponea, key=job_key if is_default else _no_key))
    return builder


def _no_key(_: object) -> None:
    return None


def get_exponea(context: CallbackContext[Any, Any, Any, Any]) -> Exponea:
    """
    Return the client, in a handler, a handler of errors or a job.

    Raises:
        TypeError: The application has no `ExponeaUpdateProcessor`.
    """
    processor = context.application.update_processor
    if not isinstance(processor, ExponeaUpdateProcessor):
        name = type(processor).__name__
        raise TypeError(f"update_processor: expected an ExponeaUpdateProcessor, got {name}. Use setup(builder, ...).")
    return processor.exponea
