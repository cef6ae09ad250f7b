"""
Inline SVG in messages, which becomes a picture.
"""

import re
from base64 import b64decode

import pytest

from exponea_async.features._shared.html.reader import SafeHtml, read_html
from exponea_async.features._shared.html.rules import HtmlRules

START = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def read(source: str) -> SafeHtml:
    """Return the result of HTML that is valid."""
    page = read_html(source, HtmlRules())
    assert page is not None
    return page


def pictures(source: str) -> list[str]:
    """Return the sources of the pictures."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', read(source).html)
    return [b64decode(each).decode() for each in found]


@pytest.mark.parametrize(
    ("source", "picture"),
    [
        ('<svg viewBox="0 0 9 9"><path d="M0 0h9"/></svg>', f'{START} viewBox="0 0 9 9"><path d="M0 0h9"/></svg>'),
        (
            "<svg><linearGradient gradientUnits=userSpaceOnUse></linearGradient></svg>",
            f'{START}><linearGradient gradientUnits="userSpaceOnUse"></linearGradient></svg>',
        ),
        ("<SVG><g><path></svg>", f"{START}><g><path></path></g></svg>"),
        ("<svg><path>", f"{START}><path></path></svg>"),
        ("<svg><text>a &lt; b &amp; c</text></svg>", f"{START}><text>a &lt; b &amp; c</text></svg>"),
        ("<svg><svg><g/></svg></svg>", f"{START}><svg><g/></svg></svg>"),
        ("<svg><g onload=x onclick='y'/></svg>", f"{START}><g/></svg>"),
        ("<svg><image href='http://h.example/x'/></svg>", f"{START}><image/></svg>"),
        ("<svg><a xlink:href='javascript:x'><g/></a></svg>", f"{START}><a><g/></a></svg>"),
        (
            "<svg><a><animate attributeName=href to='javascript:x'/></a></svg>",
            f'{START}><a><animate to="javascript:x"/></a></svg>',
        ),
        ("<svg><set attributeName=' onClick' to=x /></svg>", f'{START}><set to="x"/></svg>'),
        (
            "<svg><animate attributeName=cx to=9 /></svg>",
            f'{START}><animate attributeName="cx" to="9"/></svg>',
        ),
        ("<svg><use href='#g'/></svg>", f'{START}><use href="#g"/></svg>'),
        ("<svg><text>\x0b\ud800</text></svg>", f"{START}><text>\ufffd\ufffd</text></svg>"),
    ],
)
def test_pictures(source: str, picture: str) -> None:
    """The picture has the names as they are in the source, and neither handlers nor addresses."""
    assert pictures(source) == [picture]


def test_the_element() -> None:
    """The element keeps its size and its style, which are cleaned as those of a picture."""
    source = "<svg width=9 height='1' class=x id=y aria-label=z style='top:0;behavior:url(x)' onload=x><g/></svg>"
    html = re.sub(r"base64,[^\"]*", "", read(source).html)
    assert html == (
        '<img alt="z" aria-label="z" class="x" height="1" id="message-y" src="data:image/svg+xml;" '
        'style="top:0" width="9">'
    )


@pytest.mark.parametrize(
    "source",
    [
        "<svg><script>alert(1)</script></svg>",
        "<svg><g><SCRIPT/></g></svg>",
        "<svg><foreignObject><p>a</p></foreignObject></svg>",
        "<svg><iframe/></svg>",
        "<svg><x:g/></svg>",
        "<svg " + "a:b=c " * 3 + "><g/></svg>",
        "<svg>" + "<g>" * 200 + "</svg>",
    ],
)
def test_what_is_not_a_picture(source: str) -> None:
    """An element with scripts, HTML, unknown names or too many levels is left out, and that is said."""
    page = read(f"a{source}b")
    assert (page.html, page.removed) == ("ab", ("<svg>",))


@pytest.mark.parametrize("source", ["<svg></svg>", "<svg/>"])
def test_nothing_in_it(source: str) -> None:
    """An element without a content shows nothing."""
    assert (read(f"a{source}b").html, read(f"a{source}b").removed) == ("ab", ())


def test_text_after_it() -> None:
    """What follows the element is not a part of it."""
    assert read("<p><svg><g/></svg>after</p>").html.endswith(">after</p>")
