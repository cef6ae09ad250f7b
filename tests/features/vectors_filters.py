"""
Numbered conditions, and the expected result of each for one event.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

#: The result of a condition: it is true; it is false; it is false for every event; it can't be read.
MATCH, NO, NEVER, BROKEN = "match", "no", "never", "broken"

CART = {
    "color": "Teal",
    "sku": "0042",
    "qty": 7,
    "price": 19.5,
    "ratio": 2.0,
    "zero": 0,
    "neg": -3,
    "vip": True,
    "trial": False,
    "note": None,
    "empty": "",
    "pad": " 7 ",
    "sci": "1e3",
    "numstr": "19.50",
    "word": "true",
    "nulltext": "null",
    "url": "https://shop.example/a?b=1",
    "multi": "line1\nline2",
}
CART_TIME = 45678.25


@frozen
class Case:
    """A condition as JSON, and its expected result for `CART`."""

    number: str
    outcome: str
    condition: Mapping[str, Any]


def condition(attribute: str, kind: str, operator: str, *operands: str, value: str | None = None) -> dict[str, Any]:
    """Return a condition; the attribute is a property's name, or ``"timestamp"`` or ``"cookie"``."""
    own = {"type": attribute} if attribute in ("timestamp", "cookie") else {"type": "property", "property": attribute}
    constraint: dict[str, Any] = {"type": kind, "operator": operator}
    if operands or kind != "boolean":
        constraint["operands"] = [{"type": "constant", "value": each} for each in operands]
    if value is not None:
        constraint["value"] = value
    return {"attribute": own, "constraint": constraint}


def _case(number: str, outcome: str, attribute: str, kind: str, operator: str, *operands: str, **more: str) -> Case:
    return Case(number, outcome, condition(attribute, kind, operator, *operands, **more))


