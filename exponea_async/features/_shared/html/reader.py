"""
The HTML of messages: safe to show, and what can be pressed in it. Pure.

Three readers, each of which sees only what the one before wrote. The first takes known tags from the source and writes
them strictly; the second builds a tree and makes links of what is to be pressed; the third, a sanitizer that is widely
used, lets through what is on its list. Actions are taken from what came out, so that each of them can be pressed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from attrs import frozen

from exponea_async.features._shared.html.markup import (
    ATTRIBUTES,
    DROPPED,
    OWN_ATTRIBUTES,
    TAGS,
    VETTED,
    Markup,
    UnreadableError,
    start_tag,
)
from exponea_async.features._shared.html.resources import (
    CollectUrls,
    InlineResources,
    KeepUrls,
    MissingResourceError,
    ResourceUrls,
    html_extra,
    name_set,
    scheme_of,
)

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

BROWSER, DEEP_LINK, CLOSE = "browser", "deep-link", "close"
_KINDS = (BROWSER, DEEP_LINK, CLOSE)

_CLOSE_URL = "https://exponea.com/close_action_"
#: The button for messages that have none. Its sign is style, so that it is no text of the message.
_CLOSE_STYLE = (
    ".exponea-close{position:absolute;top:10px;right:10px;width:24px;height:24px;border-radius:50%;cursor:pointer;"
    "background:rgba(250,250,250,.6);color:#000;font:20px/24px sans-serif;text-align:center;text-decoration:none;}\n"
    '.exponea-close::before{content:"\u00d7";}'
)
#: Links made around elements are not to change how these look.
_PLAIN_LINK = "color:inherit;text-decoration:none"

#: Elements that must stand directly in their parents: the link goes into them, not around.
_PARTS = name_set("td th li dt dd caption summary figcaption")
_ROWS = name_set("thead tbody tfoot tr colgroup col")
#: Elements whose text goes on in the words around; all others part words.
_INLINE = name_set(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q rp rt ruby s samp small span "
    "strike strong sub sup time tt u var wbr"
)

_MAX_DEPTH = 256
_MAX_ELEMENTS = 40_000
_MAX_WRAPPED = 256
_ROUNDS = 4


@frozen
class HtmlAction:
    """
    What can be pressed in a message.

    Attributes:
        kind: ``"browser"``, ``"deep-link"`` or ``"close"``.
        url: Where it leads to; for closing, an address that stands for the button.
        text: What it says; None where it says nothing, as a picture.
    """

    kind: str
    url: str
    text: str | None


@frozen
class SafeHtml:
    """
    A message that is safe to show.

    Attributes:
        html: A fragment for the body of a page: the styles, then the content. Nothing in it runs. Its styles hold for
            the whole page it is put into; a shadow root or a sandboxed frame keeps them apart.
        actions: What can be pressed, in the order of the document, each address once.
    """

    html: str
    actions: tuple[HtmlAction, ...]


def read_html(source: str, *, ensure_close: bool, resources: Mapping[str, bytes] | None = None) -> SafeHtml | None:
    """
    Read the HTML of a message: make it safe, and tell what can be pressed in it.

    Elements with ``data-actiontype="close"`` become links of an address of their own, those with ``data-link`` become
    links to it, as in the Android SDK. Links of any scheme stay, unless it could run something. Ids get a prefix.

    It takes some milliseconds for 10 KB. Bigger sources are best read on a thread.

    Args:
        source: The HTML, a document or a part of one.
        ensure_close: Whether to add a button to close the message where it has none.
        resources: What was loaded of `resource_urls`, by address, to be put into the HTML; None leaves it on the web.

    Returns:
        The message; None where there is nothing to show, a resource is missing, or the source is out of proportion:
        above 512 Ki characters, 20 000 tags or 256 levels.

    Raises:
        ImportError: The libraries are missing; ``pip install 'exponea-async[html]'`` brings them.
    """
    with suppress(UnreadableError, MissingResourceError):
        markup = Markup(source, KeepUrls() if resources is None else InlineResources(resources))
        return _page(markup, ensure_close=ensure_close)
    return None


def resource_urls(source: str) -> ResourceUrls:
    """
    Tell the pictures and fonts that the HTML of a message needs, for `read_html` to put them into it.

    Those within the document already are left out, and so is all where the source is out of proportion.

    Raises:
        ImportError: The libraries are missing; ``pip install 'exponea-async[html]'`` brings them.
    """
    collected = CollectUrls()
    with suppress(UnreadableError):
        Markup(source, collected)
        return collected.collected()
    return ResourceUrls()


def find_action(actions: SafeHtml | Iterable[HtmlAction], url: str) -> HtmlAction | None:
    """
    Find what was pressed by the address that was opened, as the Android SDK does.

    Scheme, host, path and query have to be equal, but for a slash at the end of the path; port and fragment don't
    matter. An action goes before a button to close.

    Returns:
        The action, or None where the message has none such.
    """
    sought = _compared(url)
    known = actions.actions if isinstance(actions, SafeHtml) else actions
    matching = [each for each in known if _compared(each.url) == sought]
    return next((each for each in matching if each.kind != CLOSE), matching[0] if matching else None)


def _compared(url: str) -> tuple[str | None, ...]:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.path.removesuffix("/"), parts.query
    return (url,)


def _page(markup: Markup, *, ensure_close: bool) -> SafeHtml | None:
    tree = _tree(markup.text())
    _check_size(tree)
    if not _has_content(tree):
        return None
    _make_links(tree, markup.vetted)
    page = _sanitized(_fragment(tree), markup)
    if ensure_close and all(each.kind != CLOSE for each in page.actions):
        page = _sanitized(page.html + _default_close(markup), markup)
    return page


def _tree(html: str) -> "LexborHTMLParser":
    with html_extra():
        from selectolax.lexbor import LexborHTMLParser  # noqa: PLC0415 - an extra
    return LexborHTMLParser(html)


def _check_size(tree: "LexborHTMLParser") -> None:
    depths: dict[int, int] = {}
    for node in tree.root.traverse() if tree.root else ():
        depth = depths.get(node.parent.mem_id, 0) + 1 if node.parent else 0
        if depth > _MAX_DEPTH or len(depths) > _MAX_ELEMENTS:
            raise UnreadableError
        depths[node.mem_id] = depth


def _has_content(tree: "LexborHTMLParser") -> bool:
    body = tree.body
    return body is not None and any(
        each.tag not in ("style", "meta") if each.is_element_node else bool((each.text_content or "").strip())
        for each in body.iter(include_text=True)
    )


def _make_links(tree: "LexborHTMLParser", vetted: dict[str, set[str]]) -> None:
    """
    Make links of the elements that are to be pressed.

    What marks the elements goes to the links, where another reading finds it and need not make links again.
    """
    wraps: list[tuple[LexborNode, dict[str, str]]] = []
    for element in tree.css("[data-actiontype],[data-link]"):
        marks = _marks(element)
        if marks is None:
            continue
        vetted["href"].add(marks["href"])
        link = next((each for each in (element, element.parent) if each is not None and each.tag == "a"), None)
        _mark(element, {})
        if link is None:
            wraps.append((element, marks | {"style": _PLAIN_LINK}))
        else:
            _mark(link, marks)
    if len(wraps) > _MAX_WRAPPED:
        raise UnreadableError
    if wraps:
        vetted["style"].add(_PLAIN_LINK)
    # From the last: what is wrapped is copied, and with it all that is within.
    for element, attributes in reversed(wraps):
        _wrap(element, attributes)


def _marks(element: "LexborNode") -> dict[str, str] | None:
    """Tell what makes a link of an element; None where it is as it is."""
    kind, url = _told_kind(element), element.attributes.get("data-link")
    if kind == CLOSE:
        return {"data-actiontype": kind, "href": _CLOSE_URL + str(uuid4())}
    return {"data-actiontype": kind or _kind_by(url), "data-link": url, "href": url} if url else None


def _mark(element: "LexborNode", marks: Mapping[str, str]) -> None:
    """Write the attributes that make a link, in one order, whatever was there."""
    told = {name: value or "" for name, value in element.attributes.items()}
    kept = {name: value for name, value in told.items() if name not in ("data-actiontype", "data-link", "href")}
    for name in told:
        del element.attrs[name]
    for name, value in sorted((kept | dict(marks)).items()):
        element.attrs[name] = value


def _wrap(element: "LexborNode", attributes: dict[str, str]) -> None:
    if element.tag == "tr":
        for cell in [each for each in element.iter() if each.tag in _PARTS]:
            _wrap(cell, attributes)
    elif element.tag in _PARTS:
        _fill(attributes, list(element.iter(include_text=True)))
    elif element.tag not in _ROWS:
        link = _link(element, attributes)
        link.insert_child(element)
        element.remove()


def _fill(attributes: dict[str, str], children: "list[LexborNode]") -> None:
    if not children:
        return
    link = _link(children[0], attributes)
    for child in children:
        link.insert_child(child)
        child.remove()


def _link(before: "LexborNode", attributes: dict[str, str]) -> "LexborNode":
    made = before.parser.create_node("a")
    for name, value in attributes.items():
        made.attrs[name] = value
    before.insert_before(made)
    link = before.prev
    if link is None:
        raise UnreadableError
    return link


def _told_kind(element: "LexborNode") -> str | None:
    told = (element.attributes.get("data-actiontype") or "").strip().lower()
    return told if told in _KINDS else None


def _kind_by(url: str) -> str:
    return BROWSER if url.lower().startswith(("http://", "https://")) else DEEP_LINK


def _fragment(tree: "LexborHTMLParser") -> str:
    """Write the tree as what can stand in a body, which a body's own look goes into with a ``<div>``."""
    head, body = tree.head, tree.body
    content = (body.inner_html or "" if body else "").strip()
    attributes = {name: value or "" for name, value in body.attributes.items()} if body else {}
    if attributes:
        content = f"{start_tag('div', attributes)}{content}</div>"
    return (head.inner_html or "" if head else "").strip() + content


