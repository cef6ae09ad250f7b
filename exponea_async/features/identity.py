"""
Who a device is: its cookie, and how it becomes somebody else's.
"""

from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import evolve

from exponea_async.config import Configuration, ConfigurationChange, ExponeaProject
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.sessions import active, closed, ended, expired, installed, last_sign
from exponea_async.devices.state import DeviceState, PendingEvent, ProjectRef, TimestampSequence, UpdateResult, renewed
from exponea_async.devices.token_events import invalidated, reassigned
from exponea_async.errors import InvalidEventError
from exponea_async.models import Receipt


class IdentityVerbs:
    """The verbs of a device's identity."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _context(self) -> SubjectContext: ...

    async def get_customer_cookie(self) -> str:
        """
        Tell the device's cookie, the soft id that all its events carry; a new device gets one.

        Raises:
            InvalidEventError: The current subject is a `CustomerTracker`, which has none.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        state = await self._context.look()
        return state.cookie if state else ""

    async def anonymize(self, change: ConfigurationChange | None = None) -> list[Receipt]:
        """
        Make the device a new customer's, as when somebody signs out.

        Told of the old customer: the end of the session, and that the push token is no longer theirs. Told of the new
        one, who has a new cookie and no other id: ``installation``, the start of a session, and the push token. All
        of it is kept in one commit, the new identity included; a crash leaves all or nothing. Sessions are told where
        they are tracked automatically. What was tracked before keeps its ids and its project.

        Args:
            change: Another project to track to from now on, and other projects beside it, for this device. It is
                remembered with the project's key, in the queue's storage.

        Returns:
            The receipts of what was tracked, in that order.

        Raises:
            InvalidEventError: The current subject is a `CustomerTracker`, which remembers nothing.
            StorageError: The storage refused; nothing was changed.
            LifecycleError: The client was not started, or is closed.
        """
        if change is not None and not isinstance(change, ConfigurationChange):
            raise InvalidEventError("change", f"a {type(change).__name__} is no change", "Give a ConfigurationChange.")
        context, cookie = self._context, str(uuid4())
        configuration = context.configuration
        if change is not None:
            await context.remember(_projects(change))

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            farewell = [] if state.is_new else _farewell(state, moments, configuration)
            state = _switched(renewed(state, cookie), change, configuration)
            welcome = [installed(state, moments, configuration)]
            if configuration.automatic_session_tracking:
                state, started = active(state, moments, configuration)
                welcome += started
            state, token = reassigned(state, moments, configuration)
            return state, [*farewell, *welcome, *token]

        receipts = await context.change(plan, wake=False)
        context.anonymized()
        return receipts


def _farewell(state: DeviceState, moments: TimestampSequence, configuration: Configuration) -> list[PendingEvent]:
    told: list[PendingEvent] = []
    if configuration.automatic_session_tracking and state.session_start is not None:
        if expired(state, moments.first, configuration.session_timeout):
            told += closed(state, configuration)[1]
        else:
            told.append(ended(state, max(moments.next(), last_sign(state)), configuration))
    return told + invalidated(state, moments, configuration)


def _projects(change: ConfigurationChange) -> list[ExponeaProject]:
    """Tell the projects that a change names, with the new main project's address where they have none of their own."""
    named = [change.project] if change.project else []
    for projects in (change.mapping or {}).values():
        named += projects
    address = change.project.base_url if change.project else None
    return [evolve(project, base_url=project.base_url or address) for project in named]


def _switched(state: DeviceState, change: ConfigurationChange | None, configuration: Configuration) -> DeviceState:
    if change is None:
        return state
    current = state.project.base_url if state.project else configuration.base_url
    address = (change.project and change.project.base_url) or current
    if change.project is not None:
        state = evolve(state, project=ProjectRef(address, change.project.project_token))
    if change.mapping is not None:
        mapping = {kind.name: tuple(_place(it, address) for it in its) for kind, its in change.mapping.items()}
        state = evolve(state, mapping=mapping)
    return state


def _place(project: ExponeaProject, address: str) -> ProjectRef:
    return ProjectRef(project.base_url or address, project.project_token)
