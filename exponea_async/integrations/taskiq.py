"""
An integration for Taskiq: a task is about the end user who was bound where it was sent.

The end user is in a label of the task.
"""

import asyncio
import json
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from taskiq import AsyncBroker, TaskiqEvents, TaskiqMessage, TaskiqMiddleware, TaskiqResult, TaskiqState

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.integrations._jobs import JobSubjects
from exponea_async.subjects import Subject

__all__ = ["ExponeaMiddleware"]


class ExponeaMiddleware(TaskiqMiddleware):
    """
    Writes the end user into tasks that are sent, and binds this end user in the worker.

    Tasks get the client as a dependency: ``exponea: Annotated[Exponea, TaskiqDepends()]``.

    Args:
        exponea: The client. In the worker it is started and closed by the middleware; elsewhere by the application.
        default: The subject of tasks without an end user, such as scheduled ones; None for ``exponea.nobody()``.
        carry: Whether tasks carry their end user; False keeps ids out of the broker.
        key: The label of tasks that has the end user.
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
        super().__init__()
        self._exponea = exponea
        self._subjects = JobSubjects(exponea, default, carry=carry)
        self._key = key
        self._timeout = timeout
        # A broker in memory may run a task, and the tasks which that one sends, within one asyncio task.
        self._bindings: WeakKeyDictionary[Any, list[ExitStack]] = WeakKeyDictionary()

    def set_broker(self, broker: AsyncBroker) -> None:
        """Set the broker."""
        super().set_broker(broker)
        broker.add_dependency_context({Exponea: self._exponea})
        # Not in startup(), which the broker calls after the handlers of the application.
        broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, self._start)

    async def _start(self, _: TaskiqState) -> None:
        # A broker in memory has this event, too, in the process of the application.
        if self.broker.is_worker_process:
            await self._exponea.start()

    async def shutdown(self) -> None:
        """Close the client of a worker."""
        if self.broker.is_worker_process:
            await self._exponea.aclose(self._timeout)

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Write the current subject, if one is bound, into the labels."""
        # What is bound now decides, since labels may be those of another task, such as one that is repeated.
        metadata = self._subjects.metadata()
        if metadata is None and self.broker.is_scheduler_process:
            # It sends what others have scheduled, such as the next attempt of a task, which has the end user already.
            return message
        message.labels.pop(self._key, None)
        if metadata is not None:
            # Taskiq makes a string of other values with str(), where a task is repeated.
            message.labels[self._key] = json.dumps(metadata)
        return message

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Bind the end user of the task."""
        binding = ExitStack()
        binding.enter_context(self._subjects.bind(_decoded(message.labels.get(self._key))))
        self._bindings.setdefault(asyncio.current_task(), []).append(binding)
        return message

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:  # noqa: ARG002 - Taskiq's
        """End the binding."""
        bindings = self._bindings.get(asyncio.current_task())
        if bindings:
            bindings.pop().close()


def _decoded(label: Any) -> Any:
    try:
        return None if label is None else json.loads(label)
    except (TypeError, ValueError, RecursionError):
        return label
