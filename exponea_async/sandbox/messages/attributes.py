"""
The values of customer attributes, including recommended items. Pure.
"""

from collections.abc import Mapping
from typing import Any

from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.messages.definitions import Definitions
from exponea_async.sandbox.models import CustomerView

RECOMMENDATION = "recommendation"
#: The field with the name of the attribute, by type of attribute.
NAME_FIELDS = {
    "property": "property",
    "segmentation": "id",
    "id": "id",
    "expression": "id",
    "aggregate": "id",
    "prediction": "id",
    "consent": "category",
    RECOMMENDATION: "id",
}
#: The fields of a recommended item that a whitelist of catalog attributes doesn't remove.
ITEM_FIELDS = ("item_id", "engine_name", "recommendation_id", "recommendation_variant_id")
DEFAULT_SIZE = 10


class Attributes:
    """
    The attributes of customers: those in the definitions, and the stored properties and ids.

    Args:
        definitions: The definitions.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def result(self, project: str, customer: CustomerView, query: object) -> dict[str, Any]:
        """
        Return the result for one attribute, which is an error if the attribute is unknown.

        Args:
            project: The token of the project.
            customer: The customer.
            query: The attribute as it was requested.

        Raises:
            RequestError: The query is invalid.
        """
        if not isinstance(query, dict):
            raise RequestError(400, "An attribute should be an object.")
        kind = query.get("type")
        if not isinstance(kind, str) or kind not in NAME_FIELDS:
            return _unknown(f"The attribute type {kind!r} is unknown.")
        name = query.get(NAME_FIELDS[kind])
        if not name or not isinstance(name, str):
            raise RequestError(400, f"{NAME_FIELDS[kind]} should be a non-empty string.")
        if kind == RECOMMENDATION:
            return self._recommended_items(project, customer, name, query)
        return self._value(project, customer, kind, name)

    def _recommended_items(
        self, project: str, customer: CustomerView, engine: str, query: Mapping[str, Any]
    ) -> dict[str, Any]:
        _check_options(query)
        if engine not in self._definitions.recommendations.names(project):
            return _unknown(f"The recommendation engine {engine!r} does not exist.")
        items = self._definitions.recommendations.for_customer(engine, project, customer)
        size, whitelist = query.get("size", DEFAULT_SIZE), query.get("catalogAttributesWhitelist")
        return {"success": True, "value": [_filtered(item, whitelist) for item in items[:size]]}

    def _value(self, project: str, customer: CustomerView, kind: str, name: str) -> dict[str, Any]:
        for each in self._definitions.attributes.for_customer(kind, project, customer):
            if isinstance(each, dict) and each.get("id") == name:
                return {"success": True, "value": each.get("value")}
        if kind == "property" and name in customer.properties:
            return {"success": True, "value": customer.properties[name]}
        if kind == "id" and customer.ids.get(name):
            return {"success": True, "value": customer.ids[name][-1]}
        return _unknown(f"The customer has no {kind} {name!r}.")


def _unknown(error: str) -> dict[str, Any]:
    return {"success": False, "error": error}


def _check_options(query: Mapping[str, Any]) -> None:
    size, items = query.get("size", DEFAULT_SIZE), query.get("items", {})
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise RequestError(400, "size should be a whole number of at least 1.")
    if not isinstance(query.get("fillWithRandom", False), bool):
        raise RequestError(400, "fillWithRandom should be true or false.")
    if not isinstance(query.get("no_track", False), bool):
        raise RequestError(400, "no_track should be true or false.")
    if not isinstance(items, dict) or not all(isinstance(weight, str) for weight in items.values()):
        raise RequestError(400, "items should be an object of strings.")
    whitelist = query.get("catalogAttributesWhitelist", [])
    if not isinstance(whitelist, list) or not all(isinstance(each, str) for each in whitelist):
        raise RequestError(400, "catalogAttributesWhitelist should be a list of strings.")


def _filtered(item: Any, whitelist: list[str] | None) -> Any:
    if not whitelist or not isinstance(item, dict):
        return item
    return {name: value for name, value in item.items() if name in ITEM_FIELDS or name in whitelist}
