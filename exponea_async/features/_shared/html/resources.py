"""
Addresses in the HTML of messages: which are safe, and which are loaded for it. Pure.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol
from urllib.parse import unquote

from attrs import field, frozen


def names(text: str) -> frozenset[str]:
    """Read names that are parted by blanks."""
    return frozenset(text.split())


#: Schemes that run something, or show what is in the reader's own files, or hide another scheme within them.
DANGEROUS = names(
    "about blob chrome data feed file filesystem jar javascript livescript mhtml mk mocha ms-its pcast res resource "
    "vbscript view-source wyciwyg"
)

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_IMAGE_DATA = re.compile(r"data:image/[a-z0-9.+-]+[;,]", re.IGNORECASE)
_FONT_DATA = re.compile(
    r"data:(?:font/[a-z0-9.+-]+|application/(?:octet-stream|vnd\.ms-fontobject|(?:x-)?font[a-z0-9.+-]*))[;,]",
    re.IGNORECASE,
)
# Browsers overlook these at the ends of an address, and tabs and ends of lines within it too.
_EDGES = "".join(map(chr, range(0x21)))
_UNSEEN = re.compile(r"[^!-~]")
_WITHIN = re.compile(r"[\t\r\n]")


@frozen
class Resources:
    """
    What HTML needs loaded, each once, in the order of the document; only ``http`` and ``https``.

    They are what the message's author wrote: who loads them on a server has to keep them off its own network.

    Attributes:
        images: Addresses of pictures.
        fonts: Addresses of fonts, and of style sheets that bring fonts.
    """

    images: tuple[str, ...] = ()
    fonts: tuple[str, ...] = ()


class MissingError(Exception):
    """A resource that the HTML needs was not loaded."""


class Loader(Protocol):
    """What becomes of the addresses of resources; None is that the address is to go."""

    def image(self, url: str) -> str | None:
        """Tell what stands in place of a picture's address."""
        ...

    def font(self, url: str) -> str | None:
        """Tell what stands in place of a font's address."""
        ...


@contextmanager
def html_extra() -> Iterator[None]:
    """
    Import the libraries that HTML is read with.

    Raises:
        ImportError: They are not installed; ``pip install 'exponea-async[html]'`` brings them.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError("Reading HTML needs an extra: pip install 'exponea-async[html]'") from error


def check_installed() -> None:
    """
    Import the libraries that HTML is read with ahead, which takes some milliseconds.

    Raises:
        ImportError: They are not installed; ``pip install 'exponea-async[html]'`` brings them.
    """
    with html_extra():
        for name in ("nh3", "selectolax.lexbor", "tinycss2"):
            import_module(name)


def scheme_of(url: str) -> str:
    """Tell the scheme of an address in small letters; empty for a relative one."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def tidy(url: str) -> str:
    """Write an address as browsers take it: without blanks around it, and without tabs and ends of lines."""
    return _WITHIN.sub("", url).strip(_EDGES)


def safe_link(url: str) -> str | None:
    """Tell the address of a link as it may be followed; None for a blank one and for one that could run something."""
    url = tidy(url)
    # As readers take it that decode too often, or overlook what is no letter.
    bare = _UNSEEN.sub("", unquote(url))
    return url if url and not {scheme_of(url), scheme_of(bare)} & DANGEROUS else None


class Kept:
    """Leaves resources where they are, on the web or within the document."""

    def image(self, url: str) -> str | None:
        """Keep a picture of the web, or within the document."""
        return url if _is_web(url) or _IMAGE_DATA.match(url) else None

    def font(self, url: str) -> str | None:
        """Keep a font of the web, or within the document."""
        return url if _is_web(url) or _FONT_DATA.match(url) else None


@frozen
class Inlined:
    """
    Puts loaded resources into the document; the media types are those that the Android SDK writes for all of them.

    Attributes:
        loaded: What was loaded, by address.
    """

    loaded: Mapping[str, bytes]

    def image(self, url: str) -> str | None:
        """
        Put a picture in.

        Raises:
            MissingError: It was not loaded.
        """
        return url if _IMAGE_DATA.match(url) else self._inlined(url, "data:image/png;base64,")

    def font(self, url: str) -> str | None:
        """
        Put a font in.

        Raises:
            MissingError: It was not loaded.
        """
        return url if _FONT_DATA.match(url) else self._inlined(url, "data:application/font;charset=utf-8;base64,")

    def _inlined(self, url: str, start: str) -> str | None:
        if scheme_of(url) not in ("", "http", "https"):
            return None
        if url not in self.loaded:
            raise MissingError(url)
        return start + b64encode(self.loaded[url]).decode("ascii")


@frozen
class Listed:
    """Notes down which resources of the web are needed."""

    images: dict[str, None] = field(factory=dict)
    fonts: dict[str, None] = field(factory=dict)

    def image(self, url: str) -> str | None:
        """Note a picture down."""
        if _is_web(url):
            self.images[url] = None
        return None

    def font(self, url: str) -> str | None:
        """Note a font down."""
        if _is_web(url):
            self.fonts[url] = None
        return None

    def resources(self) -> Resources:
        """Tell what was noted down."""
        return Resources(tuple(self.images), tuple(self.fonts))


def _is_web(url: str) -> bool:
    return scheme_of(url) in ("http", "https")
