"""
An integration for Celery: a task is about the end user who was bound where it was sent.

The end user is in a header of the message. The client runs in a `Portal`, since Celery's tasks are not asynchronous.
"""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from celery import signals

from exponea_async.integrations._jobs import JobSubjects
from exponea_async.models import Event, Receipt
from exponea_async.portal import EXIT_TIMEOUT, Portal
from exponea_async.subjects import Subject

__all__ = ["CeleryIntegration"]


class CeleryIntegration:
    """
    Writes the end user into tasks that are sent, and binds this end user in the worker.

    Args:
        portal: The portal of the client. Each process of the worker starts it with the first call.
        default: The subject of tasks without an end user, such as those of beat; None for ``exponea.nobody()``.
        carry: Whether tasks carry their end user; False keeps ids out of the broker.
        key: The header of messages that has the end user.
        timeout: Maximum duration of the upload when a process of the worker ends, in seconds.
    """

    def __init__(
        self,
        portal: Portal,
        *,
        default: Subject | None = None,
        carry: bool = True,
        key: str = "exponea",
        timeout: float = EXIT_TIMEOUT,
    ) -> None:
        self._portal = portal
        self._subjects = JobSubjects(portal.exponea, default, carry=carry)
        self._key = key
        self._timeout = timeout
        self._thread = _Thread()

    def connect(self) -> None:
        """Connect to the signals of Celery, which are those of all applications in the process."""
        signals.before_task_publish.connect(self._before_publish, weak=False)
        signals.task_prerun.connect(self._before_run, weak=False)
        signals.task_postrun.connect(self._after_run, weak=False)
        signals.worker_process_shutdown.connect(self._close, weak=False)

    def disconnect(self) -> None:
        """Undo `connect`."""
        signals.before_task_publish.disconnect(self._before_publish)
        signals.task_prerun.disconnect(self._before_run)
        signals.task_postrun.disconnect(self._after_run)
        signals.worker_process_shutdown.disconnect(self._close)

    def track_event(self, event: Event) -> Receipt:
        """
        Track an event of the current subject, in a task: the one who was bound where the task was sent.

        Args:
            event: The event.

        Raises:
            InvalidEventError: The event is invalid.
            StorageError: The storage refused.
        """
        return self._portal.call(self._portal.exponea.track_event, event)

    def _before_publish(self, headers: dict[str, Any], **_: Any) -> None:
        # What is bound now decides. A retry has the headers of its task, whose end user is bound.
        headers.pop(self._key, None)
        metadata = self._subjects.metadata()
        if metadata is not None:
            headers[self._key] = metadata

    def _before_run(self, task: Any, **_: Any) -> None:
        # The signals come in the thread of the task, one after the other also where a task runs within another one.
        binding = ExitStack()
        self._thread.bindings.append(binding)
        request = task.request
        if request.is_eager:
            binding.enter_context(self._subjects.bind_unless_bound())
        else:
            binding.enter_context(self._subjects.bind(self._metadata(request.headers)))

    def _metadata(self, headers: Any) -> Any:
        # They come from a broker into which others may write. Celery passes over an error of a signal's receiver, and
        # the task would be about whoever is bound.
        return headers.get(self._key) if isinstance(headers, Mapping) else headers

    def _after_run(self, **_: Any) -> None:
        if self._thread.bindings:
            self._thread.bindings.pop().close()

    def _close(self, **_: Any) -> None:
        # Processes of a pool end without exit handlers, which would close the portal.
        self._portal.close(self._timeout)


class _Thread(threading.local):
    """The bindings of the tasks that run in a thread, the innermost one last."""

    def __init__(self) -> None:
        self.bindings: list[ExitStack] = []
