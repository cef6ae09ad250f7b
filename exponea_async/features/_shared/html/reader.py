"""
The HTML of messages: made safe to show, with the actions in it. Pure.

Three passes, each of which sees only what the one before wrote. The first takes known tags from the source and writes
them strictly (`markup`); the second builds a tree and turns what can be clicked into links; the third, a widely used
sanitizer, passes what is on its list. Actions are read from the result, so that each of them can be clicked.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from attrs import evolve, frozen

from exponea_async._internal.links import scheme_of
from exponea_async.features._shared.html.css import StyleCleaner
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
    KeepEmbedded,
    KeepUrls,
    MissingResourceError,
    ResourcePolicy,
    ResourceUrls,
    html_extra,
    name_set,
)
from exponea_async.features._shared.html.rules import HtmlRules

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

BROWSER, DEEP_LINK, CLOSE = "browser", "deep-link", "close"
_KINDS = (BROWSER, DEEP_LINK, CLOSE)
#: The URL that a frame opens by itself, without a click.
BLANK_PAGE = "about:blank"

#: The address of a close button, before a unique id. It is a place in the same page, so that a click that nobody
#: handles leads nowhere; the vendor's SDKs use an address of the vendor's website.
_CLOSE_URL = "#close_action_"
#: The close button of messages without one. Its sign is part of the style, so that it is not text of the message.
_CLOSE_STYLE = (
    ".exponea-close{position:absolute;top:10px;right:10px;width:24px;height:24px;border-radius:50%;cursor:pointer;"
    "background:rgba(250,250,250,.6);color:#000;font:20px/24px sans-serif;text-align:center;text-decoration:none;}\n"
    '.exponea-close::before{content:"\u00d7";}'
)
#: Links around elements must not change their appearance.
_PLAIN_LINK = "color:inherit;text-decoration:none"

#: The element around a content block: whatever is in it is positioned relative to it, and cut off at its edges.
_CONTAIN = "contain:layout paint"
#: The class of the element that the style sheets of a message are limited to, before the digest of the message.
_SCOPE = "message-scope-"

#: Elements that must be direct children of their parents: the link goes into them, not around them.
_PARTS = name_set("td th li dt dd caption summary figcaption")
_ROWS = name_set("thead tbody tfoot tr colgroup col")
#: Elements whose text continues the surrounding words; all others separate words.
_INLINE = name_set(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q rp rt ruby s samp small span "
    "strike strong sub sup time tt u var wbr"
)

_MAX_DEPTH = 256
_MAX_ELEMENTS = 40_000
_MAX_WRAPPED = 256
#: Maximum number of passes of the sanitizer until one changes nothing.
_MAX_PASSES = 4
#: Maximum number of things that were left out, and that are listed.
_MAX_REMOVED = 20


@frozen
class HtmlAction:
    """
    Something that can be clicked in a message.

    Attributes:
        kind: ``"browser"``, ``"deep-link"`` or ``"close"``.
        url: The link; for a close button, an address that identifies it.
        text: The text; None if there is none, as for an image.
    """

    kind: str
    url: str
    text: str | None


@frozen
class SafeHtml:
    """
    A message that is safe to show.

    Attributes:
        html: A fragment for the body of a page: the styles, then the content. Nothing in it runs.
        actions: What can be clicked, in document order, each address once.
        removed: What was left out, in words, each once.
    """

    html: str
    actions: tuple[HtmlAction, ...]
    removed: tuple[str, ...] = ()


def read_html(source: str, rules: HtmlRules, *, resources: Mapping[str, bytes] | None = None) -> SafeHtml | None:
    """
    Make the HTML of a message safe, and find what can be clicked in it.

    Elements with ``data-actiontype="close"`` become links with an address of their own, those with ``data-link`` become
    links to it, as in the Android SDK. Links of any scheme stay, unless they could run something. Ids get a prefix.

    This takes some milliseconds for 10 KB. Larger sources are best read in a thread.

    Args:
        source: The HTML, a document or a fragment.
        rules: How it is written.
        resources: The loaded `resource_urls` by address, which are inlined; None keeps their addresses, those in style
            sheets only where the rules allow it.

    Returns:
        The message; None if there is nothing to show, a resource is missing, or the source exceeds 512 Ki characters,
        20,000 tags or 256 levels.

    Raises:
        ImportError: The libraries are missing; ``pip install 'exponea-async[html]'`` installs them.
    """
    removed: dict[str, None] = {}
    scope = _SCOPE + blake2b(source.encode(errors="surrogatepass"), digest_size=6).hexdigest()
    styles = StyleCleaner(
        sheets=_sheet_policy(rules, resources),
        attributes=KeepUrls() if resources is None else InlineResources(resources),
        scope=f".{scope}" if rules.scope_styles else "",
        allow_fixed=not rules.is_embedded,
        removed=lambda what: removed.setdefault(what) if len(removed) < _MAX_REMOVED else None,
    )
    with suppress(UnreadableError, MissingResourceError):
        message = _safe_html(Markup(source, styles), rules, scope)
        return message and evolve(message, removed=tuple(removed))
    return None


def _sheet_policy(rules: HtmlRules, resources: Mapping[str, bytes] | None) -> ResourcePolicy:
    if resources is not None:
        return InlineResources(resources)
    return KeepUrls() if rules.allow_remote_media else KeepEmbedded()


def resource_urls(source: str) -> ResourceUrls:
    """
    Return the addresses of the images and fonts that a message needs, for `read_html` to inline them.

    Those that the document already contains are left out. A source that is too large has none.

    Raises:
        ImportError: The libraries are missing; ``pip install 'exponea-async[html]'`` installs them.
    """
    policy = CollectUrls()
    with suppress(UnreadableError):
        Markup(source, StyleCleaner(policy, policy))
        return policy.collected()
    return ResourceUrls()


def find_action(actions: SafeHtml | Iterable[HtmlAction], url: str) -> HtmlAction | None:
    """
    Return the action of an address that was opened, as the Android SDK finds it.

    Scheme, host, path and query must be equal, except for a slash at the end of the path; port and fragment do not
    matter. A close button is found by its fragment alone, since browsers put the address of the page before it. Any
    other action takes precedence over a close button.

    Returns:
        The action, or None if the message has no such action.
    """
    sought = _comparable(url)
    known = actions.actions if isinstance(actions, SafeHtml) else actions
    matching = [each for each in known if _comparable(each.url) == sought]
    return next((each for each in matching if each.kind != CLOSE), matching[0] if matching else None)


def _comparable(url: str) -> tuple[str | None, ...]:
    if (start := url.find(_CLOSE_URL)) >= 0:
        return (url[start:],)
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.path.removesuffix("/"), parts.query
    return (url,)


def _safe_html(markup: Markup, rules: HtmlRules, scope: str) -> SafeHtml | None:
    tree = _parse(markup.html())
    _check_size(tree)
    if not _has_content(tree):
        return None
    _add_links(tree, markup.vetted)
    result = _sanitize(_fragment(tree, markup, rules, scope), markup)
    if rules.ensure_close and all(each.kind != CLOSE for each in result.actions):
        result = _sanitize(result.html + _close_button(markup), markup)
    return result


# The tree


def _parse(html: str) -> "LexborHTMLParser":
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
    if body is None:
        return False
    # A picture may be all there is: the background of an empty body that has a size.
    return "background" in (body.attributes.get("style") or "") or any(
        each.tag not in ("style", "meta") if each.is_element_node else bool((each.text_content or "").strip())
        for each in body.iter(include_text=True)
    )


def _fragment(tree: "LexborHTMLParser", markup: Markup, rules: HtmlRules, scope: str) -> str:
    """Return the tree as content of a body; the attributes of its own body move to a ``<div>``."""
    head, body = tree.head, tree.body
    content = (body.inner_html or "" if body else "").strip()
    attributes = {name: value or "" for name, value in body.attributes.items()} if body else {}
    has_styles = bool(markup.styles or markup.vetted["style"])
    if markup.styles and rules.scope_styles:
        attributes["class"] = f"{scope} {attributes.get('class', '')}".strip()
    if attributes:
        content = f"{start_tag('div', dict(sorted(attributes.items())))}{content}</div>"
    if has_styles and rules.is_embedded:
        markup.vetted["style"].add(_CONTAIN)
        content = f"{start_tag('div', {'style': _CONTAIN})}{content}</div>"
    elif markup.styles and rules.scope_styles:
        # The element of the scope has no siblings that its style sheets could select.
        content = f"<div>{content}</div>"
    return (head.inner_html or "" if head else "").strip() + content


# Links


def _add_links(tree: "LexborHTMLParser", vetted: dict[str, set[str]]) -> None:
    """
    Make links of the elements that can be clicked.

    The attributes that mark the elements move to the links, so that reading the result again adds no links.
    """
    wraps: list[tuple[LexborNode, dict[str, str]]] = []
    for element in tree.css("[data-actiontype],[data-link]"):
        attributes = _link_attributes(element)
        if attributes is None:
            continue
        vetted["href"].add(attributes["href"])
        link = next((each for each in (element, element.parent) if each is not None and each.tag == "a"), None)
        _set_link_attributes(element, {})
        if link is None:
            wraps.append((element, attributes | {"style": _PLAIN_LINK}))
        else:
            _set_link_attributes(link, attributes)
    if len(wraps) > _MAX_WRAPPED:
        raise UnreadableError
    if wraps:
        vetted["style"].add(_PLAIN_LINK)
    # From the last to the first: what is wrapped is copied, with everything within.
    for element, attributes in reversed(wraps):
        _wrap(element, attributes)


def _link_attributes(element: "LexborNode") -> dict[str, str] | None:
    """Return the attributes that make a link of an element; None if it stays as it is."""
    kind, url = _declared_kind(element), element.attributes.get("data-link")
    if kind == CLOSE:
        return {"data-actiontype": kind, "href": _CLOSE_URL + str(uuid4())}
    return {"data-actiontype": kind or _kind_by_scheme(url), "data-link": url, "href": url} if url else None


def _set_link_attributes(element: "LexborNode", attributes: Mapping[str, str]) -> None:
    """Replace the attributes that make a link, and write all attributes in a fixed order."""
    present = {name: value or "" for name, value in element.attributes.items()}
    others = {name: value for name, value in present.items() if name not in ("data-actiontype", "data-link", "href")}
    for name in present:
        del element.attrs[name]
    for name, value in sorted((others | dict(attributes)).items()):
        element.attrs[name] = value


def _wrap(element: "LexborNode", attributes: dict[str, str]) -> None:
    if element.tag == "tr":
        for cell in [each for each in element.iter() if each.tag in _PARTS]:
            _wrap(cell, attributes)
    elif element.tag in _PARTS:
        _wrap_content(attributes, list(element.iter(include_text=True)))
    elif element.tag not in _ROWS:
        link = _insert_link(element, attributes)
        link.insert_child(element)
        element.remove()


def _wrap_content(attributes: dict[str, str], children: "list[LexborNode]") -> None:
    if not children:
        return
    link = _insert_link(children[0], attributes)
    for child in children:
        link.insert_child(child)
        child.remove()


def _insert_link(before: "LexborNode", attributes: dict[str, str]) -> "LexborNode":
    created = before.parser.create_node("a")
    for name, value in attributes.items():
        created.attrs[name] = value
    before.insert_before(created)
    # The tree contains a copy of the created node.
    link = before.prev
    if link is None:
        raise UnreadableError
    return link


def _declared_kind(element: "LexborNode") -> str | None:
    kind = (element.attributes.get("data-actiontype") or "").strip().lower()
    return kind if kind in _KINDS else None


def _kind_by_scheme(url: str) -> str:
    return BROWSER if url.lower().startswith(("http://", "https://")) else DEEP_LINK


def _close_button(markup: Markup) -> str:
    url = _CLOSE_URL + str(uuid4())
    markup.vetted["href"].add(url)
    markup.styles.add(_CLOSE_STYLE)
    attributes = {"aria-label": "Close", "class": "exponea-close", "data-actiontype": CLOSE, "href": url}
    return f"<style>{_CLOSE_STYLE}</style>{start_tag('a', attributes)}</a>"


# The sanitizer


def _sanitize(html: str, markup: Markup) -> SafeHtml:
    """
    Remove everything that is not allowed, until another pass changes nothing.

    Raises:
        UnreadableError: Every pass changes something.
    """
    clean = _sanitizer(markup.vetted)
    for _ in range(_MAX_PASSES):
        before, html = html, clean(html).strip()
        if html == before:
            break
    else:
        raise UnreadableError
    tree = _parse(html)
    _check_size(tree)
    if any(style.text() not in markup.styles for style in tree.css("style")):
        raise UnreadableError
    return SafeHtml(html, tuple(_actions(tree)))


def _sanitizer(vetted: Mapping[str, set[str]]) -> Callable[[str], str]:
    with html_extra():
        from nh3 import Cleaner  # noqa: PLC0415 - an extra

    def filter_attribute(_tag: str, name: str, value: str) -> str | None:
        return value if name not in VETTED or value in vetted[name] else None

    return Cleaner(
        tags=TAGS,
        clean_content_tags=DROPPED,
        attributes={"*": ATTRIBUTES} | OWN_ATTRIBUTES | {"meta": frozenset(["content"])},
        tag_attribute_values={"meta": {"name": {"viewport"}}},
        # Within a form of the page, a button would submit it.
        set_tag_attribute_values={"button": {"type": "button"}},
        url_schemes={scheme_of(url) for name in ("href", "src") for url in vetted[name]} - {""},
        attribute_filter=filter_attribute,
    ).clean


def _actions(tree: "LexborHTMLParser") -> Iterator[HtmlAction]:
    seen: set[str] = set()
    for link in tree.css("a[href]"):
        url = link.attributes.get("href") or ""
        if url and url not in seen:
            seen.add(url)
            yield HtmlAction(_declared_kind(link) or _kind_by_scheme(url), url, _text_of(link) or None)


def _text_of(element: "LexborNode") -> str:
    return re.sub(r"\s+", " ", "".join(_text_parts(element))).strip()


def _text_parts(element: "LexborNode") -> Iterator[str]:
    for child in element.iter(include_text=True):
        if not child.is_element_node:
            yield child.text_content or ""
        elif child.tag in _INLINE:
            yield from _text_parts(child)
        elif child.tag != "style":
            yield " "
            yield from _text_parts(child)
            yield " "
