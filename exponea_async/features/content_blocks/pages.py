"""
The HTML of content blocks made safe: once for all who see the same.
"""

import asyncio
import logging
from collections import OrderedDict
from hashlib import blake2b
from sys import getsizeof
from weakref import WeakValueDictionary

from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features._shared.html.reader import HtmlAction, SafeHtml, read_html, resource_urls
from exponea_async.features._shared.html.resources import MissingResourceError, ResourceCache, ResourceLoader

LOG = logging.getLogger("exponea_async")

#: What is kept of it in memory: pages, and about how many bytes; what was asked for longest ago makes room.
MAX_PAGES = 2_000
MAX_BYTES = 32_000_000

#: Making HTML safe takes so many times as long as decoding as much JSON.
_COST = 8


class Pages:
    """
    Safe pages by what they were made of.

    Args:
        loader: Loads the pictures and fonts that a page needs, which are put into it; None leaves them on the web.
    """

    def __init__(self, loader: ResourceLoader | None) -> None:
        self._resources = ResourceCache(loader)
        self._pages: OrderedDict[bytes, SafeHtml] = OrderedDict()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self.size = 0

    def __len__(self) -> int:
        return len(self._pages)

    async def read(self, source: str) -> SafeHtml | None:
        """
        Make some HTML safe; None where there is nothing to show, or a picture or font can't be loaded.

        Raises:
            ImportError: The libraries are missing; ``pip install 'exponea-async[html]'`` brings them.
        """
        key = blake2b(source.encode(errors="surrogatepass"), digest_size=16).digest()
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            page = self._pages.get(key)
            if page is None and (page := await self._made(source)) is not None:
                self._keep(key, page)
            elif page is not None:
                self._pages.move_to_end(key)
            return page

    def clear(self) -> None:
        """Forget everything."""
        self._resources.clear()
        self._pages.clear()
        self.size = 0

    async def _made(self, source: str) -> SafeHtml | None:
        size = len(source) * _COST
        if not self._resources.is_used:
            return await to_thread_if_large(size, lambda: read_html(source, ensure_close=False))
        needed = await to_thread_if_large(size, lambda: resource_urls(source))
        try:
            loaded = await self._resources.load((*needed.images, *needed.fonts))
        except MissingResourceError as error:
            LOG.warning("A content block can't be shown: %s", error)
            return None
        return await to_thread_if_large(size, lambda: read_html(source, ensure_close=False, resources=loaded))

    def _keep(self, key: bytes, page: SafeHtml) -> None:
        self._pages[key] = page
        self.size += _weight(page)
        while len(self._pages) > MAX_PAGES or self.size > MAX_BYTES:
            self.size -= _weight(self._pages.popitem(last=False)[1])


def _weight(page: SafeHtml) -> int:
    return getsizeof(page.html) + sum(map(_action_weight, page.actions))


def _action_weight(action: HtmlAction) -> int:
    return 200 + getsizeof(action.url) + (getsizeof(action.text) if action.text is not None else 0)
