"""
The HTML of content blocks made safe: once for all who see the same.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from sys import getsizeof
from weakref import WeakValueDictionary

from exponea_async.features._html import HtmlAction, Page, read_html, resource_urls
from exponea_async.features._replies import on_thread

LOG = logging.getLogger("exponea_async")

#: What is kept of it in memory: pages, and about how many bytes; what was asked for longest ago makes room.
MAX_PAGES = 2_000
MAX_BYTES = 32_000_000
#: What one page may need of pictures and fonts, and how many bytes of them.
MAX_RESOURCES = 64
MAX_LOADED = 8_000_000
#: How long one of them may take to be loaded, in seconds.
TIMEOUT = 5.0

#: Making HTML safe takes so many times as long as decoding as much JSON.
_COST = 8

ResourceLoader = Callable[[str], Awaitable[bytes | None]]


class Pages:
    """
    Safe pages by what they were made of.

    Args:
        loader: Loads the pictures and fonts that a page needs, which are put into it; None leaves them on the web.
    """

    def __init__(self, loader: ResourceLoader | None) -> None:
        self._loader = loader
        self._pages: OrderedDict[bytes, Page] = OrderedDict()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self.size = 0

    def __len__(self) -> int:
        return len(self._pages)

    async def read(self, source: str) -> Page | None:
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
        self._pages.clear()
        self.size = 0

    async def _made(self, source: str) -> Page | None:
        size, loader = len(source), self._loader
        if loader is None:
            return await on_thread(size * _COST, lambda: read_html(source, ensure_close=False))
        needed = await on_thread(size * _COST, lambda: resource_urls(source))
        loaded = await _loaded(loader, list(dict.fromkeys((*needed.images, *needed.fonts))))
        if loaded is None:
            return None
        return await on_thread(size * _COST, lambda: read_html(source, ensure_close=False, resources=loaded))

    def _keep(self, key: bytes, page: Page) -> None:
        self._pages[key] = page
        self.size += _weight(page)
        while len(self._pages) > MAX_PAGES or self.size > MAX_BYTES:
            self.size -= _weight(self._pages.popitem(last=False)[1])


async def _loaded(loader: ResourceLoader, urls: list[str]) -> dict[str, bytes] | None:
    """Load what a page needs; None where something can't be loaded, or is too much."""
    if len(urls) > MAX_RESOURCES:
        return None
    found = await asyncio.gather(*(_resource(loader, url) for url in urls))
    loaded = {url: data for url, data in zip(urls, found, strict=True) if data is not None}
    is_whole = len(loaded) == len(urls) and sum(map(len, loaded.values())) <= MAX_LOADED
    return loaded if is_whole else None


async def _resource(loader: ResourceLoader, url: str) -> bytes | None:
    try:
        async with asyncio.timeout(TIMEOUT):
            data = await loader(url)
    except TimeoutError:
        LOG.warning("resource_loader took longer than %g seconds.", TIMEOUT)
        return None
    except Exception:
        LOG.exception("resource_loader raised.")
        return None
    return data if isinstance(data, bytes) else None


def _weight(page: Page) -> int:
    return getsizeof(page.html) + sum(map(_action_weight, page.actions))


def _action_weight(action: HtmlAction) -> int:
    return 200 + getsizeof(action.url) + (getsizeof(action.text) if action.text is not None else 0)
