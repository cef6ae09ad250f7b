"""
The state of devices on which a message is shown, or about to be: only as long as that lasts.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from attrs import evolve, frozen

from exponea_async._internal.lru import LruCache
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.messages import InAppMessage

#: Seconds after which an event that waits is forgotten, or after its own maximum wait if that is longer. Not sooner:
#: an event whose messages come too late is counted.
MAX_KEPT = 60.0
#: Maximum number of event types of one device that wait at once, and of devices with a message or a known session.
MAX_TYPES, MAX_DEVICES = 100, 100_000
#: Maximum number of messages that are prepared, or delayed, on all devices; each of them is a task.
MAX_PREPARING = 10_000


@frozen
class PendingTrigger:
    """
    An event that waits for its message.

    Attributes:
        event: The event.
        fingerprint: The customer of the event.
        since: Since when it waits, in event-loop time.
        is_queued: Whether it waits for a request that has not been sent yet. Its patience counts from then.
    """

    event: TriggerEvent
    fingerprint: str
    since: float
    is_queued: bool = False

    @property
    def timestamp(self) -> float:
        """When the event happened, UNIX seconds."""
        return self.event.timestamp or 0.0


@frozen
class TakenTriggers:
    """
    Events that have waited for their messages.

    Attributes:
        timely: Those for which a message may be shown.
        late: Those that have waited too long.
    """

    timely: list[PendingTrigger]
    late: list[PendingTrigger]


class PendingTriggers:
    """
    Events that wait for their messages, by device: the latest of each type.

    Args:
        max_wait: Maximum wait of an event for a request that was sent, in seconds.

    Attributes:
        max_wait: The same.
    """

    def __init__(self, max_wait: float) -> None:
        self.max_wait = max_wait
        # In the order of their latest events.
        self._devices: OrderedDict[str, dict[str, PendingTrigger]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def of_device(self, device: str) -> list[PendingTrigger]:
        """Return the events that wait on a device."""
        return list(self._devices.get(device, {}).values())

    def add(self, device: str, trigger: PendingTrigger) -> None:
        """Add an event, instead of an earlier one of its type, and of all those of another customer."""
        self._drop_expired(trigger.since)
        waiting = self._devices.setdefault(device, {})
        self._devices.move_to_end(device)
        if any(each.fingerprint != trigger.fingerprint for each in waiting.values()):
            waiting.clear()
        name = trigger.event.event_type
        if name not in waiting or waiting[name].timestamp <= trigger.timestamp:
            waiting[name] = trigger
        if len(waiting) > MAX_TYPES:
            del waiting[next(iter(waiting))]

    def note_sending(self, device: str, now: float) -> None:
        """Let the patience of the events that wait on a device begin: the request for their messages is sent."""
        waiting = self._devices.get(device, {})
        for name, each in waiting.items():
            if each.is_queued:
                waiting[name] = evolve(each, since=now, is_queued=False)

    def take(self, device: str, fingerprint: str, now: float) -> TakenTriggers:
        """
        Remove the events that wait on a device for a customer, and return them. The events of another customer stay.
        """
        waiting = self._devices.get(device, {})
        if any(each.fingerprint != fingerprint for each in waiting.values()):
            return TakenTriggers([], [])
        self.drop(device)
        timely = [each for each in waiting.values() if each.since + self.max_wait > now]
        return TakenTriggers(timely, [each for each in waiting.values() if each not in timely])

    def drop(self, device: str) -> None:
        """Remove the events of a device."""
        self._devices.pop(device, None)

    def clear(self) -> None:
        """Remove all events."""
        self._devices.clear()

    def _drop_expired(self, now: float) -> None:
        """Remove the devices whose events wait for what does not come, so that none stays forever."""
        kept = max(MAX_KEPT, self.max_wait)
        while self._devices:
            device = next(iter(self._devices))
            if any(each.since + kept > now for each in self._devices[device].values()):
                break
            del self._devices[device]


@frozen(eq=False)
class ActiveMessage:
    """
    A message that is shown on a device.

    Attributes:
        message: The message.
        timer: Closes it by itself, or logs that it was not reported.
    """

    message: InAppMessage
    timer: asyncio.TimerHandle | None = None

    def cancel_timer(self) -> None:
        """Prevent what the timer does."""
        if self.timer is not None:
            self.timer.cancel()


class ActiveMessages:
    """
    The messages that are shown: one per device at a time.

    Args:
        max_devices: Maximum number of devices with a message; the one that has been shown longest is forgotten first.
        max_preparing: Maximum number of messages that are prepared at once.

    Attributes:
        preparing: The messages that are prepared, as device and id.
    """

    def __init__(self, max_devices: int = MAX_DEVICES, max_preparing: int = MAX_PREPARING) -> None:
        self._devices: LruCache[str, ActiveMessage] = LruCache(
            max_devices, on_evict=lambda _, active: active.cancel_timer()
        )
        self._max_preparing = max_preparing
        self.preparing: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._devices)

    def on_device(self, device: str) -> ActiveMessage | None:
        """Return the message that is shown on a device, or None."""
        return self._devices.peek(device)

    def is_busy(self, device: str | None) -> bool:
        """Return whether a message is shown on a device; always False for None."""
        return device in self._devices

    def start_preparing(self, message: tuple[str, str]) -> bool:
        """Mark a message of a device as being prepared; return False if it is already, or if there are too many."""
        if message in self.preparing or len(self.preparing) >= self._max_preparing:
            return False
        self.preparing.add(message)
        return True

    def stop_preparing(self, message: tuple[str, str]) -> None:
        """Unmark a message of a device."""
        self.preparing.discard(message)

    def add(self, message: InAppMessage) -> bool:
        """Add a message that is shown; return False if there is another one on its device."""
        if message.device is None or self.is_busy(message.device):
            return message.device is None
        self._devices.put(message.device, ActiveMessage(message))
        return True

    def schedule(self, message: InAppMessage, seconds: float, call: Callable[[], None]) -> None:
        """Call a function after so many seconds, unless the message is removed before."""
        if message.device is not None and self.is_shown(message):
            timer = asyncio.get_running_loop().call_later(seconds, call)
            self._devices.put(message.device, ActiveMessage(message, timer))

    def remove(self, message: InAppMessage) -> bool:
        """Remove a message that is no longer shown; return whether it was shown."""
        if message.device is None or not self.is_shown(message):
            return False
        self.remove_device(message.device)
        return True

    def remove_device(self, device: str) -> list[InAppMessage]:
        """Remove the message of a device; return it in a list, which is empty if there is none."""
        active = self._devices.pop(device)
        if active is None:
            return []
        active.cancel_timer()
        return [active.message]

    def clear(self) -> list[InAppMessage]:
        """Remove all messages, and return those that were shown."""
        self.preparing.clear()
        return [message for device in list(self._devices) for message in self.remove_device(device)]

    def is_shown(self, message: InAppMessage) -> bool:
        """Return whether a message is shown on its device."""
        active = self._devices.peek(message.device or "")
        if active is None or active.message.id != message.id:
            return False
        # One that the host created has no ids. The next customer may be shown the same message by now.
        return not message.customer_ids or message.customer_ids == active.message.customer_ids


class SessionStarts:
    """
    When the latest session of each device began, for devices whose session is not open any more.

    Args:
        max_devices: Maximum number of devices.

    Attributes:
        client_start: When the client was started, UNIX seconds.
    """

    def __init__(self, max_devices: int = MAX_DEVICES) -> None:
        self._devices: LruCache[str, float] = LruCache(max_devices)
        self.client_start = 0.0

    def record(self, device: str, at: float) -> None:
        """Record that a session began at a time, UNIX seconds."""
        self._devices.put(device, at)

    def latest(self, device: str | None, open_session: float | None) -> float:
        """Return the start of the open session, UNIX seconds, or else of the last one, or else of the client."""
        if open_session is not None:
            return open_session
        latest = self._devices.peek(device or "")
        return self.client_start if latest is None else latest

    def reset(self, now: float) -> None:
        """Forget all sessions; the client was started at a time, UNIX seconds."""
        self._devices.clear()
        self.client_start = now
