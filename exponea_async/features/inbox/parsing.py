"""
The messages of the app inbox, as the platform sends them. Pure.

A malformed part of a message is left out, and the other parts stay. Only a message without an id or a type is skipped.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from exponea_async._internal.actions import ActionType
from exponea_async._internal.fields import as_mapping, as_number, as_string, optional, required
from exponea_async._internal.json import decode
from exponea_async._internal.links import safe_image, safe_link
from exponea_async.features._shared.envelopes import MAX_ELEMENT_BYTES
from exponea_async.features._shared.html.rules import log_removed
from exponea_async.features._shared.payload import read_payload
from exponea_async.messages import AppInboxAction, AppInboxMessage

if TYPE_CHECKING:
    from exponea_async.features._shared.html.reader import SafeHtml

LOG = logging.getLogger("exponea_async")

PUSH, HTML = "push", "html"
#: The actions that a click can lead to; all others become `NO_ACTION`, as in the Android SDK.
_ACTIONS = frozenset({"app", "browser", "deeplink"})
NO_ACTION = ActionType.NO_ACTION
#: The same for links in HTML; closing becomes `NO_ACTION`, as in the Android SDK.
_HTML_ACTIONS = {"browser": ActionType.BROWSER, "deep-link": ActionType.DEEP_LINK}

#: Maximum length of a string in an event, in characters. Event properties are limited to 16 KB.
MAX_TEXT_LENGTH = 4_000
#: Maximum size of the tracking data in an event, in characters of JSON: of one property, and of all together.
MAX_PROPERTY, MAX_PROPERTIES = 16_000, 200_000

#: The fields of a message's content that a push notification's payload has as well.
_PAYLOAD_FIELDS = ("attributes", "url_params")

#: Makes the HTML of a message safe; returns None where there is nothing to show.
ReadHtml = Callable[[str], "SafeHtml | None"]


@frozen
class FetchInfo:
    """
    The fetch that messages came with, needed later to mark them as read.

    Attributes:
        customer_ids: The ids of the customer they were fetched for.
        fetched_at: When they were fetched, UNIX seconds.
        sync_token: The platform's token of that state of the inbox, or None.
    """

    customer_ids: Mapping[str, str]
    fetched_at: float
    sync_token: str | None = None


@frozen(eq=False)
class MessageHeader:
    """
    What decides whether a message is kept, before the rest of it is read.

    Attributes:
        id: The id.
        create_time: When it was created, UNIX seconds; if the message does not say so, when it was fetched.
        raw_json: The whole message as it came.
        decoded: The whole message, decoded.
    """

    id: str
    create_time: float | None
    raw_json: bytes
    decoded: Mapping[str, Any]


def read_headers(raw_messages: Iterable[bytes], fetched_at: float) -> list[MessageHeader]:
    """
    Return the headers of messages that were fetched at a time in UNIX seconds.

    Of several messages with the same id the last one counts. Messages of unknown types are left out.
    """
    headers: dict[str, MessageHeader] = {}
    errors: list[str] = []
    for raw_json in raw_messages:
        try:
            header = _header(raw_json, fetched_at)
        except (ValueError, KeyError, TypeError) as error:
            errors.append(f"{type(error).__name__}: {error}")
        else:
            if header is not None:
                headers[header.id] = header
    if errors:
        LOG.warning("%d messages of the app inbox can't be read. The first: %.200s", len(errors), errors[0])
    return list(headers.values())


def read_message(header: MessageHeader, info: FetchInfo, read_html: ReadHtml) -> AppInboxMessage:
    """
    Read a message.

    Args:
        header: Its header.
        info: The fetch it came with.
        read_html: Makes its HTML safe, if it has any.
    """
    decoded = header.decoded
    content = decoded.get("content")
    content = content if isinstance(content, dict) else {}
    is_html = decoded["type"] == HTML
    payload = read_payload(_push_payload(content, is_html=is_html))
    html = _safe_html(content, read_html) if is_html else None
    if html is not None:
        log_removed(f"app inbox message {header.id!r}", html.removed)
    campaign = payload.campaign(info.fetched_at)
    tracking_data = {**payload.attributes, **(campaign.properties() if campaign else {})}
    tracking_data.pop("event_type", None)
    category = payload.consent_category
    return AppInboxMessage(
        id=header.id,
        type=decoded["type"],
        is_read=decoded.get("is_read") is True,
        create_time=header.create_time,
        content=content,
        title=_text(content, "title"),
        message=_text(content, "pre_header" if is_html else "message"),
        image_url=safe_image(_text(content, "image")),
        html=None if html is None else html.html,
        action=None if is_html else _main_action(content),
        actions=tuple(_html_actions(html) if is_html else _buttons(content)),
        tracking_data=_limited(tracking_data),
        has_tracking_consent=payload.has_consent,
        consent_category_tracking=category if category and len(category) <= MAX_TEXT_LENGTH else None,
        customer_ids=dict(info.customer_ids),
        sync_token=info.sync_token,
    )


def _header(raw_json: bytes, fetched_at: float) -> MessageHeader | None:
    if len(raw_json) > MAX_ELEMENT_BYTES:
        raise ValueError(f"expected at most {MAX_ELEMENT_BYTES:,} bytes, got {len(raw_json):,}")
    decoded = as_mapping(decode(raw_json))
    id_, kind = required(decoded, "id", as_string, allow_empty=False), required(decoded, "type", as_string)
    return MessageHeader(id_, _create_time(decoded, fetched_at), raw_json, decoded) if kind in (PUSH, HTML) else None


def _create_time(decoded: Mapping[str, Any], fetched_at: float) -> float | None:
    if decoded.get("create_time", fetched_at) is None:
        return None
    create_time = optional(decoded, "create_time", as_number)
    return fetched_at if create_time is None else create_time


def _push_payload(content: Mapping[str, Any], *, is_html: bool) -> dict[str, Any]:
    """Return the payload of a push notification with the same meaning, as far as the fields are the same."""
    payload = {name: content.get(name) for name in _PAYLOAD_FIELDS}
    if not is_html:
        payload["data"] = content.get("data")
    payload["consent_category_tracking"] = _text(content, "consent_category_tracking")
    consent = content.get("has_tracking_consent")
    # JSON does not distinguish 1 from 1.0.
    payload["has_tracking_consent"] = consent == 1 if isinstance(consent, float) else consent
    return payload


def _limited(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that fit into an event, so that the others don't prevent the event."""
    fitting, left = {}, MAX_PROPERTIES
    for name, value in properties.items():
        size = len(name) + len(json.dumps(value))
        if size <= min(MAX_PROPERTY, left):
            fitting[name] = value
            left -= size
    return fitting


