"""
Triggers: the events for which a message is shown, and the conditions on their properties. Pure.

All comparisons are of strings and case-sensitive, as in the vendor's SDKs. A property that is missing or null has no
string, and fails every comparison, the negative ones too.

A trigger is compiled when it is read. It matches nothing if the number of operands or a regular expression is wrong.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from attrs import field, frozen

from exponea_async._internal.fields import FieldError, as_list, as_mapping, as_string, nullable, required
from exponea_async.features._shared.targeting.patterns import PatternError, compile_pattern

_MAX_DEPTH = 100
_ABSENT = object()
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ATTRIBUTE_TYPES, _CONSTRAINT_TYPES = ("property", "timestamp"), ("string", "number", "boolean")


class _UndecidableError(ValueError):
    """A condition is well-formed, but no event can be tested for it."""


@frozen
class TriggerEvent:
    """
    An event that messages may be shown for.

    Attributes:
        event_type: Its type, as it is tracked.
        properties: Its properties, including those that the SDK adds.
        timestamp: Its time, UNIX seconds, or None.
    """

    event_type: str
    properties: Mapping[str, Any]
    timestamp: float | None = None
    # Many triggers need the same few.
    _strings: dict[str | None, str | None] = field(factory=dict, init=False, repr=False, eq=False)
    _numbers: dict[str | None, float | None] = field(factory=dict, init=False, repr=False, eq=False)

    def value(self, name: str | None) -> Any:
        """Return a property, or the timestamp if the name is None; a sentinel if there is none."""
        if name is not None:
            return self.properties.get(name, _ABSENT)
        return _ABSENT if self.timestamp is None else float(self.timestamp)

    def string(self, name: str | None) -> str | None:
        """Return the string by which `value` is compared; None if it is missing, null, or can't be sent."""
        try:
            return self._strings[name]
        except KeyError:
            value = self.value(name)
            string = self._strings[name] = None if value is _ABSENT else comparison_string(value)
            return string

    def number(self, name: str | None) -> float | None:
        """Return the number that `string` represents, or None."""
        try:
            return self._numbers[name]
        except KeyError:
            number = self._numbers[name] = _number(self.string(name) or "")
            return number


_Test = Callable[[TriggerEvent], bool]
#: Returns the test of a condition, from the name of its attribute and its operands.
_Compile = Callable[[str | None, tuple[str, ...]], _Test]


@frozen
class Condition:
    """
    A condition on a property of an event.

    Attributes:
        attribute: The name of the property; None for the timestamp.
        kind: ``"string"``, ``"number"`` or ``"boolean"``; only decides how the condition is written.
        operator: The comparison, such as ``"starts with"``.
        operands: What the property is compared with; at most one for a boolean condition.
    """

    attribute: str | None
    kind: str
    operator: str
    operands: tuple[str, ...] = ()


@frozen
class Trigger:
    """
    The events for which a message is shown.

    Attributes:
        event_type: Their type, case-sensitive.
        conditions: The conditions that must all be true.
        trouble: Why it can never match, or None.
    """

    event_type: str
    conditions: tuple[Condition, ...]
    trouble: str | None = None
    _tests: tuple[_Test, ...] = field(default=(), repr=False, eq=False)

    def matches(self, event: TriggerEvent) -> bool:
        """Return whether a message is shown for an event."""
        if event.event_type != self.event_type or self.trouble is not None:
            return False
        for test in self._tests:  # noqa: SIM110 - several times as fast as all()
            if not test(event):
                return False
        return True


def read_trigger(value: Any) -> Trigger | None:
    """
    Read the ``trigger`` of a message.

    Args:
        value: Its JSON value.

    Returns:
        The trigger; None if there is none, in which case the message is never shown, as in the Android SDK.

    Raises:
        FieldError: A field is missing, of another type, or has an unknown value.
    """
    if value is None:
        return None
    try:
        source = as_mapping(value)
        event_type = required(source, "event_type", as_string)
        conditions = tuple(_as_condition(each) for each in required(source, "filter", as_list))
    except FieldError as error:
        raise FieldError(f"trigger: {error}") from None
    try:
        return Trigger(event_type, conditions, None, tuple(map(_compile, conditions)))
    except _UndecidableError as error:
        return Trigger(event_type, conditions, str(error))


def _as_condition(value: Any) -> Condition:
    source = as_mapping(value)
    attribute, constraint = required(source, "attribute", as_mapping), required(source, "constraint", as_mapping)
    attribute_type = required(attribute, "type", _as_one_of, _ATTRIBUTE_TYPES)
    kind = required(constraint, "type", _as_one_of, _CONSTRAINT_TYPES)
    operator = required(constraint, "operator", _as_one_of, _OPERATORS)
    name = required(attribute, "property", as_string) if attribute_type == "property" else None
    return Condition(name, kind, operator, _operands(constraint, kind))


