"""
The preview of a message, as a document that can't run scripts or load anything.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from aiohttp import web

from exponea_async.sandbox.encoding import dumps
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.messages.definitions import Definitions
from exponea_async.sandbox.messages.personalisation import CONDITION, is_met
from exponea_async.sandbox.messages.sections import Section
from exponea_async.sandbox.models import CustomerView

HEADERS = {
    # The sandbox of the policy applies however the document is opened, in a frame or in a window.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'; sandbox"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
STYLE = """
body { margin: 20px; background: #fff; color: #1b1f27; font: 15px/1.5 system-ui, sans-serif; }
.card { max-width: 380px; padding: 18px 20px; border: 1px solid #dcdfe6; border-radius: 12px; overflow-wrap: anywhere; }
.card h1 { margin: 0 0 6px; font-size: 18px; }
.card p { margin: 0 0 14px; }
.button { display: inline-block; margin: 0 8px 0 0; padding: 7px 14px; border-radius: 8px; }
.button { background: #2457c5; color: #fff; }
.note { color: #5b6472; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


class Preview:
    """
    The route of the previews.

    Args:
        engine: The stored customers.
        definitions: The definitions of messages.
    """

    def __init__(self, engine: Engine, definitions: Definitions) -> None:
        self._engine = engine
        self._sections: Mapping[str, Section] = {
            "in_app_messages": definitions.in_app_messages,
            "content_blocks": definitions.content_blocks,
            "inbox": definitions.inbox,
        }

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/sandbox/preview", self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        section = self._sections.get(request.query.get("section", ""))
        if section is None:
            raise RequestError(400, f"section should be one of {', '.join(self._sections)}.")
        project = request.query.get("project", "")
        customer = self._customer(project, request.query.get("customer", ""))
        found = [each for each in section.for_customer(project, customer) if _id(each) == request.query.get("id")]
        body = render(found[0], customer) if found else _note("This customer does not get the message.")
        return web.Response(text=_document(body), content_type="text/html", headers=HEADERS)

    def _customer(self, project: str, key: str) -> CustomerView:
        nobody = CustomerView(project, 0, {}, {}, 0)
        return next((each for each in self._engine.customers(project) if str(each.key) == key), nobody)


def render(message: Mapping[str, Any], customer: CustomerView) -> str:
    """
    Return the HTML of a message.

    Args:
        message: The message, personalized for the customer.
        customer: The customer, who chooses among the personal parts of a content block.
    """
    if isinstance(message.get("payload_html"), str):
        return str(message["payload_html"])
    content = message.get("payload") or _content(message, customer)
    if not isinstance(content, Mapping):
        return _note("The message has no content for this customer.")
    html = content.get("message" if message.get("type") == "html" else "html")
    if isinstance(html, str):
        return html
    text = content.get("body_text") or content.get("message") or content.get("pre_header")
    if text or content.get("title"):
        return _card(content, text)
    return f"<pre>{escape(dumps(content).decode())}</pre>"


def _content(message: Mapping[str, Any], customer: CustomerView) -> Any:
    parts = message.get("personal")
    if parts is None:
        return message.get("content")
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, Mapping) and is_met(part.get(CONDITION), customer):
            return part.get("content")
    return None


def _card(content: Mapping[str, Any], text: Any) -> str:
    buttons = _labels(content.get("buttons")) + _labels(content.get("actions"))
    return (
        f'<div class="card"><h1>{_text(content.get("title"))}</h1><p>{_text(text)}</p>'
        + "".join(f'<span class="button">{_text(label)}</span>' for label in buttons)
        + "</div>"
    )


def _labels(buttons: Any) -> list[Any]:
    listed: Iterable[Any] = buttons if isinstance(buttons, list) else ()
    labels = [each.get("button_text") or each.get("title") for each in listed if isinstance(each, Mapping)]
    return [label for label in labels if label]


def _text(value: Any) -> str:
    return "" if value is None else escape(str(value))


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _document(body: str) -> str:
    head = f'<meta charset="utf-8"><title>Preview</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{body}</html>'


def _id(element: Any) -> Any:
    return element.get("id") if isinstance(element, Mapping) else None