def _text(source: Mapping[str, Any], name: str) -> str | None:
    # Numbers and booleans are accepted as strings, as in the Android SDK.
    return optional(source, name, as_string, coerce=(int, float, bool))


def _main_action(content: Mapping[str, Any]) -> AppInboxAction | None:
    if content.get("action") is None and content.get("url") is None:
        return None
    return _action(content, None)


def _buttons(content: Mapping[str, Any]) -> Iterator[AppInboxAction]:
    buttons = content.get("actions")
    if isinstance(buttons, str):
        try:
            buttons = decode(buttons.encode())
        except ValueError:
            LOG.warning("The actions of a message of the app inbox can't be read.")
    for button in buttons if isinstance(buttons, list) else ():
        if isinstance(button, dict):
            yield _action(button, _text(button, "title"))


def _action(source: Mapping[str, Any], title: str | None) -> AppInboxAction:
    action, url = optional(source, "action", as_string), safe_link(_text(source, "url"))
    return AppInboxAction(action if action in _ACTIONS else NO_ACTION, title, url)


def _safe_html(content: Mapping[str, Any], read_html: ReadHtml) -> "SafeHtml | None":
    source = optional(content, "message", as_string)
    return read_html(source) if source and source.strip() else None


def _html_actions(html: "SafeHtml | None") -> Iterator[AppInboxAction]:
    for each in html.actions if html else ():
        yield AppInboxAction(_HTML_ACTIONS.get(each.kind, NO_ACTION), each.text, each.url)