CASES = (
    _case("F001", MATCH, "color", "string", "is set"),
    _case("F002", MATCH, "color", "number", "is set"),
    _case("F003", MATCH, "vip", "boolean", "is set", value="true"),
    _case("F004", MATCH, "note", "string", "is set"),
    _case("F005", NO, "missing", "string", "is set"),
    _case("F006", NO, "Color", "string", "is set"),
    _case("F007", MATCH, "missing", "string", "is not set"),
    _case("F008", NO, "note", "string", "is not set"),
    _case("F009", NO, "color", "string", "is not set"),
    _case("F010", MATCH, "color", "string", "has value"),
    _case("F011", MATCH, "empty", "string", "has value"),
    _case("F012", MATCH, "zero", "number", "has value"),
    _case("F013", MATCH, "trial", "boolean", "has value", value="true"),
    _case("F014", NO, "note", "string", "has value"),
    _case("F015", NO, "missing", "string", "has value"),
    _case("F016", MATCH, "note", "string", "has no value"),
    _case("F017", NO, "missing", "string", "has no value"),
    _case("F018", NO, "color", "string", "has no value"),
    _case("F019", NO, "empty", "string", "has no value"),
    _case("F020", MATCH, "timestamp", "string", "is set"),
    _case("F021", NO, "timestamp", "string", "has no value"),
    _case("F022", MATCH, "color", "string", "equals", "Teal"),
    _case("F023", NO, "color", "string", "equals", "teal"),
    _case("F024", NO, "color", "string", "equals", "Teal "),
    _case("F025", MATCH, "qty", "string", "equals", "7"),
    _case("F026", NO, "qty", "string", "equals", "7.0"),
    _case("F027", MATCH, "ratio", "string", "equals", "2.0"),
    _case("F028", NO, "ratio", "string", "equals", "2"),
    _case("F029", MATCH, "vip", "string", "equals", "true"),
    _case("F030", NO, "vip", "string", "equals", "True"),
    _case("F031", NO, "sku", "string", "equals", "42"),
    _case("F032", MATCH, "empty", "string", "equals", ""),
    _case("F033", NO, "note", "string", "equals", "null"),
    _case("F034", NO, "note", "string", "equals", ""),
    _case("F035", MATCH, "nulltext", "string", "equals", "null"),
    _case("F036", NO, "missing", "string", "equals", ""),
    _case("F037", MATCH, "timestamp", "string", "equals", "45678.25"),
    _case("F038", MATCH, "color", "string", "does not equal", "Red"),
    _case("F039", NO, "color", "string", "does not equal", "Teal"),
    _case("F040", MATCH, "color", "string", "does not equal", "TEAL"),
    _case("F041", NO, "note", "string", "does not equal", "x"),
    _case("F042", NO, "missing", "string", "does not equal", "x"),
    _case("F043", MATCH, "color", "string", "in", "Red", "Teal"),
    _case("F044", NO, "color", "string", "in", "red", "teal"),
    _case("F045", NO, "color", "string", "in"),
    _case("F046", MATCH, "qty", "string", "in", "6", "7"),
    _case("F047", NO, "note", "string", "in", "null"),
    _case("F048", NO, "missing", "string", "in", ""),
    _case("F049", MATCH, "color", "string", "not in", "Red", "Blue"),
    _case("F050", NO, "color", "string", "not in", "Teal"),
    _case("F051", MATCH, "color", "string", "not in"),
    _case("F052", NO, "note", "string", "not in", "x"),
    _case("F053", NO, "missing", "string", "not in"),
    _case("F054", MATCH, "timestamp", "string", "not in", "45678"),
    _case("F055", MATCH, "url", "string", "contains", "example/a?"),
    _case("F056", NO, "color", "string", "contains", "EA"),
    _case("F057", MATCH, "color", "string", "contains", ""),
    _case("F058", MATCH, "price", "string", "contains", ".5"),
    _case("F059", NO, "note", "string", "contains", ""),
    _case("F060", NO, "missing", "string", "contains", ""),
    _case("F061", MATCH, "color", "string", "does not contain", "zz"),
    _case("F062", NO, "color", "string", "does not contain", "ea"),
    _case("F063", NO, "color", "string", "does not contain", ""),
    _case("F064", NO, "missing", "string", "does not contain", "zz"),
    _case("F065", NO, "note", "string", "does not contain", "zz"),
    _case("F066", MATCH, "color", "string", "starts with", "Te"),
    _case("F067", NO, "color", "string", "starts with", "te"),
    _case("F068", MATCH, "neg", "string", "starts with", "-"),
    _case("F069", MATCH, "color", "string", "starts with", ""),
    _case("F070", NO, "note", "string", "starts with", ""),
    _case("F071", MATCH, "color", "string", "ends with", "al"),
    _case("F072", NO, "color", "string", "ends with", "Al"),
    _case("F073", MATCH, "timestamp", "string", "ends with", ".25"),
    _case("F074", NO, "missing", "string", "ends with", ""),
    _case("F075", MATCH, "color", "string", "regex", "ea"),
    _case("F076", NO, "color", "string", "regex", "^ea"),
    _case("F077", MATCH, "color", "string", "regex", "^T.{2}l$"),
    _case("F078", NO, "color", "string", "regex", "[A-Z]{2}"),
    _case("F079", MATCH, "color", "string", "regex", ""),
    _case("F080", MATCH, "empty", "string", "regex", "^$"),
    _case("F081", MATCH, "sku", "string", "regex", "^\\d+$"),
    _case("F082", MATCH, "qty", "string", "regex", "^7$"),
    _case("F083", NO, "note", "string", "regex", ".*"),
    _case("F084", NO, "missing", "string", "regex", ".*"),
    _case("F085", NEVER, "color", "string", "regex", "(unclosed"),
    _case("F086", MATCH, "vip", "boolean", "is", value="true"),
    _case("F087", NO, "vip", "boolean", "is", value="false"),
    _case("F088", MATCH, "trial", "boolean", "is", value="false"),
    _case("F089", MATCH, "word", "boolean", "is", value="true"),
    _case("F090", NO, "zero", "boolean", "is", value="false"),
    _case("F091", NO, "vip", "boolean", "is", value="TRUE"),
    _case("F092", NO, "note", "boolean", "is", value="false"),
    _case("F093", NO, "missing", "boolean", "is", value="false"),
    _case("F094", MATCH, "vip", "boolean", "is", "false", value="true"),
    _case("F095", MATCH, "qty", "number", "equal to", "7"),
    _case("F096", MATCH, "qty", "number", "equal to", "7.00"),
    _case("F097", MATCH, "numstr", "number", "equal to", "19.5"),
    _case("F098", MATCH, "sku", "number", "equal to", "42"),
    _case("F099", MATCH, "sci", "number", "equal to", "1000"),
    _case("F100", NO, "color", "number", "equal to", "0"),
    _case("F101", NO, "color", "number", "equal to", "Teal"),
    _case("F102", NO, "vip", "number", "equal to", "1"),
    _case("F103", NO, "empty", "number", "equal to", "0"),
    _case("F104", NO, "note", "number", "equal to", "0"),
    _case("F105", NO, "pad", "number", "equal to", "7"),
    _case("F106", NO, "qty", "number", "equal to", "seven"),
    _case("F107", MATCH, "price", "number", "in between", "19.5", "19.5"),
    _case("F108", NO, "price", "number", "in between", "19.6", "30"),
    _case("F109", NO, "price", "number", "in between", "30", "10"),
    _case("F110", MATCH, "neg", "number", "in between", "-5", "-1"),
    _case("F111", NO, "missing", "number", "in between", "0", "9"),
    _case("F112", NO, "color", "number", "in between", "0", "9"),
    _case("F113", NO, "price", "number", "not between", "19.5", "19.5"),
    _case("F114", MATCH, "price", "number", "not between", "0", "19.4"),
    _case("F115", MATCH, "price", "number", "not between", "20", "30"),
    _case("F116", MATCH, "price", "number", "not between", "30", "10"),
    _case("F117", NO, "color", "number", "not between", "0", "9"),
    _case("F118", NO, "note", "number", "not between", "0", "9"),
    _case("F119", NO, "missing", "number", "not between", "0", "9"),
    _case("F120", NO, "qty", "number", "less than", "7"),
    _case("F121", MATCH, "qty", "number", "less than", "7.5"),
    _case("F122", MATCH, "neg", "number", "less than", "0"),
    _case("F123", NO, "color", "number", "less than", "5"),
    _case("F124", NO, "missing", "number", "less than", "5"),
    _case("F125", NO, "qty", "number", "greater than", "7"),
    _case("F126", MATCH, "qty", "number", "greater than", "6.999"),
    _case("F127", MATCH, "timestamp", "number", "greater than", "45678"),
    _case("F128", NO, "timestamp", "number", "less than", "45678.25"),
    _case("F129", NO, "note", "number", "greater than", "-1"),
    _case("F130", NEVER, "color", "string", "equals"),
    _case("F131", NEVER, "color", "string", "equals", "Teal", "Red"),
    _case("F132", NEVER, "missing", "string", "equals"),
    _case("F133", NEVER, "color", "string", "is set", "x"),
    _case("F134", NEVER, "color", "string", "contains", "a", "b"),
    _case("F135", NEVER, "price", "number", "in between", "1"),
    _case("F136", NEVER, "price", "number", "not between", "1", "2", "3"),
    _case("F137", NEVER, "price", "number", "less than"),
    _case("F138", BROKEN, "color", "string", "matches", "x"),
    _case("F139", BROKEN, "color", "string", "Equals", "Teal"),
    _case("F140", BROKEN, "cookie", "string", "is set"),
    _case("F141", BROKEN, "color", "date", "is set"),
)
