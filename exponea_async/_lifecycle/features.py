"""
The features of a client: those that its settings enable, and what stands in for the others until they are used.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from exponea_async._internal.lazy import LazyModule
from exponea_async.config import Configuration
from exponea_async.devices.features import FeatureRegistry
from exponea_async.features._shared.unused import UnusedFeature
from exponea_async.features.in_app import stored as stored_messages
from exponea_async.features.inbox import stored as stored_inbox
from exponea_async.features.segments import stored as stored_segments

if TYPE_CHECKING:
    from exponea_async.features.content_blocks import service as content_blocks
    from exponea_async.features.in_app import service as in_app
    from exponea_async.features.inbox import service as inbox
    from exponea_async.features.segments import service as segments
else:
    content_blocks = LazyModule("exponea_async.features.content_blocks.service")
    in_app = LazyModule("exponea_async.features.in_app.service")
    inbox = LazyModule("exponea_async.features.inbox.service")
    segments = LazyModule("exponea_async.features.segments.service")


def create_features(configuration: Configuration, clock: Callable[[], float]) -> FeatureRegistry:
    """
    Return the features of a client.

    Args:
        configuration: The settings.
        clock: Returns UNIX seconds.
    """

    def create(kind: type[Any]) -> Any:
        return kind(configuration, clock)

    features = FeatureRegistry(create)
    for each in _unused_features(preloads=configuration.preload_messages):
        features.add(each)
    if configuration.in_app_content_block_placeholders_auto_load:
        # The start of the client loads them, so the modules are imported before.
        features.use(content_blocks.ContentBlocks)
    return features


def _unused_features(*, preloads: bool) -> list[UnusedFeature]:
    return [
        UnusedFeature(
            "in-app messages",
            stored=stored_messages.NAME,
            owner_of=stored_messages.owner_of,
            module=in_app if preloads else None,
            use=lambda registry: registry[in_app.InAppMessages],
        ),
        UnusedFeature(
            "content blocks",
            module=content_blocks if preloads else None,
            use=lambda registry: registry[content_blocks.ContentBlocks],
        ),
        UnusedFeature(
            "app inbox",
            stored=stored_inbox.NAME,
            owner_of=stored_inbox.owner_of,
            module=inbox if preloads else None,
            use=lambda registry: registry[inbox.Inbox],
        ),
        UnusedFeature("segments", stored=stored_segments.NAME, use=lambda registry: registry[segments.Segments]),
    ]
