"""
Validation of commands: the data of a command in, a valid command or its errors out. Pure.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from exponea_async.sandbox.encoding import dumps, encode

CLICK = "campaign_click"
IDS = "customer_ids"
#: What JavaScript makes of a value that is missing.
MISSING_IDS = frozenset({"null", "undefined"})
MAX_VALUE_BYTES = 16_384
MAX_MESSAGE_BYTES = 819_200
# The year 5138 in seconds, March 1973 in milliseconds: no real timestamp is ambiguous.
MAX_TIMESTAMP = 1e11


@frozen
class Problem:
    """
    Why a command is invalid.

    Attributes:
        message: The error message in the wording of the platform.
        path: The keys that lead from the data to the invalid value; empty for the data itself.
    """

    message: str
    path: tuple[str, ...] = ()


class CommandError(ValueError):
    """
    A command is invalid.

    Attributes:
        errors: The error messages in the wording of the platform; at least one.
        paths: The keys that lead to each invalid value, without repetitions.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        problems = tuple(problems)
        self.errors = tuple(problem.message for problem in problems)
        self.paths = tuple(dict.fromkeys(problem.path for problem in problems if problem.path))
        super().__init__("; ".join(self.errors))


@frozen
class Command:
    """
    A valid command.

    Attributes:
        ids: The ids of the customer; empty only for a campaign click.
        properties: The properties; for a campaign click these include its ``url``.
        canonical: The properties as canonical JSON.
        timestamp: ``timestamp`` or ``update_timestamp``, UNIX seconds, or None.
        event_type: The type of the event; empty for an update of a customer.
        raw: The whole data as JSON, with keys in the order as sent.
    """

    ids: dict[str, str]
    properties: dict[str, Any]
    canonical: bytes
    timestamp: float | None
    event_type: str
    raw: bytes


def parse_customer(data: object) -> Command:
    """
    Validate the data of an update of a customer.

    Raises:
        CommandError: The data is invalid.
    """
    fields, raw = _checked_object(data)
    problems = id_problems(fields.get("customer_ids"), required=True)
    problems += _timestamp_problems(fields, "update_timestamp")
    properties, canonical = _checked_properties(fields, problems)
    if problems:
        raise CommandError(problems)
    ids = trimmed_ids(fields["customer_ids"])
    return Command(ids, properties, canonical, fields.get("update_timestamp"), "", raw)


def parse_event(data: object) -> Command:
    """
    Validate the data of an event.

    Raises:
        CommandError: The data is invalid.
    """
    fields, raw = _checked_object(data)
    problems = id_problems(fields.get("customer_ids"), required=True)
    event_type = fields.get("event_type")
    problems += _string_problems(event_type, "event_type")
    problems += _timestamp_problems(fields, "timestamp")
    properties, canonical = _checked_properties(fields, problems)
    if problems:
        raise CommandError(problems)
    ids = trimmed_ids(fields["customer_ids"])
    return Command(ids, properties, canonical, fields.get("timestamp"), str(event_type), raw)


def parse_click(data: object) -> Command:
    """
    Validate the data of a campaign click, which doesn't need a customer.

    Raises:
        CommandError: The data is invalid.
    """
    fields, raw = _checked_object(data)
    problems = id_problems(fields.get("customer_ids"), required=False)
    problems += _string_problems(fields.get("url"), "url")
    problems += _timestamp_problems(fields, "timestamp")
    _checked_properties(fields, problems)
    if problems:
        raise CommandError(problems)
    properties = click_properties(fields)
    ids = trimmed_ids(fields.get("customer_ids"))
    return Command(ids, properties, dumps(properties), fields.get("timestamp"), CLICK, raw)


def click_properties(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of the event of a valid campaign click, which include its ``url``."""
    return {**(data.get("properties") or {}), "url": data["url"]}


def id_errors(ids: object, *, required: bool) -> list[str]:
    """Return the errors in the ids of a customer, in the wording of the platform."""
    return [problem.message for problem in id_problems(ids, required=required)]


def id_problems(ids: object, *, required: bool) -> list[Problem]:
    """Return what is wrong with the ids of a customer."""
    if not ids and (ids is None or ids == {}):
        return [Problem("At least one id should be specified.", (IDS,))] if required else []
    if not isinstance(ids, dict):
        return [Problem("customer_ids should be an object.", (IDS,))]
    return [Problem(error, (IDS, kind)) for kind, value in ids.items() for error in _id_errors(kind, value)]


def _id_errors(kind: str, value: object) -> list[str]:
    if not kind.strip() or not isinstance(value, str) or not value.strip():
        return [f"The id {kind!r} should be a non-empty string."]
    if value.strip() in MISSING_IDS or not any(map(str.isalnum, value)):
        reason = "a valid id has at least one alphanumeric character, and is neither 'null' nor 'undefined'"
        return [f"At least one valid id should be specified. The id {kind!r} is {value!r}; {reason}."]
    return []


def trimmed_ids(ids: dict[str, str] | None) -> dict[str, str]:
    """Return valid ids as the platform stores them: without blanks round their values."""
    return {kind: value.strip() for kind, value in (ids or {}).items()}


def _checked_object(data: object) -> tuple[dict[str, Any], bytes]:
    if not isinstance(data, dict):
        raise CommandError([Problem("The data should be an object.")])
    try:
        # Nested as deep as any response nests it, so that whatever is stored can be returned.
        raw = encode([[[[data]]]])[4:-4]
    except ValueError as error:
        raise CommandError([Problem(f"The data is not valid JSON: {error}.")]) from None
    if len(raw) >= MAX_MESSAGE_BYTES:
        raise CommandError([Problem(f"The message has {len(raw)} bytes; it should be smaller than 800 KB.")])
    return data, raw


def _string_problems(value: object, name: str) -> list[Problem]:
    if isinstance(value, str) and value.strip():
        return []
    return [Problem(f"{name} should be a non-empty string.", (name,))]


def _timestamp_problems(fields: dict[str, Any], name: str) -> list[Problem]:
    error = _timestamp_error(fields.get(name), name)
    return [Problem(error, (name,))] if error else []


def _timestamp_error(timestamp: object, name: str) -> str:
    # The Python client of the platform sends null for the current time.
    if timestamp is None:
        return ""
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not math.isfinite(timestamp):
        return f"{name} should be a number of seconds."
    if timestamp > MAX_TIMESTAMP:
        return f"{name} should be in seconds; {timestamp} looks like milliseconds."
    return "" if timestamp >= 0 else f"{name} should not be negative."


def _checked_properties(fields: dict[str, Any], problems: list[Problem]) -> tuple[dict[str, Any], bytes]:
    properties = fields.get("properties")
    if properties is None:
        return {}, b"{}"
    if not isinstance(properties, dict):
        problems.append(Problem("properties should be an object.", ("properties",)))
        return {}, b"{}"
    canonical = dumps(properties)
    # The whole is longer than any part: small properties need no check of each value.
    if len(canonical) >= MAX_VALUE_BYTES:
        problems += [
            Problem(f"The property {name!r} should be smaller than 16 KB.", ("properties", name))
            for name, value in properties.items()
            if len(dumps(value)) >= MAX_VALUE_BYTES
        ]
    return properties, canonical
