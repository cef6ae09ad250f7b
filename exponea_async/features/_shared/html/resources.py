"""
Addresses in the HTML of messages: which are safe, and which are of images and fonts that must be loaded before.
"""

import asyncio
import logging
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol

from attrs import field, frozen

from exponea_async._internal.links import is_image_data, is_web, scheme_of
from exponea_async._internal.lru import LruCache
from exponea_async._internal.user_code import calling

LOG = logging.getLogger("exponea_async")

#: The user's function that loads an image or a font; None where there is none at the address.
ResourceLoader = Callable[[str], Awaitable[bytes | None]]

#: Seconds after which a resource counts as missing, as in the vendor's SDKs.
LOAD_TIMEOUT = 10.0
#: Size of the cache, and of the largest resource in it, in bytes.
MAX_CACHE_BYTES, MAX_RESOURCE_BYTES = 32_000_000, 8_000_000
#: Maximum number of resources that are loaded at once for a message, and that a message may need.
MAX_CONCURRENT, MAX_RESOURCES = 6, 100


def name_set(names: str) -> frozenset[str]:
    """Return the names in a string, which are separated by spaces."""
    return frozenset(names.split())


_FONT_DATA = re.compile(
    r"data:(?:font/[a-z0-9.+-]+|application/(?:octet-stream|vnd\.ms-fontobject|(?:x-)?font[a-z0-9.+-]*))[;,]",
    re.IGNORECASE,
)


class MissingResourceError(Exception):
    """A message can't be shown, because an image or a font that it needs is not loaded."""


# The libraries


