"""
Devices on which something is about to be shown, or is shown: kept only for as long as that is so.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from attrs import frozen

from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.messages import InAppMessage

#: An event waits so long for its message, in seconds, as in the vendor's SDKs.
PATIENCE = 3.0
#: Types of events of one device that wait at once, and devices of which something is remembered.
MOST_TYPES, MOST_DEVICES = 100, 100_000
#: Messages that are made ready or wait to be shown, on all devices; each of them is a task.
MOST_PREPARED = 10_000


@frozen
class PendingTrigger:
    """
    An event that a message may be shown upon.

    Attributes:
        occasion: The event.
        fingerprint: The customer whose it is.
        since: Since when it waits, as the event loop's time.
    """

    occasion: TriggerEvent
    fingerprint: str
    since: float

    @property
    def moment(self) -> float:
        """When the event happened, UNIX seconds."""
        return self.occasion.timestamp or 0.0


class PendingTriggers:
    """Events that wait for their messages, by their devices: of each type the latest one."""

    def __init__(self) -> None:
        # The device that asked last is the last one.
        self._devices: OrderedDict[str, dict[str, PendingTrigger]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def add(self, device: str, request: PendingTrigger) -> None:
        """Let an event wait, instead of an earlier one of its type, and of all those of somebody else."""
        self._forget_old(request.since)
        waiting = self._devices.setdefault(device, {})
        self._devices.move_to_end(device)
        if any(each.fingerprint != request.fingerprint for each in waiting.values()):
            waiting.clear()
        name = request.occasion.event_type
        if name not in waiting or waiting[name].moment <= request.moment:
            waiting[name] = request
        if len(waiting) > MOST_TYPES:
            del waiting[next(iter(waiting))]

    def take(self, device: str, fingerprint: str, now: float) -> list[PendingTrigger]:
        """
        Give out what waits on a device for a customer and was not left waiting for too long; it waits no more.

        What waits for somebody else stays.
        """
        waiting = self._devices.get(device, {})
        if any(each.fingerprint != fingerprint for each in waiting.values()):
            return []
        self.drop(device)
        return [each for each in waiting.values() if each.since + PATIENCE > now]

    def drop(self, device: str) -> None:
        """Let nothing wait any more on a device."""
        self._devices.pop(device, None)

    def clear(self) -> None:
        """Let nothing wait any more."""
        self._devices.clear()

    def _forget_old(self, now: float) -> None:
        """Forget devices whose events have all waited for too long, so that none stays for good."""
        while self._devices:
            device = next(iter(self._devices))
            if any(each.since + PATIENCE > now for each in self._devices[device].values()):
                break
            del self._devices[device]


@frozen(eq=False)
class Shown:
    """
    A message that is shown on a device.

    Attributes:
        message: The message.
        timer: Closes it by itself, or None.
    """

    message: InAppMessage
    timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Let it not close by itself any more."""
        if self.timer is not None:
            self.timer.cancel()


class ActiveMessages:
    """What is shown on which device: one message at a time."""

    def __init__(self) -> None:
        self._devices: OrderedDict[str, Shown] = OrderedDict()
        self._preparing: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._devices)

    def is_busy(self, device: str | None) -> bool:
        """Whether something is shown on a device; never where None."""
        return device in self._devices

    def prepare(self, message: tuple[str, str]) -> bool:
        """Begin to prepare a message for a device; refused where that is being done already, or there are too many."""
        if message in self._preparing or len(self._preparing) >= MOST_PREPARED:
            return False
        self._preparing.add(message)
        return True

    def prepared(self, message: tuple[str, str]) -> None:
        """End to prepare a message for a device."""
        self._preparing.discard(message)

    def enter(self, message: InAppMessage) -> bool:
        """Show a message on its device; refused where there is another."""
        if message.device is None or self.is_busy(message.device):
            return message.device is None
        self._devices[message.device] = Shown(message)
        if len(self._devices) > MOST_DEVICES:
            self._devices.popitem(last=False)[1].stop()
        return True

    def close_later(self, message: InAppMessage, close: Callable[[], None]) -> None:
        """Have a message that is shown closed by itself, where it is not to stay for good."""
        if message.device is None or message.close_timeout is None or not self._is_on(message):
            return
        timer = asyncio.get_running_loop().call_later(message.close_timeout, close)
        self._devices[message.device] = Shown(message, timer)

    def leave(self, message: InAppMessage) -> bool:
        """Show a message no more; tells whether it was shown."""
        if message.device is None or not self._is_on(message):
            return False
        self._devices.pop(message.device).stop()
        return True

    def drop(self, device: str) -> list[InAppMessage]:
        """Show nothing more on a device; tells what was shown."""
        shown = self._devices.pop(device, None)
        if shown is None:
            return []
        shown.stop()
        return [shown.message]

    def clear(self) -> list[InAppMessage]:
        """Show nothing more; tells what was shown."""
        self._preparing.clear()
        return [message for device in list(self._devices) for message in self.drop(device)]

    def _is_on(self, message: InAppMessage) -> bool:
        shown = self._devices.get(message.device or "")
        if shown is None or shown.message.id != message.id:
            return False
        # One made by hand tells of nobody, and the same one may be shown to the next customer by now.
        return not message.customer_ids or message.customer_ids == shown.message.customer_ids


class SessionStarts:
    """When the latest sessions that were heard of began, for those that are not open any more."""

    def __init__(self) -> None:
        self._devices: OrderedDict[str, float] = OrderedDict()
        #: When the client was started, UNIX seconds.
        self.since = 0.0

    def begin(self, device: str, at: float) -> None:
        """Note that a session began, at a moment, UNIX seconds."""
        self._devices[device] = at
        self._devices.move_to_end(device)
        if len(self._devices) > MOST_DEVICES:
            self._devices.popitem(last=False)

    def start_of(self, device: str | None, session: float | None) -> float:
        """Tell when a visit began, UNIX seconds: with the session that is open, or else the last one, or the client."""
        if session is not None:
            return session
        return self._devices.get(device or "", self.since)

    def clear(self, now: float) -> None:
        """Forget all; the client was started now, UNIX seconds."""
        self._devices.clear()
        self.since = now
