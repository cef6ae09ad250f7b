"""
Links of campaigns that lead somebody here.
"""

from typing import TYPE_CHECKING

from attrs import evolve

from exponea_async.devices.campaigns import read_link
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult
from exponea_async.models import Event, EventType, Timestamp


class CampaignVerbs:
    """The verbs of campaigns."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _context(self) -> SubjectContext: ...

    async def handle_campaign_click(self, url: str, timestamp: Timestamp = None) -> bool:
        """
        Take a link that somebody opened.

        Its campaign becomes part of the session that starts with it, or within ten seconds. A link with an
        ``xnpe_cmp`` is also told to Engagement as a click.

        Args:
            url: The link, of any scheme.
            timestamp: When; by default the moment of the call.

        Returns:
            Whether a click was tracked.

        Raises:
            InvalidEventError: The timestamp is no moment, or the subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        moment = context.recorder.moment(timestamp)
        if not context.recorder.check_running() or read_link(url, 0.0) is None:
            return False

        def remember(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            return evolve(state, campaign=read_link(url, moments.first)), ()

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            campaign = read_link(url, moments.first)
            if campaign is None or not campaign.is_click:
                return state, ()
            at = moments.next() if moment is None else moment
            return state, [PendingEvent(state, EventType.CAMPAIGN_CLICK, Event(url, {"platform": "server"}, at))]

        return any(receipt.status != "dropped" for receipt in await context.change(plan, before=remember))
