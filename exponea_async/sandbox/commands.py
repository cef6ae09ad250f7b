"""
Validation of commands: the data of a command in, a valid command or its errors out. Pure.
"""

import math
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from exponea_async.sandbox.encoding import dumps

CLICK = "campaign_click"
#: What JavaScript makes of a value that is missing.
MISSING_IDS = frozenset({"null", "undefined"})
MAX_VALUE_BYTES = 16_384
MAX_MESSAGE_BYTES = 819_200
# The year 5138 in seconds, March 1973 in milliseconds: no real timestamp is ambiguous.
MAX_TIMESTAMP = 1e11


class CommandError(ValueError):
    """
    A command is invalid.

    Attributes:
        errors: The error messages in the wording of the platform; at least one.
    """

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
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
    """

    ids: dict[str, str]
    properties: dict[str, Any]
    canonical: bytes
    timestamp: float | None
    event_type: str = ""


def parse_customer(data: object) -> Command:
    """
    Validate the data of an update of a customer.

    Raises:
        CommandError: The data is invalid.
    """
    fields = _checked_object(data)
    errors = id_errors(fields.get("customer_ids"), required=True)
    errors += _timestamp_errors(fields, "update_timestamp")
    properties, canonical = _checked_properties(fields, errors)
    if errors:
        raise CommandError(errors)
    return Command(trimmed_ids(fields["customer_ids"]), properties, canonical, fields.get("update_timestamp"))


def parse_event(data: object) -> Command:
    """
    Validate the data of an event.

    Raises:
        CommandError: The data is invalid.
    """
    fields = _checked_object(data)
    errors = id_errors(fields.get("customer_ids"), required=True)
    event_type = fields.get("event_type")
    errors += _string_errors(event_type, "event_type")
    errors += _timestamp_errors(fields, "timestamp")
    properties, canonical = _checked_properties(fields, errors)
    if errors:
        raise CommandError(errors)
    ids = trimmed_ids(fields["customer_ids"])
    return Command(ids, properties, canonical, fields.get("timestamp"), str(event_type))


def parse_click(data: object) -> Command:
    """
    Validate the data of a campaign click, which doesn't need a customer.

    Raises:
        CommandError: The data is invalid.
    """
    fields = _checked_object(data)
    errors = id_errors(fields.get("customer_ids"), required=False)
    errors += _string_errors(fields.get("url"), "url")
    errors += _timestamp_errors(fields, "timestamp")
    properties, _ = _checked_properties(fields, errors)
    if errors:
        raise CommandError(errors)
    properties = {**properties, "url": fields["url"]}
    ids = trimmed_ids(fields.get("customer_ids"))
    return Command(ids, properties, dumps(properties), fields.get("timestamp"), CLICK)


def id_errors(ids: object, *, required: bool) -> list[str]:
    """Return the errors in the ids of a customer, in the wording of the platform."""
    if not ids and (ids is None or ids == {}):
        return ["At least one id should be specified."] if required else []
    if not isinstance(ids, dict):
        return ["customer_ids should be an object."]
    return [error for kind, value in ids.items() for error in _id_errors(kind, value)]


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


def _checked_object(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CommandError(["The data should be an object."])
    try:
        # Nested as deep as any response nests it, so that whatever is stored can be returned.
        size = len(dumps([[[[data]]]])) - 8
    except ValueError as error:
        raise CommandError([f"The data is not valid JSON: {error}."]) from None
    if size >= MAX_MESSAGE_BYTES:
        raise CommandError([f"The message has {size} bytes; it should be smaller than 800 KB."])
    return data


def _string_errors(value: object, name: str) -> list[str]:
    return [] if isinstance(value, str) and value.strip() else [f"{name} should be a non-empty string."]


def _timestamp_errors(fields: dict[str, Any], name: str) -> list[str]:
    timestamp = fields.get(name)
    # The Python client of the platform sends null for the current time.
    if timestamp is None:
        return []
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not math.isfinite(timestamp):
        return [f"{name} should be a number of seconds."]
    if timestamp > MAX_TIMESTAMP:
        return [f"{name} should be in seconds; {timestamp} looks like milliseconds."]
    return [] if timestamp >= 0 else [f"{name} should not be negative."]


def _checked_properties(fields: dict[str, Any], errors: list[str]) -> tuple[dict[str, Any], bytes]:
    properties = fields.get("properties")
    if properties is None:
        return {}, b"{}"
    if not isinstance(properties, dict):
        errors.append("properties should be an object.")
        return {}, b"{}"
    canonical = dumps(properties)
    # The whole is longer than any part: small properties need no check of each value.
    if len(canonical) >= MAX_VALUE_BYTES:
        errors += [
            f"The property {name!r} should be smaller than 16 KB."
            for name, value in properties.items()
            if len(dumps(value)) >= MAX_VALUE_BYTES
        ]
    return properties, canonical
