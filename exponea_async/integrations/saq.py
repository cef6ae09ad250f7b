"""
An integration for SAQ: a job is about the end user who was bound where it was enqueued.

The end user is in the ``meta`` of the job.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from saq import Job, Queue

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.integrations._jobs import JobSubjects, Metadata
from exponea_async.subjects import Subject

__all__ = ["SaqIntegration"]

Hook = Callable[[Any], Awaitable[None]]
#: The entry of a job's context that has its binding, before the key of the integration.
BINDING = "exponea_binding"


class SaqIntegration:
    """
    Writes the end user into jobs that are enqueued, and binds this end user in the worker.

    Args:
        exponea: The client. In the worker it is started and closed by the integration; elsewhere by the application.
        default: The subject of jobs without an end user, such as cron jobs; None for ``exponea.nobody()``.
        carry: Whether jobs carry their end user; False keeps ids out of the queue.
        key: The entry of the ``meta`` of jobs that has the end user.
        timeout: Maximum duration of the upload when the worker ends, in seconds; None sets no limit.
    """

    def __init__(
        self,
        exponea: Exponea,
        *,
        default: Subject | None = None,
        carry: bool = True,
        key: str = "exponea",
        timeout: float | None = CLOSE_TIMEOUT,
    ) -> None:
        self._exponea = exponea
        self._subjects = JobSubjects(exponea, default, carry=carry)
        self._key = key
        self._binding = f"{BINDING}:{key}"
        self._timeout = timeout
        # SAQ identifies callbacks by their address, and each access to a method creates another object.
        self._callback = self._before_enqueue

    def register(self, queue: Queue) -> None:
        """
        Write the current subject, if one is bound, into each job that this queue enqueues from now on.

        Args:
            queue: A queue of the web application. `settings` does so for the worker's queue.
        """
        queue.register_before_enqueue(self._callback)

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the settings of a worker with this integration.

        Functions and the hooks ``before_process`` and ``after_process`` run with the end user of the job bound. The
        client is started before ``startup`` and closed after ``shutdown``. All of them get it as ``ctx["exponea"]``.

        Args:
            settings: The settings, as SAQ takes them.
        """
        if settings.get("queue") is not None:
            self.register(settings["queue"])
        return {
            **settings,
            "startup": [self._startup, *_hooks(settings, "startup")],
            "shutdown": [*_hooks(settings, "shutdown"), self._shutdown],
            "before_process": [self._before_process, *_hooks(settings, "before_process")],
            "after_process": [*_hooks(settings, "after_process"), self._after_process],
        }

    async def _before_enqueue(self, job: Job) -> None:
        # What is bound now decides, also for a job that is enqueued a second time, by another end user.
        meta = {key: value for key, value in job.meta.items() if key != self._key}
        metadata = self._subjects.metadata()
        job.meta = meta if metadata is None else {**meta, self._key: metadata}

    async def _startup(self, ctx: Any) -> None:
        await self._exponea.start()
        ctx["exponea"] = self._exponea

    async def _shutdown(self, _: Any) -> None:
        await self._exponea.aclose(self._timeout)

    async def _before_process(self, ctx: Any) -> None:
        # SAQ processes each job in a task of its own, and runs the function in a task that this one starts.
        meta = ctx["job"].meta
        metadata = meta.get(self._key) if isinstance(meta, dict) else None
        if isinstance(metadata, dict):
            # SAQ logs the whole job if it fails.
            meta[self._key] = Metadata(metadata)
        binding = self._subjects.bind(metadata)
        binding.__enter__()
        ctx[self._binding] = binding

    async def _after_process(self, ctx: Any) -> None:
        binding: AbstractContextManager[None] | None = ctx.pop(self._binding, None)
        if binding is not None:
            binding.__exit__(None, None, None)


def _hooks(settings: Mapping[str, Any], name: str) -> Iterable[Hook]:
    hooks = settings.get(name) or ()
    return (hooks,) if callable(hooks) else hooks
