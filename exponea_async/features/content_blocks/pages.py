"""
The safe HTML of content blocks, made once for all customers with the same content.
"""

import logging
from hashlib import blake2b
from sys import getsizeof

from exponea_async._internal.concurrency import KeyedLocks
from exponea_async._internal.lru import LruCache
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features._shared.html.reader import HtmlAction, SafeHtml, read_html, resource_urls
from exponea_async.features._shared.html.resources import MissingResourceError, ResourceCache, ResourceLoader
from exponea_async.features._shared.html.rules import HtmlRules

LOG = logging.getLogger("exponea_async")

#: Maximum number of pages in memory, and their approximate maximum size in bytes; the least recently used page is
#: evicted first.
MAX_PAGES = 2_000
MAX_BYTES = 32_000_000

#: How many times as long it takes to make HTML safe than to decode JSON of the same length.
_HTML_COST = 8


class PageCache:
    """
    Safe HTML by the digest of its source.

    Args:
        loader: Loads the images and fonts of a page, which are put into it; None leaves their URLs.
        rules: How pages are written.
        max_pages: Maximum number of pages.
        max_bytes: Approximate maximum size of all pages in bytes.
    """

    def __init__(
        self,
        loader: ResourceLoader | None,
        rules: HtmlRules,
        *,
        max_pages: int = MAX_PAGES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._rules = rules
        self._resources = ResourceCache(loader)
        self._pages: LruCache[bytes, SafeHtml] = LruCache(max_pages, max_weight=max_bytes, weigh=_size)
        self._locks: KeyedLocks[bytes] = KeyedLocks()

    def __len__(self) -> int:
        return len(self._pages)

    @property
    def size(self) -> int:
        """The approximate size of all pages in bytes."""
        return self._pages.weight

    async def read(self, source: str) -> SafeHtml | None:
        """
        Return safe HTML; None where there is nothing to show, or an image or font can't be loaded.

        Raises:
            ImportError: The libraries are missing; ``pip install 'exponea-async[html]'`` installs them.
        """
        key = blake2b(source.encode(errors="surrogatepass"), digest_size=16).digest()
        async with self._locks.for_key(key):
            page = self._pages.get(key)
            if page is None and (page := await self._read(source)) is not None:
                self._pages.put(key, page)
            return page

    def clear(self) -> None:
        """Remove all pages and resources."""
        self._resources.clear()
        self._pages.clear()

    async def _read(self, source: str) -> SafeHtml | None:
        cost = len(source) * _HTML_COST
        if not self._resources.is_used:
            return await to_thread_if_large(cost, lambda: read_html(source, self._rules))
        urls = await to_thread_if_large(cost, lambda: resource_urls(source))
        try:
            resources = await self._resources.load((*urls.images, *urls.fonts))
        except MissingResourceError as error:
            LOG.warning("A content block can't be shown: %s", error)
            return None
        return await to_thread_if_large(cost, lambda: read_html(source, self._rules, resources=resources))


def _size(page: SafeHtml) -> int:
    return getsizeof(page.html) + sum(map(getsizeof, page.removed)) + sum(map(_action_size, page.actions))


def _action_size(action: HtmlAction) -> int:
    return 200 + getsizeof(action.url) + (getsizeof(action.text) if action.text is not None else 0)
