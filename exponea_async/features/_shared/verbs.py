"""
The base of all classes whose public coroutines track something about a subject.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast

from exponea_async.devices.context import SubjectContext, no_subject
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.store import DeviceStore
from exponea_async.errors import InvalidEventError
from exponea_async.models import Receipt


class SubjectVerbs(ABC):
    """
    What a class of public coroutines needs: the subject that they are about.

    A device and a customer tracker are their own subject; a client's is the one that is bound, or its default device.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def _devices(self) -> DeviceStore:
        """The devices of the client."""

    @property
    @abstractmethod
    def _context(self) -> SubjectContext:
        """The subject."""

    @property
    def _device_context(self) -> DeviceContext:
        """
        The subject, which must be a device.

        Raises:
            InvalidEventError: It is a customer tracker.
        """
        context = self._context
        if isinstance(context, DeviceContext):
            return context
        if not context.is_bound:
            raise no_subject()
        trouble = "expected a device, got a customer tracker, which has no cookie, session or push token"
        raise InvalidEventError("subject", trouble, "Use a device: exponea.device(key).")


_Method = TypeVar("_Method", bound=Callable[..., Coroutine[Any, Any, Any]])


def drops_invalid(verb: _Method) -> _Method:
    """Let a public coroutine return a dropped receipt for what is invalid, if ``Configuration.on_invalid`` says so."""
    return _dropping(verb, lambda receipt: receipt)


def drops_all_invalid(verb: _Method) -> _Method:
    """Let a public coroutine that returns several receipts do the same; its only receipt is then a dropped one."""
    return _dropping(verb, lambda receipt: [receipt])


def _dropping(verb: _Method, result: Callable[[Receipt], Receipt | list[Receipt]]) -> _Method:
    @wraps(verb)
    async def call(self: SubjectVerbs, *args: Any, **kwargs: Any) -> Any:
        try:
            return await verb(self, *args, **kwargs)
        except InvalidEventError as error:
            return result(self._context.recorder.invalid(error))

    return cast("_Method", call)
