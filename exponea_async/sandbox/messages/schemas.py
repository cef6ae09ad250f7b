"""
The schemas of definitions, with which errors are reported to their author before a client receives them. Pure.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from exponea_async.sandbox.messages.personalisation import CONDITION, PROPERTIES

MAX_SHOWN_LENGTH = 60


class DefinitionError(ValueError):
    """
    A definition is invalid.

    Attributes:
        path: The path of the invalid value, such as ``in_app_messages[2].id``.
        reason: What is invalid, and what is expected.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@frozen
class FieldRule:
    """
    The rule for one field of an object.

    Attributes:
        expected: The expected value, in words for errors.
        accepts: Returns whether a value is valid.
        required: Whether the field may be neither missing nor null.
        schema: The schema of the value, which is an object.
    """

    expected: str
    accepts: Callable[[Any], bool]
    required: bool = False
    schema: "Schema | None" = None


Schema = Mapping[str, FieldRule]


def unexpected(path: str, expected: str, value: Any) -> DefinitionError:
    """Return the error for a value that is not the expected one."""
    shown = repr(value) if value is None or isinstance(value, str | int | float) else ""
    given = shown if 0 < len(shown) <= MAX_SHOWN_LENGTH else type(value).__name__
    return DefinitionError(path, f"expected {expected}, got {given}")


def _is_non_empty_string(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_string_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_non_empty_string, value))


def _is_boolean_object(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, bool) for each in value.values())


def _is_translations(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(words, Mapping) and all(word is None or isinstance(word, str) for word in words.values())
        for words in value.values()
    )


def _non_empty_string(*, required: bool = False) -> FieldRule:
    return FieldRule("a non-empty string", _is_non_empty_string, required)


def _string(*, required: bool = False) -> FieldRule:
    return FieldRule("a string", lambda value: isinstance(value, str), required)


def _integer(*, required: bool = False) -> FieldRule:
    return FieldRule("an integer", _is_integer, required)


def _non_negative_integer(*, required: bool = False) -> FieldRule:
    return FieldRule("an integer of at least 0", lambda value: _is_integer(value) and value >= 0, required)


def _number() -> FieldRule:
    return FieldRule("a number", _is_number)


def _boolean(*, required: bool = False) -> FieldRule:
    return FieldRule("true or false", lambda value: isinstance(value, bool), required)


def _one_of(*names: str, required: bool = False) -> FieldRule:
    return FieldRule(f"one of {', '.join(names)}", lambda value: value in names, required)


def _object(schema: Schema | None = None, *, required: bool = False) -> FieldRule:
    return FieldRule("an object", lambda value: isinstance(value, Mapping), required, schema)


def _list() -> FieldRule:
    return FieldRule("a list", lambda value: isinstance(value, list))


FREQUENCIES = ("always", "only_once", "once_per_visit", "until_visitor_interacts")
DATE_FILTER: Schema = {"enabled": _boolean(required=True), "from_date": _number(), "to_date": _number()}

IN_APP_MESSAGE: Schema = {
    "id": _non_empty_string(required=True),
    "name": _non_empty_string(required=True),
    "message_type": _one_of("modal", "alert", "fullscreen", "slide_in", "freeform"),
    "frequency": _one_of(*FREQUENCIES, required=True),
    "payload": _object(),
    "payload_html": _string(),
    "is_html": _boolean(),
    "is_rich_text": _boolean(),
    "variant_id": _integer(required=True),
    "variant_name": _string(required=True),
    "trigger": _object({"event_type": _non_empty_string(required=True), "filter": _list()}),
    "date_filter": _object(DATE_FILTER, required=True),
    "load_priority": _integer(),
    "load_delay": _non_negative_integer(),
    "close_timeout": _non_negative_integer(),
    "has_tracking_consent": _boolean(),
    "consent_category_tracking": _string(),
}
CONTENT_BLOCK: Schema = {
    "id": _non_empty_string(required=True),
    "name": _non_empty_string(required=True),
    "placeholders": FieldRule("a list of non-empty strings", _is_string_list, required=True),
    "date_filter": _object(DATE_FILTER),
    "frequency": _one_of(*FREQUENCIES),
    "load_priority": _integer(),
    "consent_category_tracking": _string(),
    "content_type": _non_empty_string(),
    "content": _object(),
}
PERSONAL: Schema = {
    "status": _non_empty_string(),
    "ttl_seconds": _non_negative_integer(required=True),
    "has_tracking_consent": _boolean(),
    "variant_id": _integer(),
    "variant_name": _string(),
    "content_type": _non_empty_string(required=True),
    "content": _object(required=True),
}
INBOX_MESSAGE: Schema = {
    "id": _non_empty_string(required=True),
    "type": _one_of("push", "html", required=True),
    "is_read": _boolean(),
    "create_time": _number(),
    "content": _object(),
}
SEGMENT: Schema = {"id": _non_empty_string(required=True), "segmentation_id": _non_empty_string(required=True)}
CONSENT: Schema = {
    "id": _non_empty_string(required=True),
    "legitimate_interest": _boolean(required=True),
    "sources": FieldRule("an object of booleans", _is_boolean_object, required=True),
    "translations": FieldRule("an object of objects of strings", _is_translations, required=True),
}
RECOMMENDED_ITEM: Schema = {
    "item_id": _non_empty_string(required=True),
    "engine_name": _non_empty_string(required=True),
    "recommendation_id": _non_empty_string(required=True),
    "recommendation_variant_id": _non_empty_string(),
}
ATTRIBUTE: Schema = {"id": _non_empty_string(required=True), "value": FieldRule("any value", lambda _: True)}


