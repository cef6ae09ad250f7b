"""
Segments: the groups that a customer belongs to.
"""

from collections.abc import Callable
from weakref import WeakValueDictionary

from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async._internal.streams import Subscription
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import TrackedEvent
from exponea_async.devices.features import Feature
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.verbs import SubjectVerbs
from exponea_async.features.segments.watcher import NAME, DeviceSegments, SegmentListener
from exponea_async.models import Receipt


class Segments(Feature):
    """
    What is kept of segments for all subjects of a client.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        self._configuration = configuration
        self._clock = clock
        self._tasks = BackgroundTasks()
        # Those that somebody listens to or waits for; listeners and tasks hold on to them.
        self._devices: WeakValueDictionary[str, DeviceSegments] = WeakValueDictionary()
        self._is_closed = False

    def of(self, context: SubjectContext) -> DeviceSegments:
        """
        Find the segments of a device.

        Raises:
            InvalidEventError: The subject is none.
        """
        key = context.key
        if key is None:
            trouble = "a customer tracker has no cookie, by which segments are found"
            raise InvalidEventError("subject", trouble, "Use a device: exponea.device(key).")
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = DeviceSegments(context, self._clock, self._tasks)
        return device

    def listen(self, context: SubjectContext, category: str, *, include_first_load: bool) -> SegmentListener:
        """
        Begin to listen to a device's segments; raises as `of` does, and where the client is not running.
        """
        device = self.of(context)
        if context.recorder.check_running() and not self._is_closed:
            listener = device.listen_to(category, include_first_load=include_first_load)
            self.registry.refresh()
            return listener
        listener = SegmentListener(device, category, include_first_load=include_first_load)
        listener.close()
        return listener

    @property
    def is_listening(self) -> bool:
        """Whether there are listeners, who want to know of what is uploaded."""
        return len(self._devices) > 0

    def tracked(self, context: SubjectContext, heard: TrackedEvent) -> None:  # noqa: ARG002 - as all parts have it
        """Ask for segments once the event has been uploaded."""
        self._follow(heard.customer.device, heard.receipt)

    def identified(self, context: SubjectContext, receipt: Receipt) -> None:
        """Ask for segments once the customer's ids have been uploaded."""
        self._follow(context.key, receipt)

    def launched(self, context: SubjectContext) -> None:
        """Ask for segments where somebody wants those that are loaded first."""
        device = self._devices.get(context.key or "")
        if device is not None and device.wants_first:
            device.refresh()

    def anonymized(self, context: SubjectContext) -> None:
        """Forget the segments of the one who has gone; those of the new customer are not asked for by this."""
        device = self._devices.get(context.key or "")
        if device is not None:
            device.forget()
        self._tasks.start(context.save_data(NAME, None), name="forgetting segments")

    def clear(self) -> None:
        """End all streams, and let whoever waits go."""
        self._tasks.cancel()
        for device in list(self._devices.values()):
            device.close()

    async def aclose(self) -> None:
        """End all streams and what is under way."""
        self._is_closed = True
        self.clear()
        await self._tasks.aclose()

    def _follow(self, key: str | None, receipt: Receipt | None) -> None:
        device = self._devices.get(key or "")
        if device is not None and receipt is not None and device.has_subscribers:
            device.follow(receipt)


class SegmentVerbs(SubjectVerbs):
    """The verbs of segments."""

    __slots__ = ()

    async def get_segments(self, exposing_category: str, force: bool = False) -> list[dict[str, str]]:  # noqa: FBT001, FBT002 - the vendor's signature
        """
        Tell the segments that the customer belongs to.

        Those that were told in the last five seconds do, unless `force` says otherwise. Calls at the same time share
        one question to the platform, which is asked up to three times, with waits between. What turns out to be new is
        told to `segmentation_data_stream` too.

        Args:
            exposing_category: Where they are exposed: ``"discovery"``, ``"content"``, ``"merchandising"``, or a
                category of the project's own.
            force: Ask the platform in any case.

        Returns:
            Segments as Engagement has them, such as ``{"id": "...", "segmentation_id": "..."}``; none where the
            platform does not know the customer yet, where it can't be asked, which is logged, where the customer was
            anonymized meanwhile, or where the integration is stopped.

        Raises:
            InvalidEventError: The category is no text, or the subject is no device.
            StorageError: The storage refused to tell who the device is.
            LifecycleError: The client was not started, or is closed.
        """
        _check(exposing_category)
        return await self._devices.features[Segments].of(self._context).get(exposing_category, force=force)

    def segmentation_data_stream(
        self,
        exposing_category: str,
        include_first_load: bool = False,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Subscription[list[dict[str, str]]]:
        """
        Listen to changes of the segments that the customer of the device belongs to.

        The platform is asked now and whenever an event of the device has been uploaded, after five seconds in which
        nothing more happens, or a minute at the most. The stream tells all segments of the category, where they are
        not the same as before in whatever order; an empty list where there are none any more. Of what was not taken
        from it yet it holds the last only. It goes on when the customer becomes another one.

        Args:
            exposing_category: Where they are exposed: ``"discovery"``, ``"content"``, ``"merchandising"``, or a
                category of the project's own.
            include_first_load: Whether to tell the segments that are loaded first from now on, even if they are known
                already, or there are none.

        Returns:
            An async iterator of the segments of the device that is current now. It ends with its ``aclose()``, the end
            of an ``async with`` block, or that of the integration or the client. Awaiting it gives itself.

        Raises:
            InvalidEventError: The category is no text, or the subject is no device.
            LifecycleError: The client was not started, or is closed.
        """
        _check(exposing_category)
        context = self._context
        return self._devices.features[Segments].listen(
            context, exposing_category, include_first_load=include_first_load
        )


def _check(category: str) -> None:
    if not isinstance(category, str) or not category:
        raise InvalidEventError("exposing_category", f"{category!r:.60} is no non-empty text", "Such as 'discovery'.")
