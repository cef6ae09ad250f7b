"""
What Engagement is told of a device's push token. Pure.
"""

from collections.abc import Iterable

from attrs import evolve

from exponea_async.config import Configuration
from exponea_async.devices.push_tokens import (
    Facts,
    TokenMemory,
    TokenState,
    invalidate,
    legacy_property,
    reassign,
    verify,
)
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult
from exponea_async.models import Event, EventType


def facts(configuration: Configuration, now: float, granted: bool | None = None) -> Facts:  # noqa: FBT001 - a fact
    """Tell what else decides about a token."""
    return Facts(
        granted=granted,
        require=configuration.require_push_authorization,
        now=now,
        app_version=configuration.app_version,
        application_id=configuration.application_id,
    )


def told(
    who: DeviceState, states: Iterable[TokenState], moments: TimestampSequence, configuration: Configuration
) -> list[PendingEvent]:
    """Make what is tracked of the states of a token."""
    return [_told(who, state, moments.next(), configuration) for state in states]


def _told(who: DeviceState, state: TokenState, at: float, configuration: Configuration) -> PendingEvent:
    if configuration.push_token_storage == "event":  # noqa: S105 - no password
        return PendingEvent(who, EventType.PUSH_TOKEN, Event("notification_state", state.properties(), at))
    # As the SDKs below 2.3.0 did: an empty text removes the token.
    properties = {legacy_property(state.platform): state.token if state.valid else ""}
    return PendingEvent(who, EventType.TRACK_CUSTOMER, Event("customer", properties, at))


def remembered(
    state: DeviceState,
    memory: TokenMemory | None,
    states: Iterable[TokenState],
    moments: TimestampSequence,
    configuration: Configuration,
) -> UpdateResult:
    """Remember a token, and tell what is to be told of it."""
    fresh = evolve(state, token=memory)
    return fresh, told(fresh, states, moments, configuration)


def checked(
    state: DeviceState,
    moments: TimestampSequence,
    configuration: Configuration,
    granted: bool | None = None,  # noqa: FBT001 - a fact
) -> UpdateResult:
    """Check the remembered token again, as is done when the application starts or becomes active."""
    memory, states = verify(
        state.token,
        frequency=configuration.push_token_tracking_frequency,
        **facts(configuration, moments.first, granted),
    )
    return remembered(state, memory, states, moments, configuration)


def invalidated(state: DeviceState, moments: TimestampSequence, configuration: Configuration) -> list[PendingEvent]:
    """Tell that the token is no longer this customer's."""
    return told(state, invalidate(state.token), moments, configuration)


def reassigned(state: DeviceState, moments: TimestampSequence, configuration: Configuration) -> UpdateResult:
    """Tell the token for the customer that the device belongs to now."""
    memory, states = reassign(state.token, **facts(configuration, moments.first))
    return remembered(state, memory, states, moments, configuration)
