"""
Push notifications: the token that they are sent to, and what became of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from exponea_async._internal.streams import Subscription
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.push_tokens import Platform, handle, track
from exponea_async.devices.state import DeviceState, PendingEvent, StateUpdate, TimestampSequence, UpdateResult, nothing
from exponea_async.devices.token_events import checked, facts, remembered
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.payload import (
    Payload,
    clicked_event,
    delivered_event,
    is_bloomreach_notification,
    read_payload,
)
from exponea_async.models import OpenedPush, Receipt, ReceivedPush


class PushVerbs:
    """The verbs of push notifications."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _context(self) -> SubjectContext: ...

    # Tokens

    async def track_push_token(self, token: str) -> Receipt:
        """
        Tell Engagement of a token of Firebase's, whatever was told before and however often.

        Args:
            token: The token.

        Raises:
            InvalidEventError: The token is no text, or blank; or the subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        return await self._track_token(token, "android")

    async def track_hms_push_token(self, token: str) -> Receipt:
        """Tell Engagement of a token of Huawei's; as `track_push_token`."""
        return await self._track_token(token, "huawei")

    async def track_apns_push_token(self, token: str) -> Receipt:
        """Tell Engagement of a token of Apple's; as `track_push_token`."""
        return await self._track_token(token, "ios")

    async def handle_push_token(self, token: str) -> list[Receipt]:
        """
        Take the token that Firebase has given out.

        One that differs from the remembered one is told to Engagement, after the old one was invalidated. The same
        one is told again as ``push_token_tracking_frequency`` has it.

        Args:
            token: The token.

        Returns:
            The receipts of what was tracked; none where there was nothing to tell.

        Raises:
            InvalidEventError: The token is no text, or blank; or the subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        return await self._handle_token(token, "android")

    async def handle_hms_push_token(self, token: str) -> list[Receipt]:
        """Take the token that Huawei has given out; as `handle_push_token`."""
        return await self._handle_token(token, "huawei")

    async def verify_push_status_and_track_push_token(self, authorized: bool | None = None) -> list[Receipt]:  # noqa: FBT001 - the vendor's signature
        """
        Check the remembered token again, as is done when a device comes to life and at `resume`.

        Args:
            authorized: Whether the user allows notifications; None is as last known, or else yes.

        Returns:
            The receipts of what was tracked; none where there was nothing to tell.

        Raises:
            InvalidEventError: The subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        configuration = self._context.configuration
        return await self._context.change(lambda state, moments: checked(state, moments, configuration, authorized))

    async def _track_token(self, token: str, platform: Platform) -> Receipt:
        configuration = self._context.configuration

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            memory, states = track(state.token, token, platform, **facts(configuration, moments.first))
            return remembered(state, memory, states, moments, configuration)

        return (await self._context.change(plan))[-1]

    async def _handle_token(self, token: str, platform: Platform) -> list[Receipt]:
        configuration = self._context.configuration
        frequency = configuration.push_token_tracking_frequency

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            known = facts(configuration, moments.first)
            memory, states = handle(state.token, token, platform, frequency=frequency, **known)
            return remembered(state, memory, states, moments, configuration)

        return await self._context.change(plan)

    # Notifications

    def is_bloomreach_notification(self, payload: Mapping[str, Any]) -> bool:
        """Tell whether a push notification comes from Engagement."""
        return is_bloomreach_notification(payload)

    async def track_delivered_push(self, payload: Mapping[str, Any], consider_consent: bool = True) -> Receipt:  # noqa: FBT001, FBT002 - the vendor's signature
        """
        Track that a push notification came.

        Args:
            payload: The notification as it came: with nested values, or with JSON in texts.
            consider_consent: Whether it counts what the payload says of the consent to be tracked.

        Returns:
            The receipt; a dropped one where there is no consent.

        Raises:
            InvalidEventError: The payload is no mapping, or the subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context, read = self._context, read_payload(payload)
        if not context.recorder.check_running():
            return context.recorder.dropped()
        allowed = may_track(read.consent, consider_consent=consider_consent)
        receipt = await _tracked(context, read, _delivery(read) if allowed else nothing)
        if not allowed:
            at = context.recorder.stamp() if read.received_at is None else read.received_at
            await context.hear(*delivered_event(read, received_at=at))
        context.received.publish(ReceivedPush(dict(payload)))
        return receipt

    async def track_clicked_push(self, payload: Mapping[str, Any], consider_consent: bool = True) -> Receipt:  # noqa: FBT001, FBT002 - the vendor's signature
        """
        Track that a push notification was pressed.

        A link that forces tracking is tracked without consent too, and says so. The notification's campaign becomes
        part of the session that starts with it.

        Args:
            payload: The notification as it came; ``actionName`` and ``url`` in it tell of a button.
            consider_consent: Whether it counts what the payload says of the consent to be tracked.

        Returns:
            The receipt; a dropped one where there is no consent.

        Raises:
            InvalidEventError: The payload is no mapping, or the subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context, read = self._context, read_payload(payload)
        allowed = may_track(read.consent, consider_consent=consider_consent, url=read.action.url)
        receipt = await _tracked(context, read, _click(read) if allowed else nothing, before=_led_by(read))
        if not allowed:
            await context.hear(*clicked_event(read, clicked_at=context.recorder.stamp()))
        return receipt

    async def handle_push_notification_opened(
        self,
        payload: Mapping[str, Any],
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Take a press on a push notification: track it as `track_clicked_push` does, and tell `opened_push_stream`.
        """
        context, read = self._context, read_payload(payload)
        if not context.recorder.check_running():
            return context.recorder.dropped()
        receipt = await self.track_clicked_push(payload, consider_consent)
        context.opened.publish(OpenedPush(read.action.kind or "app", read.action.url, dict(read.attributes)))
        return receipt

    def opened_push_stream(self) -> Subscription[OpenedPush]:
        """
        Listen to presses on push notifications, of all devices of the client.

        The first listener also gets those from before anybody listened, at most 100.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.
        """
        return self._context.opened.subscribe()

    def received_push_stream(self) -> Subscription[ReceivedPush]:
        """
        Listen to push notifications that came, of all devices of the client.

        The first listener also gets those from before anybody listened, at most 100.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.
        """
        return self._context.received.subscribe()


async def _tracked(
    context: SubjectContext, payload: Payload, plan: StateUpdate, *, before: StateUpdate = nothing
) -> Receipt:
    """Track what happened to a notification; what may not be tracked is a sign of life all the same."""
    receipts = await context.change(nothing if payload.is_self_check else plan, before=before)
    if receipts:
        return receipts[-1]
    if payload.is_self_check:
        return context.recorder.dropped("it only proves that notifications arrive")
    return context.recorder.dropped("there is no consent to track the notification", count="no_consent")


def _delivery(payload: Payload) -> StateUpdate:
    def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
        at = moments.next() if payload.received_at is None else payload.received_at
        return state, [PendingEvent(state, *delivered_event(payload, received_at=at))]

    return plan


def _click(payload: Payload) -> StateUpdate:
    def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
        return state, [PendingEvent(state, *clicked_event(payload, clicked_at=moments.next()))]

    return plan


def _led_by(payload: Payload) -> StateUpdate:
    def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
        campaign = payload.campaign(moments.first)
        return (evolve(state, campaign=campaign) if campaign else state), ()

    return plan
