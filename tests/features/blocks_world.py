"""
What the tests of content blocks share: blocks, a phone beside a platform, and a provider of tokens that waits.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from helpers.app import Kept, Phone

from exponea_async import Exponea
from exponea_async.features.content_blocks.cache import Customers
from exponea_async.features.content_blocks.verbs import ContentBlocks
from exponea_async.messages import InAppContentBlock
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.subjects import Device
from exponea_async.testing import idle

BUNDLE, PERSONAL = "/bundle-android.json", "/inappcontentblocks"
LINK, FORCED = "https://s.example/sale", "https://s.example/sale?xnpe_force_track=1"
PAGE = f"<p>Hi</p><a href='{LINK}'>Sale</a><div data-link='{FORCED}'>All</div><i data-actiontype='close'>x</i>"


def static(
    id_: str = "s1", *, html: Any = PAGE, placeholders: tuple[str, ...] = ("top",), **more: Any
) -> dict[str, Any]:
    """Make a block that says the same to all."""
    told = {"id": id_, "name": id_, "placeholders": list(placeholders)}
    return {**told, "content_type": "html", "content": {"html": html}, **more}


def personal(
    id_: str = "p1",
    *,
    html: Any = PAGE,
    placeholders: tuple[str, ...] = ("top",),
    says: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Make a block that says something of its own to each customer, for two minutes."""
    usual = {
        "ttl_seconds": 120,
        "variant_id": 3,
        "variant_name": "B",
        "content_type": "html",
        "content": {"html": html},
    }
    return {"id": id_, "name": id_, "placeholders": list(placeholders), "personal": {**usual, **(says or {})}, **more}


class World:
    """
    A phone, and the platform that it speaks to.

    Args:
        phone: The phone.
        sandbox: The platform.
    """

    def __init__(self, phone: Phone, sandbox: Sandbox) -> None:
        self.phone = phone
        self.sandbox = sandbox

    @property
    def client(self) -> Exponea:
        """The client that runs now."""
        return self.phone.client

    @property
    def part(self) -> ContentBlocks:
        """What the client keeps of content blocks."""
        part: ContentBlocks = self.client._features[ContentBlocks]
        return part

    @property
    def customers(self) -> Customers:
        """What the client keeps of what blocks say to customers."""
        return self.part.blocks.loads.customers

    def put(self, *blocks: Any, check: bool = True) -> None:
        """Let the platform have blocks."""
        self.sandbox.messages.content_blocks.put(*blocks, check=check)

    def asked(self) -> list[str]:
        """Tell what was asked so far: ``"bundle"``, or the ids of blocks, in order."""
        return [
            "bundle" if each.path.endswith(BUNDLE) else " ".join(each.body["content_block_ids"])
            for each in self.sandbox.requests
            if each.path.endswith((BUNDLE, PERSONAL)) and (each.body is not None or each.path.endswith(BUNDLE))
        ]

    def break_down(self, path: str, **fault: Any) -> None:
        """Let requests of a path fail."""
        self.sandbox.faults.add(Fault("status", **{"status": 500, "path": path, **fault}))

    async def block(self, placeholder: str = "top", *, of: Any = None) -> InAppContentBlock:
        """Have a block shown that there is."""
        block = await (of or self.client).content_block(placeholder)
        assert isinstance(block, InAppContentBlock)
        return block

    async def shown(self, placeholder: str = "top", *, of: Any = None) -> str | None:
        """Have whatever there is shown, and tell its id."""
        block = await (of or self.client).content_block(placeholder)
        return None if block is None else str(block.id)

    async def told(self) -> list[tuple[str, str]]:
        """Tell what was tracked of banners: what happened, and to which."""
        return [(each.own["action"], each.own["banner_id"]) for each in await self.phone.kept("banner")]

    async def last(self) -> Kept:
        """Tell the banner event that was tracked last."""
        return (await self.phone.kept("banner"))[-1]

    async def idle(self) -> None:
        """Wait until nothing is under way in the background."""
        await idle(self.client)

    def device(self, key: str) -> Device:
        """Tell a device."""
        return self.client.device(key)


class Gate:
    """
    A provider of customers' tokens that gives no more after some calls before it is opened.

    Args:
        free: How many calls pass at once.

    Attributes:
        ids: The customers for whom it was called.
    """

    def __init__(self, free: int = 1) -> None:
        self.ids: list[Mapping[str, str]] = []
        self._free = free
        self._is_open = asyncio.Event()
        self._arrived = asyncio.Event()

    async def __call__(self, ids: Mapping[str, str]) -> str:
        """Wait, and give a token."""
        self.ids.append(ids)
        if len(self.ids) > self._free:
            self._arrived.set()
            await self._is_open.wait()
        return "token"

    def open(self) -> None:
        """Let all pass."""
        self._is_open.set()

    async def reached(self) -> None:
        """Wait until somebody stands before it."""
        async with asyncio.timeout(20):
            await self._arrived.wait()
