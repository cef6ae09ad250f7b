"""
What definitions of messages have to look like, for their author to learn of a slip before a client does. Pure.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from exponea_async.sandbox.messages.personalisation import CONDITION, PROPERTIES


class DefinitionError(ValueError):
    """
    A definition is wrong.

    Attributes:
        place: Where, such as ``in_app_messages[2].id``.
        reason: Why.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


@frozen
class Rule:
    """
    What one field has to be.

    Attributes:
        says: In words.
        fits: Whether a value is so.
        required: Whether it may be neither missing nor null.
        inner: The shape of the object that it is.
    """

    says: str
    fits: Callable[[Any], bool]
    required: bool = False
    inner: "Shape | None" = None


Shape = Mapping[str, Rule]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(*, required: bool = False) -> Rule:
    return Rule("should be a non-empty string", _is_text, required)


def _string(*, required: bool = False) -> Rule:
    return Rule("should be a string", lambda value: isinstance(value, str), required)


def _whole(*, required: bool = False) -> Rule:
    return Rule("should be a whole number", _is_whole, required)


def _span(*, required: bool = False) -> Rule:
    return Rule("should be a whole number of at least 0", lambda value: _is_whole(value) and value >= 0, required)


def _number() -> Rule:
    return Rule("should be a number", _is_number)


def _flag(*, required: bool = False) -> Rule:
    return Rule("should be true or false", lambda value: isinstance(value, bool), required)


def _one_of(*names: str, required: bool = False) -> Rule:
    return Rule(f"should be one of {', '.join(names)}", lambda value: value in names, required)


def _object(inner: Shape | None = None, *, required: bool = False) -> Rule:
    return Rule("should be an object", lambda value: isinstance(value, Mapping), required, inner)


def _list() -> Rule:
    return Rule("should be a list", lambda value: isinstance(value, list))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _flags(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, bool) for each in value.values())


def _translations(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(words, Mapping) and all(word is None or isinstance(word, str) for word in words.values())
        for words in value.values()
    )


FREQUENCIES = ("always", "only_once", "once_per_visit", "until_visitor_interacts")
DATES: Shape = {"enabled": _flag(required=True), "from_date": _number(), "to_date": _number()}

IN_APP_MESSAGE: Shape = {
    "id": _text(required=True),
    "name": _text(required=True),
    "message_type": _one_of("modal", "alert", "fullscreen", "slide_in", "freeform"),
    "frequency": _one_of(*FREQUENCIES, required=True),
    "payload": _object(),
    "payload_html": _string(),
    "is_html": _flag(),
    "is_rich_text": _flag(),
    "variant_id": _whole(required=True),
    "variant_name": _string(required=True),
    "trigger": _object({"event_type": _text(required=True), "filter": _list()}),
    "date_filter": _object(DATES, required=True),
    "load_priority": _whole(),
    "load_delay": _span(),
    "close_timeout": _span(),
    "has_tracking_consent": _flag(),
    "consent_category_tracking": _string(),
}
CONTENT_BLOCK: Shape = {
    "id": _text(required=True),
    "name": _text(required=True),
    "placeholders": Rule("should be a list of non-empty strings", _texts, required=True),
    "date_filter": _object(DATES),
    "frequency": _one_of(*FREQUENCIES),
    "load_priority": _whole(),
    "consent_category_tracking": _string(),
    "content_type": _text(),
    "content": _object(),
}
PERSONAL: Shape = {
    "status": _text(),
    "ttl_seconds": _span(required=True),
    "has_tracking_consent": _flag(),
    "variant_id": _whole(),
    "variant_name": _string(),
    "content_type": _text(required=True),
    "content": _object(required=True),
}
INBOX_MESSAGE: Shape = {
    "id": _text(required=True),
    "type": _one_of("push", "html", required=True),
    "is_read": _flag(),
    "create_time": _number(),
    "content": _object(),
}
SEGMENT: Shape = {"id": _text(required=True), "segmentation_id": _text(required=True)}
CONSENT: Shape = {
    "id": _text(required=True),
    "legitimate_interest": _flag(required=True),
    "sources": Rule("should be an object of true and false", _flags, required=True),
    "translations": Rule("should be an object of objects of strings", _translations, required=True),
}
RECOMMENDED_ITEM: Shape = {
    "item_id": _text(required=True),
    "engine_name": _text(required=True),
    "recommendation_id": _text(required=True),
    "recommendation_variant_id": _text(),
}
ATTRIBUTE: Shape = {"id": _text(required=True), "value": Rule("can be anything", lambda _: True)}


