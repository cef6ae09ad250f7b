"""
The messages of the app inbox, as the platform tells them. Pure.

Whatever part of a message is broken is left out, and what stands beside it stays; only a message without an id or a
type is lost as a whole.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from exponea_async._internal.json import decode
from exponea_async.features._shared.envelopes import MAX_ELEMENT_BYTES
from exponea_async.features._shared.payload import read_payload
from exponea_async.messages import AppInboxAction, AppInboxMessage

if TYPE_CHECKING:
    from exponea_async.features._shared.html.reader import SafeHtml

LOG = logging.getLogger("exponea_async")

PUSH, HTML = "push", "html"
#: What a press can lead to; all else is `NO_ACTION`, as in the Android SDK.
_KINDS = frozenset({"app", "browser", "deeplink"})
NO_ACTION = "no_action"
#: The same of what can be pressed in HTML; to close is an action of nobody's, as in the Android SDK.
_HTML_KINDS = {"browser": "browser", "deep-link": "deeplink"}

#: Characters of what is told in events, whose properties may have 16 KB.
MAX_TEXT = 4_000
#: Bytes of what is told in events of what Engagement wants in them, for one property and for all.
MAX_PROPERTY, MAX_PROPERTIES = 16_000, 200_000

#: What a content has in common with the payload of a push notification, but for what can be pressed.
_SHARED = ("attributes", "url_params")

#: Makes the HTML of a message safe; None where there is nothing to show.
ReadPage = Callable[[str], "SafeHtml | None"]


@frozen
class FetchInfo:
    """
    What each message is marked with as it comes: it is needed to tell the platform of it later.

    Attributes:
        ids: The customer it was loaded for.
        at: When, UNIX seconds.
        sync_token: The platform's mark of that moment, or None.
    """

    ids: Mapping[str, str]
    at: float
    sync_token: str | None = None


@frozen(eq=False)
class MessageHeader:
    """
    What decides whether a message is kept, before the rest of it is read.

    Attributes:
        id: Its id.
        create_time: When it was made, UNIX seconds; when it came, where it does not say so.
        piece: The whole message as it came, as JSON.
        element: The same, decoded.
    """

    id: str
    create_time: float | None
    piece: bytes
    element: Mapping[str, Any]


def read_heads(pieces: Iterable[bytes], at: float) -> list[MessageHeader]:
    """
    Look through the messages of an answer, which came at a moment, UNIX seconds. Of those with one id the last counts.
    """
    heads: dict[str, MessageHeader] = {}
    broken: list[str] = []
    for piece in pieces:
        try:
            head = _head(piece, at)
        except (ValueError, KeyError, TypeError) as error:
            broken.append(f"{type(error).__name__}: {error}")
        else:
            if head is not None:
                heads[head.id] = head
    if broken:
        LOG.warning("%d messages of the app inbox can't be read. The first: %.200s", len(broken), broken[0])
    return list(heads.values())


def read_message(head: MessageHeader, stamp: FetchInfo, read_page: ReadPage) -> AppInboxMessage:
    """
    Read a message.

    Args:
        head: What is known of it.
        stamp: What it is marked with.
        read_page: Makes its HTML safe, where it has some.
    """
    element = head.element
    told = element.get("content")
    content = told if isinstance(told, dict) else {}
    is_html = element["type"] == HTML
    payload = read_payload(_payload(content, is_html=is_html))
    page = _page(content, read_page) if is_html else None
    campaign = payload.campaign(stamp.at)
    tracking = {**payload.attributes, **(campaign.properties() if campaign else {})}
    tracking.pop("event_type", None)
    category = payload.consent_category
    return AppInboxMessage(
        id=head.id,
        type=element["type"],
        is_read=element.get("is_read") is True,
        create_time=head.create_time,
        content=content,
        title=_text(content, "title"),
        message=_text(content, "pre_header" if is_html else "message"),
        image_url=_text(content, "image"),
        html=None if page is None else page.html,
        action=None if is_html else _main_action(content),
        actions=tuple(_pressable(page) if is_html else _buttons(content)),
        tracking_data=_fitting(tracking),
        has_tracking_consent=payload.has_consent,
        consent_category_tracking=category if category and len(category) <= MAX_TEXT else None,
        customer_ids=dict(stamp.ids),
        sync_token=stamp.sync_token,
    )


def _head(piece: bytes, at: float) -> MessageHeader | None:
    if len(piece) > MAX_ELEMENT_BYTES:
        raise ValueError(f"{len(piece)} bytes are too many")
    element = decode(piece)
    if not isinstance(element, dict):
        raise TypeError(f"a {type(element).__name__} is no message")
    id_, kind = element["id"], element["type"]
    if not isinstance(id_, str) or not id_:
        raise ValueError("its id is no text")
    if not isinstance(kind, str):
        raise TypeError("its type is no text")
    return MessageHeader(id_, _moment(element, at), piece, element) if kind in (PUSH, HTML) else None


def _moment(element: Mapping[str, Any], at: float) -> float | None:
    if "create_time" not in element:
        return at
    told = element["create_time"]
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None if told is None else at
    try:
        moment = float(told)
    except OverflowError:
        return at
    return moment if math.isfinite(moment) else at


def _payload(content: Mapping[str, Any], *, is_html: bool) -> dict[str, Any]:
    """Make the payload of a push notification that says the same, as far as it is the same there."""
    payload = {name: content.get(name) for name in _SHARED}
    if not is_html:
        payload["data"] = content.get("data")
    payload["consent_category_tracking"] = _text(content, "consent_category_tracking")
    consent = content.get("has_tracking_consent")
    # JSON has one kind of numbers only.
    payload["has_tracking_consent"] = consent == 1 if isinstance(consent, float) else consent
    return payload


def _fitting(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what fits into an event: what does not is lost, and the event is not."""
    kept, left = {}, MAX_PROPERTIES
    for name, value in properties.items():
        size = len(name) + len(json.dumps(value))
        if size <= min(MAX_PROPERTY, left):
            kept[name] = value
            left -= size
    return kept


def _text(source: Mapping[str, Any], name: str) -> str | None:
    """Tell a text; numbers and truth values become one, as in the Android SDK."""
    value = source.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


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
    kind, url = source.get("action"), _text(source, "url")
    known = isinstance(kind, str) and kind in _KINDS
    return AppInboxAction(str(kind) if known else NO_ACTION, title, url if url and url.strip() else None)


def _page(content: Mapping[str, Any], read_page: ReadPage) -> "SafeHtml | None":
    source = content.get("message")
    return read_page(source) if isinstance(source, str) and source.strip() else None


def _pressable(page: "SafeHtml | None") -> Iterator[AppInboxAction]:
    for each in page.actions if page else ():
        yield AppInboxAction(_HTML_KINDS.get(each.kind, NO_ACTION), each.text, each.url)
