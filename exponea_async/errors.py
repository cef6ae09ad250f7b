"""
The exceptions of this package.

::

    ExponeaError
    ├── ConfigurationError (ValueError)      a setting is missing or invalid
    ├── InvalidEventError (ValueError)       an event, a customer or another argument is invalid
    ├── LifecycleError (RuntimeError)        the client is not running
    │   ├── NotStartedError                  used before ``start()``
    │   └── ClosedError                      used after ``aclose()``
    ├── NoSubjectError (RuntimeError)        nothing is bound, and there is no default device
    ├── StorageError (OSError)               the queue can't be read or written
    │   ├── SchemaError                      the schema in PostgreSQL is missing or of another version
    │   ├── QueueFullError                   the queue is full, and ``when_full="raise"``
    │   ├── StateConflictError               another process changed the same state first
    │   ├── DamagedFileError                 the queue file was damaged or deleted; a new one is in use
    │   └── WipedFileError                   another process has deleted the data of the queue
    ├── DeliveryError                        an event was not delivered
    │   ├── RejectedError                    Engagement rejected the event for good
    │   │   └── GivenUpError                 the event could not be delivered in time
    │   ├── DroppedError                     the event was discarded on purpose before it was sent
    │   ├── LostError                        the event left the queue without any proof that it was delivered
    │   ├── ProjectPausedError               the key or the project is wrong; its events are kept
    │   └── UnavailableError                 Engagement gave no usable response
    ├── RequestRefusedError                  Engagement refused a request, such as one for messages
    └── DeliveryTimeoutError (TimeoutError)  there was no verdict within the timeout of the caller
"""

from typing import Any, ClassVar

from exponea_async._internal.printable import printable


class ExponeaError(Exception):
    """
    Base class of all exceptions of this package.

    Attributes:
        retryable: Whether the same call may succeed later, without any change to it.
        hint: What to do, in one sentence; empty if the message says it. It is also the end of the message.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        # A message may quote text from outside, such as that of a response.
        super().__init__(printable(f"{message} {hint}" if hint else message))
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, unpickling would call the class with the complete message. Job queues pickle exceptions.
        return _restored, (type(self), self.args, self.__dict__)


class ConfigurationError(ExponeaError, ValueError):
    """
    A setting is missing or invalid.

    Attributes:
        field: The name of the setting, or of its environment variable.
    """

    def __init__(self, field: str, trouble: str, hint: str) -> None:
        super().__init__(f"{field}: {trouble}.", hint=hint)
        self.field = field


class InvalidEventError(ExponeaError, ValueError):
    """
    An event, a customer or another argument is invalid. Nothing was recorded.

    Attributes:
        path: The path of the invalid value, such as ``"properties.items[3].price"``.
        trouble: What is wrong with it: what is expected, and what was given.
    """

    def __init__(self, path: str, trouble: str, hint: str = "") -> None:
        super().__init__(f"{path}: {trouble}.", hint=hint)
        self.path = path
        self.trouble = trouble

    def within(self, parent: str) -> "InvalidEventError":
        """Return the same error with a longer path, such as that of one event in ``"events[3]"``."""
        error = InvalidEventError(f"{parent}.{self.path}", self.trouble, self.hint)
        error.__cause__ = self.__cause__
        return error.with_traceback(self.__traceback__)


class LifecycleError(ExponeaError, RuntimeError):
    """The client is not running."""


class NotStartedError(LifecycleError):
    """The client was used before ``async with`` or ``start()``."""


class ClosedError(LifecycleError):
    """The client was used after ``aclose()``."""


class NoSubjectError(ExponeaError, RuntimeError):
    """No subject was bound where one is needed: with ``Configuration(default_device=False)`` there is no default."""


class StorageError(ExponeaError, OSError):
    """The queue can't be read or written, for example because the disk is full. Nothing was written in part."""

    retryable = True


class SchemaError(StorageError):
    """The schema of the queue in PostgreSQL is missing, or is that of another version of this package."""

    retryable = False


class QueueFullError(StorageError):
    """The queue holds ``QueueSettings.max_records`` records. Nothing was recorded."""