@contextmanager
def html_extra() -> Iterator[None]:
    """
    Import the libraries that read HTML, within the block.

    Raises:
        ImportError: They are not installed; ``pip install 'exponea-async[html]'`` installs them.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError("Reading HTML needs an extra: pip install 'exponea-async[html]'") from error


def import_libraries() -> None:
    """
    Import the libraries that read HTML ahead of their first use, which takes some milliseconds.

    Raises:
        ImportError: They are not installed; ``pip install 'exponea-async[html]'`` installs them.
    """
    with html_extra():
        for name in ("nh3", "selectolax.lexbor", "tinycss2"):
            import_module(name)


# What becomes of the addresses of resources in a document


@frozen
class ResourceUrls:
    """
    The addresses of what HTML needs loaded, each once, in document order; ``http`` and ``https`` only.

    They are written by the author of the message: a server that loads them must protect its own network.

    Attributes:
        images: The addresses of images.
        fonts: The addresses of fonts, and of style sheets with fonts.
    """

    images: tuple[str, ...] = ()
    fonts: tuple[str, ...] = ()


class ResourcePolicy(Protocol):
    """Decides what replaces the addresses of resources; None removes an address."""

    def replace_image(self, url: str) -> str | None:
        """Return what replaces the address of an image."""
        ...

    def replace_font(self, url: str) -> str | None:
        """Return what replaces the address of a font."""
        ...


class KeepUrls:
    """Keeps addresses of the web, and resources that the document contains."""

    def replace_image(self, url: str) -> str | None:
        """Return the address of an image."""
        return url if is_web(url) or is_image_data(url) else None

    def replace_font(self, url: str) -> str | None:
        """Return the address of a font."""
        return url if is_web(url) or _FONT_DATA.match(url) else None


class KeepEmbedded:
    """
    Keeps only what the document contains.

    A style sheet can select elements of the page around it by their values, and ask for an address for each value.
    """

    def replace_image(self, url: str) -> str | None:
        """Return the data URL of an image."""
        return url if is_image_data(url) else None

    def replace_font(self, url: str) -> str | None:
        """Return the data URL of a font."""
        return url if _FONT_DATA.match(url) else None


@frozen
class InlineResources:
    """
    Replaces addresses with the loaded content; the media types are those that the Android SDK writes for all of it.

    Attributes:
        loaded: The loaded resources by address.
    """

    loaded: Mapping[str, bytes]

    def replace_image(self, url: str) -> str | None:
        """
        Return a data URL of an image.

        Raises:
            MissingResourceError: It is not loaded.
        """
        return url if is_image_data(url) else self._data_url(url, "data:image/png;base64,")

    def replace_font(self, url: str) -> str | None:
        """
        Return a data URL of a font.

        Raises:
            MissingResourceError: It is not loaded.
        """
        return url if _FONT_DATA.match(url) else self._data_url(url, "data:application/font;charset=utf-8;base64,")

    def _data_url(self, url: str, prefix: str) -> str | None:
        if scheme_of(url) not in ("", "http", "https"):
            return None
        if url not in self.loaded:
            raise MissingResourceError(url)
        return prefix + b64encode(self.loaded[url]).decode("ascii")


@frozen
class CollectUrls:
    """Collects the addresses of the web, and removes them."""

    images: dict[str, None] = field(factory=dict)
    fonts: dict[str, None] = field(factory=dict)

    def replace_image(self, url: str) -> str | None:
        """Collect the address of an image."""
        if is_web(url):
            self.images[url] = None
        return None

    def replace_font(self, url: str) -> str | None:
        """Collect the address of a font."""
        if is_web(url):
            self.fonts[url] = None
        return None

    def collected(self) -> ResourceUrls:
        """Return what was collected."""
        return ResourceUrls(tuple(self.images), tuple(self.fonts))


# Loading


class ResourceCache:
    """
    Loads images and fonts with the user's function, and caches them by address.

    Args:
        loader: The user's function; None if messages are shown without loading anything.
        max_bytes: Maximum size of the cache.
        max_resource_bytes: Maximum size of a resource that is cached.
    """

    def __init__(
        self,
        loader: ResourceLoader | None,
        *,
        max_bytes: int = MAX_CACHE_BYTES,
        max_resource_bytes: int = MAX_RESOURCE_BYTES,
    ) -> None:
        self._loader = loader
        self._max_resource_bytes = max_resource_bytes
        self._cache: LruCache[str, bytes] = LruCache(max_weight=max_bytes, weigh=len)

    @property
    def is_used(self) -> bool:
        """Whether there is a function to load anything with."""
        return self._loader is not None

    async def load(self, urls: Iterable[str]) -> Mapping[str, bytes]:
        """
        Load all resources that a message needs.

        Raises:
            MissingResourceError: One of them could not be loaded; the other loads are cancelled.
        """
        wanted = list(dict.fromkeys(urls))
        loader = self._loader
        if loader is None or not wanted:
            return {}
        if len(wanted) > MAX_RESOURCES:
            raise MissingResourceError(f"{len(wanted)} resources are too many")
        found: dict[str, bytes] = {}
        remaining = iter(wanted)

        async def work() -> None:
            for url in remaining:
                found[url] = await self._find(loader, url)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(MAX_CONCURRENT, len(wanted))):
                    group.create_task(work(), name="exponea_async: resources")
        except ExceptionGroup as errors:
            raise MissingResourceError(str(errors.exceptions[0])) from errors
        return found

    def clear(self) -> None:
        """Empty the cache."""
        self._cache.clear()

    async def _find(self, loader: ResourceLoader, url: str) -> bytes:
        data = self._cache.get(url)
        if data is None:
            data = await _load(loader, url)
            if len(data) <= self._max_resource_bytes:
                self._cache.put(url, data)
        return data


async def _load(loader: ResourceLoader, url: str) -> bytes:
    try:
        async with asyncio.timeout(LOAD_TIMEOUT):
            with calling("the resource_loader", loader, is_async=True):
                data = await loader(url)
    except Exception as error:
        # The user's own function: whatever goes wrong in it, the message can't be shown.
        raise MissingResourceError(f"{url:.200}: {type(error).__name__}: {error}") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise MissingResourceError(f"{url:.200}: there is none")
    return bytes(data)
