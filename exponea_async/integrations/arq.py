"""
An integration for arq: a job is about the end user who was bound where it was enqueued.

::

    async def ship(ctx, order):
        await exponea.track_event(Event("shipped", {"order": order}))


    integration = ArqIntegration(exponea)


    @integration.settings
    class WorkerSettings:
        functions = [ship]

arq has no metadata for jobs, so a job has one more keyword argument, which the function itself does not get.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

from arq import ArqRedis, func
from arq.cron import CronJob
from arq.jobs import Job
from arq.worker import Function

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.integrations._jobs import JobSubjects, Metadata
from exponea_async.subjects import Subject

__all__ = ["ArqIntegration"]

S = TypeVar("S", bound="dict[str, Any] | type")
F = TypeVar("F", Function, CronJob)
Context = dict[Any, Any]
Hook = Callable[[Context], Awaitable[Any]]
Deserializer = Callable[[bytes], dict[str, Any]]


class ArqIntegration:
    """
    Enqueues jobs with their end user, and binds this end user in the worker.

    Args:
        exponea: The client. In the worker it is started and closed by the integration; elsewhere by the application.
        default: The subject of jobs without an end user, such as cron jobs; None for ``exponea.nobody()``.
        carry: Whether jobs carry their end user; False keeps ids out of Redis.
        key: The keyword argument of jobs that has the end user.
        timeout: Maximum duration of the upload when the worker ends, in seconds; None sets no limit.
    """

    def __init__(
        self,
        exponea: Exponea,
        *,
        default: Subject | None = None,
        carry: bool = True,
        key: str = "_exponea",
        timeout: float | None = CLOSE_TIMEOUT,
    ) -> None:
        self._exponea = exponea
        self._subjects = JobSubjects(exponea, default, carry=carry)
        self._key = key
        self._timeout = timeout

    async def enqueue_job(self, redis: ArqRedis, function: str, *args: Any, **kwargs: Any) -> Job | None:
        """
        Enqueue a job that is about the current subject, if one is bound.

        Args:
            redis: The connection of arq, whose ``enqueue_job`` is called.
            function: The name of the function.
            args: Its arguments.
            kwargs: Its keyword arguments, and arq's own, such as ``_defer_by``.

        Returns:
            The job; None if there is already one with this id.
        """
        metadata = self._subjects.metadata()
        if metadata is not None:
            kwargs[self._key] = metadata
        return await redis.enqueue_job(function, *args, **kwargs)

    def settings(self, settings: S) -> S:
        """
        Return the settings of a worker with this integration; a class is changed, a dict is copied.

        Functions and cron jobs run with their end user bound. The client is started before the ``on_startup`` of the
        settings, and closed after their ``on_shutdown``. Functions get it as ``ctx["exponea"]``.

        Args:
            settings: A class or a dict, as arq takes it.
        """
        values = settings if isinstance(settings, dict) else vars(settings)
        changed: dict[str, Any] = {
            "functions": [self.function(each) for each in values.get("functions", ())],
            "on_startup": self._startup(values.get("on_startup")),
            "on_shutdown": self._shutdown(values.get("on_shutdown")),
        }
        if (own := values.get("job_deserializer")) is not None:
            changed["job_deserializer"] = self._deserializer(own)
        cron_jobs: Iterable[CronJob] | None = values.get("cron_jobs")
        if cron_jobs is not None:
            changed["cron_jobs"] = [self._wrapped(each) for each in cron_jobs]
        if isinstance(settings, dict):
            return cast("S", {**settings, **changed})
        for name, value in changed.items():
            setattr(settings, name, value)
        return settings

    def function(self, function: Any) -> Function:
        """
        Return a function of a worker that runs with its end user bound.

        Args:
            function: A coroutine function, the path of one, or what arq's ``func()`` returns.
        """
        return self._wrapped(func(function))

    def _wrapped(self, function: F) -> F:
        # A hook can't do this: on_job_start is not told the arguments of the job.
        coroutine = function.coroutine

        @wraps(coroutine)
        async def run(ctx: Context, *args: Any, **kwargs: Any) -> Any:
            with self._subjects.bind(kwargs.pop(self._key, None)):
                return await coroutine(ctx, *args, **kwargs)

        return replace(function, coroutine=run)

    def _deserializer(self, own: Deserializer) -> Deserializer:
        # arq logs the arguments of a job. Only pickle, its default, keeps the class that does not show them.
        def deserialize(data: bytes) -> dict[str, Any]:
            job = own(data)
            arguments = job.get("k")
            if isinstance(arguments, dict) and isinstance(arguments.get(self._key), dict):
                arguments[self._key] = Metadata(arguments[self._key])
            return job

        return deserialize

    def _startup(self, own: Hook | None) -> Hook:
        async def on_startup(ctx: Context) -> None:
            await self._exponea.start()
            ctx["exponea"] = self._exponea
            if own is not None:
                await own(ctx)

        return on_startup

    def _shutdown(self, own: Hook | None) -> Hook:
        async def on_shutdown(ctx: Context) -> None:
            try:
                if own is not None:
                    await own(ctx)
            finally:
                await self._exponea.aclose(self._timeout)

        return on_shutdown
