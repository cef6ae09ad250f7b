"""
Content blocks, and a client that loads them from a sandbox.
"""

from collections.abc import Mapping
from typing import Any

from exponea_async import Exponea
from exponea_async.features.content_blocks.loader import BlockLoader
from exponea_async.features.content_blocks.service import ContentBlocks
from exponea_async.messages import InAppContentBlock
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.subjects import Device
from exponea_async.testing import idle
from helpers.app import App, PendingRecord
from helpers.internals import feature_of

BUNDLE, PERSONAL = "/bundle-android.json", "/inappcontentblocks"
LINK, FORCED = "https://s.example/sale", "https://s.example/sale?xnpe_force_track=1"
PAGE = f"<p>Hi</p><a href='{LINK}'>Sale</a><div data-link='{FORCED}'>All</div><i data-actiontype='close'>x</i>"


def static(
    id_: str = "s1", *, html: Any = PAGE, placeholders: tuple[str, ...] = ("top",), **fields: Any
) -> dict[str, Any]:
    """Return a block with the same content for all customers."""
    block = {"id": id_, "name": id_, "placeholders": list(placeholders)}
    return {**block, "content_type": "html", "content": {"html": html}, **fields}


def personal(
    id_: str = "p1",
    *,
    html: Any = PAGE,
    placeholders: tuple[str, ...] = ("top",),
    data: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Return a block with personalized content, which is fresh for two minutes."""
    defaults = {
        "ttl_seconds": 120,
        "variant_id": 3,
        "variant_name": "B",
        "content_type": "html",
        "content": {"html": html},
    }
    block = {"id": id_, "name": id_, "placeholders": list(placeholders)}
    return {**block, "personal": {**defaults, **(data or {})}, **fields}


class ContentBlocksFixture:
    """
    A client that shows content blocks, and the sandbox that returns them.

    Args:
        app: The application that runs the client.
        sandbox: The sandbox.
    """

    def __init__(self, app: App, sandbox: Sandbox) -> None:
        self.app = app
        self.sandbox = sandbox

    @property
    def client(self) -> Exponea:
        """The running client."""
        return self.app.client

    @property
    def service(self) -> ContentBlocks:
        """The client's instance of the feature."""
        return feature_of(self.client, ContentBlocks)

    @property
    def loader(self) -> BlockLoader:
        """The loader of the client, with its caches."""
        return self.service.selector.loader

    def put(self, *blocks: Any, check: bool = True) -> None:
        """Add blocks to the sandbox."""
        self.sandbox.messages.content_blocks.put(*blocks, check=check)

    def requests(self) -> list[str]:
        """Return the requests so far: ``"bundle"``, or the ids of the requested blocks."""
        return [
            "bundle" if each.path.endswith(BUNDLE) else " ".join(each.body["content_block_ids"])
            for each in self.sandbox.requests
            if each.path.endswith((BUNDLE, PERSONAL)) and (each.body is not None or each.path.endswith(BUNDLE))
        ]

    def fail(self, path: str, **fault: Any) -> None:
        """Make requests to a path fail."""
        self.sandbox.faults.add(Fault("status", **{"status": 500, "path": path, **fault}))

    async def block(self, placeholder: str = "top", *, subject: Any = None) -> InAppContentBlock:
        """Show a block, which must exist."""
        block = await (subject or self.client).content_block(placeholder)
        assert isinstance(block, InAppContentBlock)
        return block

    async def shown(self, placeholder: str = "top", *, subject: Any = None) -> str | None:
        """Show a block and return its id, or None."""
        block = await (subject or self.client).content_block(placeholder)
        return None if block is None else str(block.id)

    async def events(self) -> list[tuple[str, str]]:
        """Return the tracked events: the action and the id of the block."""
        return [(each.own["action"], each.own["banner_id"]) for each in await self.app.pending("banner")]

    async def last_event(self) -> PendingRecord:
        """Return the event that was tracked last."""
        return (await self.app.pending("banner"))[-1]

    async def idle(self) -> None:
        """Wait until the client is idle."""
        await idle(self.client, timeout=60)

    def device(self, key: str) -> Device:
        """Return a device."""
        return self.client.device(key)
