"""
The bodies of queries about a customer, and the platform's responses. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, zip_longest
from types import MappingProxyType
from typing import Any

from exponea_async._internal.arguments import read_text
from exponea_async._internal.fields import as_mapping, as_string, is_encodable, optional, required
from exponea_async._internal.json import decode, members
from exponea_async._internal.validation import short_repr
from exponea_async.errors import InvalidEventError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import (
    MAX_ELEMENT_BYTES,
    MAX_MEMBERS,
    decode_elements,
    read_envelope,
    split_list,
)
from exponea_async.messages import Consent, ConsentSources, CustomerAttribute, Recommendation, RecommendationOptions

#: The field that identifies an attribute, by the type of the attribute.
ID_FIELDS = MappingProxyType(
    {
        "property": "property",
        "consent": "category",
        "recommendation": "id",
        **dict.fromkeys(("segmentation", "id", "expression", "aggregate", "prediction"), "id"),
    }
)
#: The members of a recommended item that have fields of their own in `Recommendation`.
_ITEM_FIELDS = ("engine_name", "item_id", "recommendation_id", "recommendation_variant_id")
#: The fields of `ConsentSources`, by the name on the wire.
_SOURCES = MappingProxyType(
    {
        "crm": "created_from_crm",
        "import": "imported",
        "page": "from_consent_page",
        "private_api": "private_api",
        "public_api": "public_api",
        "scenario": "tracked_from_scenario",
    }
)
#: Maximum length of an error's description in characters.
_MAX_REASON = 300


def recommendation_query(options: RecommendationOptions) -> dict[str, Any]:
    """
    Return the attribute that queries recommendations. The platform mixes the naming styles of its fields.

    Raises:
        InvalidEventError: An option is wrong.
    """
    if not isinstance(options, RecommendationOptions):
        raise InvalidEventError(
            "options", _mismatch("RecommendationOptions", options), "Pass a RecommendationOptions instance."
        )
    _check_options(options)
    whitelist = options.catalog_attributes_whitelist
    query = {
        "type": "recommendation",
        "id": options.id,
        "fillWithRandom": options.fill_with_random,
        "size": options.size,
        "items": None if options.items is None else dict(options.items),
        "no_track": options.no_track,
        "catalogAttributesWhitelist": None if whitelist is None else list(whitelist),
    }
    return {name: value for name, value in query.items() if value is not None}


def attribute_queries(attributes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Return the attributes to query, once they are checked.

    Raises:
        InvalidEventError: An attribute can't be queried as it is.
    """
    if isinstance(attributes, str | bytes) or not isinstance(attributes, Sequence):
        raise InvalidEventError("attributes", _mismatch("a list", attributes), "Pass a list of dicts.")
    return [_attribute_query(each, f"attributes[{index}]") for index, each in enumerate(attributes)]


def read_recommendations(body: bytes) -> list[Recommendation]:
    """
    Read the recommended items.

    Raises:
        RequestRefusedError: The platform recommends nothing; carries its reason.
        UnavailableError: The response can't be read.
    """
    results = read_envelope(body).elements
    if not results:
        raise RequestRefusedError("the response has no results")
    try:
        result = dict(islice(members(results[0]), MAX_MEMBERS))
        if result.get("success") != b"true" or result.get("value", b"null") == b"null":
            raise RequestRefusedError(_reason(result))
        items = split_list(result["value"])
    except ValueError as error:
        raise UnavailableError(f"the recommendations can't be read: {error}") from error
    return list(decode_elements(items, _recommendation, "item"))


def read_consents(body: bytes) -> list[Consent]:
    """
    Read the consent categories.

    Raises:
        RequestRefusedError: The response says that the request failed.
        UnavailableError: The response can't be read.
    """
    return list(decode_elements(read_envelope(body).elements, _consent, "consent"))


def read_attributes(body: bytes, count: int) -> list[CustomerAttribute]:
    """
    Read the values of a customer's attributes, one for each of the `count` attributes that were queried.

    Raises:
        RequestRefusedError: The response says that the request failed.
        UnavailableError: The response can't be read.
    """
    results = read_envelope(body).elements[:count]
    return [_attribute(result) for result, _ in zip_longest(results, range(count), fillvalue=b"")]


