"""
Everything that this package raises on purpose, in one tree.

::

    ExponeaError
    ├── ConfigurationError (ValueError)      a setting is wrong; names the field
    ├── InvalidEventError (ValueError)       an event or customer can't be sent as it is; names the path
    ├── LifecycleError (RuntimeError)
    │   ├── NotStartedError                  used before ``start()``
    │   └── ClosedError                      used after ``aclose()``
    ├── StorageError (OSError)               the disk, or what stands in for it, refused
    │   ├── QueueFullError                   no room, and ``when_full="raise"``
    │   ├── StateConflictError               somebody else changed the same state first
    │   └── DamagedFileError                 the file was unreadable and has been moved aside
    ├── DeliveryError
    │   ├── RejectedError                    Engagement refused the event for good
    │   ├── DroppedError                     given up on purpose before it was ever sent
    │   ├── ProjectPausedError               the key or the project is wrong; events wait
    │   └── UnavailableError                 no usable answer; the pipeline tries again by itself
    ├── RequestRefusedError                  an answer that says no to a question
    └── DeliveryTimeoutError (TimeoutError)  no verdict within the time that the caller gave
"""

from typing import Any, ClassVar


class ExponeaError(Exception):
    """
    The root of all errors of this package.

    Attributes:
        retryable: Whether the very same call can succeed later without any change to it.
        hint: What would be right, in a sentence; empty where the message says it all.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call the class with the finished message; job queues send errors between processes.
        return _restored, (type(self), self.args, self.__dict__)


class ConfigurationError(ExponeaError, ValueError):
    """
    A setting is missing or wrong.

    Attributes:
        field: The name of the setting.
    """

    def __init__(self, field: str, trouble: str, hint: str) -> None:
        super().__init__(f"{field}: {trouble}.", hint=hint)
        self.field = field


class InvalidEventError(ExponeaError, ValueError):
    """
    An event, a customer or a purchase can't be sent as it is; nothing was kept.

    Attributes:
        path: Where the trouble is, such as ``properties.items[3].price``.
        trouble: What it is, in words.
    """

    def __init__(self, path: str, trouble: str, hint: str = "") -> None:
        super().__init__(f"{path}: {trouble}.", hint=hint)
        self.path = path
        self.trouble = trouble

    def within(self, place: str) -> "InvalidEventError":
        """Tell the same of a part of a whole, such as ``events[3]``."""
        return InvalidEventError(f"{place}.{self.path}", self.trouble, self.hint)


class LifecycleError(ExponeaError, RuntimeError):
    """The client was used outside its life."""


class NotStartedError(LifecycleError):
    """The client was used before ``async with`` or ``start()``."""


class ClosedError(LifecycleError):
    """The client was used after ``aclose()``."""


class StorageError(ExponeaError, OSError):
    """The storage refused: disk full, file locked or read-only, or closed. Nothing was half-written."""

    retryable = True


class QueueFullError(StorageError):
    """The queue holds ``QueueSettings.max_records`` records; the event was not kept."""


class StateConflictError(StorageError):
    """
    A state was changed by somebody else since it was read; nothing of the call was written.

    Attributes:
        key: The key of the state.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"The state {key!r} was changed meanwhile.", hint="Load it again and repeat.")
        self.key = key


class DamagedFileError(StorageError):
    """
    The queue's file was damaged. It has been moved aside and a fresh one is in use.

    Attributes:
        path: The file.
        moved_to: Where the damaged file lies now.
    """

    retryable = False

    def __init__(self, path: str, moved_to: str, reason: str) -> None:
        super().__init__(
            f"The queue file {path} is damaged ({reason}); it now lies at {moved_to}.",
            hint="Tracking goes on in a fresh file; what the old one held can be recovered with sqlite3's .recover.",
        )
        self.path = path
        self.moved_to = moved_to


class DeliveryError(ExponeaError):
    """An event did not reach Engagement, or not yet."""


class RejectedError(DeliveryError):
    """
    Engagement refused the event for good; it lies in the dead letters.

    Attributes:
        reason: What Engagement said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"Engagement rejected the event: {reason}")
        self.reason = reason


class DroppedError(DeliveryError):
    """
    The event was given up on purpose, before it was ever sent.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The event was dropped: {reason}")
        self.reason = reason


class ProjectPausedError(DeliveryError):
    """
    A project's key, permission or address is wrong: its events wait and nothing is lost.

    Attributes:
        project: The project's address.
        status: The HTTP status, or 0 where no request was made because no key is configured.
    """

    def __init__(self, project: str, status: int, reason: str) -> None:
        super().__init__(
            f"Project {project} is paused: {reason}.",
            hint="Its events are kept. Check project_token, authorization_token and base_url.",
        )
        self.project = project
        self.status = status


class UnavailableError(DeliveryError):
    """
    Engagement gave no usable answer; the events are kept and tried again.

    Attributes:
        status: The HTTP status, or 0 where there was no answer at all.
        retry_after: How long the platform asked to wait, in seconds, or None.
    """

    retryable = True

    def __init__(self, reason: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"Engagement is unavailable: {reason}")
        self.status = status
        self.retry_after = retry_after


class RequestRefusedError(ExponeaError):
    """
    Engagement does not give what was asked for, and asking again does not help.

    Attributes:
        reason: What it said, or what was missing.
        status: The HTTP status; 0 where nothing was asked, 200 where the answer itself says no.
    """

    def __init__(self, reason: str, *, status: int = 200, hint: str = "") -> None:
        super().__init__(f"Engagement refused: {reason}{'.' if hint else ''}", hint=hint)
        self.reason = reason
        self.status = status


class DeliveryTimeoutError(ExponeaError, TimeoutError):
    """No verdict came within the time that the caller gave; the event is still queued."""

    retryable = True


def _restored(kind: type[ExponeaError], args: tuple[Any, ...], facts: dict[str, Any]) -> ExponeaError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error
