"""
Who a device is: its cookie, and how it comes to belong to another customer.
"""

from uuid import uuid4

from attrs import evolve

from exponea_async.config import Configuration
from exponea_async.devices.sessions import (
    continue_session,
    end_session,
    installation,
    is_expired,
    last_activity,
    session_end,
)
from exponea_async.devices.state import (
    DeviceState,
    PendingEvent,
    TimestampSequence,
    UpdateResult,
    anonymized,
)
from exponea_async.devices.token_events import invalidated, reassigned
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.verbs import SubjectVerbs, drops_all_invalid
from exponea_async.models import Receipt
from exponea_async.projects import ConfigurationChange, ExponeaProject, uses_of


class IdentityVerbs(SubjectVerbs):
    """The identity of a device."""

    __slots__ = ()

    async def get_customer_cookie(self) -> str:
        """
        Return the device's cookie, the soft id that all its events carry; a new device gets one.

        Raises:
            InvalidEventError: The subject is a customer tracker, which has no cookie.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        state = await self._device_context.load_state()
        return state.cookie if state else ""

    @drops_all_invalid
    async def anonymize(self, change: ConfigurationChange | None = None) -> list[Receipt]:
        """
        Make the device a new customer's, as when a customer signs out.

        For the old customer, ``session_end`` and an invalidated push token are tracked. For the new one, who has a new
        cookie and no other id, ``installation``, ``session_start`` and the push token are tracked; sessions only where
        they are automatic. All of it is one commit, the new identity included, so that a crash leaves all or nothing.
        Events that were tracked before keep their ids and their project.

        Args:
            change: Another project to track to from now on, and additional projects, for this device. The change is
                stored with the projects' addresses and keys in the queue's storage. For a configured project, the
                address and key of the configuration count.

        Returns:
            The receipts of these events, in that order.

        Raises:
            InvalidEventError: The subject is a customer tracker, which remembers nothing.
            ConfigurationError: A project of the change is configured with another key or address; nothing was changed.
            StorageError: The storage refused; nothing was changed.
            LifecycleError: The client was not started, or is closed.
        """
        if change is not None and not isinstance(change, ConfigurationChange):
            trouble = f"expected a ConfigurationChange, got {type(change).__name__}"
            raise InvalidEventError("change", trouble, "Use ConfigurationChange(project, mapping).")
        context, cookie = self._device_context, str(uuid4())
        configuration = context.configuration
        if change is not None:
            await context.store_projects(_uses(change))

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            old = [] if state.is_new else _old_customer_events(state, timestamps, configuration)
            state = _switched(anonymized(state, cookie), change)
            new = [installation(state, timestamps, configuration)]
            if configuration.automatic_session_tracking:
                state, started = continue_session(state, timestamps, configuration)
                new += started
            state, token = reassigned(state, timestamps, configuration)
            return state, [*old, *new, *token]

        return await context.transact(update, counts_as_activity=False, on_commit=context.notify_anonymized)


def _old_customer_events(
    state: DeviceState, timestamps: TimestampSequence, configuration: Configuration
) -> list[PendingEvent]:
    events: list[PendingEvent] = []
    if configuration.automatic_session_tracking and state.session_start is not None:
        if is_expired(state, timestamps.first, configuration.session_timeout):
            events += end_session(state, configuration)[1]
        else:
            events.append(session_end(state, max(timestamps.next(), last_activity(state)), configuration))
    return events + invalidated(state, timestamps, configuration)


def _uses(change: ConfigurationChange) -> list[tuple[str, ExponeaProject]]:
    """Return the projects of a change; those without an address have that of its main project, if it gives one."""
    base_url = change.project.base_url if change.project else None
    return [(f"change.{where}", evolve(each, base_url=each.base_url or base_url)) for where, each in uses_of(change)]


def _switched(state: DeviceState, change: ConfigurationChange | None) -> DeviceState:
    if change is None:
        return state
    if change.project is not None:
        state = evolve(state, project=change.project.project_token)
    if change.mapping is not None:
        mapping = {kind.name: tuple(each.project_token for each in refs) for kind, refs in change.mapping.items()}
        state = evolve(state, mapping=mapping)
    return state
