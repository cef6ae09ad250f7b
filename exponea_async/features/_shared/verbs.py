"""
The base of all classes whose public coroutines track something about a subject.
"""

from abc import ABC, abstractmethod

from exponea_async.devices.context import SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.store import DeviceStore
from exponea_async.errors import InvalidEventError


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
        trouble = "expected a device, got a customer tracker, which has no cookie, session or push token"
        raise InvalidEventError("subject", trouble, "Use a device: exponea.device(key).")
