"""
What is asked of the platform about a customer, and what it answers. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, zip_longest
from types import MappingProxyType
from typing import Any

from exponea_async._internal.json import decode, members
from exponea_async.errors import InvalidEventError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import MAX_ELEMENT, MAX_MEMBERS, decoded, read_reply, taken
from exponea_async.messages import Consent, ConsentSources, CustomerAttribute, Recommendation, RecommendationOptions

#: The field that names what is asked for, by the type of the attribute.
NAMES = MappingProxyType(
    {
        "property": "property",
        "consent": "category",
        "recommendation": "id",
        **dict.fromkeys(("segmentation", "id", "expression", "aggregate", "prediction"), "id"),
    }
)
#: The members of a recommended item that are fields of its own.
_OWN = ("engine_name", "item_id", "recommendation_id", "recommendation_variant_id")
#: Sources of consents, by their names on the wire.
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
#: An error's text may be this long.
_TEXT = 300


def recommendation(options: RecommendationOptions) -> dict[str, Any]:
    """
    Make the question for recommendations; the mixed styles of its names are the platform's.

    Raises:
        InvalidEventError: An option is wrong.
    """
    if not isinstance(options, RecommendationOptions):
        raise InvalidEventError("options", _no(options, "RecommendationOptions"), "Give RecommendationOptions.")
    _check_options(options)
    asked = {
        "type": "recommendation",
        "id": options.id,
        "fillWithRandom": options.fill_with_random,
        "size": options.size,
        "items": None if options.items is None else dict(options.items),
        "no_track": options.no_track,
        "catalogAttributesWhitelist": _listed(options.catalog_attributes_whitelist),
    }
    return {name: value for name, value in asked.items() if value is not None}


def checked(attributes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Check what is asked of a customer's attributes.

    Raises:
        InvalidEventError: It can't be asked like this.
    """
    if isinstance(attributes, str | bytes) or not isinstance(attributes, Sequence):
        raise InvalidEventError("attributes", _no(attributes, "list"), "Give a list of dicts.")
    return [_checked(each, f"attributes[{index}]") for index, each in enumerate(attributes)]


def read_recommendations(body: bytes) -> list[Recommendation]:
    """
    Read the items that were recommended.

    Raises:
        RefusedError: The platform recommends nothing, and says why.
        UnavailableError: The answer can't be read.
    """
    results = read_reply(body).elements
    if not results:
        raise RequestRefusedError("an answer without results")
    try:
        result = dict(islice(members(results[0]), MAX_MEMBERS))
        if result.get("success") != b"true" or result.get("value", b"null") == b"null":
            raise RequestRefusedError(_reason(result))
        items = taken(result["value"])
    except ValueError as error:
        raise UnavailableError(f"recommendations that can't be read: {error}") from error
    return list(decoded(items, _recommended, "item"))


def read_consents(body: bytes) -> list[Consent]:
    """
    Read the categories of consents.

    Raises:
        RefusedError: The platform says that it failed.
        UnavailableError: The answer can't be read.
    """
    return list(decoded(read_reply(body).elements, _consent, "consent"))


def read_attributes(body: bytes, count: int) -> list[CustomerAttribute]:
    """
    Read what a customer's attributes are, one for each that was asked for.

    Raises:
        RefusedError: The platform says that it failed.
        UnavailableError: The answer can't be read.
    """
    results = read_reply(body).elements[:count]
    return [_attribute(piece) for piece, _ in zip_longest(results, range(count), fillvalue=b"")]


