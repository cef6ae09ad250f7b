"""
Triggers: which events a message is shown upon, and what the events must hold. Pure.

All comparisons are of texts, as in the vendor's SDKs, and tell upper from lower case. A property that is missing or
null has no text, and fails every comparison, the negative ones too.

A trigger is compiled when it is read, and matches nothing where a number of operands or a regular expression is wrong.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

from attrs import field, frozen

from exponea_async.features._shared.targeting.patterns import PatternError, compile_pattern

_DEPTH = 100
_ABSENT = object()
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ORIGINS, _KINDS = ("property", "timestamp"), ("string", "number", "boolean")


class FilterError(ValueError):
    """A filter is not written as it should be; the message it belongs to can't be used."""


class _NeverError(ValueError):
    """A condition is written as it should be, but there is no deciding it."""


@frozen
class TriggerEvent:
    """
    An event that messages may be shown upon.

    Attributes:
        event_type: Its type, as it is tracked.
        properties: Its properties, those that the SDK adds included.
        timestamp: Its moment, UNIX seconds, or None.
    """

    event_type: str
    properties: Mapping[str, Any]
    timestamp: float | None = None
    # Many triggers ask for the same few.
    _texts: dict[str | None, str | None] = field(factory=dict, init=False, repr=False, eq=False)
    _numbers: dict[str | None, float | None] = field(factory=dict, init=False, repr=False, eq=False)

    def value(self, name: str | None) -> Any:
        """Give the property of a name, or the moment where that is None; an own object where there is none."""
        if name is not None:
            return self.properties.get(name, _ABSENT)
        return _ABSENT if self.timestamp is None else float(self.timestamp)

    def text(self, name: str | None) -> str | None:
        """Give the text of `value`; None where it is missing, null, or can't be sent."""
        try:
            return self._texts[name]
        except KeyError:
            value = self.value(name)
            text = self._texts[name] = None if value is _ABSENT else text_of(value)
            return text

    def number(self, name: str | None) -> float | None:
        """Give the number that `text` tells, or None."""
        try:
            return self._numbers[name]
        except KeyError:
            number = self._numbers[name] = _number(self.text(name) or "")
            return number


_T = TypeVar("_T")
_Test = Callable[[TriggerEvent], bool]
_Make = Callable[[str | None, tuple[str, ...]], _Test]


@frozen
class Condition:
    """
    What a trigger wants of a property.

    Attributes:
        attribute: The name of the property; None is the event's moment.
        kind: ``"string"``, ``"number"`` or ``"boolean"``; it decides nothing but how the condition is written.
        operator: How to compare, such as ``"starts with"``.
        operands: With what; of a boolean condition at most one.
    """

    attribute: str | None
    kind: str
    operator: str
    operands: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Write it as it was read."""
        name = self.attribute
        attribute = {"type": "timestamp"} if name is None else {"type": "property", "property": name}
        constraint: dict[str, Any] = {"type": self.kind, "operator": self.operator}
        if self.kind != "boolean":
            constraint["operands"] = [{"type": "constant", "value": each} for each in self.operands]
        elif self.operands:
            constraint["value"] = self.operands[0]
        return {"attribute": attribute, "constraint": constraint}


@frozen
class Trigger:
    """
    Upon which events a message is shown.

    Attributes:
        event_type: The type of these events, to the letter.
        conditions: What must hold true of them, all of it.
        trouble: Why it can never match, in words, or None.
    """

    event_type: str
    conditions: tuple[Condition, ...]
    trouble: str | None = None
    _tests: tuple[_Test, ...] = field(default=(), repr=False, eq=False)

    def matches(self, occasion: TriggerEvent) -> bool:
        """Tell whether an event is one of these."""
        if occasion.event_type != self.event_type or self.trouble is not None:
            return False
        for test in self._tests:  # noqa: SIM110 - several times as fast as all()
            if not test(occasion):
                return False
        return True

    def as_dict(self) -> dict[str, Any]:
        """Write it as it was read, without what is of no meaning."""
        return {"event_type": self.event_type, "filter": [each.as_dict() for each in self.conditions]}


def read_trigger(value: object) -> Trigger | None:
    """
    Read the ``trigger`` of a message.

    Args:
        value: Its JSON value.

    Returns:
        The trigger; None where there is none, and the message is never shown, as in the Android SDK.

    Raises:
        FilterError: It is not written as it should be.
    """
    if value is None:
        return None
    source = _checked(value, dict, "trigger")
    event_type = _checked(source.get("event_type"), str, "event_type")
    filters = _checked(source.get("filter"), list, "list of filters")
    conditions = tuple(_condition(_checked(each, dict, "filter")) for each in filters)
    try:
        return Trigger(event_type, conditions, None, tuple(_compiled(each) for each in conditions))
    except _NeverError as error:
        return Trigger(event_type, conditions, str(error))


def _condition(source: dict[str, Any]) -> Condition:
    attribute = _checked(source.get("attribute"), dict, "attribute")
    constraint = _checked(source.get("constraint"), dict, "constraint")
    origin = _checked(attribute.get("type"), str, "type of attribute")
    kind = _checked(constraint.get("type"), str, "type of constraint")
    operator = _checked(constraint.get("operator"), str, "operator")
    for word, known in ((origin, _ORIGINS), (kind, _KINDS), (operator, _OPERATORS)):
        if word not in known:
            raise FilterError(f"{word[:60]!r} is none of {', '.join(known)}.")
    name = _checked(attribute.get("property"), str, "property") if origin == "property" else None
    return Condition(name, kind, operator, _operands(constraint, kind))


def _operands(constraint: dict[str, Any], kind: str) -> tuple[str, ...]:
    # Of both there may be none: operators for presence have no use for them.
    if kind == "boolean":
        value = constraint.get("value")
        return () if value is None else (_checked(value, str, "value"),)
    operands = constraint.get("operands")
    listed = [] if operands is None else _checked(operands, list, "list of operands")
    return tuple(_checked(_checked(each, dict, "operand").get("value"), str, "value") for each in listed)


def _checked(value: object, kind: type[_T], name: str) -> _T:
    if isinstance(value, kind):
        return value
    raise FilterError(f"A {type(value).__name__} is no {name}.")


def _compiled(condition: Condition) -> _Test:
    """Make the test of a condition; raises `_NeverError` where it can't be decided."""
    operands = condition.operands
    count, make = _OPERATORS[condition.operator]
    if condition.kind == "boolean":
        # As in the Android SDK its value stands for the operands, and nobody counts whether there are too many.
        operands = operands[:count]
    if count is not None and len(operands) != count:
        raise _NeverError(f"{condition.operator!r} takes {count} operands and not {len(operands)}")
    return make(condition.attribute, operands)


