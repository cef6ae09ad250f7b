"""
Push notifications: the token that they are sent to, and what became of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from exponea_async._internal.lazy import LazyModule, imports
from exponea_async._internal.streams import Subscription
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.push_tokens import Platform, handle, track
from exponea_async.devices.state import (
    DeviceState,
    PendingEvent,
    StateUpdate,
    TimestampSequence,
    UpdateResult,
    unchanged,
)
from exponea_async.devices.token_events import conditions, remembered, verified
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.verbs import SubjectVerbs, drops_all_invalid, drops_invalid
from exponea_async.models import OpenedPush, Receipt, ReceivedPush

if TYPE_CHECKING:
    from exponea_async._internal import links
    from exponea_async.features._shared import payload as payloads
else:
    links = LazyModule("exponea_async._internal.links")
    payloads = LazyModule("exponea_async.features._shared.payload")


class PushVerbs(SubjectVerbs):
    """The push notifications of a device."""

    __slots__ = ()

    # Tokens

    @drops_invalid
    async def track_push_token(self, token: str) -> Receipt:
        """
        Track a token of Firebase, whatever was tracked before and however often.

        Args:
            token: The token.

        Raises:
            InvalidEventError: The token is not a non-blank string, or the subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        return await self._track_token(token, "android")

    @drops_invalid
    async def track_hms_push_token(self, token: str) -> Receipt:
        """Track a token of Huawei, as `track_push_token` does."""
        return await self._track_token(token, "huawei")

    @drops_invalid
    async def track_apns_push_token(self, token: str) -> Receipt:
        """Track a token of Apple, as `track_push_token` does."""
        return await self._track_token(token, "ios")

    @drops_all_invalid
    async def handle_push_token(self, token: str) -> list[Receipt]:
        """
        Handle a token that Firebase has issued.

        A token that differs from the remembered one is tracked, after the old one is invalidated. The same token is
        tracked again as ``push_token_tracking_frequency`` says.

        Args:
            token: The token.

        Returns:
            The receipts of the tracked events, if any.

        Raises:
            InvalidEventError: The token is not a non-blank string, or the subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        return await self._handle_token(token, "android")

    @drops_all_invalid
    async def handle_hms_push_token(self, token: str) -> list[Receipt]:
        """Handle a token that Huawei has issued, as `handle_push_token` does."""
        return await self._handle_token(token, "huawei")

    @drops_all_invalid
    async def verify_push_status_and_track_push_token(self, authorized: bool | None = None) -> list[Receipt]:
        """
        Verify the remembered token, as is done when a device is first active in a process, and by `resume()`.

        Args:
            authorized: Whether the user allows notifications; None stands for what was last known, or else for yes.
                A denial is tracked only with `Configuration.require_push_authorization`. Without it the token is valid
                all the same, so False is remembered, and "Permission granted" is tracked if anything is.

        Returns:
            The receipts of the tracked events, if any.

        Raises:
            InvalidEventError: The subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._device_context
        return await context.transact(lambda state, times: verified(state, times, context.configuration, authorized))

    async def _track_token(self, token: str, platform: Platform) -> Receipt:
        context = self._device_context
        configuration = context.configuration

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            memory, states = track(state.token, token, platform, **conditions(configuration, timestamps.first))
            return remembered(state, memory, states, timestamps)

        return (await context.transact(update))[-1]

    async def _handle_token(self, token: str, platform: Platform) -> list[Receipt]:
        context = self._device_context
        configuration = context.configuration
        frequency = configuration.push_token_tracking_frequency

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            known = conditions(configuration, timestamps.first)
            memory, states = handle(state.token, token, platform, frequency=frequency, **known)
            return remembered(state, memory, states, timestamps)

        return await context.transact(update)

    # Notifications

    def is_bloomreach_notification(self, payload: Mapping[str, Any]) -> bool:
        """Return whether a push notification comes from Engagement."""
        return payloads.is_bloomreach_notification(payload)

    @drops_invalid
    @imports(payloads, links)
    async def track_delivered_push(self, payload: Mapping[str, Any], consider_consent: bool = True) -> Receipt:
        """
        Track that a push notification was delivered.

        Args:
            payload: The notification as it was received: with nested values, or with JSON in strings.
            consider_consent: Whether the consent in the payload decides if the event is tracked.

        Returns:
            The receipt; a dropped one without consent.

        Raises:
            InvalidEventError: The payload is not a mapping, or the subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context, read = self._device_context, payloads.read_payload(payload)
        if not context.recorder.check_running():
            return context.recorder.dropped()
        has_consent = may_track(has_consent=read.has_consent, consider_consent=consider_consent)
        receipt = await _track(context, read, _delivery(read) if has_consent else unchanged)
        if not has_consent:
            at = context.recorder.timestamp() if read.received_at is None else read.received_at
            await context.publish(*payloads.delivered_event(read, received_at=at))
        self._devices.received.publish(ReceivedPush(dict(payload)))
        return receipt

    @drops_invalid
    @imports(payloads, links)
    async def track_clicked_push(self, payload: Mapping[str, Any], consider_consent: bool = True) -> Receipt:
        """
        Track that a push notification was clicked.

        A link that forces tracking is tracked without consent too, and the event says so. The notification's campaign
        becomes part of the session that starts with it.

        Args:
            payload: The notification as it was received; ``actionName`` and ``url`` in it name a clicked button.
            consider_consent: Whether the consent in the payload decides if the event is tracked.

        Returns:
            The receipt; a dropped one without consent.

        Raises:
            InvalidEventError: The payload is not a mapping, or the subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context, read = self._device_context, payloads.read_payload(payload)
        has_consent = may_track(has_consent=read.has_consent, consider_consent=consider_consent, url=read.action.url)
        receipt = await _track(context, read, _click(read) if has_consent else unchanged, before=_attribution(read))
        if not has_consent:
            await context.publish(*payloads.clicked_event(read, clicked_at=context.recorder.timestamp()))
        return receipt

    @drops_invalid
    @imports(payloads, links)
    async def handle_push_notification_opened(
        self,
        payload: Mapping[str, Any],
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Handle a clicked push notification: track it as `track_clicked_push` does, and notify `opened_push_stream`.
        """
        context, read = self._device_context, payloads.read_payload(payload)
        if not context.recorder.check_running():
            return context.recorder.dropped()
        receipt = await self.track_clicked_push(payload, consider_consent)
        # The event has the link as it came, and a host that opens a link must get a safe one.
        url = links.safe_link(read.action.url)
        self._devices.opened.publish(OpenedPush(read.action.kind or "app", url, dict(read.attributes)))
        return receipt

    def opened_push_stream(self) -> Subscription[OpenedPush]:
        """
        Subscribe to opened push notifications, of all devices of the client.

        The first subscription also gets those from before it, at most 100.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.
        """
        return self._devices.opened.subscribe()

    def received_push_stream(self) -> Subscription[ReceivedPush]:
        """
        Subscribe to received push notifications, of all devices of the client.

        The first subscription also gets those from before it, at most 100.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.
        """
        return self._devices.received.subscribe()


async def _track(
    context: DeviceContext, payload: payloads.PushPayload, update: StateUpdate, *, before: StateUpdate = unchanged
) -> Receipt:
    """Track what became of a notification; an event that must not be tracked is activity all the same."""
    receipts = await context.transact(unchanged if payload.is_self_check else update, before=before)
    if receipts:
        return receipts[-1]
    if payload.is_self_check:
        return context.recorder.dropped("the notification only checks that notifications arrive")
    return context.without_consent()


def _delivery(payload: payloads.PushPayload) -> StateUpdate:
    def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
        at = timestamps.next() if payload.received_at is None else payload.received_at
        return state, [PendingEvent(state, *payloads.delivered_event(payload, received_at=at))]

    return update


def _click(payload: payloads.PushPayload) -> StateUpdate:
    def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
        return state, [PendingEvent(state, *payloads.clicked_event(payload, clicked_at=timestamps.next()))]

    return update


def _attribution(payload: payloads.PushPayload) -> StateUpdate:
    def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
        campaign = payload.campaign(timestamps.first)
        return (evolve(state, campaign=campaign) if campaign else state), ()

    return update
