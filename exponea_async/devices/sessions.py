"""
When a session starts and ends, and the events of it. Pure.
"""

import platform
from typing import Any

from attrs import evolve

from exponea_async._version import __version__
from exponea_async.config import Configuration
from exponea_async.devices.campaigns import is_alive
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult
from exponea_async.models import Event, EventType

#: Seconds within which the campaign of a link becomes part of a session that starts, as in the Android SDK.
CAMPAIGN_TTL = 10.0
#: The timestamps of one change differ by less than this, in seconds, and a call's activity is the last of them. So a
#: session that is this close to the timeout has reached it, and a campaign that is older by no more still counts.
TOLERANCE = 0.0005


def device_properties(configuration: Configuration) -> dict[str, Any]:
    """Return the properties of events about the device itself."""
    properties: dict[str, Any] = {
        "sdk": "exponea-async-python",
        "sdk_version": __version__,
        "os_name": platform.system(),
        "os_version": platform.release(),
        "device_type": "server",
    }
    if configuration.app_version is not None:
        properties["app_version"] = configuration.app_version
    return properties


def installation(state: DeviceState, timestamps: TimestampSequence, configuration: Configuration) -> PendingEvent:
    """Return the ``installation`` event, which is recorded once for each cookie."""
    event = Event("installation", device_properties(configuration), timestamps.next())
    return PendingEvent(state, EventType.INSTALL, event)


def session_start(
    state: DeviceState, at: float, configuration: Configuration, *, since: float | None = None
) -> tuple[DeviceState, PendingEvent]:
    """
    Start a session, which takes over the campaign that has just led the customer here.

    Args:
        state: The device.
        at: The timestamp of the event, UNIX seconds.
        configuration: The settings.
        since: The start of the session's duration, where it differs from `at`.
    """
    campaign = state.campaign
    attribution = campaign.properties() if campaign and is_alive(campaign, at, CAMPAIGN_TTL + TOLERANCE) else {}
    event = Event("session_start", {**device_properties(configuration), **attribution}, at)
    started = evolve(state, session_start=at if since is None else since, campaign=None)
    return started, PendingEvent(started, EventType.SESSION_START, event)


def session_end(state: DeviceState, at: float, configuration: Configuration) -> PendingEvent:
    """Return the ``session_end`` event of the open session; its duration is never negative."""
    duration = round(max(0.0, at - (at if state.session_start is None else state.session_start)), 3)
    event = Event("session_end", {**device_properties(configuration), "duration": duration}, at)
    return PendingEvent(state, EventType.SESSION_END, event)


def end_session(state: DeviceState, configuration: Configuration) -> UpdateResult:
    """End the open session of a device at its last activity."""
    events = [] if state.session_start is None else [session_end(state, last_activity(state), configuration)]
    return evolve(state, session_start=None, last_activity=None), events


def continue_session(state: DeviceState, timestamps: TimestampSequence, configuration: Configuration) -> UpdateResult:
    """Continue the session of an active device, or start a new one after an idle one has ended."""
    now = timestamps.first
    events: list[PendingEvent] = []
    if is_expired(state, now, configuration.session_timeout):
        state, ended = end_session(state, configuration)
        events += ended
    if state.session_start is not None:
        # A campaign that leads back into an open session is not part of a later one, as in the Android SDK.
        state = evolve(state, campaign=None) if state.campaign else state
    else:
        state, started = session_start(state, timestamps.next(), configuration, since=now)
        events.append(started)
        # The end of the session must come after its start, even if nothing else happens.
        timestamps.next()
    return evolve(state, last_activity=max(now, last_activity(state))), events


def is_expired(state: DeviceState, now: float, timeout: float) -> bool:
    """Return whether the open session of a device has been idle for the timeout."""
    return state.session_start is not None and is_idle(last_activity(state), now, timeout)


def is_idle(last: float, now: float, timeout: float) -> bool:
    """Return whether the last activity is so old that the session has ended."""
    return now - last >= timeout - TOLERANCE


def idle_before(now: float, timeout: float) -> float:
    """Return the timestamp before which the last activity of an ended session was."""
    return now - timeout + TOLERANCE


def last_activity(state: DeviceState) -> float:
    """Return when the device was last active in the open session as far as is known; not before its start."""
    last = state.session_start or 0.0
    return last if state.last_activity is None else max(last, state.last_activity)