def check(element: Any, place: str, shape: Shape) -> None:
    """
    Checks a definition; a callable is left to itself.

    Raises:
        DefinitionError: Something is wrong with it.
    """
    if callable(element):
        return
    if not isinstance(element, Mapping):
        raise DefinitionError(place, "should be an object")
    _check_json(element, place)
    _check_fields(element, place, shape)
    _check_condition(element.get(CONDITION), f"{place}.{CONDITION}")


def check_block(element: Any, place: str) -> None:
    """
    Checks a content block, its personalised answers included.

    Raises:
        DefinitionError: Something is wrong with it.
    """
    if callable(element):
        raise DefinitionError(place, "should be an object; only its personal part may be a callable")
    check(element, place, CONTENT_BLOCK)
    _refuse_callables({name: element[name] for name in element if name not in (CONDITION, "personal")}, place)
    personal = element.get("personal")
    if personal is None:
        if element.get("content_type") is None:
            raise DefinitionError(place, "should have a content_type or a personal part")
        if CONDITION in element:
            raise DefinitionError(f"{place}.{CONDITION}", "needs a personal part; all others are for everybody")
    elif isinstance(personal, list):
        for number, each in enumerate(personal):
            check(each, f"{place}.personal[{number}]", PERSONAL)
    else:
        check(personal, f"{place}.personal", PERSONAL)


def check_consent(element: Any, place: str) -> None:
    """
    Checks a consent category, which is the same for everybody.

    Raises:
        DefinitionError: Something is wrong with it.
    """
    if callable(element):
        raise DefinitionError(place, "should be an object")
    check(element, place, CONSENT)
    _refuse_callables(element, place)
    if CONDITION in element:
        raise DefinitionError(f"{place}.{CONDITION}", "is not possible; a consent category is for everybody")


def _check_fields(element: Mapping[str, Any], place: str, shape: Shape) -> None:
    for name, rule in shape.items():
        value, inner_place = element.get(name), f"{place}.{name}"
        if value is None:
            if rule.required:
                raise DefinitionError(inner_place, "is missing")
        elif not callable(value):
            if not rule.fits(value):
                raise DefinitionError(inner_place, rule.says)
            _check_fields(value, inner_place, rule.inner or {})


def _check_condition(condition: Any, place: str) -> None:
    if condition is None or callable(condition):
        return
    if not isinstance(condition, Mapping) or not condition:
        raise DefinitionError(place, "should be an object of ids and properties")
    for name, wanted in condition.items():
        if name == PROPERTIES:
            if not isinstance(wanted, Mapping):
                raise DefinitionError(f"{place}.{name}", "should be an object")
        elif not _is_text(wanted) and not _texts(wanted):
            raise DefinitionError(f"{place}.{name}", "should be a non-empty string, or a list of such")


def _refuse_callables(value: Any, place: str) -> None:
    """Refuses callables in what is told without a look at any customer."""
    if callable(value):
        raise DefinitionError(place, "should not be a callable; it is the same for everybody")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_callables(inner, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _refuse_callables(inner, f"{place}[{number}]")


def _check_json(value: Any, place: str) -> None:
    # TOML knows moments, and Python far more, that JSON doesn't.
    if value is None or isinstance(value, str | int) or callable(value):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise DefinitionError(place, f"the key {name!r} should be a string")
            _check_json(inner, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_json(inner, f"{place}[{number}]")
    else:
        raise DefinitionError(place, f"{value!r} can't be written as JSON")