def check(element: Any, path: str, schema: Schema) -> None:
    """
    Check a definition; the result of a callable is not checked.

    Raises:
        DefinitionError: The definition is invalid.
    """
    if callable(element):
        return
    if not isinstance(element, Mapping):
        raise unexpected(path, "an object", element)
    _check_json(element, path)
    _check_fields(element, path, schema)
    _check_condition(element.get(CONDITION), f"{path}.{CONDITION}")


def check_block(element: Any, path: str) -> None:
    """
    Check a content block, including its personalized content.

    Raises:
        DefinitionError: The content block is invalid.
    """
    if callable(element):
        raise DefinitionError(path, "expected an object, got a callable; only its personal part may be a callable")
    check(element, path, CONTENT_BLOCK)
    _check_static({name: element[name] for name in element if name not in (CONDITION, "personal")}, path)
    personal = element.get("personal")
    if personal is None:
        if element.get("content_type") is None:
            raise DefinitionError(path, "needs a content_type or a personal part")
        if CONDITION in element:
            raise DefinitionError(f"{path}.{CONDITION}", "needs a personal part; a static block is for every customer")
    elif isinstance(personal, list):
        for number, each in enumerate(personal):
            check(each, f"{path}.personal[{number}]", PERSONAL)
    else:
        check(personal, f"{path}.personal", PERSONAL)


def check_consent(element: Any, path: str) -> None:
    """
    Check a consent category, which is the same for every customer.

    Raises:
        DefinitionError: The consent category is invalid.
    """
    if callable(element):
        raise DefinitionError(path, "expected an object, got a callable")
    check(element, path, CONSENT)
    _check_static(element, path)
    if CONDITION in element:
        raise DefinitionError(f"{path}.{CONDITION}", "is not supported; a consent category is for every customer")


def _check_fields(element: Mapping[str, Any], path: str, schema: Schema) -> None:
    for name, rule in schema.items():
        value, inner_path = element.get(name), f"{path}.{name}"
        if value is None:
            if rule.required:
                raise DefinitionError(inner_path, f"is missing; expected {rule.expected}")
        elif not callable(value):
            if not rule.accepts(value):
                raise unexpected(inner_path, rule.expected, value)
            _check_fields(value, inner_path, rule.schema or {})


def _check_condition(condition: Any, path: str) -> None:
    if condition is None or callable(condition):
        return
    if not isinstance(condition, Mapping) or not condition:
        raise unexpected(path, "an object of ids and properties", condition)
    for name, expected in condition.items():
        if name == PROPERTIES:
            if not isinstance(expected, Mapping):
                raise unexpected(f"{path}.{name}", "an object", expected)
        elif not _is_non_empty_string(expected) and not _is_string_list(expected):
            raise unexpected(f"{path}.{name}", "a non-empty string or a list of these", expected)


def _check_static(value: Any, path: str) -> None:
    """Check that there are no callables in what is returned for no particular customer."""
    if callable(value):
        raise DefinitionError(path, "must not be a callable; it is the same for every customer")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_static(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_static(inner, f"{path}[{number}]")


def _check_json(value: Any, path: str) -> None:
    # TOML has dates, and Python many types, that JSON doesn't have.
    if value is None or isinstance(value, str | int) or callable(value):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise unexpected(path, "keys that are strings", name)
            _check_json(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_json(inner, f"{path}[{number}]")
    else:
        raise DefinitionError(path, f"{value!r} can't be written as JSON")
