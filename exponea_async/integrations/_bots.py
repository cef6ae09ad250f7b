"""
What the integrations of bot frameworks share: the choice of the subject of an update.
"""

import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Generic, TypeVar

from exponea_async._internal.throttle import Throttle
from exponea_async._internal.user_code import calling
from exponea_async.client import Exponea
from exponea_async.subjects import Device, Nobody

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")


class SubjectRule(Generic[T]):
    """
    Decides which subject an update is about: the device of its user, or nobody.

    It is nobody where there is no user or no consent, and where one of the application's functions fails. Then the
    error is logged, and the bot goes on.

    Args:
        exponea: The client.
        key: Returns the key of the user's device; None where there is no user.
        consent: Returns whether the user has consented to be tracked, or something to await that does. None if all
            users have.
    """

    def __init__(
        self,
        exponea: Exponea,
        key: Callable[[T], str | None],
        consent: Callable[[T], bool | Awaitable[bool]] | None,
    ) -> None:
        self._exponea = exponea
        self._key = key
        self._consent = consent
        self._throttle = Throttle()

    async def choose(self, update: T) -> Device | Nobody:
        """Return the subject of an update."""
        try:
            device = self._device(update)
            is_allowed = device is not None and await self._has_consent(update)
        except Exception as error:  # noqa: BLE001 - the application's functions may raise anything
            return self._report(error)
        return device if device is not None and is_allowed else self._exponea.nobody()

    def choose_now(self, update: T) -> Device | Nobody:
        """Return the subject of an update, with a function for consent that does not have to be awaited."""
        try:
            device = self._device(update)
            is_allowed = device is not None and self._ask(update)
            if isawaitable(is_allowed):
                # It is true as an object, whatever it would return.
                return self._report(TypeError("consent: expected a bool, got an awaitable. Use a plain function."))
        except Exception as error:  # noqa: BLE001 - the application's functions may raise anything
            return self._report(error)
        return device if device is not None and is_allowed else self._exponea.nobody()

    def _device(self, update: T) -> Device | None:
        with calling("the function", self._key):
            key = self._key(update)
        return None if key is None else self._exponea.device(key)

    async def _has_consent(self, update: T) -> bool:
        answer = self._ask(update)
        if isawaitable(answer):
            with calling("the function", self._consent, is_async=True):
                return bool(await answer)
        return bool(answer)

    def _ask(self, update: T) -> bool | Awaitable[bool]:
        if self._consent is None:
            return True
        with calling("the function", self._consent):
            return self._consent(update)

    def _report(self, error: Exception) -> Nobody:
        if (more := self._throttle.admit()) is not None:
            message = "The subject of an update is not known, so nothing of it is tracked.%s"
            LOG.error(message, more, exc_info=error)
        return self._exponea.nobody()