def _present(decide: Callable[[Any], bool]) -> _Make:
    return lambda name, _operands: lambda occasion: decide(occasion.value(name))


def _compared(prepare: Callable[..., Callable[[Any], bool]], look: Callable[..., Any] = TriggerEvent.text) -> _Make:
    def make(name: str | None, operands: tuple[str, ...]) -> _Test:
        decide = prepare(*operands)

        def test(occasion: TriggerEvent) -> bool:
            found = look(occasion, name)
            return found is not None and decide(found)

        return test

    return make


def _counted(prepare: Callable[..., Callable[[float], bool]]) -> _Make:
    def prepare_numbers(*operands: str) -> Callable[[float], bool]:
        numbers = [_number(each) for each in operands]
        if None in numbers:
            raise _NeverError("an operand is no number")
        return prepare(*numbers)

    return _compared(prepare_numbers, TriggerEvent.number)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _searched(pattern: str) -> Callable[[str], bool]:
    try:
        return compile_pattern(pattern).found_in
    except PatternError as error:
        raise _NeverError(str(error)) from error


_OPERATORS: Mapping[str, tuple[int | None, _Make]] = {
    "is set": (0, _present(lambda value: value is not _ABSENT)),
    "is not set": (0, _present(lambda value: value is _ABSENT)),
    "has value": (0, _present(lambda value: value is not _ABSENT and value is not None)),
    "has no value": (0, _present(lambda value: value is None)),
    "equals": (1, _compared(lambda operand: lambda text: text == operand)),
    "does not equal": (1, _compared(lambda operand: lambda text: text != operand)),
    "is": (1, _compared(lambda operand: lambda text: text == operand)),
    "in": (None, _compared(lambda *operands: lambda text: text in operands)),
    "not in": (None, _compared(lambda *operands: lambda text: text not in operands)),
    "contains": (1, _compared(lambda operand: lambda text: operand in text)),
    "does not contain": (1, _compared(lambda operand: lambda text: operand not in text)),
    "starts with": (1, _compared(lambda operand: lambda text: text.startswith(operand))),
    "ends with": (1, _compared(lambda operand: lambda text: text.endswith(operand))),
    "regex": (1, _compared(_searched)),
    "equal to": (1, _counted(lambda operand: lambda number: number == operand)),
    "in between": (2, _counted(lambda low, high: lambda number: low <= number <= high)),
    "not between": (2, _counted(lambda low, high: lambda number: number < low or number > high)),
    "less than": (1, _counted(lambda operand: lambda number: number < operand)),
    "greater than": (1, _counted(lambda operand: lambda number: number > operand)),
}


def text_of(value: object) -> str | None:
    """
    Give the text that a property's value is compared by: as it goes over the wire, and compact JSON of what has parts.

    There is none of None, and of what can't be sent.
    """
    try:
        plain = value if type(value) is str else _plain(value, 0)
        is_text = plain is None or isinstance(plain, str)
        return plain if is_text else json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, OverflowError, OSError):
        return None


def _plain(value: Any, depth: int) -> Any:
    if depth <= _DEPTH:
        for kind, convert in _PLAIN:
            if isinstance(value, kind):
                return convert(value, depth + 1)
    raise ValueError("can't be sent")


def _plain_mapping(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in values):
        raise ValueError("can't be sent")
    walked = ((name, _plain(value, depth)) for name, value in values.items())
    return {name: value for name, value in walked if value is not None}


def _plain_list(values: Any, depth: int) -> list[Any]:
    walked = (_plain(value, depth) for value in values)
    return [value for value in walked if value is not None]


# The order matters: an Enum may be a text too, and a datetime is a date.
_PLAIN: tuple[tuple[Any, Callable[[Any, int], Any]], ...] = (
    (Enum, lambda value, depth: _plain(value.value, depth)),
    (str, lambda value, _depth: str.__str__(value)),
    (bool | int | float | None, lambda value, _depth: value),
    (Decimal, lambda value, _depth: float(value)),
    (datetime, lambda value, _depth: value.timestamp()),
    (date, lambda value, _depth: value.isoformat()),
    (UUID, lambda value, _depth: str(value)),
    (Mapping, _plain_mapping),
    (list | tuple, _plain_list),
    (set | frozenset, lambda values, depth: sorted(_plain_list(values, depth), key=repr)),
)
