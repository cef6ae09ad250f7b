"""
A platform that writes on everything it gives out for whom it is.
"""

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any

from attrs import evolve

from exponea_async.messages import AppInboxMessage, InAppContentBlock, InAppMessage, RecommendationOptions
from exponea_async.sandbox import CustomerView, Sandbox

#: How often in-app messages and content blocks may be shown. Each has an in-app message upon an event of that name,
#: and a content block in a placeholder of that name.
FREQUENCIES = {
    "always": "always",
    "once": "only_once",
    "visit": "once_per_visit",
    "until": "until_visitor_interacts",
}
#: An event whose in-app message is one of HTML, and one whose message may not be tracked.
PAGE, SECRET = "page", "secret"
ITEMS = RecommendationOptions("items", fill_with_random=True)
CATEGORY = "discovery"
LINK = "https://s.example/sale"
INBOX = ("i1", "i2")


def name_of(ids: Mapping[str, str]) -> str:
    """Tell the name of whoever has these ids, which is only theirs."""
    return ";".join(f"{kind}={value}" for kind, value in sorted(ids.items()))


class Personal:
    """
    Lets a platform have in-app messages, content blocks, inbox messages, segments and recommendations for everybody,
    each with the name of whoever asked for it.

    Args:
        sandbox: The platform.

    Attributes:
        answers: How many answers were personal so far.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.answers = 0
        self._resolve = sandbox.engine.resolve
        # The books join customers; here it counts with which ids somebody asked.
        sandbox.engine.resolve = self._asked  # type: ignore[method-assign]
        defined = sandbox.messages
        defined.in_app_messages.put(_in_app_messages)
        blocks = [_block(name, often) for name, often in FREQUENCIES.items()]
        defined.content_blocks.put(*blocks, _block(SECRET, "always", has_tracking_consent=False))
        defined.inbox.put(lambda view: [_inbox_message(id_, view) for id_ in INBOX])
        defined.segments[CATEGORY].put(lambda view: {"id": _name(view), "segmentation_id": str(self.answers)})
        defined.recommendations["items"].put(_item)

    def _asked(self, project: str, ids: Mapping[str, str]) -> CustomerView:
        self.answers += 1
        view = self._resolve(project, ids)
        return evolve(view, properties={**view.properties, "asked": name_of(ids)})


def owner_of(thing: Any) -> str:
    """Tell the name that stands on something that was handed out, at each place where one stands."""
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


def background() -> list[str]:
    """Tell what goes on for clients in the background."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("exponea_async")]


def _between(text: str) -> str:
    return text.partition("[")[2].partition("]")[0]


def _name(view: CustomerView) -> str:
    return str(view.properties["asked"])


def _in_app_messages(view: CustomerView) -> list[dict[str, Any]]:
    usual = [_in_app_message(name, often, view) for name, often in FREQUENCIES.items()]
    page = {"message_type": "freeform", "is_html": True, "payload_html": f"<p>[{_name(view)}]</p>", "payload": None}
    secret = {"has_tracking_consent": False}
    return [*usual, *(_in_app_message(name, "always", view) | more for name, more in ((PAGE, page), (SECRET, secret)))]


def _in_app_message(id_: str, often: str, view: CustomerView) -> dict[str, Any]:
    return {
        "id": id_,
        "name": _name(view),
        "message_type": "modal",
        "frequency": often,
        "payload": {
            "title": f"Dear [{_name(view)}]",
            "buttons": [{"button_type": "browser", "button_text": "Go", "button_link": LINK}],
        },
        "variant_id": 0,
        "variant_name": "A",
        "trigger": {"event_type": id_, "filter": []},
        "date_filter": {"enabled": False},
    }


def _block(id_: str, often: str, **more: Any) -> dict[str, Any]:
    def says(view: CustomerView) -> dict[str, Any]:
        html = f"<p>[{_name(view)}]</p><a href='{LINK}'>Go</a>"
        told = {"ttl_seconds": 60, "variant_id": 1, "variant_name": _name(view), "content_type": "html"}
        return {**told, "content": {"html": html}, **more}

    return {"id": id_, "name": id_, "placeholders": [id_], "frequency": often, "personal": says}


def _inbox_message(id_: str, view: CustomerView) -> dict[str, Any]:
    content = {"title": _name(view), "message": "News", "attributes": {"owner": _name(view), "id": id_}}
    return {"id": id_, "type": "push", "create_time": 5.0, "is_read": False, "content": content}


_NUMBERS = count()


def _item(view: CustomerView) -> dict[str, Any]:
    return {"engine_name": "items", "item_id": _name(view), "recommendation_id": str(next(_NUMBERS))}
