"""
The first pass over a message's HTML: it becomes a plain, bounded stream of known tags with a single meaning. Pure.

Whatever browsers make of broken HTML, they make from tags. Therefore the standard library takes tags from the source,
leniently, and they are written strictly: known elements with known attributes, everything escaped. The parser that
builds a tree of them sees no others, and not so many that the tree would grow out of proportion.
"""

import re
from collections.abc import Iterable, Iterator
from html import escape
from html.parser import HTMLParser

from exponea_async._internal.links import safe_link, strip_resource
from exponea_async.features._shared.html.css import ID_PREFIX, StyleCleaner, write_url
from exponea_async.features._shared.html.resources import name_set
from exponea_async.features._shared.html.vector import KEPT_ATTRIBUTES, VectorImage

VOID = name_set("br col hr img meta wbr")
#: The elements of a message. Forms and their fields are left out: there is no recipient for them.
TAGS = VOID | name_set(
    "a abbr acronym address article aside b bdi bdo big blockquote button caption center cite code colgroup data dd "
    "del details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hgroup i ins kbd label li "
    "main mark nav ol p pre q rp rt ruby s samp section small span strike strong style sub summary sup table tbody td "
    "tfoot th thead time tr tt u ul var"
)
#: Elements that are removed with their content. Of other unknown elements, the content stays.
DROPPED = name_set(
    "applet audio canvas frameset iframe listing math noembed noframes noscript object option plaintext script select "
    "svg template textarea title video xmp"
)
#: Attributes that only determine the appearance of an element, and the two that make it an action.
ATTRIBUTES = name_set(
    "align alt aria-hidden aria-label bgcolor border cellpadding cellspacing class color colspan data-actiontype "
    "data-link dir face height hidden id lang open role rowspan size start style title valign width"
)
OWN_ATTRIBUTES = {
    "a": frozenset(["href"]),
    "img": frozenset(["src"]),
    "meta": frozenset(["name", "content"]),
    "style": frozenset(["media"]),
}
#: Elements whose ``background`` attribute browsers show.
_WITH_BACKGROUND = name_set("body table tbody td tfoot th thead tr")
#: Elements of a document that mean nothing in a message, and whose removal nobody needs to know of.
_DOCUMENT = name_set("base body head html link meta title")
#: Attributes whose removal changes what a message shows or does; of the others, tools write many that mean nothing.
_NOTABLE = name_set("href src srcset background style data-link")
#: Attributes that pass only with a value that was checked here.
VETTED = frozenset(["href", "src", "style", "data-link", "id"])
_BODY_ATTRIBUTES = frozenset(["bgcolor", "class", "dir", "id", "lang", "style"])

#: Maximum length of a source, in characters; messages have some ten thousand.
MAX_HTML = 512 * 1024
_MAX_TAGS = 20_000
_MAX_ENTITIES = 100_000
#: Elements that parsers reopen in each paragraph until they are closed, which multiplies them.
_FORMATTING = name_set("b big code em font i nobr s small strike strong tt u")
_MAX_REOPENED = 200_000

