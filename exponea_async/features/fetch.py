"""
Questions to the platform: recommendations, consents, attributes of a customer.
"""

from typing import TYPE_CHECKING

from exponea_async.features._scope import Scope


class FetchVerbs:
    """The verbs of questions to the platform."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _scope(self) -> Scope: ...
