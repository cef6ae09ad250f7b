"""
Segments: the groups that a customer belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exponea_async._internal.arguments import read_text
from exponea_async._internal.lazy import LazyModule, imports
from exponea_async._internal.streams import Subscription
from exponea_async.features._shared.verbs import SubjectVerbs

if TYPE_CHECKING:
    from exponea_async.features.segments import service
else:
    service = LazyModule("exponea_async.features.segments.service")


class SegmentVerbs(SubjectVerbs):
    """The segments of a device's customer."""

    __slots__ = ()

    @imports(service)
    async def get_segments(self, exposing_category: str, force: bool = False) -> list[dict[str, str]]:
        """
        Return the segments that the customer belongs to.

        Segments that were loaded within the last five seconds are returned as they are, unless `force` is set.
        Concurrent calls share one request, which is attempted up to three times, with back-off. A call waits for at
        most five seconds (`RequestLimits.segments_wait`); after that, and after a failure, nothing is requested for ten
        seconds. Changes are also published to `segmentation_data_stream`.

        Args:
            exposing_category: The category in which the segments are exposed: ``"discovery"``, ``"content"``,
                ``"merchandising"``, or a category of the project's own.
            force: Whether to load the segments in any case.

        Returns:
            The segments as Engagement has them, such as ``{"id": "...", "segmentation_id": "..."}``. Empty where the
            platform does not know the customer yet, where the segments can't be loaded, which is logged, where the
            customer was anonymized in the meantime, or where the integration is stopped.

        Raises:
            InvalidEventError: The category is not a non-empty string, or the subject is a customer tracker.
            StorageError: The storage could not load the device.
            LifecycleError: The client was not started, or is closed.
        """
        read_text(exposing_category, "exposing_category", "Use a category such as 'discovery'.")
        return (
            await self._devices.features[service.Segments].for_device(self._context).get(exposing_category, force=force)
        )

    def segmentation_data_stream(
        self,
        exposing_category: str,
        include_first_load: bool = False,
    ) -> Subscription[list[dict[str, str]]]:
        """
        Return a stream of the segments that the customer of the device belongs to, each time they change.

        The segments are loaded now and after each upload of an event of the device, once nothing more was uploaded for
        five seconds, or after a minute at the latest. The stream yields all segments of the category where they differ
        from the previous ones in more than their order; an empty list where none are left. It holds only the latest
        segments. It continues when the device belongs to another customer.

        Args:
            exposing_category: The category in which the segments are exposed: ``"discovery"``, ``"content"``,
                ``"merchandising"``, or a category of the project's own.
            include_first_load: Whether to yield the segments that are loaded first from now on, even if they have not
                changed, or there are none.

        Returns:
            An async iterator over the segments of the current device. It ends with its ``aclose()``, at the end of an
            ``async with`` block, or with the integration or the client. Awaiting it returns it.

        Raises:
            InvalidEventError: The category is not a non-empty string, or the subject is a customer tracker.
            LifecycleError: The client was not started, or is closed.
        """
        read_text(exposing_category, "exposing_category", "Use a category such as 'discovery'.")
        segments = self._devices.features[service.Segments]
        return segments.subscribe(self._context, exposing_category, include_first_load=include_first_load)