_NAME = re.compile(r"[^a-z0-9-]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Ends whatever was left open. Without it, the standard library searches for the end again from each tag.
_END = "<!---->"


class UnreadableError(Exception):
    """The HTML is so large or so deeply nested that it is not a message."""


class Markup(HTMLParser):
    """
    Reads HTML and writes it strictly.

    Attributes:
        vetted: The checked values of attributes, by the attribute's name.
        styles: The contents of the style elements.
    """

    def __init__(self, source: str, styles: StyleCleaner) -> None:
        """
        Read a source.

        Args:
            source: The HTML.
            styles: Makes styles safe, decides about the addresses of images, and collects what is left out.

        Raises:
            UnreadableError: The source is too long, or has too many tags.
            MissingResourceError: The policy lacks a resource.
        """
        super().__init__(convert_charrefs=True)
        self.vetted: dict[str, set[str]] = {name: set() for name in VETTED}
        self.styles: set[str] = set()
        self._cleaner = styles
        self._policy = styles.attributes
        self._written: list[str] = []
        self._tag_count = 0
        self._formatting: dict[str, int] = {}
        self._svg: VectorImage | None = None
        self._svg_attributes: dict[str, str] = {}
        self._dropping: str | None = None
        self._drop_depth = 0
        self._sheet: list[str] | None = None
        self._media = ""
        self._at_start_of_pre = False
        self._clean_styles: dict[str, str] = {}
        self._read(source)

    def html(self) -> str:
        """Return the written HTML."""
        return "".join(self._written)

    def _read(self, source: str) -> None:
        # Each "<" costs the standard library some work, even where it starts no tag, and each "&" the sanitizer.
        if len(source) > MAX_HTML or source.count("<") > 3 * _MAX_TAGS or source.count("&") > _MAX_ENTITIES:
            raise UnreadableError
        try:
            self.feed(_clean_text(source) + _END)
            self.close()
        except AssertionError as error:  # older versions of Python raise it for odd declarations
            raise UnreadableError from error
        if self._svg:
            self._svg.end("svg")
            self._end_svg()
        self._end_sheet()
        # Browsers keep the same tag open at most three times.
        opened = sum(min(count, 3) for count in self._formatting.values())
        if opened * self._tag_count > _MAX_REOPENED:
            raise UnreadableError

    def parse_marked_section(self, i: int, report: int = 1) -> int:  # noqa: ARG002 - the base's signature
        """Read ``<![`` as browsers do, as a comment up to the next ``>``."""
        end = self.rawdata.find(">", i)
        return -1 if end < 0 else end + 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Write a start tag, or start to drop an element."""
        if self._svg:
            self._svg.start(self.get_starttag_text() or "", _first(attrs), is_empty=False)
        elif self._dropping:
            self._drop_depth += tag == self._dropping
        elif tag == "svg":
            self._start_svg(attrs, is_empty=False)
        elif tag in DROPPED:
            self._dropping, self._drop_depth = tag, 1
            self._note(tag)
        elif tag in TAGS or tag == "body":
            self._start(tag, attrs)
        else:
            self._note(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Write a tag that ends with a slash, which closes foreign elements only."""
        if self._svg:
            self._svg.start(self.get_starttag_text() or "", _first(attrs), is_empty=True)
        elif tag == "svg" and not self._dropping:
            self._start_svg(attrs, is_empty=True)
        else:
            self.handle_starttag(tag, attrs)
            if tag in ("svg", "math"):
                self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Write an end tag, or stop to drop an element."""
        if self._svg:
            self._svg.end(tag)
            self._end_svg()
        elif self._dropping:
            self._drop_depth -= tag == self._dropping
            self._dropping = self._dropping if self._drop_depth else None
        elif tag == "style":
            self._end_sheet()
        elif tag in TAGS and tag not in VOID:
            self._write_tag(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        """Write text."""
        if self._svg:
            self._svg.text(data)
        elif self._sheet is not None:
            self._sheet.append(data)
        elif not self._dropping:
            text = _clean_text(data)
            # Each reading of the HTML would remove one leading line break of a <pre>.
            self._written.append(escape(text.lstrip("\n") if self._at_start_of_pre else text, quote=False))
            self._at_start_of_pre = False

    def _start(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(self._attributes(tag, attrs))
        if tag == "style":
            self._end_sheet()
            self._sheet, self._media = [], attributes.get("media", "")
            return
        if tag == "meta" and attributes.get("name", "").lower() != "viewport":
            return
        start = start_tag(tag, attributes)
        if tag in _FORMATTING:
            self._formatting[start] = self._formatting.get(start, 0) + 1
        self._write_tag(start)
        self._at_start_of_pre = tag == "pre"

    def _note(self, tag: str) -> None:
        if tag not in _DOCUMENT:
            self._cleaner.removed(f"<{_NAME.sub('', tag)[:30]}>")

    def _start_svg(self, attrs: list[tuple[str, str | None]], *, is_empty: bool) -> None:
        self._svg, self._svg_attributes = VectorImage(), _first(attrs)
        self._svg.start(self.get_starttag_text() or "", self._svg_attributes, is_empty=is_empty)
        self._end_svg()

    def _end_svg(self) -> None:
        """Write the picture of an ``<svg>`` element that has ended."""
        svg = self._svg
        if svg is None or not svg.is_complete:
            return
        self._svg = None
        if svg.is_empty:
            return
        url = svg.data_url()
        if url is None:
            self._note("svg")
            return
        kept = {name: value for name, value in self._svg_attributes.items() if name in KEPT_ATTRIBUTES}
        self._start("img", list({**kept, "alt": kept.get("aria-label", ""), "src": url}.items()))

    def _write_tag(self, tag: str) -> None:
        self._tag_count += 1
        if self._tag_count > _MAX_TAGS:
            raise UnreadableError
        self._at_start_of_pre = False
        self._written.append(tag)

    def _end_sheet(self) -> None:
        if self._sheet is None:
            return
        css = self._cleaner.clean_sheet("".join(self._sheet).removesuffix(_END))
        self._sheet = None
        if css:
            self.styles.add(css)
            self._write_tag(start_tag("style", {"media": self._media} if self._media else {}))
            self._written.append(f"{css}</style>")

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
        known = _BODY_ATTRIBUTES if tag == "body" else ATTRIBUTES | OWN_ATTRIBUTES.get(tag, frozenset())
        # The first of several attributes of the same name counts.
        given = _first(attrs)
        self._replace_old_attributes(tag, given)
        for name in sorted(given):
            safe = self._safe_value(name, _clean_text(given[name])) if name in known else None
            if safe is not None:
                yield name, safe
            elif (name in _NOTABLE and given[name].strip()) or name.startswith("on"):
                self._cleaner.removed(f"{_NAME.sub('', name)[:30]} of <{tag}>")

    def _replace_old_attributes(self, tag: str, attributes: dict[str, str]) -> None:
        """Replace attributes that are not written by others with the same meaning."""
        if tag in _WITH_BACKGROUND and (
            url := self._policy.replace_image(strip_resource(attributes.get("background", "")))
        ):
            del attributes["background"]
            # The style comes last, and takes precedence as in browsers.
            attributes["style"] = f"background-image:{write_url(url)};{attributes.get('style', '')}"
        if tag == "img" and not attributes.get("src", "").strip() and "srcset" in attributes:
            attributes["src"] = attributes.pop("srcset").strip().partition(" ")[0].rstrip(",")

    def _safe_value(self, name: str, value: str) -> str | None:
        if name not in VETTED:
            return value
        safe = safe_link(value) if name in ("href", "data-link") else self._vet(name, value)
        if safe:
            self.vetted[name].add(safe)
        return safe or None

    def _vet(self, name: str, value: str) -> str | None:
        if name == "src":
            url = strip_resource(value)
            return self._policy.replace_image(url) if url else None
        if name == "id":
            return value if value.startswith(ID_PREFIX) or not value else ID_PREFIX + value
        if value not in self._clean_styles:
            self._clean_styles[value] = self._cleaner.clean_style(value)
        return self._clean_styles[value]


def _first(attrs: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return the first of several attributes of the same name."""
    return {name: value or "" for name, value in reversed(list(attrs))}


def start_tag(tag: str, attributes: dict[str, str]) -> str:
    """Return a start tag, everything escaped."""
    written = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{written}>"


def _clean_text(text: str) -> str:
    text = _SURROGATES.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", " "))
    return _CONTROL.sub("\ufffd", text)