def _check_options(options: RecommendationOptions) -> None:
    items, whitelist = options.items, options.catalog_attributes_whitelist
    read_text(options.id, "options.id", "Pass the id of the recommendation engine.")
    if not isinstance(options.fill_with_random, bool):
        trouble = _mismatch("a bool", options.fill_with_random)
        raise InvalidEventError("options.fill_with_random", trouble, "Use True or False.")
    if isinstance(options.size, bool) or not isinstance(options.size, int) or options.size < 1:
        raise InvalidEventError("options.size", _mismatch("an integer of at least 1", options.size), "Use at least 1.")
    if items is not None and not isinstance(items, Mapping):
        raise InvalidEventError("options.items", _mismatch("a mapping", items), "Use a dict such as {'sku-1': '5'}.")
    for item, weight in (items or {}).items():
        if not is_encodable(item) or not is_encodable(weight):
            trouble = f"expected an item id and a weight as strings, got {short_repr(item)} and {short_repr(weight)}"
            raise InvalidEventError(f"options.items[{short_repr(item)}]", trouble, "Use a dict such as {'sku-1': '5'}.")
    if options.no_track is not None and not isinstance(options.no_track, bool):
        raise InvalidEventError("options.no_track", _mismatch("a bool", options.no_track), "Use True, False or None.")
    is_list = whitelist is None or (isinstance(whitelist, Sequence) and not isinstance(whitelist, str | bytes))
    if not is_list or not all(map(is_encodable, whitelist or ())):
        trouble = _mismatch("a list of strings", whitelist)
        raise InvalidEventError("options.catalog_attributes_whitelist", trouble, "Use a list such as ['title'].")


def _attribute_query(attribute: Mapping[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(attribute, Mapping):
        raise InvalidEventError(
            path, _mismatch("a mapping", attribute), "Use a dict such as {'type': 'property', 'property': 'age'}."
        )
    kind = attribute.get("type")
    if not is_encodable(kind) or not kind:
        raise InvalidEventError(
            f"{path}.type", _mismatch("a non-empty string", kind), f"Use a type such as {', '.join(ID_FIELDS)}."
        )
    name = ID_FIELDS.get(kind)
    if name is not None and (not is_encodable(attribute.get(name)) or not attribute[name]):
        trouble = _mismatch("a non-empty string", attribute.get(name))
        raise InvalidEventError(f"{path}.{name}", trouble, f"Name the {kind} that is queried.")
    try:
        json.dumps(dict(attribute), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEventError(path, f"can't be sent as JSON: {error}") from error
    return dict(attribute)


def _recommendation(item: Any) -> Recommendation:
    return Recommendation(
        engine_name=_id(item, "engine_name"),
        item_id=_id(item, "item_id"),
        recommendation_id=_id(item, "recommendation_id"),
        recommendation_variant_id=optional(item, "recommendation_variant_id", as_string),
        data=MappingProxyType({name: value for name, value in item.items() if name not in _ITEM_FIELDS}),
    )


def _id(source: Any, name: str) -> str:
    # Catalogs may have whole numbers as ids.
    return required(source, name, as_string, coerce=(int,))


def _consent(value: Any) -> Consent:
    sources = optional(value, "sources", as_mapping) or {}
    translations = optional(value, "translations", as_mapping) or {}
    return Consent(
        id=_id(value, "id"),
        legitimate_interest=value.get("legitimate_interest") is True,
        sources=ConsentSources(**{field: sources.get(name) is True for name, field in _SOURCES.items()}),
        translations=MappingProxyType({language: _strings(texts) for language, texts in translations.items()}),
    )


def _strings(translation: Any) -> Mapping[str, str | None]:
    if not isinstance(translation, Mapping):
        return MappingProxyType({})
    return MappingProxyType({name: text for name, text in translation.items() if text is None or isinstance(text, str)})


def _attribute(result: bytes) -> CustomerAttribute:
    if not result:
        return CustomerAttribute(success=False, error="the response has no value for this attribute")
    try:
        if len(result) > MAX_ELEMENT_BYTES:
            return CustomerAttribute(success=False, error=f"the value is too large: {len(result)} bytes")
        value = decode(result)
    except ValueError as error:
        return CustomerAttribute(success=False, error=f"the value can't be read: {error}")
    if isinstance(value, Mapping) and value.get("success") is True:
        return CustomerAttribute(success=True, value=value.get("value"))
    reason = value.get("error") or value.get("errors") if isinstance(value, Mapping) else None
    return CustomerAttribute(success=False, error=_described(reason))


def _reason(result: Mapping[str, bytes]) -> str:
    reason = next((result[name] for name in ("error", "errors") if name in result), b"null")
    return _described(decode(reason[:MAX_ELEMENT_BYTES]))


def _described(reason: Any) -> str:
    if not reason:
        return "the platform gives no reason"
    # What is nested as deeply as the decoder allows may be nested too deeply for the encoder.
    with suppress(RecursionError):
        return (reason if isinstance(reason, str) else json.dumps(reason))[:_MAX_REASON]
    return "the platform's reason is nested too deeply"


def _mismatch(expected: str, value: object) -> str:
    return f"expected {expected}, got {short_repr(value)}"