def _check_options(options: RecommendationOptions) -> None:
    items, wanted = options.items, options.catalog_attributes_whitelist
    if not _is_text(options.id) or not options.id.strip():
        raise InvalidEventError("options.id", _no(options.id, "non-empty text"), "Give the id of the engine.")
    if not isinstance(options.fill_with_random, bool):
        raise InvalidEventError("options.fill_with_random", _no(options.fill_with_random, "bool"))
    if isinstance(options.size, bool) or not isinstance(options.size, int) or options.size < 1:
        raise InvalidEventError("options.size", f"{options.size!r:.60} is no whole number from 1 on")
    if items is not None and not isinstance(items, Mapping):
        raise InvalidEventError("options.items", _no(items, "mapping"), "Give weights by item, as texts.")
    for item, weight in (items or {}).items():
        if not _is_text(item) or not _is_text(weight):
            raise InvalidEventError(f"options.items[{item!r:.60}]", "item and weight are texts", "Such as {'1': '5'}.")
    if options.no_track is not None and not isinstance(options.no_track, bool):
        raise InvalidEventError("options.no_track", _no(options.no_track, "bool"))
    listed = wanted is None or (isinstance(wanted, Sequence) and not isinstance(wanted, str | bytes))
    if not listed or not all(map(_is_text, wanted or ())):
        raise InvalidEventError("options.catalog_attributes_whitelist", _no(wanted, "list of texts"))


def _listed(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else list(texts)


def _checked(attribute: Mapping[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(attribute, Mapping):
        raise InvalidEventError(path, _no(attribute, "mapping"), "Such as {'type': 'property', 'property': 'age'}.")
    kind = attribute.get("type")
    if not _is_text(kind) or not kind:
        raise InvalidEventError(f"{path}.type", _no(kind, "non-empty text"), f"Such as {', '.join(NAMES)}.")
    name = NAMES.get(kind)
    if name is not None and (not _is_text(attribute.get(name)) or not attribute[name]):
        raise InvalidEventError(f"{path}.{name}", _no(attribute.get(name), "non-empty text"), f"It says which {kind}.")
    try:
        json.dumps(dict(attribute), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEventError(path, f"it can't be sent as JSON: {error}") from error
    return dict(attribute)


def _recommended(value: Any) -> Recommendation:
    variant = value.get("recommendation_variant_id")
    return Recommendation(
        engine_name=_word(value["engine_name"]),
        item_id=_word(value["item_id"]),
        recommendation_id=_word(value["recommendation_id"]),
        recommendation_variant_id=variant if isinstance(variant, str) else None,
        data=MappingProxyType({name: each for name, each in value.items() if name not in _OWN}),
    )


def _word(value: Any) -> str:
    """Read an id, which catalogs may have as whole numbers."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is no id")


def _consent(value: Any) -> Consent:
    sources, translations = value.get("sources"), value.get("translations")
    told = sources if isinstance(sources, Mapping) else {}
    texts = translations if isinstance(translations, Mapping) else {}
    return Consent(
        id=_word(value["id"]),
        legitimate_interest=value.get("legitimate_interest") is True,
        sources=ConsentSources(**{ours: told.get(theirs) is True for theirs, ours in _SOURCES.items()}),
        translations=MappingProxyType({language: _texts(its) for language, its in texts.items()}),
    )


def _texts(translation: Any) -> Mapping[str, str | None]:
    if not isinstance(translation, Mapping):
        return MappingProxyType({})
    return MappingProxyType({name: text for name, text in translation.items() if text is None or isinstance(text, str)})


def _attribute(piece: bytes) -> CustomerAttribute:
    if not piece:
        return CustomerAttribute(success=False, error="the platform has not answered this one")
    try:
        if len(piece) > MAX_ELEMENT:
            return CustomerAttribute(success=False, error=f"a value of {len(piece)} bytes is too large")
        result = decode(piece)
    except ValueError as error:
        return CustomerAttribute(success=False, error=f"a value that can't be read: {error}")
    if isinstance(result, Mapping) and result.get("success") is True:
        return CustomerAttribute(success=True, value=result.get("value"))
    reason = result.get("error") or result.get("errors") if isinstance(result, Mapping) else None
    return CustomerAttribute(success=False, error=_told(reason))


def _reason(result: Mapping[str, bytes]) -> str:
    piece = next((result[name] for name in ("error", "errors") if name in result), b"null")
    return _told(decode(piece[:MAX_ELEMENT]))


def _told(error: Any) -> str:
    if not error:
        return "the platform says no more"
    # What is nested as deeply as can be read may be nested too deeply to be written.
    with suppress(RecursionError):
        return (error if isinstance(error, str) else json.dumps(error))[:_TEXT]
    return "the platform's reason can't be told"


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _no(value: object, wanted: str) -> str:
    return f"{value!r:.60} is no {wanted}"
