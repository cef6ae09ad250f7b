"""
Inline SVG, turned into a picture: nothing runs in a picture, and nothing is loaded for it. Pure.
"""

import re
from base64 import b64encode
from html import escape
from xml.etree import ElementTree as ET

NAMESPACES = {"xmlns": "http://www.w3.org/2000/svg", "xmlns:xlink": "http://www.w3.org/1999/xlink"}
#: The attributes of the element that the picture keeps; the others are a part of the picture.
KEPT_ATTRIBUTES = frozenset(["width", "height", "class", "style", "id", "title", "aria-label", "aria-hidden", "role"])

#: Elements and attributes that would run something if the picture were opened as a page.
_LEFT_OUT = frozenset(["script", "foreignobject", "iframe", "handler", "listener"])
_LINKS = frozenset(["href", "xlink:href"])
_HARMLESS_LINK = re.compile(r"#|data:image/(?!svg)", re.IGNORECASE)
_MAX_DEPTH = 100

_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9_.-]*(?::[A-Za-z][A-Za-z0-9_.-]*)?)")
_ATTRIBUTE = re.compile(r"""([A-Za-z_][A-Za-z0-9_.:-]*)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+))?""")
#: Characters that XML does not have.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class VectorImage:
    """
    Collects an ``<svg>`` element from its tags, in the notation of XML.

    The names of SVG have capitals, such as ``viewBox``, so they are taken from the source; HTML's parser lowers them.
    """

    def __init__(self) -> None:
        self._written: list[str] = []
        self._open: list[str] = []
        self._is_too_deep = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in the element."""
        return sum(each[:2] != "</" for each in self._written) <= 1

    @property
    def is_complete(self) -> bool:
        """Whether the element has ended."""
        return not self._open

    def start(self, source: str, attributes: dict[str, str], *, is_empty: bool) -> None:
        """Add a start tag, as it stands in the source, with its attributes by their names in lower case."""
        found = _TAG.match(source)
        if found is None:
            return
        # The element itself may be written in capitals in HTML, and others have the capitals that they need.
        name = found[1] if self._open else "svg"
        names = dict.fromkeys(each[1] for each in _ATTRIBUTE.finditer(source, found.end()))
        given = {each: attributes.get(each.lower(), "") for each in names if each not in NAMESPACES}
        given = {each: value for each, value in given.items() if _is_harmless(each.lower(), value)}
        root = NAMESPACES if not self._open else {}
        written = "".join(f' {each}="{escape(_xml(value))}"' for each, value in {**root, **given}.items())
        self._written.append(f"<{name}{written}{'/' if is_empty else ''}>")
        if not is_empty:
            self._open.append(name)
            self._is_too_deep |= len(self._open) > _MAX_DEPTH

    def end(self, tag: str) -> None:
        """Add an end tag by its name in lower case, and those of the elements that are still open in it."""
        if any(each.lower() == tag for each in self._open):
            while self._open:
                name = self._open.pop()
                self._written.append(f"</{name}>")
                if name.lower() == tag:
                    return

    def text(self, data: str) -> None:
        """Add text."""
        self._written.append(escape(_xml(data), quote=False))

    def data_url(self) -> str | None:
        """Return the picture as a data URL; None if it is not valid XML, too deep, or contains scripts or HTML."""
        if self._is_too_deep:
            return None
        source = "".join(self._written)
        try:
            # It has no declarations of entities: only tags and text were collected.
            tree = ET.fromstring(source)  # noqa: S314
        except ET.ParseError:
            return None
        if any(each.tag.rpartition("}")[2].lower() in _LEFT_OUT for each in tree.iter()):
            return None
        return f"data:image/svg+xml;base64,{b64encode(source.encode()).decode()}"


def _is_harmless(name: str, value: str) -> bool:
    # An animation must not change a link or a handler either.
    animated = value.strip().lower() if name == "attributename" else ""
    if name.startswith("on") or animated.startswith("on") or animated in _LINKS:
        return False
    return name not in _LINKS or _HARMLESS_LINK.match(value.strip()) is not None


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
