"""
When a session starts and ends, and what is told of it. Pure.
"""

import platform
from typing import Any

from attrs import evolve

from exponea_async._version import __version__
from exponea_async.config import Configuration
from exponea_async.devices.campaigns import is_alive
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult
from exponea_async.models import Event, EventType

#: How long the campaign of a link may be part of a session that starts, in seconds, as the Android SDK has it.
CAMPAIGN_TTL = 10.0
#: The moments of one change differ by less, in seconds; a verb's activity is the last of them. A session that comes
#: so near to the timeout has reached it, and a campaign that is no older than its time and this is still alive.
SPAN = 0.0005


def device_properties(configuration: Configuration) -> dict[str, Any]:
    """Tell what stands for the device in events about it."""
    told: dict[str, Any] = {
        "sdk": "exponea-async-python",
        "sdk_version": __version__,
        "os_name": platform.system(),
        "os_version": platform.release(),
        "device_type": "server",
    }
    if configuration.app_version is not None:
        told["app_version"] = configuration.app_version
    return told


def installed(state: DeviceState, moments: TimestampSequence, configuration: Configuration) -> PendingEvent:
    """Tell that the application was installed, which is told once for each cookie."""
    return PendingEvent(
        state, EventType.INSTALL, Event("installation", device_properties(configuration), moments.next())
    )


def begun(
    state: DeviceState, at: float, configuration: Configuration, *, since: float | None = None
) -> tuple[DeviceState, PendingEvent]:
    """
    Start a session, which takes the campaign with it that brought the customer here just now.

    Args:
        state: The device.
        at: The moment to tell, UNIX seconds.
        configuration: The settings.
        since: From when its duration counts, where that is not the same.
    """
    campaign = state.campaign
    led = campaign.properties() if campaign is not None and is_alive(campaign, at, CAMPAIGN_TTL + SPAN) else {}
    event = Event("session_start", {**device_properties(configuration), **led}, at)
    fresh = evolve(state, session_start=at if since is None else since, campaign=None)
    return fresh, PendingEvent(fresh, EventType.SESSION_START, event)


def ended(state: DeviceState, at: float, configuration: Configuration) -> PendingEvent:
    """Tell the end of the open session; its duration is never negative."""
    duration = round(max(0.0, at - (at if state.session_start is None else state.session_start)), 3)
    event = Event("session_end", {**device_properties(configuration), "duration": duration}, at)
    return PendingEvent(state, EventType.SESSION_END, event)


def is_idle(last: float, now: float, timeout: float) -> bool:
    """Tell whether the last activity was too long ago for a session to go on: by the timeout, to the moment."""
    return now - last >= timeout - SPAN


def idle_before(now: float, timeout: float) -> float:
    """Tell the moment before which the last activity was too long ago."""
    return now - timeout + SPAN


def expired(state: DeviceState, now: float, timeout: float) -> bool:
    """Tell whether the open session of a device has been idle for too long."""
    return state.session_start is not None and is_idle(last_sign(state), now, timeout)


def closed(state: DeviceState, configuration: Configuration) -> UpdateResult:
    """End the open session of a device at its last activity."""
    told = [] if state.session_start is None else [ended(state, last_sign(state), configuration)]
    return evolve(state, session_start=None, last_activity=None), told


def active(state: DeviceState, moments: TimestampSequence, configuration: Configuration) -> UpdateResult:
    """A device is active: its session goes on, or a new one starts after the end of one that has been idle."""
    now = moments.first
    told: list[PendingEvent] = []
    if expired(state, now, configuration.session_timeout):
        state, ends = closed(state, configuration)
        told += ends
    if state.session_start is not None:
        # What leads somebody back into an open session is no part of a later one, as in the Android SDK.
        state = evolve(state, campaign=None) if state.campaign else state
    else:
        state, started = begun(state, moments.next(), configuration, since=now)
        told.append(started)
        # Its end comes after its start, even if nothing else happens.
        moments.next()
    return evolve(state, last_activity=max(now, last_sign(state))), told


def last_sign(state: DeviceState) -> float:
    """Tell when the device was active last in the open session, as far as is known; not before its start."""
    last = state.session_start or 0.0
    return last if state.last_activity is None else max(last, state.last_activity)
