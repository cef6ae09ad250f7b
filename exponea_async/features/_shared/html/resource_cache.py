"""
Pictures and fonts that messages need before they are shown, where the host gives a way to load them.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping

LOG = logging.getLogger("exponea_async")

Load = Callable[[str], Awaitable[bytes | None]]

#: How long one may take, in seconds, as in the vendor's SDKs.
LONGEST = 10.0
#: What was loaded is kept up to so many bytes, and not loaded again; a larger one is not kept.
BUDGET, LARGEST = 32_000_000, 8_000_000
#: Loaded at once for one message, and needed by one message at the most.
AT_ONCE, MOST = 6, 100


class MissingResourceError(Exception):
    """A message can't be shown, for something that it needs could not be loaded."""


class ResourceCache:
    """
    Loads pictures and fonts, and keeps them by their addresses.

    Args:
        load: The host's way to load one, or None: then nothing is needed.
    """

    def __init__(self, load: Load | None) -> None:
        self._load = load
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    @property
    def is_used(self) -> bool:
        """Whether there is a way to load anything."""
        return self._load is not None

    async def load(self, urls: Iterable[str]) -> Mapping[str, bytes]:
        """
        Load all that a message needs.

        Raises:
            MissingResourceError: Something could not be loaded; what is under way is broken off.
        """
        wanted = list(dict.fromkeys(urls))
        load = self._load
        if load is None or not wanted:
            return {}
        if len(wanted) > MOST:
            raise MissingResourceError(f"{len(wanted)} resources are too many")
        found: dict[str, bytes] = {}
        waiting = iter(wanted)

        async def work() -> None:
            for url in waiting:
                found[url] = await self._find(load, url)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(wanted))):
                    group.create_task(work(), name="exponea_async: resources")
        except ExceptionGroup as errors:
            raise MissingResourceError(str(errors.exceptions[0])) from errors
        return found

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._size = 0

    async def _find(self, load: Load, url: str) -> bytes:
        kept = self._kept.get(url)
        if kept is not None:
            self._kept.move_to_end(url)
            return kept
        data = await _loaded(load, url)
        self._keep(url, data)
        return data

    def _keep(self, url: str, data: bytes) -> None:
        if len(data) > LARGEST:
            return
        self._size += len(data) - len(self._kept.pop(url, b""))
        self._kept[url] = data
        while self._size > BUDGET:
            self._size -= len(self._kept.popitem(last=False)[1])


async def _loaded(load: Load, url: str) -> bytes:
    try:
        async with asyncio.timeout(LONGEST):
            data = await load(url)
    except Exception as error:
        # The host's own code: whatever goes wrong in it, the message can't be shown.
        raise MissingResourceError(f"{url:.200}: {type(error).__name__}: {error}") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise MissingResourceError(f"{url:.200}: there is none")
    return bytes(data)