class StateConflictError(StorageError):
    """
    A state was changed by another task or process after it was read. Nothing was written.

    Attributes:
        key: The key of the state.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"The state {key!r} has changed since it was read.", hint="Read it again and repeat the call.")
        self.key = key


class DamagedFileError(StorageError):
    """
    The queue file was damaged, or it was moved or deleted while it was in use. A new one is in use.

    Attributes:
        path: The path of the queue file.
        moved_to: The path of the damaged file now; ``""`` if it is not known, or if nothing but a copy was left.
        saved: The number of records that were copied into the new file.
        lost: The ids of the records that are known to be lost.
    """

    retryable = False

    def __init__(
        self,
        path: str,
        moved_to: str,
        reason: str,
        *,
        saved: int = 0,
        lost: tuple[str, ...] = (),
        complete: bool = False,
    ) -> None:
        if moved_to:
            outcome = f"is damaged ({reason}); it has been moved to {moved_to}"
            hint = "A new file is in use. The sqlite3 shell's .recover may recover more events of the old one."
        else:
            outcome, hint = f"can't be used any more: {reason}", "A new file is in use; keep other tools off it."
        rest = f"{len(lost)} are lost" if lost or complete else "what else it held is not known"
        super().__init__(f"The queue file {path} {outcome}. {saved} records were saved, {rest}.", hint=hint)
        self.path = path
        self.moved_to = moved_to
        self.saved = saved
        self.lost = lost


class WipedFileError(StorageError):
    """
    Another process, or another client, has deleted the data of the queue, as ``stop_integration()`` does.

    Attributes:
        path: The path of the queue file, or the location of the queue in PostgreSQL.
    """

    retryable = False

    def __init__(self, path: str) -> None:
        super().__init__(
            f"The data of the queue {path} was deleted by another process.",
            hint="Nothing is tracked until the client is started again.",
        )
        self.path = path


class DeliveryError(ExponeaError):
    """An event was not delivered, or not yet."""


class RejectedError(DeliveryError):
    """
    Engagement rejected the event for good. It is kept as a dead letter.

    Attributes:
        reason: The reason that Engagement gave.
        status: The HTTP status if the request as a whole was refused; else 0.
    """

    def __init__(self, reason: str, *, status: int = 0) -> None:
        super().__init__(f"Engagement rejected the event: {reason}")
        self.reason = reason
        self.status = status


class GivenUpError(RejectedError):
    """
    The event could not be delivered, and is not sent again. It is kept as a dead letter.

    Engagement has not rejected it: it was not accepted within ``QueueSettings.max_age``, or too many requests with it
    alone have failed.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.args = (f"The event was given up: {reason}",)


class DroppedError(DeliveryError):
    """
    The event was discarded on purpose before it was sent, for example by `Hooks.before_track`.

    Attributes:
        reason: The reason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The event was dropped: {reason}")
        self.reason = reason


class LostError(DeliveryError):
    """
    The event left the queue, and nothing proves that it was delivered.

    Another process has deleted the data of the queue, for example by ``stop_integration()``, or the queue file was
    damaged, replaced or deleted.

    Attributes:
        reason: What is known.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The event is lost: {reason}")
        self.reason = reason


#: What to do about a configured project that is refused.
CHECK_SETTINGS = "Its events are kept. Check project_token, authorization_token and base_url."


class ProjectPausedError(DeliveryError):
    """
    The credentials, the permissions or the address of a project are wrong. Its events are kept in the queue.

    Attributes:
        project: The token of the project.
        status: The HTTP status; 0 if no request was made because no address and no key are known for the project.
        address: The URL that refused; empty if no request was made.
    """

    def __init__(
        self,
        project: str,
        status: int,
        reason: str,
        *,
        address: str = "",
        hint: str = CHECK_SETTINGS,
    ) -> None:
        # Most of the platform's own messages end with a full stop.
        reason = reason.removesuffix(".")
        super().__init__(f"Project {project} is paused: {reason}{f', from {address}' if address else ''}.", hint=hint)
        self.project = project
        self.status = status
        self.address = address


class UnavailableError(DeliveryError):
    """
    Engagement gave no usable response. Events are kept and sent again; other requests may be repeated.

    Attributes:
        status: The HTTP status; 0 if there was no response.
        retry_after: The wait that Engagement asked for, in seconds, or None.
    """

    retryable = True

    def __init__(self, reason: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"Engagement is unavailable: {reason}")
        self.status = status
        self.retry_after = retry_after


class RequestRefusedError(ExponeaError):
    """
    Engagement refused a request, and would refuse it again.

    Attributes:
        reason: The reason that Engagement gave, or what was missing to make the request.
        status: The HTTP status; 200 if the refusal is in the body, 0 if no request was made.
    """

    def __init__(self, reason: str, *, status: int = 200, hint: str = "") -> None:
        super().__init__(f"Engagement refused: {reason}{'.' if hint else ''}", hint=hint)
        self.reason = reason
        self.status = status


class DeliveryTimeoutError(ExponeaError, TimeoutError):
    """There was no verdict within the timeout of the caller. The event is still queued."""

    retryable = True


def _restored(kind: type[ExponeaError], args: tuple[Any, ...], facts: dict[str, Any]) -> ExponeaError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error