def _operands(constraint: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    # Either may be missing: operators that test for presence take none.
    if kind == "boolean":
        value = nullable(constraint, "value", as_string)
        return () if value is None else (value,)
    operands = nullable(constraint, "operands", as_list) or ()
    return tuple(required(as_mapping(each), "value", as_string) for each in operands)


def _as_one_of(value: Any, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    word = as_string(value)
    if word not in known:
        raise FieldError(f"expected one of {', '.join(map(repr, known))}, got {word[:60]!r}")
    return word


def _compile(condition: Condition) -> _Test:
    """
    Return the test of a condition.

    Raises:
        _UndecidableError: It has the wrong operands.
    """
    operands = condition.operands
    count, compile_operator = _OPERATORS[condition.operator]
    if condition.kind == "boolean":
        # As in the Android SDK, its value stands for the operands, and one that is not needed is ignored.
        operands = operands[:count]
    if count is not None and len(operands) != count:
        raise _UndecidableError(f"{condition.operator!r} takes {count} operands, got {len(operands)}")
    return compile_operator(condition.attribute, operands)


def _present(decide: Callable[[Any], bool]) -> _Compile:
    return lambda name, _operands: lambda event: decide(event.value(name))


def _compared(
    prepare: Callable[..., Callable[[Any], bool]], read: Callable[..., Any] = TriggerEvent.string
) -> _Compile:
    def compile_operator(name: str | None, operands: tuple[str, ...]) -> _Test:
        decide = prepare(*operands)

        def test(event: TriggerEvent) -> bool:
            found = read(event, name)
            return found is not None and decide(found)

        return test

    return compile_operator


def _compared_as_numbers(prepare: Callable[..., Callable[[float], bool]]) -> _Compile:
    def prepare_numbers(*operands: str) -> Callable[[float], bool]:
        numbers = [_number(each) for each in operands]
        if None in numbers:
            raise _UndecidableError("an operand is not a number")
        return prepare(*numbers)

    return _compared(prepare_numbers, TriggerEvent.number)


def _number(string: str) -> float | None:
    return float(string) if _NUMBER.fullmatch(string) else None


def _searched(pattern: str) -> Callable[[str], bool]:
    try:
        return compile_pattern(pattern).found_in
    except PatternError as error:
        raise _UndecidableError(str(error)) from error


#: The number of operands of each operator, None for any, and how it is compiled.
_OPERATORS: Mapping[str, tuple[int | None, _Compile]] = {
    "is set": (0, _present(lambda value: value is not _ABSENT)),
    "is not set": (0, _present(lambda value: value is _ABSENT)),
    "has value": (0, _present(lambda value: value is not _ABSENT and value is not None)),
    "has no value": (0, _present(lambda value: value is None)),
    "equals": (1, _compared(lambda operand: lambda string: string == operand)),
    "does not equal": (1, _compared(lambda operand: lambda string: string != operand)),
    "is": (1, _compared(lambda operand: lambda string: string == operand)),
    "in": (None, _compared(lambda *operands: lambda string: string in operands)),
    "not in": (None, _compared(lambda *operands: lambda string: string not in operands)),
    "contains": (1, _compared(lambda operand: lambda string: operand in string)),
    "does not contain": (1, _compared(lambda operand: lambda string: operand not in string)),
    "starts with": (1, _compared(lambda operand: lambda string: string.startswith(operand))),
    "ends with": (1, _compared(lambda operand: lambda string: string.endswith(operand))),
    "regex": (1, _compared(_searched)),
    "equal to": (1, _compared_as_numbers(lambda operand: lambda number: number == operand)),
    "in between": (2, _compared_as_numbers(lambda low, high: lambda number: low <= number <= high)),
    "not between": (2, _compared_as_numbers(lambda low, high: lambda number: number < low or number > high)),
    "less than": (1, _compared_as_numbers(lambda operand: lambda number: number < operand)),
    "greater than": (1, _compared_as_numbers(lambda operand: lambda number: number > operand)),
}


def comparison_string(value: object) -> str | None:
    """
    Return the string by which a property is compared: as it is sent, and compact JSON for lists and objects.

    None has no string, nor has a value that can't be sent.
    """
    try:
        plain = value if type(value) is str else _plain(value, 0)
        is_string = plain is None or isinstance(plain, str)
        return plain if is_string else json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, OverflowError, OSError):
        return None


def _plain(value: Any, depth: int) -> Any:
    if depth <= _MAX_DEPTH:
        for kind, convert in _PLAIN:
            if isinstance(value, kind):
                return convert(value, depth + 1)
    raise ValueError("can't be sent")


def _plain_mapping(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in values):
        raise ValueError("can't be sent")
    converted = ((name, _plain(value, depth)) for name, value in values.items())
    return {name: value for name, value in converted if value is not None}


def _plain_list(values: Any, depth: int) -> list[Any]:
    converted = (_plain(value, depth) for value in values)
    return [value for value in converted if value is not None]


# The order matters: an Enum may be a string too, and a datetime is a date.
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
