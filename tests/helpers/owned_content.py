"""
Content of a sandbox that contains the name of the customer it was requested for, its owner.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any

from attrs import evolve

from exponea_async.messages import AppInboxMessage, InAppContentBlock, InAppMessage, RecommendationOptions
from exponea_async.sandbox import CustomerView, Sandbox

#: How often in-app messages and content blocks may be shown, by name. Each has an in-app message for an event of that
#: name, and a content block in a placeholder of that name.
FREQUENCIES = {
    "always": "always",
    "once": "only_once",
    "visit": "once_per_visit",
    "until": "until_visitor_interacts",
}
#: An event whose in-app message is HTML, and one whose message must not be tracked.
PAGE, SECRET = "page", "secret"
ITEMS = RecommendationOptions("items", fill_with_random=True)
CATEGORY = "discovery"
LINK = "https://s.example/sale"
INBOX = ("i1", "i2")


def name_of(ids: Mapping[str, str]) -> str:
    """Return the name of the customer with these ids, which no other customer has."""
    return ";".join(f"{kind}={value}" for kind, value in sorted(ids.items()))


class PersonalizedContent:
    """
    In-app messages, content blocks, inbox messages, segments and recommendations that contain their owner.

    Args:
        sandbox: The sandbox that they are added to.

    Attributes:
        responses: The number of personal responses so far.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.responses = 0
        self._resolve = sandbox.engine.resolve
        # The sandbox merges customers; here the owner is named by the ids of the request.
        sandbox.engine.resolve = self._resolve_with_name  # type: ignore[method-assign]
        definitions = sandbox.messages
        definitions.in_app_messages.put(_in_app_messages)
        blocks = [_block(name, frequency) for name, frequency in FREQUENCIES.items()]
        definitions.content_blocks.put(*blocks, _block(SECRET, "always", has_tracking_consent=False))
        definitions.inbox.put(lambda view: [_inbox_message(id_, view) for id_ in INBOX])
        definitions.segments[CATEGORY].put(lambda view: {"id": _name(view), "segmentation_id": str(self.responses)})
        definitions.recommendations["items"].put(_item)

    def _resolve_with_name(self, project: str, ids: Mapping[str, str]) -> CustomerView:
        self.responses += 1
        view = self._resolve(project, ids)
        return evolve(view, properties={**view.properties, "requested_as": name_of(ids)})


def owner_of(thing: Any) -> str:
    """Return the owner of something, which must be the same everywhere in it."""
    names = set(_names(thing))
    assert len(names) == 1, names
    return names.pop()


def _names(thing: Any) -> list[str]:
    if isinstance(thing, InAppMessage):
        text = thing.html or thing.payload.get("title") or ""
        return [thing.name, _between(text), name_of(thing.customer_ids)]
    if isinstance(thing, InAppContentBlock):
        assert thing.personalized_data is not None
        variant = thing.personalized_data.variant_name
        return [variant or "", _between(thing.html or ""), name_of(thing.customer_ids)]
    if isinstance(thing, AppInboxMessage):
        return [thing.title or "", str(thing.tracking_data["owner"]), name_of(thing.customer_ids)]
    return [thing["id"] if isinstance(thing, dict) else thing.item_id]


def _between(text: str) -> str:
    return text.partition("[")[2].partition("]")[0]


def _name(view: CustomerView) -> str:
    return str(view.properties["requested_as"])


def _in_app_messages(view: CustomerView) -> list[dict[str, Any]]:
    messages = [_in_app_message(name, frequency, view) for name, frequency in FREQUENCIES.items()]
    page = {"message_type": "freeform", "is_html": True, "payload_html": f"<p>[{_name(view)}]</p>", "payload": None}
    secret = {"has_tracking_consent": False}
    messages += [_in_app_message(name, "always", view) | more for name, more in ((PAGE, page), (SECRET, secret))]
    return messages


def _in_app_message(id_: str, frequency: str, view: CustomerView) -> dict[str, Any]:
    return {
        "id": id_,
        "name": _name(view),
        "message_type": "modal",
        "frequency": frequency,
        "payload": {
            "title": f"Dear [{_name(view)}]",
            "buttons": [{"button_type": "browser", "button_text": "Go", "button_link": LINK}],
        },
        "variant_id": 0,
        "variant_name": "A",
        "trigger": {"event_type": id_, "filter": []},
        "date_filter": {"enabled": False},
    }


def _block(id_: str, frequency: str, **fields: Any) -> dict[str, Any]:
    def respond(view: CustomerView) -> dict[str, Any]:
        html = f"<p>[{_name(view)}]</p><a href='{LINK}'>Go</a>"
        usual = {"ttl_seconds": 60, "variant_id": 1, "variant_name": _name(view), "content_type": "html"}
        return {**usual, "content": {"html": html}, **fields}

    return {"id": id_, "name": id_, "placeholders": [id_], "frequency": frequency, "personal": respond}


def _inbox_message(id_: str, view: CustomerView) -> dict[str, Any]:
    content = {"title": _name(view), "message": "News", "attributes": {"owner": _name(view), "id": id_}}
    return {"id": id_, "type": "push", "create_time": 5.0, "is_read": False, "content": content}


_NUMBERS = count()


def _item(view: CustomerView) -> dict[str, Any]:
    return {"engine_name": "items", "item_id": _name(view), "recommendation_id": str(next(_NUMBERS))}