def _default_close(markup: Markup) -> str:
    url = _CLOSE_URL + str(uuid4())
    markup.vetted["href"].add(url)
    markup.styles.add(_CLOSE_STYLE)
    attributes = {"aria-label": "Close", "class": "exponea-close", "data-actiontype": CLOSE, "href": url}
    return f"<style>{_CLOSE_STYLE}</style>{start_tag('a', attributes)}</a>"


def _sanitized(html: str, markup: Markup) -> SafeHtml:
    """
    Let through what is allowed, until another reading changes nothing.

    Raises:
        UnreadableError: Each reading makes something else of it.
    """
    clean = _sanitizer(markup.vetted)
    for _ in range(_ROUNDS):
        before, html = html, clean(html).strip()
        if html == before:
            break
    else:
        raise UnreadableError
    tree = _tree(html)
    _check_size(tree)
    if any(style.text() not in markup.styles for style in tree.css("style")):
        raise UnreadableError
    return SafeHtml(html, tuple(_actions(tree)))


def _sanitizer(vetted: Mapping[str, set[str]]) -> Callable[[str], str]:
    with html_extra():
        from nh3 import Cleaner  # noqa: PLC0415 - an extra

    def vet(_: str, name: str, value: str) -> str | None:
        return value if name not in VETTED or value in vetted[name] else None

    return Cleaner(
        tags=TAGS,
        clean_content_tags=DROPPED,
        attributes={"*": ATTRIBUTES} | OWN_ATTRIBUTES | {"meta": frozenset(["content"])},
        tag_attribute_values={"meta": {"name": {"viewport"}}},
        # A button in somebody's form would send it.
        set_tag_attribute_values={"button": {"type": "button"}},
        url_schemes={scheme_of(url) for name in ("href", "src") for url in vetted[name]} - {""},
        attribute_filter=vet,
    ).clean


def _actions(tree: "LexborHTMLParser") -> Iterator[HtmlAction]:
    seen: set[str] = set()
    for link in tree.css("a[href]"):
        url = link.attributes.get("href") or ""
        if url and url not in seen:
            seen.add(url)
            yield HtmlAction(_told_kind(link) or _kind_by(url), url, _words(link) or None)


def _words(element: "LexborNode") -> str:
    return re.sub(r"\s+", " ", "".join(_pieces(element))).strip()


def _pieces(element: "LexborNode") -> Iterator[str]:
    for child in element.iter(include_text=True):
        if not child.is_element_node:
            yield child.text_content or ""
        elif child.tag in _INLINE:
            yield from _pieces(child)
        elif child.tag != "style":
            yield " "
            yield from _pieces(child)
            yield " "
