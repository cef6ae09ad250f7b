"""
The events about a device's push token. Pure.
"""

from collections.abc import Iterable

from attrs import evolve

from exponea_async.config import Configuration
from exponea_async.devices.push_tokens import (
    TokenConditions,
    TokenMemory,
    TokenState,
    invalidate,
    legacy_property,
    reassign,
    verify,
)
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult
from exponea_async.models import Event, EventType


def conditions(
    configuration: Configuration,
    now: float,
    granted: bool | None = None,  # noqa: FBT001 - a value
) -> TokenConditions:
    """Return what the state of a token depends on besides the token."""
    return TokenConditions(
        granted=granted,
        require=configuration.require_push_authorization,
        now=now,
        app_version=configuration.app_version,
        application_id=configuration.application_id,
        form=configuration.push_token_storage,
    )


def token_events(owner: DeviceState, states: Iterable[TokenState], timestamps: TimestampSequence) -> list[PendingEvent]:
    """Return the events about the states of a token, in order."""
    return [_event(owner, state, timestamps.next()) for state in states]


def _event(owner: DeviceState, state: TokenState, at: float) -> PendingEvent:
    if state.form == "event":
        return PendingEvent(owner, EventType.PUSH_TOKEN, Event("notification_state", state.properties(), at))
    # As the SDKs below 2.3.0 did: an empty string removes the token.
    properties = {legacy_property(state.platform): state.token if state.valid else ""}
    return PendingEvent(owner, EventType.TRACK_CUSTOMER, Event("customer", properties, at))


def remembered(
    state: DeviceState,
    memory: TokenMemory | None,
    states: Iterable[TokenState],
    timestamps: TimestampSequence,
) -> UpdateResult:
    """Remember a token, with the events about its states."""
    changed = evolve(state, token=memory)
    return changed, token_events(changed, states, timestamps)


def verified(
    state: DeviceState,
    timestamps: TimestampSequence,
    configuration: Configuration,
    granted: bool | None = None,  # noqa: FBT001 - a value
) -> UpdateResult:
    """Verify the remembered token, as is done when the application starts or becomes active."""
    memory, states = verify(
        state.token,
        frequency=configuration.push_token_tracking_frequency,
        **conditions(configuration, timestamps.first, granted),
    )
    return remembered(state, memory, states, timestamps)


def invalidated(state: DeviceState, timestamps: TimestampSequence, configuration: Configuration) -> list[PendingEvent]:
    """Return the event that the token no longer belongs to the present customer."""
    return token_events(state, invalidate(state.token, configuration.push_token_storage), timestamps)


def reassigned(state: DeviceState, timestamps: TimestampSequence, configuration: Configuration) -> UpdateResult:
    """Track the token for the customer that the device now belongs to."""
    memory, states = reassign(state.token, **conditions(configuration, timestamps.first))
    return remembered(state, memory, states, timestamps)
