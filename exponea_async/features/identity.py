"""
Who a device is.
"""

from typing import TYPE_CHECKING

from exponea_async.features._scope import Scope


class IdentityVerbs:
    """The verbs of a device's identity."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _scope(self) -> Scope: ...

    async def get_customer_cookie(self) -> str:
        """
        Tell the device's cookie, the soft id that all its events carry; a new device gets one.

        Raises:
            InvalidEventError: The current subject is a `CustomerTracker`, which has none.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        return await self._scope.cookie()
