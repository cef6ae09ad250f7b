"""
Queries about the customer: recommendations, consent categories and attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exponea_async._internal.lazy import LazyModule, imports
from exponea_async.features._shared.verbs import SubjectVerbs
from exponea_async.requests import ApiRequest

_ATTRIBUTES = "/data/v2/projects/{project}/customers/attributes"
_CONSENTS = "/data/v2/projects/{project}/consent/categories"

#: Maximum number of attempts per query. A query changes nothing, so it can be repeated; but a caller waits for it.
MAX_ATTEMPTS = 3

if TYPE_CHECKING:
    from exponea_async import messages
    from exponea_async.features._shared import envelopes
    from exponea_async.features.fetch import parsing
else:
    messages = LazyModule("exponea_async.messages")
    envelopes = LazyModule("exponea_async.features._shared.envelopes")
    parsing = LazyModule("exponea_async.features.fetch.parsing")


class FetchVerbs(SubjectVerbs):
    """Queries about the customer."""

    __slots__ = ()

    @imports(parsing, envelopes)
    async def fetch_recommendations(self, options: messages.RecommendationOptions) -> list[messages.Recommendation]:
        """
        Return the items that a recommendation engine recommends to the customer.

        Without a usable response the platform is asked up to three times, with back-off.

        Args:
            options: The engine, the number of items, and so on.

        Returns:
            The items, best first; empty where the integration is stopped.

        Raises:
            InvalidEventError: An option is wrong; the path names it, such as ``options.size``.
            RequestRefusedError: The platform refused, for example because the engine does not exist.
            UnavailableError: There was no usable response.
            StorageError: The storage could not load the device.
            LifecycleError: The client was not started, or is closed.
        """
        body = await self._request_attributes([parsing.recommendation_query(options)])
        return (
            []
            if body is None
            else await envelopes.to_thread_if_large(len(body), lambda: parsing.read_recommendations(body))
        )

    @imports(parsing, envelopes)
    async def fetch_consents(self) -> list[messages.Consent]:
        """
        Return the consent categories of the project, which are the same for all customers.

        Without a usable response the platform is asked up to three times, with back-off.

        Returns:
            The categories; empty where the project has none, or the integration is stopped.

        Raises:
            RequestRefusedError: The platform refused.
            UnavailableError: There was no usable response.
            StorageError: The storage could not load the device.
            LifecycleError: The client was not started, or is closed.
        """
        customer = await self._context.current_customer()
        request = ApiRequest("customer_data", _CONSENTS, max_attempts=MAX_ATTEMPTS)
        body = None if customer is None else await self._context.request(customer, request)
        return (
            [] if body is None else await envelopes.to_thread_if_large(len(body), lambda: parsing.read_consents(body))
        )

    @imports(parsing, envelopes)
    async def fetch_attributes(self, attributes: Sequence[Mapping[str, Any]]) -> list[messages.CustomerAttribute]:
        """
        Return attributes of the customer: properties, segmentations, predictions and so on.

        Most projects don't allow this to a public token, only to private access (`BasicAuth`); an attribute that is
        not allowed comes back without success, or the query raises a `RequestRefusedError`. Without a usable response
        the platform is asked up to three times, with back-off.

        Args:
            attributes: The attributes, as the platform expects them: ``{"type": "property", "property": "age"}``;
                ``{"type": ..., "id": ...}`` for the types ``segmentation``, ``id``, ``expression``, ``aggregate`` and
                ``prediction``; ``{"type": "consent", "category": "newsletter"}``. Other types are sent unchanged.

        Returns:
            One result per attribute, in the same order; empty where the integration is stopped.

        Raises:
            InvalidEventError: An attribute can't be queried as it is; the path names it, such as ``attributes[2].id``.
            RequestRefusedError: The platform refused the whole query.
            UnavailableError: There was no usable response.
            StorageError: The storage could not load the device.
            LifecycleError: The client was not started, or is closed.
        """
        queries = parsing.attribute_queries(attributes)
        if not queries:
            self._context.recorder.check_running()
            return []
        body = await self._request_attributes(queries)
        return (
            []
            if body is None
            else await envelopes.to_thread_if_large(len(body), lambda: parsing.read_attributes(body, len(queries)))
        )

    async def _request_attributes(self, queries: list[dict[str, Any]]) -> bytes | None:
        """Return the platform's response about the present customer; None where the integration is stopped."""
        context = self._context
        while (customer := await context.current_customer()) is not None:
            query = {"customer_ids": dict(customer.ids), "attributes": queries}
            request = ApiRequest("customer_data", _ATTRIBUTES, query, max_attempts=MAX_ATTEMPTS)
            body = await context.request(customer, request)
            if await context.is_current(customer):
                return body
            # A response about the previous customer must not be returned for the present one.
        return None
