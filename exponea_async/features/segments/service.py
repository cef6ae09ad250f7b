"""
The segments of all devices.
"""

from collections.abc import Callable
from weakref import WeakValueDictionary

from exponea_async._internal.pauses import Pauses
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext, no_subject
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.devices.features import Feature
from exponea_async.errors import InvalidEventError
from exponea_async.features.segments.stored import NAME
from exponea_async.features.segments.watcher import DeviceSegments, SegmentSubscription
from exponea_async.models import Receipt


class Segments(Feature):
    """
    The segments of all devices of a client.

    Args:
        configuration: The settings.
        clock: Returns the current time in UNIX seconds.
    """

    name = "segments"

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        super().__init__()
        self._max_wait = configuration.limits.segments_wait
        self._pauses: Pauses[str] = Pauses()
        self._clock = clock
        # Weak: the subscriptions and tasks of a device reference it.
        self._devices: WeakValueDictionary[str, DeviceSegments] = WeakValueDictionary()
        self._is_closed = False

    def for_device(self, context: SubjectContext) -> DeviceSegments:
        """
        Return the segments of a device.

        Raises:
            InvalidEventError: The subject is a customer tracker.
            NoSubjectError: There is no subject.
        """
        key = context.key
        if not context.is_bound:
            raise no_subject()
        if key is None:
            trouble = "expected a device, got a customer tracker, which has no cookie to find segments by"
            raise InvalidEventError("subject", trouble, "Use a device: exponea.device(key).")
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = DeviceSegments(context, self._clock, self.tasks, self._pauses, self._max_wait)
        return device

    def subscribe(self, context: SubjectContext, category: str, *, include_first_load: bool) -> SegmentSubscription:
        """
        Return a subscription to a device's segments, which has ended already where the integration is stopped.

        Raises:
            InvalidEventError: The subject is a customer tracker.
            LifecycleError: The client is not running.
        """
        device = self.for_device(context)
        if context.recorder.check_running() and not self._is_closed:
            subscription = device.subscribe_to(category, include_first_load=include_first_load)
            self.registry.refresh()
            return subscription
        subscription = SegmentSubscription(device, category, include_first_load=include_first_load)
        subscription.close()
        return subscription

    @property
    def is_listening(self) -> bool:
        """Whether a device has subscriptions or tasks, so that uploads of its events matter."""
        return len(self._devices) > 0

    def tracked(self, context: SubjectContext, event: TrackedEvent) -> None:  # noqa: ARG002 - the base has it
        """Load segments once the event has been uploaded."""
        self._load_after_upload(event.customer.device, event.receipt)

    def identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:  # noqa: ARG002 - the base has it
        """Load segments once the customer's ids have been uploaded."""
        self._load_after_upload(context.key, receipt)

    def launched(self, context: SubjectContext) -> None:
        """Load segments where a subscription waits for the first load."""
        device = self._devices.get(context.key or "")
        if device is not None and device.awaits_first_load:
            device.load_soon()

    def anonymized(self, context: SubjectContext) -> None:
        """Discard the previous customer's segments; the new customer's are loaded after the next upload."""
        device = self._devices.get(context.key or "")
        if device is not None:
            device.forget()
        self.tasks.start(context.save_data(NAME, None), name="deleting segments")

    def clear(self) -> None:
        """End all streams and loads; callers that wait for a load get an empty list."""
        self.tasks.cancel()
        self._pauses.clear()
        for device in list(self._devices.values()):
            device.close()

    def close(self) -> None:
        """End all streams and loads."""
        self._is_closed = True
        self.clear()

    def _load_after_upload(self, key: str | None, receipt: Receipt | None) -> None:
        device = self._devices.get(key or "")
        if device is not None and receipt is not None and device.has_subscribers:
            device.load_after_upload(receipt)
