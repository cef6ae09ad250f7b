"""
The addresses in messages and notifications: which of them may be handed out. Pure.
"""

import re
from urllib.parse import unquote

#: Schemes that run something, show the reader's own files, or contain another scheme.
DANGEROUS = frozenset(
    {
        *(
            "about",
            "blob",
            "chrome",
            "data",
            "feed",
            "file",
            "filesystem",
            "jar",
            "javascript",
            "livescript",
            "mhtml",
            "mk",
        ),
        *("mocha", "ms-its", "pcast", "res", "resource", "vbscript", "view-source", "wyciwyg"),
    }
)

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_IMAGE_DATA = re.compile(r"data:image/[a-z0-9.+-]+[;,]", re.IGNORECASE)
# Browsers ignore these at both ends of an address, and tabs and line breaks within it too.
_EDGES = "".join(map(chr, range(0x21)))
_INVISIBLE = re.compile(r"[^!-~]")
_WITHIN = re.compile(r"[\t\r\n]")


def scheme_of(url: str) -> str:
    """Return the scheme of an address in lower case; an empty string for a relative address."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def strip_url(url: str) -> str:
    """Return an address as browsers read it: without surrounding whitespace, and without tabs and line breaks."""
    return _WITHIN.sub("", url).strip(_EDGES)


def strip_resource(url: str) -> str:
    """
    Return an address as `strip_url` does, with ``https:`` where it has a host but no scheme.

    A page that is not of the web would look for ``//i.example/a.png`` in the file system.
    """
    url = strip_url(url)
    return f"https:{url}" if url.startswith("//") else url


def is_web(url: str) -> bool:
    """Return whether an address is of the web."""
    return scheme_of(url) in ("http", "https")


def is_image_data(url: str) -> bool:
    """Return whether an address contains an image."""
    return _IMAGE_DATA.match(url) is not None


def safe_link(url: str | None) -> str | None:
    """Return the stripped address of a link; None if it is blank or could run something."""
    url = strip_url(url or "")
    # Readers that decode once too often, or that ignore invisible characters, see this scheme.
    bare = _INVISIBLE.sub("", unquote(url))
    return url if url and not {scheme_of(url), scheme_of(bare)} & DANGEROUS else None


def safe_image(url: str | None) -> str | None:
    """Return the stripped address of an image; None if it is blank, or neither relative, of the web nor an image."""
    url = strip_resource(url or "")
    if is_image_data(url):
        return url
    safe = safe_link(url)
    return safe if safe and scheme_of(safe) in ("", "http", "https") else None
