"""
Questions to the platform: recommendations, consents, attributes of a customer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from exponea_async.devices.context import ApiRequest
from exponea_async.features._shared.envelopes import on_thread
from exponea_async.features._shared.verbs import SubjectVerbs
from exponea_async.features.fetch.parsing import (
    checked,
    read_attributes,
    read_consents,
    read_recommendations,
    recommendation,
)
from exponea_async.messages import Consent, CustomerAttribute, Recommendation, RecommendationOptions

_ATTRIBUTES = "/data/v2/projects/{project}/customers/attributes"
_CONSENTS = "/data/v2/projects/{project}/consent/categories"

#: How often a question is asked at the most. It changes nothing, so it may be asked again; but somebody waits for it.
TRIES = 3


class FetchVerbs(SubjectVerbs):
    """The verbs of questions to the platform."""

    __slots__ = ()

    async def fetch_recommendations(self, options: RecommendationOptions) -> list[Recommendation]:
        """
        Ask what to recommend to the customer.

        Where there is no usable answer it is asked up to three times, with waits between.

        Args:
            options: Which engine, how many items, and so on.

        Returns:
            The items, best first; none where the integration is stopped.

        Raises:
            InvalidEventError: An option is wrong; its path names it, such as ``options.size``.
            RefusedError: The platform refused, as where there is no such engine.
            UnavailableError: There was no usable answer.
            StorageError: The storage refused to tell who the device is.
            LifecycleError: The client was not started, or is closed.
        """
        body = await self._ask_attributes([recommendation(options)])
        return [] if body is None else await on_thread(len(body), lambda: read_recommendations(body))

    async def fetch_consents(self) -> list[Consent]:
        """
        Ask which categories of consent the project has, whoever the customer is.

        Where there is no usable answer it is asked up to three times, with waits between.

        Returns:
            The categories, of which there may be none; none where the integration is stopped.

        Raises:
            RefusedError: The platform refused.
            UnavailableError: There was no usable answer.
            StorageError: The storage refused to tell who the device is.
            LifecycleError: The client was not started, or is closed.
        """
        customer = await self._context.current_customer()
        body = None if customer is None else await self._context.request(customer, ApiRequest(_CONSENTS, tries=TRIES))
        return [] if body is None else await on_thread(len(body), lambda: read_consents(body))

    async def fetch_attributes(self, attributes: Sequence[Mapping[str, Any]]) -> list[CustomerAttribute]:
        """
        Ask for attributes of the customer: properties, segmentations, predictions and so on.

        Most projects don't allow this to a public token, only to private access (`BasicAuth`); what is not allowed
        comes back without success, or as a `RefusedError`. Where there is no usable answer it is asked up to three
        times, with waits between.

        Args:
            attributes: What to ask for, as the platform takes it: ``{"type": "property", "property": "age"}``;
                ``{"type": ..., "id": ...}`` for the types ``segmentation``, ``id``, ``expression``, ``aggregate`` and
                ``prediction``; ``{"type": "consent", "category": "newsletter"}``. Other types are sent as they are.

        Returns:
            One for each, in the order they were asked for; none where the integration is stopped.

        Raises:
            InvalidEventError: Something can't be asked like this; its path names it, such as ``attributes[2].id``.
            RefusedError: The platform refused all of it.
            UnavailableError: There was no usable answer.
            StorageError: The storage refused to tell who the device is.
            LifecycleError: The client was not started, or is closed.
        """
        asked = checked(attributes)
        if not asked:
            self._context.recorder.check_running()
            return []
        body = await self._ask_attributes(asked)
        return [] if body is None else await on_thread(len(body), lambda: read_attributes(body, len(asked)))

    async def _ask_attributes(self, asked: list[dict[str, Any]]) -> bytes | None:
        context = self._context
        while (customer := await context.current_customer()) is not None:
            question = {"customer_ids": dict(customer.ids), "attributes": asked}
            body = await context.request(customer, ApiRequest(_ATTRIBUTES, question, tries=TRIES))
            now = await context.current_customer(counts_as_activity=False)
            if now is None or now.fingerprint == customer.fingerprint:
                return None if now is None else body
            # What was said of the customer before is not for the present one, of whom it is asked anew.
        return None
