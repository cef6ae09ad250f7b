"""
The values of a customer's attributes, recommended items among them. Pure.
"""

from collections.abc import Mapping
from typing import Any

from exponea_async.sandbox.http import BodyError
from exponea_async.sandbox.messages.definitions import Definitions
from exponea_async.sandbox.models import CustomerView

RECOMMENDATION = "recommendation"
#: The field that names the attribute, by type.
NAMES = {
    "property": "property",
    "segmentation": "id",
    "id": "id",
    "expression": "id",
    "aggregate": "id",
    "prediction": "id",
    "consent": "category",
    RECOMMENDATION: "id",
}
ITEM_KEYS = ("item_id", "engine_name", "recommendation_id", "recommendation_variant_id")
USUAL_SIZE = 10


class Attributes:
    """
    Tells attributes from the definitions, and from the books what those know themselves.

    Args:
        definitions: What was defined.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def value(self, project: str, customer: CustomerView, asked: object) -> dict[str, Any]:
        """
        Answers for one attribute.

        Raises:
            BodyError: It is asked for in a wrong shape.
        """
        if not isinstance(asked, dict):
            raise BodyError(400, "An attribute should be an object.")
        kind = asked.get("type")
        if not isinstance(kind, str) or kind not in NAMES:
            return _unknown(f"The attribute type {kind!r} is unknown.")
        name = asked.get(NAMES[kind])
        if not name or not isinstance(name, str):
            raise BodyError(400, f"{NAMES[kind]} should be a non-empty string.")
        if kind == RECOMMENDATION:
            return self._recommended(project, customer, name, asked)
        return self._other(project, customer, kind, name)

    def _recommended(
        self, project: str, customer: CustomerView, engine: str, asked: Mapping[str, Any]
    ) -> dict[str, Any]:
        _check_options(asked)
        if engine not in self._definitions.recommendations.names(project):
            return _unknown(f"The recommendation engine {engine!r} does not exist.")
        items = self._definitions.recommendations.delivered(engine, project, customer)
        size, wanted = asked.get("size", USUAL_SIZE), asked.get("catalogAttributesWhitelist")
        return {"success": True, "value": [_narrowed(item, wanted) for item in items[:size]]}

    def _other(self, project: str, customer: CustomerView, kind: str, name: str) -> dict[str, Any]:
        for each in self._definitions.attributes.delivered(kind, project, customer):
            if isinstance(each, dict) and each.get("id") == name:
                return {"success": True, "value": each.get("value")}
        if kind == "property" and name in customer.properties:
            return {"success": True, "value": customer.properties[name]}
        if kind == "id" and customer.ids.get(name):
            return {"success": True, "value": customer.ids[name][-1]}
        return _unknown(f"The {kind} {name!r} is not known of this customer.")


def _unknown(error: str) -> dict[str, Any]:
    return {"success": False, "error": error}


def _check_options(asked: Mapping[str, Any]) -> None:
    size, items = asked.get("size", USUAL_SIZE), asked.get("items", {})
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise BodyError(400, "size should be a whole number of at least 1.")
    if not isinstance(asked.get("fillWithRandom", False), bool):
        raise BodyError(400, "fillWithRandom should be true or false.")
    if not isinstance(asked.get("no_track", False), bool):
        raise BodyError(400, "no_track should be true or false.")
    if not isinstance(items, dict) or not all(isinstance(weight, str) for weight in items.values()):
        raise BodyError(400, "items should be an object of strings.")
    wanted = asked.get("catalogAttributesWhitelist", [])
    if not isinstance(wanted, list) or not all(isinstance(each, str) for each in wanted):
        raise BodyError(400, "catalogAttributesWhitelist should be a list of strings.")


def _narrowed(item: Any, wanted: list[str] | None) -> Any:
    if not wanted or not isinstance(item, dict):
        return item
    return {name: value for name, value in item.items() if name in ITEM_KEYS or name in wanted}
